"""The thread that reads one device: everything at a steady pace, and its meter once more when that is due to move.

A thread that wakes finds cold caches, and each call of the driver hands the interpreter over twice, so a waking only
reads and keeps what it read. Every two seconds all of it is digested together.
"""

import math
from collections import deque
from collections.abc import Callable
from threading import Event, Thread
from time import perf_counter_ns, sleep
from typing import Protocol

from profiles.energy.meter import DeviceMeter
from profiles.energy.readings import Reading, Source
from profiles.energy.table import TelemetryTable
from profiles.record import TelemetryRow

STOP_S = 2.0
"""How long a driver may take for its last answer before the run goes on without it."""

LONGEST_SLEEP_S = 0.1

JOINED_NS = 50_000_000
"""So much earlier or later, and half a period at most, a sample comes to share a waking with a look at the meter."""

DIGEST_NS = 2_000_000_000
"""Between two digestions."""


class Sampler:
    """Reads one device whenever it is due.

    Args:
        source: the device.
        meter: takes its readings.
        table: takes its rows.
        period_ns: between two samples.
        now_ns: the clock of the stages; tests inject their own.

    """

    def __init__(
        self,
        source: Source,
        meter: DeviceMeter,
        table: TelemetryTable,
        period_ns: int,
        now_ns: Callable[[], int] = perf_counter_ns,
    ) -> None:
        self._source = source
        self._meter = meter
        self._table = table
        self._period_ns = period_ns
        self._now_ns = now_ns
        self._due_ns: int | None = None
        self._joined_ns = min(period_ns // 2, JOINED_NS)
        self._digest_ns = 0
        self._samples: deque[tuple[int, Reading]] = deque()
        self._counted: tuple[int | None, float] = None, math.inf  # when the counter was seen to move, and to what
        self._told = ""

    def poll(self) -> int:
        """Do what is due; return when to come again."""
        if self._due_ns is None:
            self._source.read_meter()  # a driver may take its time to open
            self._due_ns = self._now_ns()
        now_ns = self._now_ns()  # the counter's moment; after, this thread may wait for others
        if now_ns >= self._due_ns:
            reading = self._source.read(now_ns)
            self._meter.sampled(now_ns, reading)
            self._samples.append((now_ns, reading))
            self._due_ns = now_ns - (now_ns - self._due_ns) % self._period_ns + self._period_ns
        else:
            self._meter.looked(now_ns, self._source.read_meter())
        if now_ns >= self._digest_ns:
            self._digest_ns = now_ns + DIGEST_NS
            self.digest()
        look_ns = self._meter.next_look_ns()
        if look_ns is not None and abs(look_ns - self._due_ns) <= self._joined_ns:
            self._due_ns = look_ns  # one waking for both
        return self._due_ns if look_ns is None else min(self._due_ns, look_ns)

    def digest(self) -> None:
        """Make joules and rows of what was read; what nobody can wait for is done here, not at each waking."""
        self._meter.digest()
        samples = [self._samples.popleft() for _ in range(len(self._samples))]
        self._table.add([self._row(now_ns, reading) for now_ns, reading in samples])

    def _row(self, now_ns: int, reading: Reading) -> TelemetryRow:
        power_w, source = reading.power_w, reading.power_source
        counted_w = None if reading.energy_j is None else self._counted_w(now_ns, reading.energy_j)
        if power_w is None and counted_w is not None:
            power_w, source = counted_w, "counter"
        told = "; ".join(f"{name}: {why}" for name, why in sorted(reading.why.items()))
        unavailable, self._told = "" if told == self._told else told or "all known again", told
        return TelemetryRow(
            time_s=round(now_ns / 1e9, 6),
            device=self._source.name,
            power_w=power_w,
            utilization_pct=reading.utilization_pct,
            memory_bytes=reading.memory_bytes,
            temperature_c=reading.temperature_c,
            sm_clock_mhz=reading.sm_clock_mhz,
            throttle=None if reading.throttle is None else "+".join(reading.throttle) or "none",
            memory_clock_mhz=reading.memory_clock_mhz,
            power_source=source,
            energy_j=reading.energy_j,
            power_limit_w=reading.power_limit_w,
            clock_limit_mhz=reading.clock_limit_mhz,
            pcie_rx_bytes_per_s=reading.pcie_rx_bytes_per_s,
            pcie_tx_bytes_per_s=reading.pcie_tx_bytes_per_s,
            foreign_processes=reading.foreign_processes,
            samples=1,
            unavailable=unavailable,
        )

    def _counted_w(self, now_ns: int, energy_j: float) -> float | None:
        """Return the mean power from one move of the counter to the next; unknown where it stood still or went back."""
        moved_ns, before_j = self._counted
        if energy_j == before_j:
            return None
        rose = energy_j > before_j
        self._counted = (now_ns if rose else None), energy_j
        return round((energy_j - before_j) / (now_ns - moved_ns) * 1e9, 3) if rose and moved_ns is not None else None


class Polled(Protocol):
    """What a sampling thread drives."""

    def poll(self) -> int:
        """Do what is due; return when to come again."""


class SamplingThread:
    """Polls a sampler in the background, until stopped or until the process ends."""

    def __init__(self, sampler: Polled, name: str, now_ns: Callable[[], int] = perf_counter_ns) -> None:
        self.why_ended = ""
        self._sampler = sampler
        self._now_ns = now_ns
        self._stop = Event()
        self._thread = Thread(target=self._run, name=f"sampling {name}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; a driver that hangs is left behind, and `why_ended` says so."""
        self._stop.set()
        if self._thread.ident is None:  # it could not be started
            return
        self._thread.join(STOP_S)
        if self._thread.is_alive():
            self.why_ended = "the driver did not answer in time; its thread was left behind"

    def _sleep(self, due_ns: int) -> None:
        """Sleep until it is due or the thread is stopped; a short sleep, by the call that costs others least."""
        left_s = max(due_ns - self._now_ns(), 0) / 1e9
        if left_s <= LONGEST_SLEEP_S:
            sleep(left_s)
        else:
            self._stop.wait(left_s)

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                due_ns = self._sampler.poll()
                self._sleep(due_ns)
        except Exception as error:  # noqa: BLE001 - whatever ends the sampling must not end the run; it is told
            self.why_ended = f"sampling ended: {type(error).__name__}: {error}"
