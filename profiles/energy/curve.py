"""Joules between two moments, from a meter that tells them only now and then.

A curve of energy over time is known at knots: where the counter moved, or where power was sampled and its trapezoids
summed. Between knots it is taken for a straight line. A moment asked for is answered when the next knot has come, so
nothing is kept but the last knot and the moments that wait.
"""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from profiles.record import EnergyMethod


@dataclass
class Moment:
    """A moment whose energy is asked for: joules on the curve's own scale, and how far off they can be.

    `stretch` counts the curve's interruptions so far: a difference over an interruption means nothing.
    """

    at_ns: int
    energy_j: float | None = None
    within_j: float = 0.0
    variance_j2: float = 0.0
    stretch: int = 0
    reason: str = ""

    @property
    def settled(self) -> bool:
        """Whether there is an answer, if only that there is none."""
        return self.energy_j is not None or bool(self.reason)


class Joules(NamedTuple):
    """An amount of energy, give or take `error_j`, or the reason why it is not known."""

    energy_j: float | None
    error_j: float | None
    method: EnergyMethod | None
    reason: str = ""


def total(parts: Iterable[Joules]) -> Joules:
    """Add up; if a part is unknown, so is the sum.

    A phase's borders fall anywhere in the meter's period, so the errors of many add in squares.
    """
    known = list(parts)
    if not known:
        return Joules(None, None, None, "nothing was measured")
    lost = [part for part in known if part.energy_j is None]
    if lost:
        return Joules(None, None, None, f"{len(lost)} of {len(known)} stretches are unknown: {lost[0].reason}")
    error_j = math.sqrt(math.fsum((part.error_j or 0.0) ** 2 for part in known))
    methods = {part.method for part in known}
    method: EnergyMethod | None = "trapezoid" if "trapezoid" in methods else "counter"
    return Joules(math.fsum(part.energy_j or 0.0 for part in known), error_j, method)


class _Knot(NamedTuple):
    at_ns: int
    within_ns: int
    energy_j: float
    variance_j2: float


class EnergyCurve:
    """The energy of one device over time, by one method."""

    def __init__(self, method: EnergyMethod, longest_gap_ns: int | None = None) -> None:
        self.method = method
        self.why = "nothing was read"
        self._longest_gap_ns = longest_gap_ns
        self._last: _Knot | None = None
        self._last_w = 0.0
        self._stretch = 0
        self._waiting: deque[Moment] = deque()

    def ask(self, at_ns: int) -> Moment:
        """Ask for the energy at a moment, not before those asked for already; it settles when the next knot comes."""
        moment = Moment(at_ns)
        self._waiting.append(moment)
        return moment

    def counted(self, at_ns: int, within_ns: int, energy_j: float) -> None:
        """Add a knot: the counter moved to *energy_j*."""
        if self._last is not None and energy_j < self._last.energy_j:
            self.interrupt("the counter went back")
        self._add(_Knot(at_ns, within_ns, energy_j, 0.0))

    def sampled(self, at_ns: int, power_w: float) -> None:
        """Add a knot: the trapezoid from the last sample of power to this one.

        Its variance is that of a power which changes once between two samples, at any moment as likely.
        """
        last, last_w, self._last_w = self._last, self._last_w, power_w
        if last is not None and self._longest_gap_ns is not None and at_ns - last.at_ns > self._longest_gap_ns:
            self.interrupt(f"no power was read for {(at_ns - last.at_ns) / 1e9:.1f} s")
            last = None
        if last is None:
            self._add(_Knot(at_ns, 0, 0.0, 0.0))
            return
        span_s = (at_ns - last.at_ns) / 1e9
        energy_j = last.energy_j + (last_w + power_w) / 2 * span_s
        self._add(_Knot(at_ns, 0, energy_j, last.variance_j2 + ((power_w - last_w) * span_s) ** 2 / 12))

    def interrupt(self, why: str) -> None:
        """Start anew: what comes has nothing to do with what was."""
        self.why, self._last = why, None
        self._stretch += 1
        self.give_up(why)

    def give_up(self, why: str) -> None:
        """Answer every moment that waits: it is not known, and why."""
        self.why = why
        while self._waiting:
            self._waiting.popleft().reason = why

    def between(self, start: Moment, end: Moment) -> Joules:
        """Return the joules from one settled moment to another."""
        if start.energy_j is None or end.energy_j is None or start.stretch != end.stretch:
            return Joules(None, None, None, start.reason or end.reason or self.why)
        deviation_j = math.sqrt(max(end.variance_j2 - start.variance_j2, 0.0))
        error_j = start.within_j + end.within_j + 2 * deviation_j
        return Joules(end.energy_j - start.energy_j, error_j, self.method)

    def _add(self, knot: _Knot) -> None:
        while self._waiting and self._waiting[0].at_ns <= knot.at_ns:
            moment, before = self._waiting.popleft(), self._last or knot
            if moment.at_ns < before.at_ns:
                moment.reason = "it began before the first reading"
            else:
                self._answer(moment, before, knot)
        self._last = knot

    def _answer(self, moment: Moment, before: _Knot, after: _Knot) -> None:
        """Answer by a straight line.

        Energy never falls, so the truth lies between the knots: the farther one bounds the error. Where a knot's own
        time is not sharp, the bound widens by what flows in that time.
        """
        span_ns, rise_j = max(after.at_ns - before.at_ns, 1), after.energy_j - before.energy_j
        share = (moment.at_ns - before.at_ns) / span_ns
        blur = (before.within_ns + after.within_ns) / span_ns
        moment.energy_j = before.energy_j + share * rise_j
        moment.variance_j2 = before.variance_j2 + share * (after.variance_j2 - before.variance_j2)
        moment.stretch = self._stretch
        if self.method == "counter":
            moment.within_j = min(max(share, 1 - share) + blur, 1.0) * rise_j
