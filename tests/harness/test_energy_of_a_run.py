"""A whole run beside a meter of known power: what its phases and stages cost, also over an interruption."""

import math
from collections.abc import Callable
from math import fsum
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import pandas as pd
import pytest

from harness import run
from harness.config import RunConfig, build
from harness.directory import RunDirectory
from harness.launch import Outcome, resume, start
from profiles.energy.host import Host
from profiles.energy.readings import Reading
from profiles.errors import InterruptedRunError
from profiles.record import CellRecord, TelemetryRow, read_model
from tests.harness.conftest import tiny_table
from tests.harness.test_run import interrupting

WATTS = 200.0


class Steady:
    """A board that draws 200 W all the time, by a counter that moves every 20 ms."""

    name = "cuda:0"

    def read(self, now_ns: int) -> Reading:  # noqa: ARG002 - nothing here is slow
        counted = self.read_meter()
        return counted._replace(power_w=WATTS, power_source="instant", throttle=(), foreign_processes=0)

    def read_meter(self) -> Reading:
        return Reading(energy_j=perf_counter_ns() // 20_000_000 * 0.02 * WATTS)


class Lost(Steady):
    """A board that falls off the bus after a while."""

    def __init__(self) -> None:
        self.calls = 0

    def read(self, now_ns: int) -> Reading:
        self.calls += 1
        return super().read(now_ns) if self.calls < 5 else Reading(why={"device": "NVML: GPU is lost"})

    def read_meter(self) -> Reading:
        return super().read_meter() if self.calls < 5 else Reading()


@pytest.fixture
def config(generated: Path) -> RunConfig:
    table: dict[str, Any] = {**tiny_table(generated, max_epochs=6), "models": ["msa"]}
    table["data"]["categories"] = ["weave"]
    table["telemetry"] = {"period_ms": 50, "idle_s": 0.3}
    return build(table, "tiny")


def record(outcome: Outcome) -> CellRecord:
    return read_model(CellRecord, RunDirectory(outcome.directory).cell(outcome.cells[0].name).record)


def metric(found: CellRecord, name: str) -> Any:
    return next(metric for metric in found.metrics if metric.name == name)


@pytest.mark.alone
def test_what_a_run_costs_is_power_times_time_and_stages_sum_to_it(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "sources", lambda _: [Steady()])
    outcome = start(config, tmp_path / "run")
    found, folder = record(outcome), RunDirectory(outcome.directory).cell(outcome.cells[0].name)
    rows = pd.read_csv(folder.energy)
    assert (rows["energy_j"] - WATTS * rows["wall_s"]).abs().le(rows["error_j"] + 1e-6).all()
    assert rows["idle_w"].sub(WATTS).abs().max() < 0.15 * WATTS
    assert set(zip(rows["phase"], rows["epoch"], strict=True)) >= {("train", 0), ("train", 6), ("validation", 6)}
    walls_s = pd.read_csv(folder.phases).set_index(["phase", "epoch"])["wall_s"]
    assert (rows.set_index(["phase", "epoch"])["wall_s"] >= walls_s - 1e-9).all()
    training_s = fsum(rows.loc[rows["phase"].isin(["train", "validation"]), "wall_s"])
    assert metric(found, "training_energy").value == pytest.approx(WATTS * training_s, rel=0.05)
    assert metric(found, "energy_per_epoch").n == 6 - 2  # without those of steps that were looked at closely
    totals = {total.phase: total for total in found.energy_totals}
    for phase in ("train", "validation", "calibration", "evaluation"):
        parts = [part.energy_j for part in found.stage_energies if part.phase == phase and part.energy_j is not None]
        assert sum(parts) == pytest.approx(totals[phase].energy_j)
    telemetry = pd.read_csv(folder.telemetry)
    assert list(telemetry.columns) == list(TelemetryRow._fields)
    assert (telemetry["power_w"] == WATTS).all()
    assert not [caveat for caveat in found.caveats if caveat.startswith("cuda:0")]


def test_an_interrupted_epoch_costs_what_both_its_parts_did(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "sources", lambda _: [Steady()])
    with monkeypatch.context() as patch:
        interrupting(patch, 17, "_step")  # the third step of epoch 3
        with pytest.raises(InterruptedRunError):
            start(config, tmp_path / "run")
    outcome = resume(tmp_path / "run", None, retry_failed=False)
    folder = RunDirectory(outcome.directory).cell(outcome.cells[0].name)
    rows = pd.read_csv(folder.energy)
    stretches = rows.groupby(["phase", "epoch"]).size()
    assert stretches["train", 3] == 2
    assert stretches.drop(("train", 3)).eq(1).all()
    walls_s = pd.read_csv(folder.phases).set_index(["phase", "epoch"])["wall_s"]
    assert rows.groupby(["phase", "epoch"])["wall_s"].sum()["train", 3] >= walls_s["train", 3]
    assert metric(record(outcome), "training_energy").tag == "measured"


def test_an_interrupted_validation_costs_what_its_whole_repetition_did(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "sources", lambda _: [Steady()])
    with monkeypatch.context() as patch:
        interrupting(patch, 3, "_validate")
        with pytest.raises(InterruptedRunError):
            start(config, tmp_path / "run")
    folder = RunDirectory(resume(tmp_path / "run", None, retry_failed=False).directory).cell("weave/msa-fast/seed0")
    rows = pd.read_csv(folder.energy)
    assert rows.loc[rows["phase"] == "validation", "epoch"].tolist() == [1, 2, 3, 4, 5, 6]
    (resumed,) = (said for said in read_model(CellRecord, folder.record).caveats if "resumed" in said)
    assert resumed.endswith("such as a calibration, counts once, and what it had cost before is in no sum")


def test_energy_whose_reading_a_kill_prevented_is_unknown_and_so_is_every_sum_with_it(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "sources", lambda _: [Steady()])
    with monkeypatch.context() as patch:
        interrupting(patch, 17, "_step")  # in epoch 3
        with pytest.raises(InterruptedRunError):
            start(config, tmp_path / "run")
    folder = RunDirectory(tmp_path / "run").cell("weave/msa-fast/seed0")
    rows = pd.read_csv(folder.energy)
    rows[~((rows["phase"] == "validation") & (rows["epoch"] == 2))].to_csv(folder.energy, index=False)
    found = record(resume(tmp_path / "run", None, retry_failed=False))
    reason = "1 of 14 stretches are unknown: the process was killed before the reading that follows this phase"
    assert (metric(found, "training_energy").value, metric(found, "training_energy").reason) == (None, reason)
    rows = pd.read_csv(folder.energy)
    (lost,) = rows[(rows["phase"] == "validation") & (rows["epoch"] == 2)].to_dict("records")
    assert math.isnan(lost["energy_j"])
    assert lost["wall_s"] > 0


@pytest.mark.parametrize(("source", "reason"), [
    (Lost, "NVML: GPU is lost"),
    (lambda: Host("cpu", Path("/nowhere")), "the kernel exposes no RAPL counter"),
])  # fmt: skip
def test_a_meter_that_is_lost_or_never_there_stops_no_run_and_is_never_zero(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Callable[[], Any], reason: str
) -> None:
    monkeypatch.setattr(run, "sources", lambda _: [source()])
    found = record(start(config, tmp_path / "run"))
    energy = metric(found, "training_energy")
    assert (energy.value, energy.tag) == (None, "unavailable")
    assert reason in energy.reason
    assert any(reason in caveat for caveat in found.caveats)
    assert all(part.energy_j is None or part.energy_j > 0 for part in found.stage_energies)
