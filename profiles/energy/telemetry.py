"""Sampling beside a run, from idle to its last phase: `telemetry.csv`, joules per phase, power per stage.

with Telemetry(sources, config, path) as telemetry:
    with telemetry.phase("train", 1):
        ...                                  # the stage clock calls `telemetry.charged`
    rows = telemetry.settled()
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from threading import Event
from time import perf_counter_ns
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from profiles.energy.curve import Joules, total
from profiles.energy.meter import DeviceMeter
from profiles.energy.readings import Source
from profiles.energy.sampler import Sampler, SamplingThread
from profiles.energy.stage_power import Cell
from profiles.energy.table import TelemetryTable
from profiles.record import EnergyRow, Phase, StageEnergy

SETTLE_S = 2.5
"""How long the first reading, and the last one after a phase, are waited for."""

BESIDE_NS = 1_000_000_000
"""Devices beside the one whose stages are charged are read no more often than this."""


class TelemetryConfig(BaseModel):
    """How often devices are read, and how much of it is kept."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    period_ms: int = Field(
        default=100,
        ge=10,
        le=1000,
        description="milliseconds between two samples of energy and power; the rest is read once a second or less",
    )
    idle_s: float = Field(
        default=2.0, ge=0, le=600, allow_inf_nan=False, description="seconds of idle power measured before; 0: none"
    )
    max_rows: int = Field(default=20_000, ge=100, description="rows of telemetry.csv; more are merged, two into one")


class Telemetry(AbstractContextManager["Telemetry"]):
    """The devices of a run, each read by a thread of its own.

    Args:
        sources: the devices; the first is the one whose stages are charged.
        config: how often, how much.
        path: `telemetry.csv`; one that is there is continued.
        check: called while idle power is measured; raises where someone asked to stop.

    """

    def __init__(
        self,
        sources: Sequence[Source],
        config: TelemetryConfig,
        path: Path,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        period_ns = config.period_ms * 1_000_000
        self._config = config
        self._table = TelemetryTable(path, config.max_rows)
        periods_ns = [period_ns, *[max(period_ns, BESIDE_NS)] * (len(sources) - 1)]
        self._meters = [DeviceMeter(source.name, of_ns) for source, of_ns in zip(sources, periods_ns, strict=True)]
        self._samplers = [
            Sampler(source, meter, self._table, of_ns)
            for source, meter, of_ns in zip(sources, self._meters, periods_ns, strict=True)
        ]
        self._threads = [
            SamplingThread(sampler, source.name) for sampler, source in zip(self._samplers, sources, strict=True)
        ]
        self._phase: Phase | None = None
        self._check = check

    def __enter__(self) -> Self:
        """Start reading; once every device has answered, or does not, measure idle power."""
        try:
            for thread in self._threads:
                thread.start()
            _wait_until(lambda: all(meter.answered for meter in self._meters), SETTLE_S)
            if self._config.idle_s > 0:
                self._measure_idle()
        except BaseException:  # whatever it is, no thread may go on reading beside what comes next
            self._stop()
            raise
        return self

    def _measure_idle(self) -> None:
        for meter in self._meters:
            meter.idle_begins(perf_counter_ns())
        _wait_until(self._asked_to_stop, self._config.idle_s)
        for meter in self._meters:
            meter.idle_ends(perf_counter_ns())
        self.settle()

    def _asked_to_stop(self) -> bool:
        self._check()
        return False

    def __exit__(self, *_: object) -> None:
        """Wait for the last phases' readings, no longer than a moment, and stop reading."""
        self.settle()
        self._stop()

    def _stop(self) -> None:
        for thread, sampler, meter in zip(self._threads, self._samplers, self._meters, strict=True):
            thread.stop()
            sampler.digest()
            meter.give_up(thread.why_ended or "no reading came after it")
        self._table.close()

    @contextmanager
    def phase(self, phase: Phase, epoch: int) -> Iterator[None]:
        """Measure a phase; it stands outside the stage clock's, whose ends wait for the device."""
        self._phase = phase
        started_ns = perf_counter_ns()
        for meter in self._meters:
            meter.phase_begins(phase, epoch, started_ns)
        try:
            yield
        finally:
            ended_ns = perf_counter_ns()
            for meter in self._meters:
                meter.phase_ends(ended_ns)
            self._phase = None

    def charged(self, cell: Cell, start_ns: int, end_ns: int) -> None:
        """Take note of what the stage clock charged; see `StagePower.charged`."""
        if self._phase is not None:
            self._meters[0].power.charged(self._phase, cell, start_ns, end_ns)

    def settled(self) -> list[EnergyRow]:
        """Return the rows of phases whose last reading has come by now, each once; the newest usually comes later."""
        return [row for meter in self._meters for row in meter.take_settled()]

    def settle(self) -> None:
        """Wait for the readings after the last phase, no longer than a moment: a device may never answer."""
        _wait_until(lambda: not any(meter.waits() for meter in self._meters), SETTLE_S)

    def stage_energies(
        self, phase: Phase, exposed_s: Mapping[Cell, float], rows: Iterable[EnergyRow]
    ) -> tuple[StageEnergy, ...]:
        """Estimate what each stage of a phase cost on the first device.

        Args:
            phase: which.
            exposed_s: each cell's time in the phase, over the epochs of *rows*.
            rows: the energies of those epochs.

        """
        meter = self._meters[0]
        mine = [row for row in rows if row.phase == phase and row.device == meter.device]
        joules = total(Joules(row.energy_j, row.error_j, row.method, row.reason) for row in mine)
        return meter.stage_energies(phase, exposed_s, joules)

    @property
    def devices(self) -> list[str]:
        """Return the devices that are read."""
        return [meter.device for meter in self._meters]

    @property
    def device(self) -> str:
        """Return the device whose stages are charged."""
        return self._meters[0].device

    def idle_w(self) -> dict[str, float | None]:
        """Return each device's power before the run, where it is known."""
        return {meter.device: meter.idle_w() for meter in self._meters}

    def caveats(self) -> list[str]:
        """Return what a reader of every number must know; what concerns one phase only stands in its row."""
        said = [caveat for meter in self._meters for caveat in meter.caveats()]
        said += [
            f"{meter.device}: {thread.why_ended}"
            for meter, thread in zip(self._meters, self._threads, strict=True)
            if thread.why_ended
        ]
        return said + [text for text in (self._table.damage, self._table.why_broken) if text]


def _wait_until(done: Callable[[], bool], most_s: float) -> None:
    deadline_ns, pause = perf_counter_ns() + round(most_s * 1e9), Event()
    while not done() and perf_counter_ns() < deadline_ns:
        pause.wait(0.01)
