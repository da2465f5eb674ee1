import fcntl
import json
import math
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import tomli_w
import torch

import harness.launch
import harness.run
from harness import checkpoint
from harness.cells import Cell, plan
from harness.config import RunConfig, build
from harness.context import Context
from harness.cost import by_gain
from harness.directory import RunDirectory
from harness.evaluation import Reconstructor
from harness.interrupt import Interrupt
from harness.launch import Outcome, resume, start
from harness.launchers.here import Here
from harness.machine import KERNEL_IN_C
from harness.pipelines.parts import Batch, Images, Loaded
from harness.pipelines.table import PIPELINES
from harness.progress import Reporter
from harness.training import Trainer
from models.transformer import InpaintingTransformer
from models.windows import Windows
from profiles.errors import ConfigError, DataError, InputError, InterruptedRunError, RunDirectoryError
from profiles.record import (
    CellRecord,
    CellStatus,
    Environment,
    EpochRow,
    Manifest,
    ResultRow,
    StageRow,
    TelemetryRow,
    read_model,
)
from profiles.stages import recorder
from profiles.timing.clock import StageClock
from tests.harness.conftest import tiny_table

CPU = torch.device("cpu")


def record_of(outcome: Outcome, number: int = 0) -> CellRecord:
    return read_model(CellRecord, RunDirectory(outcome.directory).cell(outcome.cells[number].name).record)


def timeless(outcome: Outcome) -> dict[str, list[object]]:
    """Everything a run computes, without what a clock or a memory gauge said of it."""
    numbers: dict[str, list[object]] = {}
    for number, cell in enumerate(outcome.cells):
        record = record_of(outcome, number)
        epochs = pd.read_csv(RunDirectory(outcome.directory).cell(cell.name).epochs)
        scores = [metric.value for metric in record.metrics if metric.unit in {"%", "epoch", "count"}]
        losses = epochs[["epoch", "train_loss", "validation_loss", "windows", "is_best"]].to_numpy().tolist()
        numbers[cell.name] = [scores, losses, record.image_scores, record.best_validation_loss]
    return numbers


@pytest.fixture(scope="module")
def finished(generated: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Return a finished run, not to be changed."""
    return start(build(tiny_table(generated), "tiny"), tmp_path_factory.mktemp("finished") / "run")


def test_a_run_leaves_the_files_of_the_contract(finished: Outcome) -> None:
    assert finished.failed == 0
    directory = RunDirectory(finished.directory)
    assert read_model(Manifest, directory.manifest).status == "done"
    assert read_model(Environment, directory.environment).device == "cpu"
    for cell in finished.cells:
        folder = directory.cell(cell.name)
        assert folder.root == finished.directory / "cells" / cell.category / f"{cell.model}-fast" / "seed0"
        assert read_model(CellStatus, folder.root / "status.json").status == "done"
        assert pd.read_csv(folder.epochs).columns.tolist() == list(EpochRow._fields)
        assert pd.read_csv(folder.stages).columns.tolist() == list(StageRow._fields)
        assert pd.read_csv(folder.root / "telemetry.csv").columns.tolist() == list(TelemetryRow._fields)
        assert {path.name for path in folder.checkpoints.iterdir()} == {"best.pt", "last.pt"}
        assert [path.name for path in folder.traces.iterdir()] == ["epoch0002.pt.trace.json.gz"]
        assert len(list(folder.maps.glob("*.png"))) == 2
    assert not list(finished.directory.rglob("*.part"))
    events = [json.loads(line)["event"] for line in (finished.directory / "events.jsonl").read_text().splitlines()]
    assert events[0] == "run_start"
    assert events[-1] == "run_stop"
    assert events.count("cell_start") == events.count("cell_stop") == 4
    assert events.count("epoch_start") == events.count("epoch_stop") == 4 * 3
    assert events.count("phase_start") == events.count("phase_stop") == 4 * (1 + 3 * 2 + 2)


def test_results_hold_every_metric_of_the_contract_for_every_cell(finished: Outcome) -> None:
    results = pd.read_csv(finished.directory / "results.csv")
    assert results.columns.tolist() == list(ResultRow._fields)
    wanted = {
        "segmentation_auroc", "detection_auroc", "detection_auroc_rescaled", "aupro_30", "average_precision",
        "time_per_epoch", "training_time", "best_epoch", "windows_per_second", "peak_memory", "energy_per_epoch",
        "training_energy", "cell_energy", "parameters",
    }  # fmt: skip
    for _, rows in results.groupby(["category", "model"]):
        assert wanted <= set(rows["metric"])
        assert not rows["metric"].duplicated().any()
    assert results.groupby(["category", "model"]).ngroups == 4
    assert (results["value"].isna() == (results["tag"] == "unavailable")).all()
    unavailable = {"energy_per_epoch", "training_energy", "cell_energy"}
    assert set(results.loc[results["tag"] == "unavailable", "metric"]) == unavailable


def test_a_record_holds_the_arithmetic_of_its_stages_and_the_run_its_devices_peak(finished: Outcome) -> None:
    environment = read_model(Environment, finished.directory / "environment.json")
    assert environment.flops_per_s is not None
    assert environment.bytes_per_s is not None
    work = record_of(finished).work
    assert {row.stage for row in work} == {"embedding", "attention", "feed_forward", "head", "loss", "optimizer"}
    assert min(environment.flops_per_s, environment.bytes_per_s, *(row.least_bytes for row in work)) > 0


def test_every_phase_of_every_epoch_sums_to_its_wall_time(finished: Outcome) -> None:
    for cell in finished.cells:
        folder = RunDirectory(finished.directory).cell(cell.name)
        stages, epochs = pd.read_csv(folder.stages), pd.read_csv(folder.epochs)
        groups = stages.groupby(["phase", "epoch"])
        assert set(groups.groups) == {
            ("train", 0), *((phase, epoch) for phase in ("train", "validation") for epoch in (1, 2, 3)),
            *((phase, best_epoch(folder.epochs)) for phase in ("calibration", "evaluation")),
        }  # fmt: skip
        assert groups["share"].sum().sub(1).abs().max() < 1e-9
        assert groups["stage"].apply(lambda stage: "unattributed" in set(stage)).all()
        walls = stages[stages["epoch"] > 0].groupby(["phase", "epoch"])["exposed_s"].sum()
        for row in epochs.itertuples():
            assert walls["train", row.epoch] + walls["validation", row.epoch] == pytest.approx(row.wall_s, abs=1e-9)


def best_epoch(epochs: Path) -> int:
    rows = pd.read_csv(epochs)
    return int(rows.loc[rows["validation_loss"].idxmin(), "epoch"])


def test_every_stage_of_training_is_seen_in_both_directions(finished: Outcome) -> None:
    stages = pd.read_csv(RunDirectory(finished.directory).cell(finished.cells[0].name).stages)
    train = stages[(stages["phase"] == "train") & (stages["epoch"] == 3)]
    seen = set(zip(train["stage"], train["direction"], strict=True))
    for name in ("embedding", "attention", "feed_forward", "head", "loss"):
        assert {(name, "forward"), (name, "backward")} <= seen
    assert {("patching", "none"), ("transfer", "none"), ("optimizer", "none"), ("checkpoint", "none")} <= seen
    evaluation = set(stages.loc[stages["phase"] == "evaluation", "stage"])
    assert {"data_loading", "patching", "attention", "anomaly_map", "scoring"} <= evaluation
    attention = train[(train["stage"] == "attention") & (train["direction"] == "forward")]
    assert attention["calls"].item() == 7  # one block, seven steps


def test_a_run_gives_the_same_numbers_twice(finished: Outcome, tiny: RunConfig, tmp_path: Path) -> None:
    assert timeless(start(tiny, tmp_path / "again")) == timeless(finished)


def test_another_seed_gives_other_numbers(finished: Outcome, generated: Path, tmp_path: Path) -> None:
    other = start(build({**tiny_table(generated), "seeds": [1], "models": ["msa"]}, "tiny"), tmp_path / "other")
    assert record_of(other).best_validation_loss != record_of(finished).best_validation_loss


def test_the_split_is_of_the_cell_and_the_same_for_both_models(finished: Outcome) -> None:
    records = [record_of(finished, number) for number in range(4)]
    assert {(record.train_images, record.validation_images) for record in records} == {(5, 1)}
    assert {record.windows_per_epoch for record in records} == {50}
    assert {record.steps_per_epoch for record in records} == {math.ceil(50 / 8)}


def interrupting(monkeypatch: pytest.MonkeyPatch, at_call: int, name: str) -> None:
    """Ask to stop while `Trainer.<name>` runs for the *at_call*-th time."""
    original: Callable[..., object] = getattr(Trainer, name)
    calls = 0

    def counted(self: Trainer, *arguments: object, **keywords: object) -> object:
        nonlocal calls
        calls += 1
        if calls == at_call:
            signal.raise_signal(signal.SIGTERM)
        return original(self, *arguments, **keywords)

    monkeypatch.setattr(Trainer, name, counted)


def poisoning(monkeypatch: pytest.MonkeyPatch, at_call: int, then: Callable[[], object] = lambda: None) -> None:
    """Have a weight be no number after the step taken for the *at_call*-th time, and do something *then*."""
    original: Callable[..., None] = Trainer._step
    calls = 0

    def poisoned(self: Trainer, *arguments: object) -> None:
        nonlocal calls
        calls += 1
        original(self, *arguments)
        if calls == at_call:
            with torch.no_grad():
                next(self.model.parameters()).fill_(float("nan"))
            then()

    monkeypatch.setattr(Trainer, "_step", poisoned)


def test_an_observation_that_was_interrupted_is_told_in_the_record(
    generated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tiny_table(generated, max_epochs=2)
    config = build({**table, "models": ["msa"], "data": {**table["data"], "categories": ["weave"]}}, "tiny")
    with monkeypatch.context() as patch:
        interrupting(patch, 9, "_step")  # the second of epoch 2, whose steps are looked at
        with pytest.raises(InterruptedRunError):
            start(config, tmp_path / "run")
    outcome = resume(tmp_path / "run", None, retry_failed=False)
    record = read_model(CellRecord, RunDirectory(outcome.directory).cell(outcome.cells[0].name).record)
    (seen,) = record.observations
    assert (seen.epoch, seen.window, seen.reason) == (2, None, "interrupted while steps were looked at")
    assert "no profiler window, epoch 2: interrupted while steps were looked at" in record.caveats
    epochs = pd.read_csv(RunDirectory(outcome.directory).cell(outcome.cells[0].name).epochs)
    assert epochs["profiled"].tolist() == [False, True]


@pytest.mark.parametrize("at_call", [1, 5, 7, 8, 16, 21, 25])
def test_a_run_interrupted_at_any_step_ends_in_the_same_numbers(
    finished: Outcome, tiny: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_call: int
) -> None:
    with monkeypatch.context() as patch:
        interrupting(patch, at_call, "_step")
        with pytest.raises(InterruptedRunError, match=r"interrupted by SIGTERM; .*bench run --resume --out") as error:
            start(tiny, tmp_path / "run")
    assert error.value.exit_code == 130
    assert read_model(Manifest, tmp_path / "run" / "manifest.json").status == "interrupted"
    outcome = resume(tmp_path / "run", None, retry_failed=False)
    assert timeless(outcome) == timeless(finished)
    assert any("resumed" in caveat for n in range(4) for caveat in record_of(outcome, n).caveats)
    for cell in outcome.cells:
        stages = pd.read_csv(RunDirectory(outcome.directory).cell(cell.name).stages)
        assert stages.groupby(["phase", "epoch"])["share"].sum().sub(1).abs().max() < 1e-9


@pytest.mark.parametrize("at_call", [1, 4])
def test_a_run_interrupted_in_validation_ends_in_the_same_numbers(
    finished: Outcome, tiny: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_call: int
) -> None:
    with monkeypatch.context() as patch:
        interrupting(patch, at_call, "_validate")
        with pytest.raises(InterruptedRunError):
            start(tiny, tmp_path / "run")
    assert timeless(resume(tmp_path / "run", None, retry_failed=False)) == timeless(finished)


@pytest.mark.parametrize("at_call", [1, 6, 9])
def test_a_run_interrupted_in_calibration_or_evaluation_ends_in_the_same_numbers(
    finished: Outcome, tiny: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_call: int
) -> None:
    original, calls = Reconstructor.compare, 0

    def counted(self: Reconstructor, *arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == at_call:
            signal.raise_signal(signal.SIGINT)
        return original(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Reconstructor, "compare", counted)
        with pytest.raises(InterruptedRunError, match="SIGINT"):
            start(tiny, tmp_path / "run")
    assert timeless(resume(tmp_path / "run", None, retry_failed=False)) == timeless(finished)


@pytest.mark.parametrize(("method", "call"), [
    ("_step", 3), ("_step", 11), ("_step", 25), ("_validate", 2), ("save", 3), ("_stopping_rule", 3),
])  # fmt: skip
def test_a_killed_run_ends_in_the_same_numbers(
    finished: Outcome, generated: Path, tmp_path: Path, method: str, call: int
) -> None:
    (tmp_path / "tiny.toml").write_text(tomli_w.dumps(tiny_table(generated)))
    arguments = [str(tmp_path / "tiny.toml"), str(tmp_path / "run"), method, str(call)]
    killed = subprocess.run([sys.executable, "-m", "tests.harness.kill", *arguments], check=False)
    assert killed.returncode == -signal.SIGKILL
    outcome = resume(tmp_path / "run", None, retry_failed=False)
    assert outcome.failed == 0
    assert timeless(outcome) == timeless(finished)
    for cell in outcome.cells:
        stages = pd.read_csv(RunDirectory(outcome.directory).cell(cell.name).stages)
        assert stages.groupby(["phase", "epoch"])["share"].sum().sub(1).abs().max() < 1e-9
    assert not list((tmp_path / "run").rglob("*.part"))


def test_resuming_a_finished_run_changes_nothing(finished: Outcome) -> None:
    def contents() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in finished.directory.rglob("*") if path.is_file()}

    before = contents()
    assert resume(finished.directory, None, retry_failed=False) == finished
    assert contents() == before


def test_a_lost_cell_is_run_again(finished: Outcome, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(finished.directory, tmp_path / "copy"))
    shutil.rmtree(copy / "cells" / "weave")
    assert timeless(resume(copy, None, retry_failed=False)) == timeless(finished)


@pytest.mark.parametrize(("name", "content"), [
    ("status.json", b"{"), ("record.json", b"{}"), ("record.json", None),
])  # fmt: skip
def test_a_cell_whose_status_or_record_is_damaged_goes_on_from_its_checkpoints(
    finished: Outcome, tmp_path: Path, name: str, content: bytes | None
) -> None:
    copy = Path(shutil.copytree(finished.directory, tmp_path / "copy"))
    folder = RunDirectory(copy).cell(finished.cells[0].name)
    epochs = folder.epochs.read_bytes()
    (folder.root / name).unlink()
    if content is not None:
        (folder.root / name).write_bytes(content)
    assert timeless(resume(copy, None, retry_failed=True)) == timeless(finished)
    assert folder.epochs.read_bytes() == epochs  # nothing was trained again


def test_a_failed_cell_without_its_best_weights_is_trained_anew(finished: Outcome, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(finished.directory, tmp_path / "copy"))
    folder = RunDirectory(copy).cell(finished.cells[0].name)
    (folder.checkpoints / "best.pt").unlink()
    folder.fail("as any can")
    outcome = resume(copy, None, retry_failed=True)
    assert outcome.failed == 0
    assert timeless(outcome) == timeless(finished)


def test_a_cell_is_not_mended_while_a_process_is_at_it(
    finished: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copytree(finished.directory, tmp_path / "copy"))
    folder = RunDirectory(copy).cell(finished.cells[0].name)
    status = (folder.root / "status.json").read_bytes()
    folder.fail("as any can")

    def ending(_: float) -> None:
        (folder.root / "status.json").write_bytes(status)
        file.close()

    monkeypatch.setattr("harness.locks.sleep", ending)
    with folder.lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        resume(copy, None, retry_failed=True)
    assert file.closed
    assert (
        folder.record.read_bytes() == RunDirectory(finished.directory).cell(finished.cells[0].name).record.read_bytes()
    )


def interrupted(tiny: RunConfig, run: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stop a run within the second epoch of its first cell; return where that cell's checkpoints are."""
    with monkeypatch.context() as patch:
        interrupting(patch, 12, "_step")
        with pytest.raises(InterruptedRunError):
            start(tiny, run)
    return run / "cells" / plan(tiny)[0].name / "checkpoints"


def flip_a_bit(path: Path) -> None:
    """Damage a file in its middle, where a checkpoint holds numbers."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("damage", [flip_a_bit, cut_short, Path.unlink])
def test_a_damaged_checkpoint_is_replaced_by_the_one_before(
    finished: Outcome, tiny: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], None]
) -> None:
    damage(interrupted(tiny, tmp_path / "run", monkeypatch) / "last.pt")
    outcome = resume(tmp_path / "run", None, retry_failed=False)
    assert timeless(outcome) == timeless(finished)
    told = [caveat for caveat in record_of(outcome).caveats if "went on from the checkpoint before a damaged" in caveat]
    assert len(told) == (damage is not Path.unlink)
    stages = pd.read_csv(RunDirectory(outcome.directory).cell(outcome.cells[0].name).stages)
    assert stages.groupby(["phase", "epoch"])["share"].sum().sub(1).abs().max() < 1e-9


def test_epochs_whose_rows_a_loss_of_power_took_are_named_in_the_record(
    tiny: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs = interrupted(tiny, tmp_path / "run", monkeypatch).parent / "epochs.csv"
    epochs.write_text(epochs.read_text().splitlines(keepends=True)[0])
    outcome = resume(tmp_path / "run", None, retry_failed=False)
    said = [[caveat for caveat in record_of(outcome, n).caveats if "are lost" in caveat] for n in range(2)]
    assert said == [["rows of epochs 1 are lost: times and energy summed over epochs are too low by theirs"], []]


def test_tables_are_on_the_disk_before_each_checkpoint_that_counts_on_them(
    tiny: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, fsync, save_last = list[str](), os.fsync, checkpoint.save_last

    def synced(descriptor: int) -> None:
        steps.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def saved(checkpoints: Path, state: dict[str, object]) -> None:
        steps.append("save")
        save_last(checkpoints, state)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(checkpoint, "save_last", saved)
    config = tiny.model_copy(update={"models": ("msa",)})
    start(
        config.model_copy(update={"data": config.data.model_copy(update={"categories": ("weave",)})}), tmp_path / "run"
    )
    saves = [number for number, step in enumerate(steps) if step == "save"]
    assert len(saves) == 4  # at the beginning of each of three epochs, and after the last
    tables = ["epochs.csv", "stages.csv", "phases.csv", "loader.csv", "energy.csv"]
    assert all(steps[number - 5 : number] == tables for number in saves)
    assert steps.count("epochs.csv") == 4


class KilledError(BaseException):
    """What a kill leaves behind: nothing after it is done."""


def test_a_kill_while_a_damaged_checkpoint_is_replaced_costs_no_training(
    finished: Outcome, tiny: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flip_a_bit(interrupted(tiny, tmp_path / "run", monkeypatch) / "last.pt")
    original = Path.replace

    def killed(self: Path, target: Path) -> Path:
        moved = original(self, target)
        if target.name == "previous.pt":
            raise KilledError
        return moved

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KilledError):
            resume(tmp_path / "run", None, retry_failed=False)
    outcome = resume(tmp_path / "run", None, retry_failed=False)
    assert outcome.failed == 0
    assert timeless(outcome) == timeless(finished)
    assert any("went on from the checkpoint before a damaged" in caveat for caveat in record_of(outcome).caveats)


def test_a_cell_whose_checkpoints_are_all_damaged_fails_until_it_is_trained_anew(
    finished: Outcome, tiny: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in interrupted(tiny, tmp_path / "run", monkeypatch).iterdir():
        flip_a_bit(path)
    outcome = resume(tmp_path / "run", None, retry_failed=False)
    assert outcome.failed == 1
    status = read_model(CellStatus, RunDirectory(tmp_path / "run").cell(finished.cells[0].name).root / "status.json")
    assert status.error is not None
    assert "last.pt: got a damaged checkpoint" in status.error
    assert "fix: --resume --retry-failed" in status.error
    assert timeless(resume(tmp_path / "run", None, retry_failed=True)) == timeless(finished)


def test_resuming_with_another_version_is_refused(finished: Outcome, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(finished.directory, tmp_path / "copy"))
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, "commit": "f" * 40}))
    with pytest.raises(RunDirectoryError, match=r"expected .* of ffffffffffff, which began the run; fix"):
        resume(copy, None, retry_failed=False)


def test_neither_warm_up_nor_profiler_leaves_a_trace_in_the_numbers(generated: Path, tmp_path: Path) -> None:
    losses, states = [], []
    for warmup_steps, profiled_steps in ((0, 0), (3, 0), (2, 2)):
        table = tiny_table(generated, measured_steps=3, warmup_steps=warmup_steps)
        table |= {"models": ["msa"], "profiler": {"steps": profiled_steps}}
        outcome = start(build(table, "tiny"), tmp_path / f"{warmup_steps}-{profiled_steps}")
        losses.append(timeless(outcome))
        saved = checkpoint.load_last(RunDirectory(outcome.directory).cell(outcome.cells[0].name).checkpoints, CPU)
        assert saved is not None
        states.append([saved.state[part] for part in ("model", "optimizer")])
    assert losses[0] == losses[1] == losses[2]
    torch.testing.assert_close(states[1:], [states[0]] * 2, rtol=0, atol=0)


def test_steps_looked_at_closely_come_after_the_measured_ones_and_in_no_table(
    generated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = {**tiny_table(generated, measured_steps=3, warmup_steps=2), "models": ["msa"]}
    table["data"]["categories"] = ["weave"]
    counted: list[str] = []

    def noting(name: str) -> None:
        original: Callable[..., object] = getattr(Trainer, name)
        monkeypatch.setattr(Trainer, name, lambda *given, **named: (counted.append(name), original(*given, **named))[1])

    for name in ("_uncounted_step", "_counted_steps"):
        noting(name)
    outcome = start(build(table, "tiny"), tmp_path / "run")
    (seen,) = record_of(outcome).observations
    assert seen.epoch == 0
    looked = sum(time.n for time in seen.steps) + 2  # the one that is counted, and the first one after the window
    assert counted == ["_uncounted_step"] * 2 + ["_counted_steps"] + ["_uncounted_step"] * looked
    folder = RunDirectory(outcome.directory).cell(outcome.cells[0].name)
    stages, phases = pd.read_csv(folder.stages), pd.read_csv(folder.phases)
    assert not phases.duplicated(["phase", "epoch"]).any()
    assert not stages.duplicated(["phase", "epoch", "stage", "direction"]).any()
    optimizer = stages[(stages["stage"] == "optimizer") & (stages["phase"] == "train")].set_index("epoch")["calls"]
    assert optimizer.to_dict() == {0: 2, 1: 3}


def test_a_run_of_measured_steps_can_be_interrupted_in_any_of_its_steps(
    generated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = build({**tiny_table(generated, measured_steps=3, warmup_steps=2), "models": ["msa"]}, "tiny")
    whole = timeless(start(config, tmp_path / "whole"))
    # in warm-up, in a measured step, in the comparison with and without clock, in the window, after it
    for call in (1, 3, 6, 9, 12):
        with monkeypatch.context() as patch:
            interrupting(patch, call, "_step")
            with pytest.raises(InterruptedRunError):
                start(config, tmp_path / f"run{call}")
        assert timeless(resume(tmp_path / f"run{call}", None, retry_failed=False)) == whole


def test_a_run_on_a_terminal_gives_the_cursor_back(generated: Path, tmp_path: Path) -> None:
    table = {**tiny_table(generated, max_epochs=1), "models": ["msa"]}
    (tmp_path / "tiny.toml").write_text(tomli_w.dumps(table))
    arguments = ["run", "--config", str(tmp_path / "tiny.toml"), "--out", str(tmp_path / "run")]
    ours, theirs = pty.openpty()
    with subprocess.Popen([sys.executable, "-m", "bench", *arguments], stderr=theirs, stdout=subprocess.DEVNULL) as run:
        os.close(theirs)
        seen = b""
        while chunk := _read(ours):
            seen += chunk
    os.close(ours)
    assert run.returncode == 0
    assert seen.count(b"\x1b[?25l") == seen.count(b"\x1b[?25h") > 0


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # what Linux says when the other side has closed
        return b""


def test_a_loss_that_is_not_a_number_fails_its_cell_and_the_others_go_on(
    tiny: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Trainer._draw

    def poisoned(self: Trainer, images: Images, *purpose: str | int) -> Windows:
        if "weave/mlsa" in self._setting.cell and purpose == ("train", 2):
            with torch.no_grad():
                next(self.model.parameters()).fill_(float("nan"))
        return original(self, images, *purpose)

    monkeypatch.setattr(Trainer, "_draw", poisoned)
    outcome = start(tiny, tmp_path / "run")
    assert outcome.failed == 1
    directory = RunDirectory(outcome.directory)
    statuses = {cell.name: directory.cell(cell.name).status() for cell in outcome.cells}
    assert [name for name, status in statuses.items() if status == "failed"] == ["weave/mlsa-fast/seed0"]
    assert list(statuses.values()).count("done") == 3
    failed = directory.cell("weave/mlsa-fast/seed0")
    status = read_model(CellStatus, failed.root / "status.json")
    assert status.error is not None
    assert "the loss became" in status.error
    assert "DivergedError" in failed.error.read_text()
    good = torch.load(failed.checkpoints / "best.pt", weights_only=True)["model"]
    assert all(tensor.isfinite().all() for tensor in good.values())
    assert not failed.record.exists()
    assert read_model(Manifest, directory.manifest).status == "failed"
    assert pd.read_csv(directory.results).groupby(["category", "model"]).ngroups == 3

    kept = resume(outcome.directory, None, retry_failed=False)
    assert kept.failed == 1
    trained = good_epochs(failed.epochs)
    assert trained
    monkeypatch.undo()
    retried = resume(outcome.directory, None, retry_failed=True)
    assert retried.failed == 0
    assert not failed.error.exists()
    assert good_epochs(failed.epochs)[: len(trained)] == trained  # to the nanosecond: what was measured is kept


def good_epochs(path: Path) -> list[object]:
    return pd.read_csv(path).to_numpy().tolist()


def test_weights_that_are_not_numbers_are_never_saved(
    tiny: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoning(monkeypatch, 10, then=partial(signal.raise_signal, signal.SIGTERM))
    with pytest.raises(InterruptedRunError):
        start(tiny, tmp_path / "run")
    folder = RunDirectory(tmp_path / "run").cell(plan(tiny)[0].name)
    assert folder.status() == "failed"
    last = torch.load(folder.checkpoints / "last.pt", weights_only=True)["model"]
    assert all(tensor.isfinite().all() for tensor in last.values())


def test_an_unexpected_error_fails_its_cell_and_is_kept_whole(
    tiny: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Trainer) -> None:
        message = f"no weights for {self._setting.cell}"
        raise ArithmeticError(message)

    monkeypatch.setattr(Trainer, "train", broken)
    outcome = start(tiny, tmp_path / "run")
    assert outcome.failed == 4
    folder = RunDirectory(outcome.directory).cell(outcome.cells[0].name)
    assert (
        read_model(CellStatus, folder.root / "status.json").error
        == "ArithmeticError: no weights for weave/msa-fast/seed0"
    )
    assert "Traceback" in folder.error.read_text()


def test_a_training_stops_when_validation_no_longer_improves(generated: Path, tmp_path: Path) -> None:
    table = tiny_table(generated, max_epochs=50, patience=2, learning_rate=0.3)
    outcome = start(build({**table, "models": ["msa"]}, "tiny"), tmp_path / "run")
    record = record_of(outcome)
    epochs = pd.read_csv(RunDirectory(outcome.directory).cell(outcome.cells[0].name).epochs)
    assert record.stopped_by == "patience"
    assert (
        record.epochs
        == len(epochs)
        == best_epoch(RunDirectory(outcome.directory).cell(outcome.cells[0].name).epochs) + 2
    )
    best = epochs.loc[epochs["is_best"], "epoch"].max()
    assert {metric.name: metric.value for metric in record.metrics}["best_epoch"] == best


def test_measured_steps_give_an_estimate_of_an_epoch_and_no_scores(generated: Path, tmp_path: Path) -> None:
    table = tiny_table(generated, measured_steps=3, warmup_steps=1)
    table["evaluation"]["images"] = 2
    outcome = start(build({**table, "models": ["msa"]}, "tiny"), tmp_path / "run")
    record = record_of(outcome)
    metrics = {metric.name: metric for metric in record.metrics}
    stages = pd.read_csv(RunDirectory(outcome.directory).cell(outcome.cells[0].name).stages)
    train_s = stages[(stages["phase"] == "train") & (stages["epoch"] == 1)]["exposed_s"].sum()
    assert record.stopped_by == "measured_steps"
    assert metrics["time_per_epoch"].tag == "estimated"
    assert metrics["time_per_epoch"].n == len(record.step_s) == 3
    assert sum(record.step_s) < train_s
    assert metrics["time_per_epoch"].value is not None
    assert metrics["time_per_epoch"].value > sum(record.step_s) / 3 * 7
    assert metrics["segmentation_auroc"].reason == "only 2 of 6 test images evaluated (evaluation.images)"
    assert metrics["training_time"].tag == "unavailable"
    assert metrics["evaluation_time"].tag == "estimated"
    assert any("3 measured steps of 7" in caveat for caveat in record.caveats)
    assert [path.name for path in (RunDirectory(outcome.directory).cell(outcome.cells[0].name).traces).iterdir()]


@pytest.mark.parametrize("training", [{}, {"measured_steps": 3}], ids=["whole", "measured"])
def test_a_step_too_large_for_a_window_is_told_by_a_few_windows_and_never_profiled(
    generated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, training: dict[str, int]
) -> None:
    profiled: list[bool] = []
    original = Trainer._step

    def noting(self: Trainer, *given: Any) -> None:
        profiled.append(torch.autograd.profiler._is_profiler_enabled)
        original(self, *given)

    monkeypatch.setattr(Trainer, "_step", noting)
    table = tiny_table(generated, max_epochs=2, batch_size=30, windows_per_image=100, **training)
    table |= {"models": ["msa"], "pipelines": ["thesis"]}
    table["data"] |= {"categories": ["weave"], "workers": 1}
    records = [
        record_of(start(build({**table, "profiler": {"memory_mb": memory_mb}}, "tiny"), tmp_path / str(memory_mb)))
        for memory_mb in (5, 10_000)
    ]
    (large,), (small,) = (record.observations for record in records)
    assert large.reason is not None
    assert small.window is not None
    reckoned = int(re.findall(r"a step has (\d+) profiler events, too many for a window of 5 MB", large.reason)[0])
    assert reckoned == pytest.approx(small.window.events / small.window.steps, rel=0.2)  # the optimizer's too
    assert profiled.count(True) == 1 + small.window.steps  # in the second run


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch's own, which it means to hide
def test_a_compiled_model_hides_its_borders_and_the_record_says_so(
    generated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compiled(*given: Any) -> InpaintingTransformer:
        model = InpaintingTransformer(*given)
        model.compile(backend="eager")
        return model

    monkeypatch.setattr(harness.run, "InpaintingTransformer", compiled)
    table = {**tiny_table(generated, max_epochs=1), "models": ["msa"], "profiler": {"steps": 0}}
    table["data"]["categories"] = ["weave"]
    outcome = start(build(table, "tiny"), tmp_path / "run")
    record = record_of(outcome)
    said = [caveat for caveat in record.caveats if "was met in training" in caveat]
    hidden = "embedding, attention, feed_forward, head"
    assert said == [f"no mark of {hidden} was met in training: its time is in the stage around it, or unattributed"]
    met = {total.stage for total in record.stage_totals if total.phase == "train" and total.exposed_s > 0}
    assert met >= {"patching", "loss", "optimizer"}  # the borders that survive


def test_no_batch_is_kept_while_the_next_one_is_cut(
    generated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[bool] = []
    original = Trainer._next
    last: list[Callable[[], object]] = [lambda: None]

    def noting(self: Trainer, deliveries: Iterator[Loaded]) -> Batch | None:
        kept.append(last[0]() is not None)
        batch = original(self, deliveries)
        last[0] = (lambda: None) if batch is None else weakref.ref(batch.context_bkp)
        return batch

    monkeypatch.setattr(Trainer, "_next", noting)
    table = {**tiny_table(generated, max_epochs=2, windows_per_image=30), "models": ["msa"], "profiler": {"steps": 0}}
    start(build(table, "tiny"), tmp_path / "run")
    assert len(kept) > 20
    assert not any(kept)


@pytest.mark.parametrize("pipeline", ["fast", "thesis"])
def test_what_was_loaded_is_given_back_in_the_stage_that_cuts(
    generated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pipeline: str
) -> None:
    """Of `fast`, all but the images that it trains on, of which seven steps and two of validation borrow."""
    cut, lent, died = PIPELINES[pipeline].cut, list[weakref.ref[torch.Tensor]](), Counter[str]()

    def dies(_: object) -> None:
        clock = recorder()
        if isinstance(clock, StageClock):  # else the cell has ended
            died[clock._stack[-1].stage] += 1

    def noting(loaded: Loaded) -> Batch:
        lent.append(weakref.ref(loaded.images_irqcss, dies))
        return cut(loaded)

    monkeypatch.setitem(PIPELINES, pipeline, PIPELINES[pipeline]._replace(cut=noting, attention="native"))
    table = {**tiny_table(generated, max_epochs=1), "models": ["msa"], "pipelines": [pipeline]}
    table |= {"profiler": {"steps": 0}}
    table["data"] |= {"categories": ["weave"], "workers": 1}
    start(build(table, "tiny"), tmp_path / "run")
    assert died.keys() == {"patching"}
    assert died["patching"] == len(lent) - (7 + 2 if pipeline == "fast" else 0)


def test_no_bar_is_drawn_within_a_phase_that_counts(
    generated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, within, begun = Reporter.begin, list[str](), list[str]()

    def noting(self: Reporter, what: str, *rest: Any) -> None:
        (begun if recorder() is None else within).append(what)
        begin(self, what, *rest)

    monkeypatch.setattr(Reporter, "begin", noting)
    table = {**tiny_table(generated, max_epochs=1), "models": ["msa"]}
    table["data"]["categories"] = ["weave"]
    start(build(table, "tiny"), tmp_path / "run")
    assert set(within) == {"decoding"}  # before the first epoch
    cell = "weave/msa-fast/seed0"
    assert begun == [f"{cell} epoch 1", f"{cell} validation", "calibration", "evaluation"]


@pytest.mark.parametrize(("per_image", "looked_at"), [(8, False), (10, True)], ids=["five steps", "seven steps"])
def test_only_an_epoch_that_was_looked_at_is_left_out_of_statistics(
    generated: Path, tmp_path: Path, per_image: int, *, looked_at: bool
) -> None:
    table = {**tiny_table(generated, max_epochs=2, windows_per_image=per_image), "models": ["msa"]}
    table["data"]["categories"] = ["weave"]
    outcome = start(build(table, "tiny"), tmp_path / "run")
    folder = RunDirectory(outcome.directory).cell(outcome.cells[0].name)
    assert pd.read_csv(folder.epochs)["profiled"].tolist() == [False, looked_at]
    (seen,) = record_of(outcome).observations
    assert bool(seen.steps) == looked_at


def test_a_record_tells_detection_under_the_other_setting_of_rescaled_maps(generated: Path, tmp_path: Path) -> None:
    other = {False: "detection_auroc_rescaled", True: "detection_auroc_not_rescaled"}
    found: dict[bool, dict[str, float | None]] = {}
    for rescaled in (False, True):
        table = {**tiny_table(generated, max_epochs=1), "profiler": {"steps": 0}}
        table["evaluation"] |= {"rescale_maps": rescaled}
        outcome = start(build(table, "tiny"), tmp_path / str(rescaled))
        values = {f"{n} {metric.name}": metric for n in range(4) for metric in record_of(outcome, n).metrics}
        found[rescaled] = {name: metric.value for name, metric in values.items() if "detection" in name}
        assert {metric.n for name, metric in values.items() if "detection" in name} == {6}
    for n in range(4):
        for rescaled in (False, True):
            told = found[rescaled][f"{n} {other[rescaled]}"]
            assert told == found[not rescaled][f"{n} detection_auroc"]
    differing = [n for n in range(4) if found[False][f"{n} detection_auroc"] != found[True][f"{n} detection_auroc"]]
    assert differing


def test_every_map_is_kept_if_asked(generated: Path, tmp_path: Path) -> None:
    table = tiny_table(generated, max_epochs=1)
    table["evaluation"]["save_maps"] = True
    outcome = start(build({**table, "models": ["msa"]}, "tiny"), tmp_path / "run")
    assert len(list(RunDirectory(outcome.directory).cell(outcome.cells[0].name).maps.rglob("*.tiff"))) == 6


def test_generated_data_is_made_on_the_fly(tmp_path: Path) -> None:
    outcome = start(build({**tiny_table(None, max_epochs=1), "models": ["msa"]}, "tiny"), tmp_path / "run")
    assert outcome.failed == 0
    assert {record_of(outcome, n).kind for n in range(2)} == {"texture", "object"}
    assert sorted(path.name for path in (outcome.directory / "data").iterdir()) == ["chip", "weave"]


def write_notes(root: Path) -> None:
    root.mkdir()
    (root / "notes.txt").write_text("mine")


@pytest.mark.parametrize(("change", "error", "message"), [
    ({"device": "cuda:7"}, ConfigError, "--device: got cuda:7; expected one of 0 CUDA device"),
])  # fmt: skip
def test_what_cannot_be_run_is_refused_before_anything_is_written(
    generated: Path, tmp_path: Path, change: dict[str, object], error: type[InputError], message: str
) -> None:
    if "device" in change and torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(error, match=message):
        start(build({**tiny_table(generated), **change}, "tiny"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_damaged_data_set_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: got No such file"):
        start(build(tiny_table(tmp_path / "nowhere"), "tiny"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_without_data_says_where_to_get_them(tmp_path: Path) -> None:
    table = tiny_table(None)
    del table["data"]["generated"]
    with pytest.raises(
        ConfigError, match=r"data\.root: got nothing; expected the folder of MVTec AD; fix: --data-root"
    ):
        start(build(table, "tiny"), tmp_path / "run")


def test_an_occupied_directory_is_refused_and_left_alone(tiny: RunConfig, finished: Outcome, tmp_path: Path) -> None:
    write_notes(tmp_path / "run")
    with pytest.raises(
        RunDirectoryError, match="got a folder that is not empty; expected a new one; fix: another --out"
    ):
        start(tiny, tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["notes.txt"]
    with pytest.raises(RunDirectoryError, match=f"--resume --out {finished.directory}"):
        start(tiny, finished.directory)


def test_a_run_that_began_and_ended_while_another_looked_at_its_data_is_left_alone(
    tiny: RunConfig, finished: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, inspect = tmp_path / "run", harness.launch._inspected

    def slowly(config: RunConfig, interrupt: Interrupt) -> object:
        shutil.copytree(finished.directory, run)
        return inspect(config, interrupt)

    monkeypatch.setattr(harness.launch, "_inspected", slowly)
    with pytest.raises(RunDirectoryError, match=f"got a folder that is not empty; .*--resume --out {run}"):
        start(tiny, run)
    assert timeless(finished._replace(directory=run)) == timeless(finished)


def test_an_unwritable_directory_is_refused(tiny: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunDirectoryError, match="which cannot be written"):
        start(tiny, tmp_path / "file" / "run")


def test_a_second_process_on_the_same_run_is_refused(finished: Outcome) -> None:
    holder = (
        "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); print(1, flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(finished.directory / "lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(RunDirectoryError, match="got a run that is going on; expected one that has stopped"):
            resume(finished.directory, None, retry_failed=False)
        process.kill()


def test_resuming_needs_a_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--resume: got no --out"):
        resume(None, None, retry_failed=False)
    with pytest.raises(RunDirectoryError, match=r"manifest\.json: got No such file"):
        resume(tmp_path, None, retry_failed=False)


def test_resuming_with_other_options_is_refused(finished: Outcome, generated: Path) -> None:
    asked = build(tiny_table(generated, batch_size=4), "tiny")
    with pytest.raises(
        RunDirectoryError, match=r"got options that differ in training\.batch_size; expected the run's own"
    ):
        resume(finished.directory, asked, retry_failed=False)


def test_resuming_on_another_machine_is_refused(finished: Outcome, tmp_path: Path) -> None:
    copy = shutil.copytree(finished.directory, tmp_path / "copy")
    environment = json.loads((copy / "environment.json").read_text())
    (copy / "environment.json").write_text(json.dumps({**environment, "cpu": "Abacus", "device_name": "Abacus"}))
    with pytest.raises(RunDirectoryError, match="expected Abacus, on which the run began; fix: resume it there"):
        resume(copy, None, retry_failed=False)


def test_resuming_with_other_kernels_is_refused(finished: Outcome, tmp_path: Path) -> None:
    copy = shutil.copytree(finished.directory, tmp_path / "copy")
    environment = json.loads((copy / "environment.json").read_text())
    for capability in environment["capabilities"]:
        if capability["name"] == KERNEL_IN_C:
            capability["available"] = not capability["available"]
    (copy / "environment.json").write_text(json.dumps(environment))
    with pytest.raises(RunDirectoryError, match="linear attention in C, with which the run began; fix: install it"):
        resume(copy, None, retry_failed=False)


def test_cells_are_compared_close_together_in_time(tiny: RunConfig) -> None:
    assert [cell.name for cell in plan(tiny)] == [
        "weave/msa-fast/seed0", "weave/mlsa-fast/seed0", "chip/msa-fast/seed0", "chip/mlsa-fast/seed0",
    ]  # fmt: skip


def test_a_run_that_may_be_stopped_begins_with_what_tells_most_for_its_cost(generated: Path) -> None:
    table = tiny_table(None)
    table["data"] = {"categories": ["bottle", "toothbrush", "carpet"], "root": str(generated), "image_side": 32}
    config = build({**table, "seeds": [0, 1]}, "tiny")
    order = [(cell.category, cell.seed) for cell in by_gain(plan(config), config)]
    categories = ["toothbrush", "bottle", "carpet"]  # 60, 209 and 280 training images
    assert order == [(name, seed) for seed in (0, 1) for name in categories for _ in ("msa", "mlsa")]


def test_a_second_ctrl_c_ends_a_run_at_once_and_it_still_says_how_to_go_on(
    finished: Outcome, tiny: RunConfig, tmp_path: Path
) -> None:
    class Pressed(Here):
        def __call__(self, cells: list[Cell], context: Context) -> None:
            assert len(cells) == 4
            signal.raise_signal(signal.SIGINT)
            assert context.interrupt.requested_by == "SIGINT"
            signal.raise_signal(signal.SIGINT)
            pytest.fail("the second was not heeded")

    words = f"interrupted at once: what was saved before is kept; go on with: bench run --resume --out {tmp_path}/run"
    with pytest.raises(InterruptedRunError, match=words):
        start(tiny, tmp_path / "run", Pressed())
    assert read_model(Manifest, tmp_path / "run" / "manifest.json").status == "interrupted"
    assert timeless(resume(tmp_path / "run", None, retry_failed=False)) == timeless(finished)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_command_leaves_a_run_that_resumes(
    finished: Outcome, generated: Path, tmp_path: Path, number: signal.Signals
) -> None:
    (tmp_path / "tiny.toml").write_text(tomli_w.dumps(tiny_table(generated)))
    run, bench = tmp_path / "run", [sys.executable, "-m", "bench"]
    with subprocess.Popen(
        [*bench, "run", "--config", str(tmp_path / "tiny.toml"), "--out", str(run)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        deadline = time.monotonic() + 120
        while not list(run.glob("cells/*/*/*/checkpoints/last.pt")) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130, stderr
    assert (
        f"bench: interrupted by {number.name}; the state is saved; go on with: bench run --resume --out {run}" in stderr
    )
    done = subprocess.run([*bench, "run", "--resume", "--out", str(run)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    outcome = Outcome(run, finished.cells, 0)
    assert timeless(outcome) == timeless(finished)


def test_a_run_says_how_many_images_the_cache_had(generated: Path, tmp_path: Path) -> None:
    table = tiny_table(generated, max_epochs=1)
    table = {
        **table,
        "models": ["msa"],
        "data": {**table["data"], "categories": ["chip"], "cache": str(tmp_path / "c")},
    }
    records = [record_of(start(build(table, "tiny"), tmp_path / out)) for out in ("cold", "warm")]
    counts = [
        {metric.name: metric.value for metric in record.metrics if "images_" in metric.name} for record in records
    ]
    images = records[0].train_images + records[0].validation_images + records[0].test_images
    assert counts == [
        {"images_decoded": images, "images_from_cache": 0},
        {"images_decoded": 0, "images_from_cache": images},
    ]
    said = [[caveat for caveat in record.caveats if "data.cache" in caveat] for record in records]
    assert said == [
        [],
        [f"{images} of {images} images came decoded from the cache (data.cache): data_loading is less by that"],
    ]
    assert records[0].image_scores == records[1].image_scores


def test_a_cache_that_cannot_be_used_is_refused_before_anything_is_written(generated: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    table = tiny_table(generated)
    table["data"]["cache"] = str(tmp_path / "file")
    with pytest.raises(ConfigError, match=r"data\.cache: got .*file, which cannot be used"):
        start(build(table, "tiny"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
