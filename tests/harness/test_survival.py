"""What a kill leaves of a training: whole, in agreement with itself, and enough to end in the same numbers."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from harness import checkpoint
from harness.config import RunConfig, build
from harness.directory import RunDirectory
from harness.launch import resume, start
from profiles.errors import RunDirectoryError
from tests.harness.commands import computed, files
from tests.harness.conftest import tiny_table

CELL = "weave/msa-fast/seed0"


@pytest.fixture
def config(generated: Path) -> RunConfig:
    """Return a run of one cell, three epochs."""
    return one_cell(generated)


def one_cell(root: Path, **training: Any) -> RunConfig:
    table = {**tiny_table(root, **training), "telemetry": {"period_ms": 50, "idle_s": 0.0}}
    return build({**table, "models": ["msa"], "data": {**table["data"], "categories": ["weave"]}}, "tiny")


def as_killed(run: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Have every renaming of a checkpoint first copy the run as a kill at that moment would leave it."""
    copies: list[Path] = []
    original: Callable[..., Path] = Path.replace

    def copying(self: Path, other: Path) -> Path:
        if self.parent.name == "checkpoints":
            copies.append(shutil.copytree(run, target / f"{len(copies)}-before-{other.name}"))
        return original(self, other)

    monkeypatch.setattr(Path, "replace", copying)
    return copies


def test_a_kill_at_any_point_of_saving_leaves_best_weights_that_agree_with_the_state(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, cpu = tmp_path / "run", torch.device("cpu")
    with monkeypatch.context() as patch:
        copies = as_killed(run, tmp_path, patch)
        start(config, run)
    assert {path.name.partition("-")[2] for path in copies} == {
        "before-last.pt", "before-previous.pt", "before-best.pt",
    }  # fmt: skip
    for copy in copies:
        checkpoints = RunDirectory(copy).cell(CELL).checkpoints
        saved, best = checkpoint.load_last(checkpoints, cpu), checkpoints / "best.pt"
        if saved is not None and best.exists():
            at, kept = saved.state["progress"], checkpoint.load(best, cpu)
            weights = saved.state["model"] if at["best_epoch"] > kept["epoch"] else kept["model"]
            assert kept["epoch"] <= at["best_epoch"] < at["epoch"]  # never one that is trained again
            assert kept["epoch"] == at["best_epoch"] or (at["best_epoch"], at["step"]) == (at["epoch"] - 1, 0)
            assert all(tensor.isfinite().all() for tensor in weights.values())
        assert checkpoint.is_whole(checkpoints)
        resume(copy, None, retry_failed=False)
        assert computed(copy) == computed(run)
        assert files(copy) == files(run)


def test_best_weights_of_another_epoch_are_refused_and_trained_anew(config: RunConfig, tmp_path: Path) -> None:
    run = tmp_path / "run"
    start(config, run)
    folder = RunDirectory(run).cell(CELL)
    whole, best = computed(run), checkpoint.load(folder.checkpoints / "best.pt", torch.device("cpu"))
    checkpoint.save(folder.checkpoints / "best.pt", {**best, "epoch": 1})
    last = checkpoint.load(folder.checkpoints / "last.pt", torch.device("cpu"))
    checkpoint.save(folder.checkpoints / "last.pt", {**last, "progress": {**last["progress"], "best_epoch": 2}})
    with pytest.raises(RunDirectoryError, match="weights of epoch 1, not of 2"):
        checkpoint.load_weights(torch.nn.Linear(1, 1), folder.checkpoints / "best.pt", torch.device("cpu"), 2)
    assert not checkpoint.is_whole(folder.checkpoints)
    folder.fail("as any can")
    resume(run, None, retry_failed=True)
    assert computed(run) == whole
