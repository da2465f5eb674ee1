"""What makes a phase's numbers doubtful: others on the device, throttling, a limit that changed in the middle.

It is asked once a second, or, as limits, others on the device and how long it was slowed down, every two. What changes
does so between two readings, so it is told of each phase that one of the two lies in, and of the phases between them.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from profiles.energy.readings import Reading

CHANGES = 8
"""Changes of a limit that are told one by one; more are only counted."""

STALE_NS = 2_000_000_000
"""A reading older than this stands for nothing: the device has been silent since."""


class Standing:
    """The last reading, which stands until the next, and the limits that were told last."""

    def __init__(self) -> None:
        self._reading: Reading | None = None
        self._at_ns = 0
        self._power_w: float | None = None
        self._clock_mhz: float | None = None
        self._clock_set: bool | None = None

    def at(self, now_ns: int) -> Reading | None:
        """Return the last reading, if it still stands."""
        return self._reading if now_ns - self._at_ns <= STALE_NS else None

    def changes(self, now_ns: int, reading: Reading) -> list[str]:
        """Take note of a reading; return which limits changed since the last one that told."""
        self._reading, self._at_ns = reading, now_ns
        told = []
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
    """What was met during one phase, and what the first reading after it adds.

    Args:
        before: what stood when it began, where something did.
        changes: limits that changed since the phase before.

    """

    def __init__(self, before: Reading | None, changes: Sequence[str]) -> None:
        self._before = before
        self._met = False
        self._readings = 0  # of what slows the device
        self._throttles: Counter[str] = Counter()
        self._slowed_ns: Mapping[str, int] = {}
        self._slowed: set[str] = set()
        self._foreign = 0
        self._foreign_after = 0
        self._utilizations = 0
        self._utilization_pct = 0.0
        self._changes: list[str] = []
        self._more_changes = 0
        self._why: dict[str, str] = {}
        self._tell(changes)

    def add(self, reading: Reading, changes: Sequence[str]) -> None:
        """Count a reading during the phase."""
        self._met = True
        if reading.throttle is not None:
            self._readings += 1
            self._throttles.update(reading.throttle)
        if reading.slowed_ns is not None:
            before_ns, self._slowed_ns = self._slowed_ns, reading.slowed_ns
            self._slowed |= {why for why, ns in self._slowed_ns.items() if ns > before_ns.get(why, ns)}
        self._foreign = max(self._foreign, reading.foreign_processes or 0)
        if reading.utilization_pct is not None:
            self._utilizations += 1
            self._utilization_pct += reading.utilization_pct
        self._tell(changes)
        self._why |= reading.why

    def end(self) -> None:
        """End the phase: where it had no reading, what stood when it began is all that is known of it."""
        if not self._met and self._before is not None:
            self.add(self._before, [])

    def follow(self, reading: Reading, changes: Sequence[str]) -> None:
        """Count the first reading after the phase: what it finds changed may have changed before the end."""
        self._foreign_after = reading.foreign_processes or 0
        self._tell([f"{change} around its end" for change in changes])

    def utilization_pct(self) -> float | None:
        """Return the mean utilisation, where it was told."""
        return self._utilization_pct / self._utilizations if self._utilizations else None

    def caveats(self) -> list[str]:
        """Return what a reader must know before believing the phase's numbers."""
        said = [
            f"throttled ({reason}) in {count} of {self._readings} readings"
            for reason, count in sorted(self._throttles.items())
        ]
        said += [f"slowed ({why}) between readings" for why in sorted(self._slowed) if not self._seen(why)]
        said += self._strangers()
        said += self._changes
        if self._more_changes:
            said.append(f"and {self._more_changes} more changes of a limit")
        unguarded = {name: self._why[name] for name in ("throttle", "foreign_processes") if name in self._why}
        return said + [f"not guarded against: {name.replace('_', ' ')} ({why})" for name, why in unguarded.items()]

    def _tell(self, changes: Sequence[str]) -> None:
        kept = changes[: CHANGES - len(self._changes)]
        self._changes += kept
        self._more_changes += len(changes) - len(kept)

    def _seen(self, why: str) -> bool:
        """Whether a reading met what the board counts under *why*, such as `thermal_hardware` under `thermal`."""
        return any(reason.startswith(why) for reason in self._throttles)

    def _strangers(self) -> list[str]:
        before = self._before.foreign_processes if self._before is not None else None
        around = {" around its beginning": before, " around its end": self._foreign_after}
        found = {"": self._foreign} if self._foreign else around
        return [f"{count} foreign process(es) on the device{when}" for when, count in found.items() if count]
