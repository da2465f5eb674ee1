"""What can be read of a device at one moment, and the seam between those who ask it and those who use the answers."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from profiles.record import PowerSource


class Reading(NamedTuple):
    """A device's answers, in the units and under the names of `TelemetryRow`; what is absent is unknown, never 0.

    `throttle` holds what slows the device down, and is empty where nothing does; `clock_set` says whether a clock that
    was set held the device's own down, when it was last neither idle nor throttled; `slowed_ns` counts for how long
    the device has been slowed down so far, and why, as far as it counts. `fresh` says that load, clock and
    throttling were asked for this reading and are no answers of an earlier one, `guarded` the same of limits, other
    processes, `slowed_ns` and what changes slowly. `why` says, per column, why it is unknown; a column that is absent
    from both was not asked this time.
    """

    energy_j: float | None = None
    power_w: float | None = None
    power_source: PowerSource | None = None
    utilization_pct: float | None = None
    memory_bytes: int | None = None
    temperature_c: float | None = None
    sm_clock_mhz: float | None = None
    memory_clock_mhz: float | None = None
    throttle: tuple[str, ...] | None = None
    power_limit_w: float | None = None
    clock_limit_mhz: float | None = None
    pcie_rx_bytes_per_s: float | None = None
    pcie_tx_bytes_per_s: float | None = None
    foreign_processes: int | None = None
    clock_set: bool | None = None
    slowed_ns: Mapping[str, int] | None = None
    fresh: bool = True
    guarded: bool = True
    why: Mapping[str, str] = {}


class Source(Protocol):
    """A device that can be asked; whatever it is asked, it answers or says why not, and raises nothing."""

    name: str

    def read(self, now_ns: int) -> Reading:
        """Ask everything; what is slow to answer only now and then."""

    def read_meter(self) -> Reading:
        """Ask quickly for what tells energy, and nothing else: the counter, or where there is none the power."""
