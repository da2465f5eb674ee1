import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from harness import footprint as subject
from harness.cells import Cell, plan
from harness.config import RunConfig, build
from harness.context import Context
from harness.directory import RunDirectory
from harness.footprint import (
    FLOAT_BYTES,
    PROCESS_BYTES,
    Extent,
    explained,
    extent,
    footprint,
    largest_batch,
    ran_out,
    refuse_too_large,
)
from harness.launch import start
from harness.launchers.here import Here
from models.attention.table import VARIANTS
from models.transformer import InpaintingTransformer, ModelConfig
from profiles.errors import ConfigError, OutOfMemoryError
from profiles.record import CellRecord, CellStatus, read_model

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
FACTOR = 1.5
"""Within which an estimate is of what is measured, up or down."""

GIB = 2**30
FEW_IMAGES = Extent(12, 4)


def table(**training: Any) -> dict[str, Any]:
    """Return a run whose steps take a hundred megabytes, and few seconds."""
    return {
        "suite": "measured",
        "description": "for tests",
        "models": ["msa", "mlsa"],
        "pipelines": ["fast", "thesis"],
        "data": {
            "categories": ["weave"],
            "image_side": 64,
            "workers": 1,
            "generated": {"side": 64, "train": 12, "test_good": 2, "test_per_defect": 1},
        },
        "model": {"width": 128, "depth": 3, "heads": 4, "feed_forward": 512, "patch_side": 8, "window_side": 7},
        "training": {"batch_size": 96, "measured_steps": 1, "windows_per_image": 24, **training},
        "evaluation": {"samples": 1, "images": 1},
        "telemetry": {"idle_s": 0.0},
        "profiler": {"steps": 0},
    }


@pytest.fixture
def config() -> RunConfig:
    return build(table(), "test")


@pytest.fixture
def cell(config: RunConfig) -> Cell:
    return plan(config)[0]


def in_use_before(record: CellRecord) -> float:
    """Return the memory that a CPU's caveat says was in use before the cell began; a GPU's has none."""
    words = next((caveat for caveat in record.caveats if "were in use before" in caveat), "; 0")
    return float(words.partition("; ")[2].split()[0]) * GIB


@pytest.mark.slow
@pytest.mark.parametrize("device", [
    CPU,
    pytest.param(CUDA, marks=[
        pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="gpu: no CUDA device"),
    ]),
])  # fmt: skip
def test_the_estimate_is_near_the_measured_peak(device: torch.device, tmp_path: Path) -> None:
    config = build({**table(), "device": device.type}, "test")
    outcome = start(config, tmp_path / "run")
    ratios = {}
    for cell in outcome.cells:
        record = read_model(CellRecord, RunDirectory(outcome.directory).cell(cell.name).record)
        measured = next(metric.value for metric in record.metrics if metric.name == "peak_memory")
        assert measured is not None
        estimate = footprint(cell, config, extent(cell, config, {}), device)
        alone = estimate._replace(loading=0)  # worker processes are beside the peak
        ratios[cell.name] = alone.needs(device)[0] / (measured - in_use_before(record))
    assert len(ratios) == 4
    assert all(1 / FACTOR < ratio < FACTOR for ratio in ratios.values()), ratios


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_four_small_steps_tell_a_large_one(name: str, precision: str) -> None:
    sizes = ModelConfig(width=64, depth=1, heads=4, feed_forward=128, patch_side=8, window_side=5, precision=precision)
    weights, step = subject._model_bytes(name, sizes, depth=6, windows=100)
    assert (weights, step) == pytest.approx(
        subject._step_bytes(name, sizes.model_copy(update={"depth": 6}), 100), rel=0.05
    )
    model = InpaintingTransformer(name, sizes.model_copy(update={"depth": 6}), positions=49)
    beside_positions = sum(each.numel() for each in model.parameters()) - model.positions.weight.numel()
    assert weights == FLOAT_BYTES * beside_positions


def test_counting_draws_no_random_number(config: RunConfig, cell: Cell) -> None:
    for cache in (subject._step_bytes, subject._loss_pixel_bytes, subject._matrix_pixel_bytes):
        cache.cache_clear()
    before = torch.get_rng_state()
    footprint(cell, config, FEW_IMAGES, CPU)
    assert torch.equal(torch.get_rng_state(), before)


def test_what_is_larger_needs_more(config: RunConfig, cell: Cell) -> None:
    def needs(images: Extent = FEW_IMAGES, **changes: Any) -> int:
        return footprint(cell, config.model_copy(update=changes), images, CPU).needs(CPU)[0]

    model, training, evaluation = config.model, config.training, config.evaluation
    assert needs(training=training.model_copy(update={"batch_size": 97})) > needs()
    assert needs(model=model.model_copy(update={"depth": 4})) > needs()
    assert needs(model=model.model_copy(update={"patch_side": 16})) > needs()
    assert needs(images=Extent(13, 4)) > needs()
    assert needs(Extent(12, 10**5), evaluation=evaluation.model_copy(update={"images": None})) > needs(
        Extent(12, 10**5)
    )


def test_a_device_and_its_host_are_two_memories(config: RunConfig) -> None:
    thesis = next(cell for cell in plan(config) if cell.pipeline == "thesis")
    estimate = footprint(thesis, config, FEW_IMAGES, CUDA)
    on_device, on_host = estimate.needs(CUDA)
    assert on_device == estimate.weights + estimate.step
    assert on_host == PROCESS_BYTES + estimate.loading > PROCESS_BYTES + 96 * 64**2 * 4 * 4


def let_free(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(subject, "free_bytes", lambda _: size)


def test_what_fits_is_let_pass(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    let_free(monkeypatch, GIB)
    refuse_too_large(plan(config), config, {}, CPU)


def test_a_refusal_names_the_largest_batch_that_fits(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    let_free(monkeypatch, 150 * 2**20)
    with pytest.raises(ConfigError) as error:
        refuse_too_large(plan(config), config, {}, CPU)
    text = str(error.value)
    assert text.startswith("memory of weave/mlsa-thesis/seed0: got a need of about 0.2")
    assert " GiB; expected at most 0.15 GiB, which is free; fix: --set training.batch_size=" in text
    batch = int(text.rpartition("=")[2])
    assert 1 < batch < 96
    refuse_too_large(plan(config), build(table(batch_size=batch), "test"), {}, CPU)
    with pytest.raises(ConfigError):
        refuse_too_large(plan(config), build(table(batch_size=batch + 1), "test"), {}, CPU)


def test_cells_beside_one_another_share_the_memory(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    let_free(monkeypatch, GIB)
    with pytest.raises(
        ConfigError, match=r"expected at most 0\.10 GiB, which is free for each of 10 cells at once; fix"
    ):
        refuse_too_large(plan(config), config, {}, CPU, at_once=10)


def test_ranks_share_the_batch_and_a_processors_memory(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    let_free(monkeypatch, 300 * 2**20)
    refuse_too_large(plan(config), config, {}, CPU)
    with pytest.raises(ConfigError, match=r"expected at most 0\.07 GiB, which is free for each of 4 ranks; fix"):
        refuse_too_large(plan(config), config, {}, CPU, 1, 4)
    cell = plan(config)[0]
    alone, shared = (footprint(cell, config, FEW_IMAGES, CUDA, ranks) for ranks in (1, 4))
    assert shared.step == pytest.approx(alone.step / 4, rel=0.2)
    free = (sum(shared.needs(CUDA)), GIB)
    assert largest_batch(cell, config, FEW_IMAGES, CUDA, free, 4) == 96
    assert largest_batch(cell, config, FEW_IMAGES, CUDA, (shared.needs(CUDA)[0] - 1, GIB), 4) == 92


def test_a_job_refuses_what_its_own_memory_does_not_hold(tmp_path: Path) -> None:
    class Job(Here):
        elsewhere = True

        def __call__(self, cells: list[Cell], context: Context) -> None:
            for cell in cells:
                words = [sys.executable, "-m", "harness.worker", str(context.directory.root), cell.name, "--in-job"]
                assert subprocess.run(words, check=False).returncode == 0

    absurd = table(batch_size=10**9)
    outcome = start(build({**absurd, "models": ["msa"], "pipelines": ["fast"]}, "test"), tmp_path / "run", Job())
    status = read_model(CellStatus, tmp_path / "run" / "cells" / outcome.cells[0].name / "status.json")
    assert outcome.failed == 1
    assert status.error is not None
    assert status.error.startswith("memory of weave/msa-fast/seed0: got a need of about ")
    assert "fix: --set training.batch_size=" in status.error


def test_where_no_batch_fits_it_says_so(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    let_free(monkeypatch, PROCESS_BYTES)
    with pytest.raises(ConfigError, match=r"fix: a smaller data\.image_side or model, fewer images or data\.workers"):
        refuse_too_large(plan(config), config, {}, CPU)


@pytest.mark.parametrize("changes", [
    {"training": {"batch_size": 10**15}},
    {"training": {"windows_per_image": 10**15}},
    {"data": {"image_side": 8 * 10**7}},
    {"data": {"workers": 10**9}},
    {"model": {"depth": 1024, "width": 65536, "feed_forward": 2**20}},
])  # fmt: skip
def test_absurd_sizes_are_refused_on_any_machine_before_anything_is_made(changes: dict[str, Any]) -> None:
    absurd = table()
    for section, values in changes.items():
        absurd[section] = {**absurd[section], **values}
    config = build(absurd, "test")
    with pytest.raises(ConfigError, match="memory of weave/"):
        refuse_too_large(plan(config), config, {}, CPU)


def test_errors_by_which_memory_ran_out_are_told_from_others() -> None:
    assert ran_out(MemoryError())
    assert ran_out(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 TiB."))
    assert ran_out(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"))
    assert not ran_out(RuntimeError("shapes cannot be multiplied"))
    assert not ran_out(ValueError("out of memory"))


def test_running_out_of_memory_names_a_batch_of_half_at_most(
    config: RunConfig, cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. " + "GPU 0 has more. " * 40)
    let_free(monkeypatch, GIB)
    told = explained(error, cell, config, {}, CPU)
    assert isinstance(told, OutOfMemoryError)
    assert str(told).startswith(
        "out of memory on cpu with batches of 96 (CUDA out of memory. Tried to allocate 20.00 MiB."
    )
    assert str(told).endswith(" …); fix: --set training.batch_size=48")
    let_free(monkeypatch, 120 * 2**20)
    fits = largest_batch(cell, config, extent(cell, config, {}), CPU, (120 * 2**20, 120 * 2**20))
    assert 0 < fits < 48
    assert str(explained(error, cell, config, {}, CPU)).endswith(f"training.batch_size={fits}")


def test_other_errors_stay_as_they_are(config: RunConfig, cell: Cell) -> None:
    error = RuntimeError("shapes cannot be multiplied")
    assert explained(error, cell, config, {}, CPU) is error


LIMITED = """
import json, resource, sys
import psutil, torch
from harness.cells import plan
from harness.config import build
from harness.footprint import explained
from models.transformer import InpaintingTransformer

torch.set_num_threads(1)
table = json.loads(sys.argv[1])
config = build(table, "test")
cell = plan(config)[0]

def step(batch):
    model = InpaintingTransformer(cell.model, config.model, positions=64)
    painted = model(torch.rand(batch, 48, 192), torch.zeros(batch, 49, dtype=torch.long))
    painted.square().mean().backward()

step(1)
limit = psutil.Process().memory_info().vms + 400 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    step(config.training.batch_size)
except Exception as error:
    kind, text = type(error).__name__, str(explained(error, cell, config, {}, torch.device("cpu")))
print(json.dumps([kind, text]))
step(int(text.rpartition("=")[2]))
print("stepped")
"""


def test_where_the_system_gives_no_more_memory_the_named_batch_fits() -> None:
    arguments = [sys.executable, "-c", LIMITED, json.dumps(table(batch_size=2000))]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    told, stepped = done.stdout.splitlines()
    kind, text = json.loads(told)
    assert kind == "RuntimeError"
    assert text.startswith("out of memory on cpu with batches of 2000 (")
    assert 1 < int(text.rpartition("=")[2]) <= 1000
    assert stepped == "stepped"
