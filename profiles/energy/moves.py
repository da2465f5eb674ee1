"""When a meter moves: its update period is found by watching it, never assumed.

A driver's energy counter stands still and jumps, on many boards every 100 ms or so. A look at it tells the energy of
the last jump, not of the moment of looking; so what is wanted is the moment of the jump. It lies between two looks, and
a few looks around the moment at which it is due, no more, make that a matter of milliseconds. As each look makes the
training let go of the interpreter for a moment, only one jump in five is looked for.
"""

from statistics import fmean, median
from typing import NamedTuple

LOOK_NS = 5_000_000
"""Between two looks when a jump is due."""

EVERY = 5
"""Of so many jumps one is looked for."""

NEEDED = 9
"""Jumps seen before the period is believed."""

LOST_NS = 2_000_000_000
"""A meter that has not moved for so long is looked at no more often than everything else."""


class Move(NamedTuple):
    """A meter's new value, which it took at `at_ns`, give or take `within_ns`."""

    at_ns: int
    within_ns: int
    value: float

    @property
    def sharp(self) -> bool:
        """Whether its moment is as well known as looking for it makes it."""
        return self.within_ns <= LOOK_NS


class MeterWatch:
    """Looks at a meter and says when it moved and when to look again.

    A meter that moves at almost every look is `fluent`: its value is that of the moment of looking, or a little older.
    """

    def __init__(self) -> None:
        self.period_ns: int | None = None
        self.fluent = False
        self._value: float | None = None
        self._looked_ns = 0
        self._still_since_ns = 0
        self._move: Move | None = None  # the last one whose moment is sharp
        self._gaps_ns: list[int] = []

    def look(self, now_ns: int, value: float) -> Move | None:
        """Take note of *value*, read at *now_ns*; return the move since the last look, if any."""
        before, looked_ns = self._value, self._looked_ns
        self._value, self._looked_ns = value, now_ns
        if before is None:
            self._still_since_ns = now_ns
        if before is None or value == before:
            return None
        self._still_since_ns = now_ns
        if self.fluent:
            return Move(now_ns, self.period_ns or 0, value)
        move = Move((looked_ns + now_ns) // 2, (now_ns - looked_ns + 1) // 2, value)
        if self._move is not None and self._move.sharp and move.sharp:
            self._learn(move.at_ns - self._move.at_ns)
        if self._move is None or move.sharp or move.at_ns - self._move.at_ns > 2 * EVERY * (self.period_ns or 0):
            self._move = move
        return move

    def next_look_ns(self) -> int | None:
        """Return when to look again because the meter may move; nothing where there is no need to."""
        if self.fluent or self._value is None or self._looked_ns - self._still_since_ns > LOST_NS:
            return None
        if self._move is None or self.period_ns is None:
            return self._looked_ns + LOOK_NS
        due_ns = self._move.at_ns - self._move.within_ns + EVERY * self.period_ns - LOOK_NS // 4
        return max(due_ns, self._looked_ns + LOOK_NS)

    def missed(self) -> None:
        """Forget what the meter showed last: it did not answer, and may have moved in between."""
        self._value = None

    def _learn(self, gap_ns: int) -> None:
        """Find the period from the first jumps, and follow it slowly from then on."""
        if self.period_ns is None:
            self._gaps_ns.append(gap_ns)
            if len(self._gaps_ns) == NEEDED - 1:
                middle_ns = median(self._gaps_ns)
                near_ns = [gap_ns for gap_ns in self._gaps_ns if abs(gap_ns - middle_ns) < middle_ns / 4]
                self.period_ns = round(fmean(near_ns or [middle_ns]))
                self.fluent = self.period_ns < 4 * LOOK_NS
        elif abs(gap_ns - EVERY * self.period_ns) < self.period_ns // 4:
            self.period_ns += (gap_ns // EVERY - self.period_ns) // 16
