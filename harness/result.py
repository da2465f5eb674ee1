"""From a finished cell to its record, and from records to `results.csv`."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch

from harness import summary, totals
from harness.categories import kind_of, mvtec_ad
from harness.cells import Cell, backend_of
from harness.context import Context, Sources
from harness.directory import RunDirectory, write_model
from harness.doubts import doubts, incomplete, unsteady
from harness.evaluation import Evaluated
from harness.joules import energy_doubts, energy_metrics, energy_totals, stage_energies
from harness.pictures import save_maps, save_samples
from harness.pipelines.table import PIPELINES
from harness.scores import Scores
from harness.summary import Tables
from harness.training import Trainer
from harness.work import stage_work, work_around
from profiles.energy.telemetry import Telemetry
from profiles.environment import usable_processors
from profiles.files import replacing
from profiles.memory import PeakMemory
from profiles.record import CellRecord, Metric, RankTotal, ResultRow, StageWork, read_model, write_csv
from profiles.watchers import watchers


class Result(NamedTuple):
    """What a cell came to, the memory it took, and what watched its devices."""

    evaluated: Evaluated
    scores: Scores | None
    memory: PeakMemory
    telemetry: Telemetry


def write_record(cell: Cell, context: Context, trainer: Trainer, sources: Sources, result: Result) -> CellRecord:
    """Write the cell's pictures and its record, the record last; return it."""
    evaluated = result.evaluated
    folder, config, evaluation = context.directory.cell(cell.name), context.config, context.config.evaluation
    if evaluation.save_maps:
        save_maps(evaluated, folder.maps)
    beside = [context.shared.of_rank(rank).cell(cell.name) for rank in range(1, context.ranks.size)]
    tables, observations = Tables.read(folder, beside), trainer.at.observations
    stages, closures = totals.stage_totals(tables, observations), totals.closures(tables)
    caveats = [
        *_caveats(cell, context, trainer, sources, result),
        *incomplete(tables, trainer.at.epoch - 1),
        *unsteady(tables),
        *doubts(stages, closures, observations, config.profiler),
        *result.telemetry.caveats(),
        *energy_doubts(tables),
    ]
    stopped_by = trainer.at.stopped_by
    assert stopped_by is not None  # noqa: S101 - a training that ended says why
    record = CellRecord(
        run=context.run,
        suite=config.suite,
        **cell._asdict(),
        kind=kind_of(cell.category),
        device=str(context.device),
        dtype=config.model.precision,
        torch=torch.__version__,
        commit=context.commit,
        config_hash=config.hash(),
        image_side=config.image_side(cell.category),
        train_images=len(sources.train),
        validation_images=len(sources.validation),
        test_images=len(sources.test),
        batch_size=config.training.batch_size,
        steps_per_epoch=trainer.steps_per_epoch,
        windows_per_epoch=trainer.windows_per_epoch,
        epochs=trainer.at.epoch - 1,
        stopped_by=stopped_by,
        best_validation_loss=trainer.at.best_validation_loss,
        metrics=tuple(_metrics(tables, cell, context, trainer, sources, result)),
        stage_totals=tuple(stages),
        loader_totals=tuple(totals.loader_totals(tables, beforehand=not PIPELINES[cell.pipeline].reloads_every_window)),
        closures=tuple(closures),
        observations=tuple(observations),
        verdict=totals.verdict(stages, observations, trainer.epoch_steps, on_device=context.device.type != "cpu"),
        energy_totals=tuple(energy_totals(tables)),
        stage_energies=tuple(stage_energies(tables, stages, result.telemetry)),
        image_scores=tuple(evaluated.image_scores()),
        samples=tuple(save_samples(evaluated, evaluation.samples, folder.maps)),
        caveats=tuple(caveats),
        attention_backend=backend_of(cell, config),
        work=tuple(_work(cell, context, trainer)),
        step_s=tuple(step_ns / 1e9 for step_ns in trainer.at.step_ns),
        ranks=context.ranks.size,
        rank_totals=tuple(_rank_totals(cell, context, [tables, *map(Tables.read, beside)])) if beside else (),
        cells_at_once=context.together,
    )
    write_model(folder.record, record)
    return record


def _rank_totals(cell: Cell, context: Context, by_rank: list[Tables]) -> list[RankTotal]:
    return totals.rank_totals(by_rank, _interrupted_epochs(cell, context))


def _interrupted_epochs(cell: Cell, context: Context) -> set[int]:
    return totals.interrupted_epochs(context.shared.events(), cell.name)


def _work(cell: Cell, context: Context, trainer: Trainer) -> list[StageWork]:
    sizes = {name: parameter.numel() for name, parameter in trainer.model.named_parameters()}
    attention = sum(size for name, size in sizes.items() if ".attention." in name)
    model, batch_size = context.config.model, context.config.training.batch_size
    around = work_around(model, batch_size // context.ranks.size, sum(sizes.values()))
    return [*stage_work(cell.model, model, batch_size, attention), *around]


def _metrics(
    tables: Tables, cell: Cell, context: Context, trainer: Trainer, sources: Sources, result: Result
) -> list[Metric]:
    training = context.config.training
    extent = _extent(context, trainer, sources)
    limit = context.config.evaluation.images or math.inf
    calibration_images = len(sources.train)
    images = {
        "calibration": (int(min(limit, calibration_images)), calibration_images),
        "evaluation": (len(result.evaluated.images), len(sources.test)),
    }
    converged = training.measured_steps is None
    times = summary.time_metrics(tables, extent)
    evaluated, reason = result.evaluated, why_unscored(result.evaluated, len(sources.test))
    rescaled = context.config.evaluation.rescale_maps
    return [
        *summary.score_metrics(result.scores, len(sources.test), reason),
        summary.other_detection(evaluated.other_largest_i, evaluated.defective_i, reason, rescaled=rescaled),
        *times,
        *energy_metrics(tables, _devices(tables, result.telemetry.device), times[0]),
        *summary.once_metrics(tables, images),
        *(
            [summary.calibration_of_every_window(tables, images["calibration"], training.windows_per_image)]
            if PIPELINES[cell.pipeline].reloads_every_window
            else []
        ),
        *summary.decoding_metrics(sources.decoder.decoded, sources.decoder.from_cache),
        *summary.other_metrics(
            sum(parameter.numel() for parameter in trainer.model.parameters()),
            result.memory.peak_bytes(),
            trainer.at.best_epoch if converged else None,
        ),
    ]


def _extent(context: Context, trainer: Trainer, sources: Sources) -> summary.Extent:
    return summary.Extent(
        steps_per_epoch=trainer.steps_per_epoch,
        validation_steps_per_epoch=trainer.validation_steps_per_epoch,
        measured_steps=context.config.training.measured_steps,
        step_ns=trainer.at.step_ns,
        draw_ns=trainer.at.draw_ns,
        start_ns=trainer.at.start_ns,
        validation_steps=trainer.validation_steps,
        validation_lead=sources.validation.fetched_ahead,
        validation_lead_ns=trainer.at.validation_lead_ns,
    )


def _devices(tables: Tables, device: str) -> set[str]:
    """Return the devices whose energy is the cell's: its own and, of its kind, those of the ranks beside it."""
    kind = device.partition(":")[0]
    return {device, *(name for name in tables.energy["device"] if str(name).partition(":")[0] == kind)}


def why_unscored(evaluated: Evaluated, test_images: int) -> str:
    """Return why maps cannot be scored; empty where they can."""
    if len(evaluated.images) < test_images:
        return f"only {len(evaluated.images)} of {test_images} test images evaluated (evaluation.images)"
    if evaluated.defective_i.all() or not evaluated.defective_i.any():
        return "the test images are all good or all defective"
    return "" if evaluated.masks_ihw.any() else "no mask keeps a mark at this image side"


def _caveats(cell: Cell, context: Context, trainer: Trainer, sources: Sources, result: Result) -> list[str]:
    """Return what a reader must know before believing the record."""
    caveats, evaluated = [], result.evaluated
    facts = mvtec_ad().get(cell.category)
    have = len(sources.train) + len(sources.validation)
    if facts and have != facts.train_good:
        caveats.append(f"{have} training images; MVTec AD has {facts.train_good}")
    if facts and len(sources.test) != facts.test_good + facts.test_defective:
        caveats.append(f"{len(sources.test)} test images; MVTec AD has {facts.test_good + facts.test_defective}")
    caveats += [f"another tool watched this process, which slows it down: {who}" for who in watchers()]
    if trainer.at.resumed:
        caveats.append(
            f"interrupted and resumed {trainer.at.resumed} time(s): the first steps after it were cold, and the time "
            "before epoch 1 is of the last start; joules per stage rest on the power sampled since then; what was "
            "broken off and done anew, such as a calibration, counts once, and what it had cost before is in no sum"
        )
    caveats += [f"went on from the checkpoint before a damaged one ({why})" for why in trainer.at.damaged]
    if context.config.training.measured_steps is not None:
        start_s = trainer.at.start_ns / 1e9
        once = f"; the loader's start, {start_s:.3g} s, is counted once" if start_s else ""
        caveats.append(
            f"time per epoch is extended from {len(trainer.at.step_ns)} measured steps of "
            f"{trainer.steps_per_epoch}{once}"
        )
    if len(evaluated.images) < len(sources.test):
        caveats.append(why_unscored(evaluated, len(sources.test)))
    if vanished := int((evaluated.defective_i & ~evaluated.masks_ihw.any(axis=(1, 2))).sum()):
        caveats.append(f"{vanished} defective image(s) whose mask has no mark left at this image side")
    if had := sources.decoder.from_cache:
        whole = had + sources.decoder.decoded
        caveats.append(
            f"{had} of {whole} images came decoded from the cache (data.cache): data_loading is less by that"
        )
    caveats += _company(cell, context, result.memory)
    return caveats


def _company(cell: Cell, context: Context, memory: PeakMemory) -> list[str]:
    """Return what shared the machine with a cell."""
    caveats = []
    workers, processors = context.config.data.workers, usable_processors()
    if PIPELINES[cell.pipeline].reloads_every_window:
        caveats.append(
            f"{workers} processes loaded images on {processors} processor(s) (data.workers), beside the peak memory"
        )
    if context.ranks.size > 1:
        caveats.append(
            f"{context.ranks.size} processes trained the cell, with no profiler windows; stages and peak memory are "
            "those of rank 0, which calibrates and evaluates alone"
        )
        if left_out := sorted(_interrupted_epochs(cell, context)):
            epochs = ", ".join(map(str, left_out))
            caveats.append(f"sums over ranks leave out what was interrupted, of which rank 0 measured a part: {epochs}")
    if context.together > 1:
        caveats.append(
            f"up to {context.together} cells ran at once on this machine (--jobs): times include their company"
        )
    in_use_bytes = memory.in_use_bytes
    if in_use_bytes is not None and context.device.type == "cpu":
        caveats.append(
            f"peak memory is the process's; {in_use_bytes / 2**30:.2f} GiB were in use before the cell began"
        )
    return caveats


def write_results(run: RunDirectory, cells: Iterable[Cell]) -> None:
    """Replace `results.csv` by the rows of every cell that has a record."""
    records = [read_model(CellRecord, path) for cell in cells if (path := run.cell(cell.name).record).exists()]
    with replacing(run.results) as aside:
        write_csv(aside, ResultRow._fields, [row for record in records for row in record.result_rows()])
