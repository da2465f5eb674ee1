"""What makes a phase's numbers doubtful: others on the device, throttling, a limit that changed in the middle."""

from collections import Counter

from profiles.energy.readings import Reading

CHANGES = 8
"""Changes of a limit that are told one by one; more are only counted."""


class Standing:
    """What is asked only now and then, and stands until then: what slows the device, its limits, who else is on it."""

    def __init__(self) -> None:
        self.foreign = 0
        self.throttle: tuple[str, ...] | None = None
        self._power_w: float | None = None
        self._clock_mhz: float | None = None
        self._clock_set: bool | None = None

    def changes(self, reading: Reading) -> list[str]:
        """Take note of a reading; return which limits changed since the last one that told."""
        told = []
        if reading.fresh:
            self.throttle = reading.throttle
        if reading.foreign_processes is not None:
            self.foreign = reading.foreign_processes
        if reading.power_limit_w is not None:
            if self._power_w not in {None, reading.power_limit_w}:
                told.append(f"power limit changed from {self._power_w:g} W to {reading.power_limit_w:g} W")
            self._power_w = reading.power_limit_w
        if reading.clock_limit_mhz is not None:
            if self._clock_mhz not in {None, reading.clock_limit_mhz}:
                told.append(f"clock limit changed from {self._clock_mhz:g} MHz to {reading.clock_limit_mhz:g} MHz")
            self._clock_mhz = reading.clock_limit_mhz
        if reading.clock_set is not None:
            if self._clock_set not in {None, reading.clock_set}:
                told.append(f"clock limit changed: a set clock {'holds' if reading.clock_set else 'no longer holds'}")
            self._clock_set = reading.clock_set
        return told


class Tally:
    """What was met during one phase; between phases, during none.

    Args:
        standing: what stood when it began.

    """

    def __init__(self, standing: Standing) -> None:
        self._readings = int(standing.throttle is not None)  # of what slows the device
        self._throttles = Counter(standing.throttle or ())
        self._foreign = standing.foreign
        self._utilizations = 0
        self._utilization_pct = 0.0
        self._changes: list[str] = []
        self._more_changes = 0
        self._why: dict[str, str] = {}

    def add(self, reading: Reading, changes: list[str]) -> None:
        """Count one sample."""
        if reading.fresh and reading.throttle is not None:
            self._readings += 1
            self._throttles.update(reading.throttle)
        self._foreign = max(self._foreign, reading.foreign_processes or 0)
        if reading.utilization_pct is not None:
            self._utilizations += 1
            self._utilization_pct += reading.utilization_pct
        kept = changes[: CHANGES - len(self._changes)]
        self._changes += kept
        self._more_changes += len(changes) - len(kept)
        self._why |= reading.why

    def utilization_pct(self) -> float | None:
        """Return the mean utilisation, where it was told."""
        return self._utilization_pct / self._utilizations if self._utilizations else None

    def caveats(self) -> list[str]:
        """Return what a reader must know before believing the phase's numbers."""
        said = [
            f"throttled ({reason}) in {count} of {self._readings} readings"
            for reason, count in sorted(self._throttles.items())
        ]
        if self._foreign:
            said.append(f"{self._foreign} foreign process(es) on the device")
        said += self._changes
        if self._more_changes:
            said.append(f"and {self._more_changes} more changes of a limit")
        unguarded = {name: self._why[name] for name in ("throttle", "foreign_processes") if name in self._why}
        return said + [f"not guarded against: {name.replace('_', ' ')} ({why})" for name, why in unguarded.items()]
