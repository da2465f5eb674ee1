"""Play one scene on the stand-in for the driver's library, and print what came of it as JSON.

python -m tests.profiles.energy.boards SCENE FOLDER [ARGUMENT]...      with LD_LIBRARY_PATH and NVML_STAND_IN set
"""

import ctypes
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from profiles.energy import processes
from profiles.energy.curve import Joules
from profiles.energy.host import Host
from profiles.energy.meter import DeviceMeter
from profiles.energy.nvml import NvmlBoard
from profiles.energy.readings import Source
from profiles.energy.sampler import Sampler, SamplingThread
from profiles.energy.table import TelemetryTable
from profiles.energy.telemetry import Telemetry, TelemetryConfig
from profiles.record import Direction

S = 1_000_000_000
PERIOD_NS = S // 10


class VirtualRun:
    """A board, its meter and its sampler, in a time that passes only here."""

    def __init__(self, folder: Path) -> None:
        self.now_ns = 0
        self._library = ctypes.CDLL("libnvidia-ml.so.1")
        self._set_ns = self._library.stand_in_set_ns
        self._set_ns.argtypes = [ctypes.c_int64]
        board = NvmlBoard("cuda:0", "stand-in-0")
        self.meter = DeviceMeter(board.name, PERIOD_NS)
        self.table = TelemetryTable(folder / "telemetry.csv", 1000)
        self._sampler = Sampler(board, self.meter, self.table, PERIOD_NS, lambda: self.now_ns)
        self._due_ns = 0
        self.polls = 0

    def until(self, end_ns: int) -> None:
        """Let time pass."""
        while self._due_ns <= end_ns:
            self._go_to(self._due_ns)
            self._due_ns = self._sampler.poll()
            self.polls += 1
        self._go_to(end_ns)

    def _go_to(self, now_ns: int) -> None:
        self.now_ns = now_ns
        self._set_ns(now_ns)

    def result(self) -> dict[str, Any]:
        """Return what came of it, a little later, when limits were asked for once more."""
        self.until(self.now_ns + 3 * S)
        self._sampler.digest()
        self.table.close()
        return {
            "rows": [row._asdict() for row in self.meter.take_settled()],
            "idle_w": self.meter.idle_w(),
            "period_ns": self.meter.period_ns,
            "caveats": self.meter.caveats(),
            "polls": self.polls,
            "calls": self._library.stand_in_calls(),
        }


def phases(folder: Path, *borders_s: str) -> dict[str, Any]:
    """Measure phases; each has two borders."""
    run = VirtualRun(folder)
    borders_ns = [round(float(border) * S) for border in borders_s]
    for epoch, (start_ns, end_ns) in enumerate(zip(borders_ns[::2], borders_ns[1::2], strict=True), start=1):
        run.until(start_ns)
        run.meter.phase_begins("train", epoch, run.now_ns)
        run.until(end_ns)
        run.meter.phase_ends(run.now_ns)
    return run.result()


STAGES: list[tuple[str, Direction]] = [("attention", "forward"), ("loss", "forward")]


def stages(folder: Path, turn_ms: str, seconds: str, lag_ms: str = "0") -> dict[str, Any]:
    """Measure a phase of two stages in turns, of which the device shows its power *lag_ms* later."""
    run, turn_ns, lag_ns = VirtualRun(folder), round(float(turn_ms) * 1e6), round(float(lag_ms) * 1e6)
    turn, exposed_s = 20 * S // turn_ns, dict.fromkeys(STAGES, 0.0)
    run.until(turn * turn_ns - lag_ns)
    run.meter.phase_begins("train", 1, run.now_ns)
    end_ns = run.now_ns + round(float(seconds) * S)
    while run.now_ns < end_ns:
        start_ns, cell = run.now_ns, STAGES[turn % 2]
        turn += 1
        run.until(min(turn * turn_ns - lag_ns, end_ns))
        run.meter.power.charged("train", cell, start_ns, run.now_ns)
        exposed_s[cell] += (run.now_ns - start_ns) / 1e9
    run.meter.phase_ends(run.now_ns)
    run.until(run.now_ns + 3 * S)
    (row,) = run.meter.take_settled()
    total = Joules(row.energy_j, row.error_j, row.method, row.reason)
    parts = run.meter.stage_energies("train", exposed_s, total)
    return {
        **run.result(),
        "total": total._asdict(),
        "stages": [part.model_dump() for part in parts],
        "exposed_s": list(exposed_s.values()),
    }


def threads(folder: Path, boards: str = "1", seconds: str = "1") -> dict[str, Any]:
    """Measure two phases with real threads in real time."""
    started = time.perf_counter()
    sources = [NvmlBoard(f"cuda:{index}", f"stand-in-{index}") for index in range(int(boards))]
    config = TelemetryConfig(period_ms=20, idle_s=0.3)
    with Telemetry(sources, config, folder / "telemetry.csv") as telemetry:
        for epoch in (1, 2):
            with telemetry.phase("train", epoch):
                time.sleep(float(seconds))
        rows = telemetry.settled()
    rows += telemetry.settled()
    return {
        "rows": [row._asdict() for row in rows],
        "idle_w": telemetry.idle_w(),
        "caveats": telemetry.caveats(),
        "seconds": time.perf_counter() - started,
    }


class Noted:
    """A sampler whose polls are noted, each *dearer_ns* of computing dearer than it is."""

    def __init__(self, sampler: Sampler, dearer_ns: int) -> None:
        self.polls_ns: list[tuple[int, int]] = []
        self._sampler = sampler
        self._dearer_ns = dearer_ns

    def poll(self) -> int:
        started_ns = time.perf_counter_ns()
        due_ns = self._sampler.poll()
        until_ns = time.thread_time_ns() + self._dearer_ns
        while self._dearer_ns and time.thread_time_ns() < until_ns:
            pass
        self.polls_ns.append((started_ns, time.perf_counter_ns()))
        return due_ns


def overhead(folder: Path, seconds: str, of: str = "board", dearer_ms: str = "0") -> dict[str, Any]:
    """Time steps of a millisecond or so beside a sampling thread; tell each, and when the thread worked.

    A step is what a training's is to the interpreter: short calls that hold its lock, some that let go of it, and
    charges of a stage clock. `waited` is the share of the time in which such steps alone, with no sampling, before and
    after, were not computing: then other programs had the processor.
    """
    source: Source = NvmlBoard("cuda:0", "stand-in-0") if of == "board" else Host()
    meter = DeviceMeter(source.name, PERIOD_NS)
    table = TelemetryTable(folder / "telemetry.csv", 20_000)
    noted = Noted(Sampler(source, meter, table, PERIOD_NS), round(float(dearer_ms) * 1e6))
    thread = SamplingThread(noted, source.name)
    matrix = np.ones((96, 96), np.float32)

    def step() -> int:
        for charge in range(4):
            start_ns = time.perf_counter_ns()
            for _ in range(5):
                matrix @ matrix
            total = 0
            for number in range(2000):
                total += number
            meter.power.charged("train", STAGES[charge % 2], start_ns, time.perf_counter_ns())
        return time.perf_counter_ns()

    def steps(seconds: float) -> list[int]:
        borders_ns = [time.perf_counter_ns()]
        while borders_ns[-1] < borders_ns[0] + seconds * S:
            borders_ns.append(step())
        return borders_ns

    def waited() -> float:
        computed_ns = -time.thread_time_ns()
        borders_ns = steps(2)
        return 1 - (computed_ns + time.thread_time_ns()) / (borders_ns[-1] - borders_ns[0])

    waited_before = waited()
    thread.start()
    time.sleep(1.5)  # the meter's period is found
    borders_ns = steps(float(seconds))
    thread.stop()
    table.close()
    return {
        "borders_ns": borders_ns,
        "polls_ns": noted.polls_ns,
        "why_ended": thread.why_ended,
        "waited": max(waited_before, waited()),
    }


SCENES: dict[str, Callable[..., dict[str, Any]]] = {
    "phases": phases,
    "stages": stages,
    "threads": threads,
    "overhead": overhead,
}

if __name__ == "__main__":
    if "container=1" in os.environ["NVML_STAND_IN"]:
        processes._sees_all_processes = lambda: False
    print(json.dumps(SCENES[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])))
