"""The thread that reads and what it reads, without a driver."""

from pathlib import Path
from threading import Event, Thread
from time import perf_counter_ns

import pandas as pd
import pytest

from profiles.energy import sampler
from profiles.energy.meter import DeviceMeter
from profiles.energy.readings import Reading
from profiles.energy.sampler import Sampler, SamplingThread
from profiles.energy.table import TelemetryTable
from profiles.record import EnergyRow

S = 1_000_000_000


class Board:
    """A board in a time that passes only here; its counter moves every 0.1 s, and every third second it throttles."""

    name = "cuda:0"

    def __init__(self) -> None:
        self.now_ns = 0

    def read(self, now_ns: int) -> Reading:
        throttle = ("power_cap",) if now_ns // S % 3 == 0 else ()
        return self.read_meter()._replace(power_w=100.0, power_source="instant", throttle=throttle)

    def read_meter(self) -> Reading:
        return Reading(energy_j=float(self.now_ns * 10 // S * 10))


def measured(path: Path) -> list[EnergyRow]:
    """Measure phases that begin and end at odd moments, with time between them."""
    board, meter, table = Board(), DeviceMeter("cuda:0", S // 10), TelemetryTable(path, 10_000)
    reader, due_ns, rows = Sampler(board, meter, table, S // 10, lambda: board.now_ns), 0, []

    def until(end_ns: int) -> None:
        nonlocal due_ns
        while due_ns <= end_ns:
            board.now_ns, due_ns = due_ns, reader.poll()
        board.now_ns = end_ns

    for epoch in range(1, 21):
        until(epoch * S)
        meter.phase_begins("train", epoch, board.now_ns)
        until(epoch * S + 777_777_777)
        meter.phase_ends(board.now_ns)
        until(epoch * S + 950_000_000)
        rows += meter.take_settled()
        assert len(rows) == epoch
    reader.digest()
    table.close()
    return rows


def test_nothing_depends_on_when_readings_are_digested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    for digest_ns in (0, S, 1000 * S):
        monkeypatch.setattr(sampler, "DIGEST_NS", digest_ns)
        path = tmp_path / f"{digest_ns}.csv"
        told.append((measured(path), path.read_text()))
    assert told[0] == told[1] == told[2]
    rows, _ = told[0]
    assert [row.epoch for row in rows] == list(range(1, 21))
    assert sum("throttled" in row.caveats for row in rows) > 5
    assert sum("throttled" not in row.caveats for row in rows) > 5


def test_a_row_is_in_the_file_two_seconds_later(tmp_path: Path) -> None:
    board, path = Board(), tmp_path / "telemetry.csv"
    meter, table = DeviceMeter("cuda:0", S // 10), TelemetryTable(path, 1000)
    reader = Sampler(board, meter, table, S // 10, lambda: board.now_ns)
    while board.now_ns < 5 * S:
        board.now_ns = reader.poll()
        assert board.now_ns / S - pd.read_csv(path)["time_s"].max() <= 2.2


@pytest.mark.parametrize("period_ms", [10, 30, 100, 200, 300, 700, 1000])
def test_samples_come_at_the_period_asked_for_whatever_that_of_the_counter(tmp_path: Path, period_ms: int) -> None:
    board, path, period_ns = Board(), tmp_path / "telemetry.csv", period_ms * 1_000_000
    meter, table = DeviceMeter("cuda:0", period_ns), TelemetryTable(path, 10_000)
    reader = Sampler(board, meter, table, period_ns, lambda: board.now_ns)
    while board.now_ns < 22 * S:
        board.now_ns = reader.poll()
    reader.digest()
    table.close()
    times_s = pd.read_csv(path)["time_s"]
    times_s = times_s[times_s > 2]  # by then the counter's own period is found
    assert len(times_s) == pytest.approx(20_000 / period_ms, rel=0.05, abs=1)
    assert times_s.diff().max() <= 1.5 * period_ms / 1000 + 1e-6  # a sample may wait for the counter to move


class Stuttering:
    """A board without power whose counter stands still, and once goes back."""

    name = "cpu"

    def __init__(self) -> None:
        self.now_ns = 0

    def read(self, now_ns: int) -> Reading:
        return Reading(energy_j=[5.0, 5.0, 25.0, 25.0, 55.0, 1.0, 11.0, 21.0][now_ns // S])

    def read_meter(self) -> Reading:
        return Reading()


def test_power_from_a_counter_is_unknown_until_it_moves_and_where_it_goes_back(tmp_path: Path) -> None:
    board, path = Stuttering(), tmp_path / "telemetry.csv"
    reader = Sampler(board, DeviceMeter("cpu", S), TelemetryTable(path, 100), S, lambda: board.now_ns)
    while board.now_ns < 8 * S:
        reader.poll()
        board.now_ns += S
    reader.digest()
    power_w = pd.read_csv(path)["power_w"]
    assert power_w.dropna().to_dict() == {4: 15, 7: 10}


class Hanging:
    """A sampler whose driver answers only when the test is over."""

    def __init__(self) -> None:
        self.over = Event()

    def poll(self) -> int:
        self.over.wait()
        return 0


def test_a_driver_that_hangs_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler, "STOP_S", 0.01)
    hanging = Hanging()
    thread = SamplingThread(hanging, "cuda:0")
    thread.start()
    stopper = Thread(target=thread.stop, daemon=True)
    stopper.start()
    stopper.join(10)
    stopped, why = not stopper.is_alive(), thread.why_ended
    hanging.over.set()
    assert stopped
    assert why == "the driver did not answer in time; its thread was left behind"


class Patient:
    """A sampler that is due again in an hour."""

    def __init__(self) -> None:
        self.polled = Event()

    def poll(self) -> int:
        self.polled.set()
        return perf_counter_ns() + 3600 * S


def test_a_thread_that_sleeps_for_long_ends_when_told() -> None:
    patient = Patient()
    thread = SamplingThread(patient, "cpu")
    thread.start()
    assert patient.polled.wait(10)
    thread.stop()
    assert thread.why_ended == ""
