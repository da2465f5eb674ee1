"""Two pipelines, one computation: the same windows, the same losses, the same maps, whoever does which part."""

import math
import os
import pickle
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from time import sleep
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from harness import run
from harness.cells import Cell, backend_of
from harness.config import build
from harness.decoding import Decoder
from harness.directory import RunDirectory
from harness.evaluation import Reconstructor
from harness.interrupt import Interrupt
from harness.launch import Outcome, resume, start
from harness.pipelines import thesis
from harness.pipelines.fast import cut_at_once
from harness.pipelines.parts import Form, Loaded, Pipeline, as_images
from harness.pipelines.table import PIPELINES
from harness.pipelines.thesis import ReloadedImages, Sample, cut_one_by_one, gather_one_by_one
from harness.progress import Reporter
from harness.training import Trainer
from models.loss import LossConfig
from models.transformer import InpaintingTransformer, ModelConfig, gather_at_once
from models.windows import Windows, covering_windows, draw_windows, to_patches
from profiles.errors import ConfigError, DataError, InterruptedRunError, LoaderError
from profiles.record import CellRecord, CellStatus, read_model
from tests.harness.conftest import tiny_table
from tests.harness.test_run import interrupting

CPU = torch.device("cpu")
PARTS = ("images", "cut", "gather", "attention", "loss", "optimizer", "paint")


def table(root: Path, **training: Any) -> dict[str, Any]:
    """Return a run of one cell by the thesis's pipeline: 52 steps, one epoch."""
    training = {"max_epochs": 1, "windows_per_image": 140, **training}
    whole: dict[str, Any] = {**tiny_table(root, **training), "models": ["mlsa"], "pipelines": ["thesis"]}
    whole["data"] |= {"categories": ["weave"], "workers": 2}
    return whole


def folder_of(outcome: Outcome) -> Any:
    return RunDirectory(outcome.directory).cell(outcome.cells[0].name)


Followed = tuple[list[float], CellRecord, np.ndarray[Any, Any], torch.Tensor]


def followed(whole: dict[str, Any], out: Path) -> Followed:
    """Run a cell; return the loss of every step, its record, its maps, and all it painted, calibration included."""
    losses: list[float] = []
    painted_1chw: list[torch.Tensor] = []
    maps_ihw: list[np.ndarray[Any, Any]] = []
    batch_loss, evaluate, compare = Trainer._batch_loss, run.evaluate, Reconstructor.compare

    def noted(self: Trainer, *arguments: Any) -> Any:
        loss = batch_loss(self, *arguments)
        if loss.requires_grad:
            losses.append(loss.item())
        return loss

    def kept(*arguments: Any) -> Any:
        evaluated = evaluate(*arguments)
        maps_ihw.append(evaluated.maps_ihw)
        return evaluated

    def compared(*arguments: Any) -> Any:
        reconstruction, difference = compare(*arguments)
        painted_1chw.append(reconstruction.clone())
        return reconstruction, difference

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_batch_loss", noted)
        patch.setattr(run, "evaluate", kept)
        patch.setattr(Reconstructor, "compare", compared)
        outcome = start(build({**whole, "profiler": {"steps": 0}}, "tiny"), out)
    return losses, read_model(CellRecord, folder_of(outcome).record), maps_ihw[0], torch.cat(painted_1chw)


@pytest.fixture(scope="module")
def fast(request: pytest.FixtureRequest, generated: Path, tmp_path_factory: pytest.TempPathFactory) -> Followed:
    whole = {**table(generated), "pipelines": ["fast"], "models": [request.param]}
    return followed(whole, tmp_path_factory.mktemp("fast") / "run")


def mixtures() -> dict[str, Pipeline]:
    """Return the thesis's pipeline, and it with each part of the fast one alone."""
    slow, quick = PIPELINES["thesis"], PIPELINES["fast"]
    swapped = {part: slow._replace(**{part: getattr(quick, part)}) for part in PARTS}
    return {"none": slow, **swapped}


@pytest.mark.parametrize(
    ("fast", "swapped"), [("msa", "none"), ("mlsa", "none"), *(("mlsa", part) for part in PARTS)], indirect=["fast"]
)
def test_both_pipelines_and_every_mixture_give_the_same_numbers(
    fast: Followed, generated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swapped: str
) -> None:
    losses, record, maps_ihw, painted_ichw = fast
    monkeypatch.setitem(PIPELINES, "thesis", mixtures()[swapped])
    whole = {**table(generated), "models": [record.model]}
    slow_losses, slow_record, slow_maps_ihw, slow_painted_ichw = followed(whole, tmp_path / "run")
    assert len(losses) > 50
    np.testing.assert_allclose(slow_losses, losses, rtol=1e-5)
    assert slow_record.best_validation_loss == pytest.approx(record.best_validation_loss, rel=1e-5)
    np.testing.assert_allclose(slow_maps_ihw, maps_ihw, rtol=0, atol=1e-5 * maps_ihw.max())
    assert len(painted_ichw) == record.train_images + record.test_images
    torch.testing.assert_close(slow_painted_ichw, painted_ichw, rtol=0, atol=1e-5)  # of values around [0, 1]


def test_the_record_says_whose_attention_ran_and_what_calibrating_on_every_window_would_cost(
    generated: Path, tmp_path: Path
) -> None:
    _, record, _, _ = followed(table(generated, windows_per_image=10), tmp_path / "run")
    metrics = {metric.name: metric for metric in record.metrics}
    once, every = metrics["calibration_time"], metrics["calibration_time_every_window"]
    assert record.attention_backend == "fast-transformers"
    assert (once.tag, every.tag) == ("measured", "estimated")
    assert 9 < every.value / once.value <= 10  # all but the checkpoint is repeated
    decoded = {metric.name: metric.value for metric in record.metrics}["images_decoded"]
    images = record.train_images + record.validation_images
    assert decoded == 10 * images + record.train_images + record.test_images


def test_loading_in_workers_is_busy_in_their_processes_and_exposed_where_the_training_waits(
    generated: Path, tmp_path: Path
) -> None:
    outcome = start(build(table(generated), "tiny"), tmp_path / "run")
    loader = pd.read_csv(folder_of(outcome).loader)
    busy_s = loader[loader["phase"] == "train"].groupby("part")["busy_s"].sum()
    assert set(busy_s.index) == {"decode", "resize", "copy"}
    assert (busy_s > 0).all()
    stages = pd.read_csv(folder_of(outcome).stages)
    waited = stages[(stages["phase"] == "train") & (stages["epoch"] == 1) & (stages["stage"] == "data_loading")]
    assert waited["exposed_s"].sum() > 0
    assert waited["busy_s"].sum() == pytest.approx(busy_s.sum())


def test_the_parts_of_loading_in_a_record_sum_to_its_stage_though_steps_were_looked_at_before(
    generated: Path, tmp_path: Path
) -> None:
    outcome = start(build(table(generated, measured_steps=3, warmup_steps=2), "tiny"), tmp_path / "run")
    record = read_model(CellRecord, folder_of(outcome).record)
    parts_s = sum(part.busy_s for part in record.loader_totals if part.phase == "train")
    (stage,) = (each for each in record.stage_totals if (each.phase, each.stage) == ("train", "data_loading"))
    assert stage.busy_s == pytest.approx(parts_s)


@pytest.mark.alone
def test_few_steps_are_measured_as_in_the_middle_of_an_epoch_and_the_loader_s_start_is_counted_once(
    generated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch takes a worker 80 ms, and a step 120: only the first is waited for, and that is no measured step."""
    read, step = thesis.read_image, Trainer._step

    def slow_read(path: Path, side: int) -> torch.Tensor:
        sleep(0.01)
        return read(path, side)

    def slow_step(self: Trainer, *arguments: Any) -> None:
        sleep(0.12)
        step(self, *arguments)

    monkeypatch.setattr(thesis, "read_image", slow_read)
    monkeypatch.setattr(Trainer, "_step", slow_step)
    whole = table(generated, measured_steps=3, warmup_steps=1) | {"profiler": {"steps": 0}}
    whole["data"]["workers"] = 1
    outcome = start(build(whole, "tiny"), tmp_path / "run")
    record, stages = read_model(CellRecord, folder_of(outcome).record), pd.read_csv(folder_of(outcome).stages)
    loading = stages[(stages["phase"] == "train") & (stages["epoch"] == 1) & (stages["stage"] == "data_loading")]
    assert loading["exposed_s"].sum() < 0.04
    said = re.search(
        r"3 measured steps of (\d+); the loader's start, (\S+) s, is counted once", "".join(record.caveats)
    )
    assert said is not None
    steps, start_s = int(said[1]), float(said[2])
    assert 0.07 < start_s < 0.5
    time = next(metric for metric in record.metrics if metric.name == "time_per_epoch")
    validation_steps = math.ceil(record.validation_images * 140 / 8)  # as long as a worker takes
    assert time.value == pytest.approx(start_s + steps * np.mean(record.step_s) + validation_steps * 0.085, rel=0.1)


def test_both_pipelines_measure_the_same_steps(generated: Path, tmp_path: Path) -> None:
    whole = {**table(generated, measured_steps=3, warmup_steps=1), "pipelines": ["thesis", "fast"]}
    outcome = start(build(whole, "tiny"), tmp_path / "run")
    epochs = [pd.read_csv(RunDirectory(outcome.directory).cell(cell.name).epochs) for cell in outcome.cells]
    assert len(epochs) == 2
    assert epochs[0]["train_loss"][0] == pytest.approx(epochs[1]["train_loss"][0], rel=1e-5)


@pytest.mark.parametrize("at_call", [3, 9])
def test_measured_steps_interrupted_in_the_lead_in_or_among_them_end_in_the_same_numbers(
    generated: Path, tmp_path: Path, at_call: int
) -> None:
    """Two workers have four batches under way: steps 2 to 5 are the lead-in's, 6 to 10 are measured."""
    whole = table(generated, measured_steps=5, warmup_steps=1) | {"profiler": {"steps": 0}}
    config = build(whole, "tiny")
    undisturbed = start(config, tmp_path / "undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        interrupting(patch, at_call, "_step")
        with pytest.raises(InterruptedRunError):
            start(config, tmp_path / "run")
    resumed = resume(tmp_path / "run", None, retry_failed=False)
    losses = ["train_loss", "validation_loss"]
    found = [pd.read_csv(folder_of(outcome).epochs)[losses] for outcome in (resumed, undisturbed)]
    pd.testing.assert_frame_equal(*found, check_exact=True)
    assert len(read_model(CellRecord, folder_of(resumed).record).step_s) == 5


def test_a_model_that_the_library_lacks_runs_ours_on_either_pipeline(generated: Path) -> None:
    config = build({**table(generated), "models": ["intra", "mlsa"]}, "tiny")
    assert backend_of(Cell("weave", "intra", "thesis", 0), config) == "native"
    assert backend_of(Cell("weave", "mlsa", "thesis", 0), config) == "fast-transformers"
    assert backend_of(Cell("weave", "mlsa", "fast", 0), config) == "native"


def test_without_the_library_a_cell_that_needs_it_is_refused(
    generated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.attention.library.unusable", lambda: "No module named 'fast_transformers'")
    with pytest.raises(ConfigError, match=r"weave/mlsa-thesis/seed0.*cannot be used here.*make fast-transformers"):
        start(build(table(generated), "tiny"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("at_call", "name"), [(2, "_step"), (5, "_step"), (2, "_validate")])
def test_an_interrupted_run_of_the_slow_pipeline_ends_in_the_same_numbers(
    generated: Path, tmp_path: Path, at_call: int, name: str
) -> None:
    config = build(table(generated, max_epochs=2, windows_per_image=10), "tiny")
    undisturbed = start(config, tmp_path / "undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        interrupting(patch, at_call, name)
        with pytest.raises(InterruptedRunError):
            start(config, tmp_path / "run")
    resumed = resume(tmp_path / "run", None, retry_failed=False)
    columns = ["epoch", "train_loss", "validation_loss"]
    pd.testing.assert_frame_equal(
        pd.read_csv(folder_of(resumed).epochs)[columns], pd.read_csv(folder_of(undisturbed).epochs)[columns]
    )


def images_of(root: Path, workers: int = 2) -> ReloadedImages:
    decoder = Decoder(None, Reporter(), Interrupt())
    paths = sorted((root / "weave" / "train" / "good").iterdir())
    return ReloadedImages(paths, Form(32, 8, 3), CPU, workers, decoder)


def test_each_window_comes_with_its_whole_image_and_a_mask_of_the_missing_patch(generated: Path) -> None:
    images = images_of(generated)
    windows = draw_windows(len(images), 5, images.form.grid, 3, torch.Generator().manual_seed(0))
    for loaded in images.batches(windows, 4):
        assert loaded.images_irqcss.shape == (len(loaded.windows.image_b), 4, 4, 3, 8, 8)
        assert loaded.images_irqcss.dtype == torch.float32
        assert loaded.mask_irq1ss is not None
        masked = loaded.images_irqcss * loaded.mask_irq1ss
        target_bp = cut_one_by_one(loaded).target_bp
        assert torch.equal(masked.sum(dim=(1, 2)).flatten(1), target_bp)
        assert loaded.mask_irq1ss.sum() == len(target_bp) * 8 * 8


def test_workers_make_batches_in_memory_that_is_shared(generated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a thread of theirs would copy each batch there, which no part of loading counts."""
    original = thesis.stack

    def stacked(samples: list[Sample | DataError]) -> Sample | DataError:
        batch = original(samples)
        assert isinstance(batch, Sample)
        assert all(tensor.is_shared() for tensor in batch)
        return batch

    monkeypatch.setattr(thesis, "stack", stacked)
    windows = draw_windows(2, 3, (4, 4), 3, torch.Generator().manual_seed(0))
    assert len(list(images_of(generated).batches(windows, 2))) == 3


def test_a_damaged_image_in_a_worker_is_the_error_it_is_at_home(generated: Path, tmp_path: Path) -> None:
    whole = images_of(generated)._paths[0].read_bytes()
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(whole[: len(whole) // 2])
    images = images_of(generated)
    images._paths = [*images._paths[:1], damaged]
    windows = draw_windows(2, 3, images.form.grid, 3, torch.Generator().manual_seed(0))
    with pytest.raises(DataError, match=r"damaged\.png: got a damaged image .*; expected a whole PNG image; fix: "):
        list(images.batches(windows, 2))


def test_a_worker_that_dies_is_an_error_and_no_hang(generated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thesis, "read_image", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    windows = draw_windows(2, 3, (4, 4), 3, torch.Generator().manual_seed(0))
    with pytest.raises(LoaderError, match=r"a process that loads images died: .*; with --set data\.workers=1 less"):
        list(images_of(generated).batches(windows, 2))


def test_signals_are_left_to_the_training(generated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = thesis.read_image

    def signalled(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        return read(*arguments)

    monkeypatch.setattr(thesis, "read_image", signalled)
    windows = draw_windows(2, 3, (4, 4), 3, torch.Generator().manual_seed(0))
    assert len(list(images_of(generated).batches(windows, 2))) == 3


def test_a_process_that_leaves_a_loader_open_ends(generated: Path) -> None:
    """Python ends the children that are left by SIGTERM, and waits for them."""
    program = f"""
import torch
from pathlib import Path
from models.windows import draw_windows
from tests.harness.test_pipelines import images_of
images = images_of(Path({str(generated)!r}))
left = images.batches(draw_windows(len(images), 600, images.form.grid, 3, torch.Generator().manual_seed(0)), 2)
next(left)
print("delivered", flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"delivered\n"
        try:
            assert process.wait(timeout=20) == 0
        finally:
            with suppress(ProcessLookupError):  # whatever is left of it
                os.killpg(process.pid, signal.SIGKILL)


@given(st.data())
@settings(deadline=None, max_examples=25)
def test_windows_cut_one_by_one_are_those_cut_at_once(data: st.DataObject) -> None:
    rows, side = data.draw(st.integers(2, 6)), data.draw(st.integers(2, 3))
    side = min(rows, side)
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    images_ichw = torch.randint(256, (2, 3, rows * 4, rows * 4), dtype=torch.uint8, generator=generator)
    images_irqcss = to_patches(images_ichw, 4).view(2, rows, rows, 3, 4, 4)
    windows = draw_windows(2, 3, (rows, rows), side, generator)
    loaded = Loaded(images_irqcss, windows, side)
    for one, other in zip(cut_one_by_one(loaded), cut_at_once(loaded), strict=True):
        assert torch.equal(one, other)


def test_positions_gathered_one_by_one_are_those_gathered_at_once_and_so_are_their_gradients() -> None:
    generator = torch.Generator().manual_seed(0)
    embeddings_nd = torch.randn(9, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    positions_bt = torch.randint(9, (3, 4), generator=generator)
    weights_btd = torch.randn(3, 4, 5, generator=generator, dtype=torch.float64)
    found = []
    for gather in (gather_one_by_one, gather_at_once):
        (gradient,) = torch.autograd.grad((gather(embeddings_nd, positions_bt) * weights_btd).sum(), embeddings_nd)
        found.append((gather(embeddings_nd, positions_bt), gradient))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_every_entry_gathered_is_a_copy_backward_of_the_whole() -> None:
    embeddings_nd = torch.randn(9, 5, requires_grad=True)
    node, copies = gather_one_by_one(embeddings_nd, torch.zeros(3, 4, dtype=torch.long)).grad_fn, 0
    while node is not None and type(node).__name__ == "CopySlices":
        node, copies = node.next_functions[0][0], copies + 1
    assert copies == 12


def test_whole_images_come_once_each_with_the_windows_that_cover_them(generated: Path) -> None:
    images = images_of(generated, workers=1).first(3)
    covering = covering_windows(1, images.form.grid, 3)
    deliveries = list(images.each())
    assert len(deliveries) == len(images) == 3
    for loaded in deliveries:
        assert isinstance(loaded.windows, Windows)
        assert all(torch.equal(one, other) for one, other in zip(loaded.windows, covering, strict=True))


@pytest.mark.parametrize("error", [
    DataError("x.png", got="a damaged image", expected="a whole PNG image", fix="replace it"),
    LoaderError("it died"),
])  # fmt: skip
def test_errors_travel_between_processes_by_their_text(error: Exception) -> None:
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert type(again) is type(error)
    assert str(again) == str(error)


def test_a_cell_whose_worker_died_is_a_failed_cell_with_the_reason(
    generated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thesis, "read_image", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    outcome = start(build(table(generated), "tiny"), tmp_path / "run")
    status = read_model(CellStatus, folder_of(outcome).root / "status.json")
    assert status.status == "failed"
    assert status.error is not None
    assert status.error.startswith("a process that loads images died: ")


class Waits(TorchDispatchMode):
    """Notes the operations that would wait for a device: a number brought to the host, a constant brought to it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in {"_local_scalar_dense", "lift_fresh", "nonzero", "is_nonzero"}:
            self.found.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["fast", "thesis"])
def test_no_step_of_the_fast_pipeline_waits_for_the_device_as_those_of_the_other_do(name: str) -> None:
    pipeline, sizes = PIPELINES[name], ModelConfig(width=16, depth=1, heads=2, feed_forward=16, window_side=3)
    images_irqcss = torch.rand(2, 4, 4, 3, 16, 16)
    windows = draw_windows(2, 3, (4, 4), 3, torch.Generator().manual_seed(0))
    model = InpaintingTransformer("mlsa", sizes, 16, pipeline.gather)
    optimizer = pipeline.optimizer(model.parameters(), 1e-3)
    for _ in range(2):  # the first makes what is kept
        with Waits() as noted:
            batch = pipeline.cut(Loaded(images_irqcss, windows, 3))
            prediction_bp = model(batch.context_bkp, batch.positions_bt)
            pipeline.loss(as_images(prediction_bp, 16), as_images(batch.target_bp, 16), LossConfig()).backward()
            optimizer.step()
            optimizer.zero_grad()
    assert bool(noted.found) == (name == "thesis")
