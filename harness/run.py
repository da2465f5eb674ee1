"""One run: every cell of a configuration, from image files to records. Start reading at `run_cell`."""

import errno
import traceback
from functools import partial

import torch
from torch import Tensor

from harness import checkpoint
from harness.cache import image_cache
from harness.cells import Cell, backend_of
from harness.context import Context, Sources
from harness.dataset import split_validation
from harness.decoding import Decoder
from harness.evaluation import Evaluated, Reconstructor, calibrate, evaluate
from harness.footprint import explained
from harness.log import CellLog
from harness.pipelines.parts import Form, PatchLoss, as_images
from harness.pipelines.table import PIPELINES
from harness.result import Result, why_unscored, write_record
from harness.scores import Scores, score
from harness.seeding import generator_for, seed_for
from harness.training import Progress, Setting, Trainer
from models.transformer import InpaintingTransformer
from profiles.energy.stage_power import StagePower
from profiles.energy.telemetry import Telemetry
from profiles.environment import sources
from profiles.errors import BenchError, InterruptedRunError, MachineError
from profiles.memory import PeakMemory
from profiles.record import CellRecord, Phase, Status
from profiles.stages import stage
from profiles.timing.clock import StageClock
from profiles.timing.device_clock import CudaTimer, DeviceClock
from profiles.tracing.observation import Observer

PHASES_OF_RANK_0: tuple[Phase, ...] = ("calibration", "evaluation")

MACHINE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE}
"""What the system says of a full or read-only disk, and where too many files are open."""


def run_guarded(cell: Cell, context: Context) -> None:
    """Run one cell and keep its status; a failed one keeps its error there, the whole of it in `error.txt`.

    Raises:
        InterruptedRunError: someone asked to stop; the state is saved.
        MachineError: the disk is full, say: the cell is not to blame, and goes on when that is mended.

    """
    folder = context.directory.cell(cell.name)
    try:
        folder.sweep()
        folder.set_status("running")
        context.directory.log("cell_start", cell=cell.name)
        try:
            run_cell(cell, context)
        except InterruptedRunError:
            _stopped(cell, context, "pending", "interrupted")
            raise
        except Exception as error:
            if machine_is_to_blame(error):
                raise MachineError(str(error)) from error
            shown = explained(error, cell, context.config, context.categories, context.device, context.ranks.size)
            text = _of_another_rank(cell, context) or told(shown)
            folder.error.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
            _stopped(cell, context, "failed", "failed", text)
            context.reporter.say(f"{cell.name} failed: {text}")
        else:
            checkpoint.drop_previous(folder.checkpoints)
            _stopped(cell, context, "done", "done")
        finally:
            context.reporter.end()
    except MachineError as error:
        _give_back(cell, context, error)
        raise
    except OSError as error:
        _give_back(cell, context, error)
        raise MachineError(str(error)) from error


def _give_back(cell: Cell, context: Context, why: Exception) -> None:
    """Have a cell that the machine stopped be pending again, and say why there, if the machine still lets us."""
    try:
        _stopped(cell, context, "pending", "interrupted", str(why))
    except OSError as error:
        context.reporter.say(f"{cell.name}: its status could not be written ({error})")


def told(error: Exception) -> str:
    """Say an error in a line."""
    return str(error) if isinstance(error, BenchError) else f"{type(error).__name__}: {error}"


def _of_another_rank(cell: Cell, context: Context) -> str | None:
    """Return what went wrong on another rank, if that is why this one could not go on."""
    for rank in range(1, context.ranks.size):
        error = context.shared.of_rank(rank).cell(cell.name).error
        if error.exists():
            return f"rank {rank}: {error.read_text(encoding='utf-8').rstrip().splitlines()[-1]}"
    return None


def _stopped(cell: Cell, context: Context, status: Status, word: str, error: str | None = None) -> None:
    context.directory.cell(cell.name).set_status(status, error)
    context.directory.log("cell_stop", cell=cell.name, status=word, error=error)


def machine_is_to_blame(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, says that the machine cannot go on, so that any other cell would meet it."""
    if error is None:
        return False
    return (
        isinstance(error, MachineError)
        or (isinstance(error, OSError) and error.errno in MACHINE_ERRORS)
        or machine_is_to_blame(error.__cause__)
    )


def run_cell(cell: Cell, context: Context) -> CellRecord:
    """Train and evaluate one model on one category; the record is also written to the cell's folder.

    Raises:
        InterruptedRunError: someone asked to stop; the state is saved.
        DivergedError: the loss is not finite.
        DataError: an image is damaged.

    """
    memory = PeakMemory(context.device)
    telemetry = _telemetry(cell, context)
    setting = _setting(cell, context, memory, telemetry)
    with PIPELINES[cell.pipeline].memory(), setting.log:
        trainer, sources = _train(cell, context, setting)
        evaluated, scores = _evaluate(cell, context, setting, trainer, sources)
    context.ranks.wait()
    return write_record(cell, context, trainer, sources, Result(evaluated, scores, memory, telemetry))


def follow_cell(cell: Cell, context: Context) -> None:
    """Train a rank's part of each batch of a cell, beside rank 0, which evaluates and writes the record alone.

    Raises:
        InterruptedRunError: someone asked to stop; rank 0 saves the state.
        DivergedError: the loss is not finite.
        DataError: an image is damaged.

    """
    folder = context.directory.cell(cell.name)
    if not folder.has_status():
        folder.create()
    folder.retry()
    setting = _setting(cell, context, PeakMemory(context.device), _telemetry(cell, context))
    try:
        with PIPELINES[cell.pipeline].memory(), setting.log:
            trainer, _ = _train(cell, context, setting)
            for phase in PHASES_OF_RANK_0:  # what this rank's device draws meanwhile is the cell's, too
                with setting.log.phase(phase, trainer.at.best_epoch):
                    context.ranks.wait()
    except InterruptedRunError:
        raise
    except Exception as error:
        folder.error.write_text("".join(traceback.format_exception(error)), encoding="utf-8")  # for rank 0 to tell
        raise
    context.ranks.wait()


def _train(cell: Cell, context: Context, setting: Setting) -> tuple[Trainer, Sources]:
    """Train a cell to the stopping rule, from wherever an earlier run of it stopped."""
    saved = checkpoint.load_last(setting.checkpoints, context.device)
    at = saved.state["progress"] if saved else vars(Progress())
    setting.log.cut_back(at["epoch"], at["times"])

    with setting.log.phase("train", 0):
        sources = _load(cell, context)
        trainer = _trainer(cell, context, setting, sources)
        if saved:
            trainer.restore(saved)
        else:
            trainer.warm_up()
        trainer.lead_in()

    trainer.train()
    return trainer, sources


def _evaluate(
    cell: Cell, context: Context, setting: Setting, trainer: Trainer, sources: Sources
) -> tuple[Evaluated, Scores | None]:
    """Reconstruct training images for the mean map, then every test image, with the best weights."""
    reconstructor, limit = _reconstructor(cell, trainer, context), context.config.evaluation.images
    train, test, labels = sources.train.first(limit), sources.test.first(limit), sources.labels[:limit]
    context.reporter.begin("calibration", len(train), "images")  # here and below: before the phase, which draws no bar
    with setting.log.phase("calibration", trainer.at.best_epoch):
        trainer.save_whole()
        with stage("checkpoint"):
            best = setting.checkpoints / "best.pt"
            checkpoint.load_weights(trainer.model, best, context.device, trainer.at.best_epoch)
        mean_mhw = calibrate(reconstructor, train)
    context.ranks.wait()

    context.reporter.begin("evaluation", len(test), "images")
    with setting.log.phase("evaluation", trainer.at.best_epoch):
        evaluated = evaluate(reconstructor, test, labels, mean_mhw, context.config.evaluation.samples)
        with stage("scoring"):
            scores = _scores(evaluated, sources)
    context.ranks.wait()

    return evaluated, scores


def _telemetry(cell: Cell, context: Context) -> Telemetry:
    path = context.directory.cell(cell.name).telemetry
    return Telemetry(sources(context.device), context.config.telemetry, path, context.interrupt.check)


def _setting(cell: Cell, context: Context, memory: PeakMemory, telemetry: Telemetry) -> Setting:
    device, profiler, charged = context.device, context.config.profiler, telemetry.charged
    clock = DeviceClock(CudaTimer(device), charged=charged) if device.type == "cuda" else StageClock(charged=charged)
    folder = context.directory.cell(cell.name)
    looks_closely = profiler.steps > 0 and context.ranks.size == 1  # a rank's extra steps would wait for the others'
    return Setting(
        cell=cell.name,
        log=CellLog(context.directory, cell.name, clock, telemetry),
        checkpoints=context.shared.cell(cell.name).checkpoints,
        reporter=context.reporter,
        interrupt=context.interrupt,
        observer=Observer(
            clock, profiler, folder.traces, memory, device.type != "cpu", partial(StagePower().charged, "train")
        )
        if looks_closely
        else None,
        ranks=context.ranks,
    )


def _load(cell: Cell, context: Context) -> Sources:
    """Split the training images, and load them as far as the pipeline does so beforehand."""
    config, category = context.config, context.categories[cell.category]
    order = torch.randperm(len(category.train), generator=generator_for(cell.seed, "split")).tolist()
    form = Form(config.image_side(cell.category), config.model.patch_side, config.model.window_side)
    decoder = Decoder(image_cache(config.data.cache), context.reporter, context.interrupt)
    train, validation, test = (
        PIPELINES[cell.pipeline].images(paths, form, context.device, config.data.workers, decoder)
        for paths in (*split_validation(category.train, order), [image.path for image in category.test])
    )
    train.prepare()
    validation.prepare()
    return Sources(train, validation, test, category.test, decoder)


def _trainer(cell: Cell, context: Context, setting: Setting, sources: Sources) -> Trainer:
    config, pipeline, (rows, columns) = context.config, PIPELINES[cell.pipeline], sources.train.form.grid
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(cell.seed, "weights"))
        sizes = config.model.model_copy(update={"attention_backend": backend_of(cell, config)})
        model = InpaintingTransformer(cell.model, sizes, rows * columns, pipeline.gather).to(context.device)
    loss = _loss(cell, context)
    return Trainer(model, sources.train, sources.validation, loss, pipeline, config.training, cell.seed, setting)


def _loss(cell: Cell, context: Context) -> PatchLoss:
    """Return the pipeline's loss, of flat patches."""
    config, loss = context.config, PIPELINES[cell.pipeline].loss

    def of_patches(prediction_bp: Tensor, target_bp: Tensor) -> Tensor:
        side = config.model.patch_side
        return loss(as_images(prediction_bp, side), as_images(target_bp, side), config.loss)

    return of_patches


def _reconstructor(cell: Cell, trainer: Trainer, context: Context) -> Reconstructor:
    config = context.config
    return Reconstructor(
        trainer.model,
        PIPELINES[cell.pipeline],
        _loss(cell, context),
        config.training.batch_size,
        config.evaluation.rescale_maps,
        context.reporter,
        context.interrupt,
    )


def _scores(evaluated: Evaluated, sources: Sources) -> Scores | None:
    """Score the maps, unless there is a reason against it."""
    if why_unscored(evaluated, len(sources.test)):
        return None
    return score(evaluated.maps_ihw, evaluated.masks_ihw, evaluated.defective_i)
