import time
from pathlib import Path
from threading import enumerate as enumerate_threads

import pandas as pd
import psutil
import pytest
import torch

from profiles import environment
from profiles.energy.host import Host
from profiles.energy.meter import DeviceMeter
from profiles.energy.readings import Reading
from profiles.energy.sampler import Sampler, SamplingThread
from profiles.energy.table import TelemetryTable
from profiles.energy.telemetry import Telemetry, TelemetryConfig
from profiles.record import TelemetryRow

S = 1_000_000_000
DAY_S = 86_400


class Board:
    """A device in a time that passes only here; its counter moves once a second."""

    name = "cuda:0"

    def __init__(self) -> None:
        self.now_ns = 0

    def read(self, now_ns: int) -> Reading:
        return self.read_meter()._replace(power_w=100.0 + now_ns // S % 9, power_source="instant", throttle=())

    def read_meter(self) -> Reading:
        return Reading(energy_j=self.now_ns // S * 100.0)


def run_for(days: float, path: Path, max_rows: int) -> list[int]:
    """Sample for days, an epoch a minute; return the resident bytes after each seventh of it."""
    board, meter, table = Board(), DeviceMeter("cuda:0", S), TelemetryTable(path, max_rows)
    sampler = Sampler(board, meter, table, S, lambda: board.now_ns)
    due_ns, charged_ns, seen_bytes, rows = 0, 0, [], []
    for minute in range(1, round(days * 1440) + 1):
        meter.phase_begins("train", minute, board.now_ns)
        while due_ns < minute * 60 * S:
            board.now_ns, due_ns = due_ns, sampler.poll()
            if board.now_ns - charged_ns > S:
                cell = ("loss", "forward") if due_ns % 3 else ("attention", "forward")
                meter.power.charged("train", cell, charged_ns, board.now_ns)
                charged_ns = board.now_ns
        meter.phase_ends(board.now_ns)
        rows += [row.energy_j for row in meter.take_settled()]
        if minute % max(round(days * 1440 / 7), 1) == 0:
            seen_bytes.append(psutil.Process().memory_info().rss)
    sampler.digest()
    table.close()
    assert len(rows) >= days * 1440 - 1
    assert rows[1:] == pytest.approx([6000.0] * (len(rows) - 1), abs=200)
    return seen_bytes


@pytest.mark.slow
def test_seven_days_keep_memory_flat_and_the_table_bounded(tmp_path: Path) -> None:
    seen_bytes = run_for(7, tmp_path / "telemetry.csv", 20_000)
    assert seen_bytes[-1] - seen_bytes[1] < 8 << 20  # a tenth of what the readings alone would be
    table = pd.read_csv(tmp_path / "telemetry.csv")
    assert 9_000 < len(table) <= 20_000
    assert table["samples"].sum() == pytest.approx(7 * DAY_S, rel=0.01)
    assert (tmp_path / "telemetry.csv").stat().st_size < 4 << 20


def test_an_hour_is_thinned_to_the_rows_it_may_have(tmp_path: Path) -> None:
    run_for(1 / 24, tmp_path / "telemetry.csv", 1000)
    table = pd.read_csv(tmp_path / "telemetry.csv")
    assert len(table) <= 1000
    assert table["samples"].max() == 4  # 3600 s in at most 1000 rows, of which half may be free again
    assert table["samples"].sum() == pytest.approx(3600, rel=0.01)


def test_a_cpu_has_its_rows_and_says_why_it_has_no_energy(tmp_path: Path) -> None:
    host = Host(powercap=tmp_path / "none")
    with Telemetry([host], TelemetryConfig(period_ms=20, idle_s=0.1), tmp_path / "telemetry.csv") as telemetry:
        for epoch in (1, 2):
            with telemetry.phase("train", epoch):
                started_ns = time.perf_counter_ns()
                time.sleep(0.2)
                telemetry.charged(("loss", "forward"), started_ns, time.perf_counter_ns())
        telemetry.settle()
        rows = telemetry.settled()
        parts = telemetry.stage_energies("train", {("loss", "forward"): 0.4}, rows)
    assert [(row.epoch, row.energy_j, row.reason) for row in rows] == [
        (1, None, "the kernel exposes no RAPL counter"),
        (2, None, "the kernel exposes no RAPL counter"),
    ]
    assert [(part.tag, part.reason) for part in parts] == [
        ("unavailable", "2 of 2 stretches are unknown: the kernel exposes no RAPL counter")
    ]
    assert telemetry.idle_w() == {"cpu": None}
    table = pd.read_csv(tmp_path / "telemetry.csv")
    assert tuple(table.columns) == TelemetryRow._fields
    assert table["utilization_pct"].dropna().between(0, 100).all()
    assert table["memory_bytes"].gt(1 << 20).all()
    assert table["energy_j"].isna().all()
    assert table["unavailable"][0].startswith("energy_j: the kernel exposes no RAPL counter")


class Counting:
    """A device in real time that has a counter and no power; the counter moves every 0.3 s."""

    name = "cpu"

    def __init__(self) -> None:
        self._started_ns = time.perf_counter_ns()

    def read(self, _now_ns: int) -> Reading:
        return self.read_meter()

    def read_meter(self) -> Reading:
        return Reading(energy_j=(time.perf_counter_ns() - self._started_ns) // (3 * S // 10) * 30.0)


@pytest.mark.alone
def test_idle_power_is_known_of_a_device_that_has_only_a_counter(tmp_path: Path) -> None:
    config = TelemetryConfig(period_ms=20, idle_s=1)
    with Telemetry([Counting()], config, tmp_path / "telemetry.csv") as telemetry:
        pass
    assert telemetry.idle_w()["cpu"] == pytest.approx(100, rel=0.2)
    assert not any("idle power" in caveat for caveat in telemetry.caveats())


def test_how_often_devices_are_read_is_set_by_the_configuration(tmp_path: Path) -> None:
    assert TelemetryConfig().period_ms == 100
    samples = []
    for period_ms in (500, 10):
        path = tmp_path / f"{period_ms}.csv"
        with Telemetry([Board()], TelemetryConfig(period_ms=period_ms, idle_s=1), path):
            pass
        samples.append(len(pd.read_csv(path)))
    assert 2 <= samples[0] < samples[1] / 4


def test_times_are_those_of_the_events(tmp_path: Path) -> None:
    before_ns = time.monotonic_ns()  # of `events.jsonl`; stages and samples read perf_counter_ns
    with Telemetry([Host()], TelemetryConfig(period_ms=20, idle_s=0.1), tmp_path / "telemetry.csv"):
        time.sleep(0.1)
    times_s = pd.read_csv(tmp_path / "telemetry.csv")["time_s"]
    assert len(times_s) > 3  # what was read since the last digestion too
    assert times_s.between(before_ns / 1e9 - 1e-6, time.monotonic_ns() / 1e9 + 1e-6).all()


def test_a_source_that_breaks_ends_the_sampling_and_not_the_run(tmp_path: Path) -> None:
    class Broken(Board):
        def read(self, now_ns: int) -> Reading:
            message = f"no board at {now_ns > 0}"
            raise ValueError(message)

    config = TelemetryConfig(idle_s=0)
    with Telemetry([Broken()], config, tmp_path / "telemetry.csv") as telemetry, telemetry.phase("train", 1):
        time.sleep(0.05)
    (row,) = telemetry.settled()
    assert row.reason == "sampling ended: ValueError: no board at True"
    assert telemetry.caveats() == ["cuda:0: sampling ended: ValueError: no board at True"]


def test_a_run_on_a_cpu_samples_the_cpu() -> None:
    assert [source.name for source in environment.sources(torch.device("cpu"))] == ["cpu"]


class Asked(Exception):  # noqa: N818 - a request, not an error
    """Someone asked to stop."""


def sampling_threads() -> list[str]:
    return [thread.name for thread in enumerate_threads() if thread.name.startswith("sampling")]


def test_who_asks_to_stop_during_the_idle_measurement_is_heard_and_no_reading_goes_on(tmp_path: Path) -> None:
    def asked() -> None:
        raise Asked

    started_s = time.monotonic()
    with (
        pytest.raises(Asked),
        Telemetry([Board()], TelemetryConfig(idle_s=600), tmp_path / "telemetry.csv", asked),
    ):
        pass
    assert time.monotonic() - started_s < 60
    assert sampling_threads() == []


def test_where_one_device_cannot_be_watched_no_other_is_read_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, started = SamplingThread.start, []

    def failing(self: SamplingThread) -> None:
        if started:
            raise RuntimeError("can't start new thread")  # noqa: TRY003 - Python's own
        started.append(self)
        start(self)

    monkeypatch.setattr(SamplingThread, "start", failing)
    with (
        pytest.raises(RuntimeError, match="can't start new thread"),
        Telemetry([Board(), Board()], TelemetryConfig(), tmp_path / "telemetry.csv"),
    ):
        pass
    assert started
    assert sampling_threads() == []
