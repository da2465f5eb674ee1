"""What a kill leaves of a training: whole, in agreement with itself, and enough to end in the same numbers."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import harness.run
from harness import checkpoint
from harness.config import RunConfig, build
from harness.directory import RunDirectory
from harness.launch import resume, start
from profiles.errors import RunDirectoryError
from profiles.record import CellRecord, read_model
from tests.harness.commands import bench, computed, files
from tests.harness.conftest import tiny_table
from tests.harness.test_energy_of_a_run import Steady, metric
from tests.harness.test_run import poisoning

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


@pytest.fixture
def cut_off(generated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a run that saves after every step, killed as it saved for the fifth time within its third epoch."""
    monkeypatch.setattr(harness.run, "sources", lambda _: [Steady()])
    with monkeypatch.context() as patch:
        copies = as_killed(tmp_path / "run", tmp_path, patch)
        start(one_cell(generated, save_every_s=1e-9), tmp_path / "run")
    return next(copy for copy in copies if copy.name.endswith("-previous.pt") and place(copy) == (3, 4))


def place(run: Path) -> tuple[int, int]:
    """Return the epoch and the step at which the run's only cell would go on."""
    at = saved_progress(run)
    return at["epoch"], at["step"]


def saved_progress(run: Path) -> dict[str, Any]:
    saved = checkpoint.load_last(RunDirectory(run).cell(CELL).checkpoints, torch.device("cpu"))
    assert saved is not None
    progress: dict[str, Any] = saved.state["progress"]
    return progress


def of_the_third_epoch(path: Path) -> pd.DataFrame:
    rows = pd.read_csv(path)
    return rows[(rows["phase"] == "train") & (rows["epoch"] == 3)]


def test_a_training_killed_within_an_epoch_goes_on_there_and_no_step_is_timed_twice_or_not_at_all(
    cut_off: Path, tmp_path: Path
) -> None:
    times, folder = saved_progress(cut_off)["times"], RunDirectory(cut_off).cell(CELL)
    before = of_the_third_epoch(folder.energy)
    assert (len(times["parts_ns"]), len(before)) == (4, 5)  # the last is of a step that will be taken again
    resume(cut_off, None, retry_failed=False)
    assert computed(cut_off) == computed(tmp_path / "run")
    stages, energy = of_the_third_epoch(folder.stages), of_the_third_epoch(folder.energy)
    steps = stages[(stages["stage"] == "optimizer") | (stages["direction"] == "backward")]
    assert set(steps["calls"]) == {7}
    (phase,) = of_the_third_epoch(folder.phases).to_dict("records")
    assert phase["parts"] == len(energy) == 4 + 4  # three more were saved within, and the last one ended the phase
    assert phase["wall_s"] == pytest.approx(stages["exposed_s"].sum())
    assert energy["start_s"].tolist()[:4] == before["start_s"].tolist()[:4]
    assert energy["wall_s"].sum() >= phase["wall_s"] - 1e-9
    record = read_model(CellRecord, folder.record)
    assert metric(record, "training_energy").tag == "measured"


def test_of_a_training_killed_within_an_epoch_the_part_whose_reading_is_missing_is_unknown(cut_off: Path) -> None:
    folder = RunDirectory(cut_off).cell(CELL)
    parts_s = [part_ns / 1e9 for part_ns in saved_progress(cut_off)["times"]["parts_ns"]]
    rows = pd.read_csv(folder.energy)
    rows[:-2].to_csv(folder.energy, index=False)
    known_s = of_the_third_epoch(folder.energy)["wall_s"].sum()
    resume(cut_off, None, retry_failed=False)
    energy = of_the_third_epoch(folder.energy)
    assert energy["energy_j"].isna().tolist() == [False, False, False, True, False, False, False, False]
    assert energy["wall_s"].iloc[3] == pytest.approx(max(0.0, sum(parts_s) - known_s))
    training = metric(read_model(CellRecord, folder.record), "training_energy")
    reason = "the process was killed before the reading that follows this phase"
    assert (training.value, training.reason.partition(": ")[2]) == (None, reason)


def test_weights_that_are_not_numbers_are_not_saved_within_an_epoch_either(
    generated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoning(monkeypatch, 3)
    assert start(one_cell(generated, save_every_s=1e-9), tmp_path / "run").failed == 1
    assert place(tmp_path / "run") == (1, 2)


def test_ranks_save_within_an_epoch_together(generated: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(one_cell(generated, save_every_s=1e-9, max_epochs=1).to_toml())
    losses = []
    for ranks in ("1", "2"):
        run = tmp_path / ranks
        done = bench("run", "--config", str(config), "--out", str(run), "--ranks", ranks)
        assert done.returncode == 0, done.stderr
        losses += pd.read_csv(RunDirectory(run).cell(CELL).epochs)["train_loss"].tolist()
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    for rank in (0, 1):
        phases = pd.read_csv(RunDirectory(run).of_rank(rank).cell(CELL).phases)
        assert phases.loc[phases["epoch"] == 1, "parts"].tolist()[:2] == [
            8,
            1,
        ]  # it was saved after each of seven steps
