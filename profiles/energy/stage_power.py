"""What ran between two movements of a meter: the sums from which `split` estimates energy per stage.

In each interval the meter tells one energy, and the stage clock how long each cell (stage, direction) ran. Of the many
intervals of days only sums of products are kept, so memory does not grow.

Shapes: N charges, C cells, L lags, B blocks of time; an A is C + 1, the cells and then the meter.
"""

from array import array
from collections import defaultdict, deque
from threading import Lock
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from profiles.record import Direction, Phase

Cell = tuple[str, Direction]
"""A stage and its direction; the stage clock's own `Cell` is one."""

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

CELLS = 26
"""Cells of a phase at most: twelve stages and the remainder, in two directions."""

BLOCKS = 32
FIRST_BLOCK = 4
"""Intervals of a block of time, before any are merged."""

STEPS = 20
LAGS = STEPS + 2
"""A meter is tried to lag behind the device by so many twentieths of its period: from -1, as a moment in which it moved
is known no better, to all of it."""

PENDING = 1 << 14
"""Intervals that wait for charges; should more come, the oldest are left out."""

CHARGES = 1 << 18
"""Charges that wait for intervals; should more come, because the meter is silent, they are left out."""


class Interval(NamedTuple):
    """What the meter told of a stretch of time whose ends are known within `within_ns`."""

    start_ns: int
    end_ns: int
    energy_j: float
    within_ns: int


class PhaseSums:
    """The sums of products that least squares needs, for each lag and block of time; of a fixed size for ever.

    When all blocks are full, neighbours are added up and a block is twice as long from then on.
    """

    def __init__(self) -> None:
        self.products_blaa = np.zeros((BLOCKS, LAGS, CELLS + 1, CELLS + 1))
        self.blur_c = np.zeros(CELLS)
        self.intervals = 0
        self._block = self._filled = 0
        self._length = FIRST_BLOCK

    def add(self, both_la: Floats, first: int, last: int, within_s: float) -> None:
        """Add one interval: the cells' seconds at each lag and its energy; the cells at its two ends."""
        self.products_blaa[self._block] += both_la[:, :, None] * both_la[:, None, :]
        np.add.at(self.blur_c, [first, last], within_s**2 / 3)  # the variance of a moment anywhere within
        self.intervals += 1
        self._filled += 1
        if self._filled == self._length:
            self._block, self._filled = self._block + 1, 0
        if self._block == BLOCKS:
            self._merge()

    def blocks(self) -> Floats:
        """Return the products of the blocks that are full."""
        return self.products_blaa[: self._block]

    def _merge(self) -> None:
        self.products_blaa[: BLOCKS // 2] = self.products_blaa[0::2] + self.products_blaa[1::2]
        self.products_blaa[BLOCKS // 2 :] = 0
        self._block, self._length = BLOCKS // 2, 2 * self._length


class StagePower:
    """Watches what ran while a meter moved.

    The training calls `charged`, which must cost nothing; the sampling thread calls `observe` and `settle`.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._buffer = array("q")
        self._places: dict[tuple[Phase, Cell], int] = {}
        self._phases: dict[Phase, int] = {}
        self._charges_n3: Integers = np.empty((0, 3), np.int64)
        self._pending: deque[Interval] = deque(maxlen=PENDING)
        self._told_ns = 0
        self._lags_l: Integers | None = None
        self._sums: defaultdict[int, PhaseSums] = defaultdict(PhaseSums)

    def charged(self, phase: Phase, cell: Cell, start_ns: int, end_ns: int) -> None:
        """Note that *cell* was current from one moment to another; contiguous within a phase, in order."""
        place = self._places.get((phase, cell))
        if place is None:
            place = self._new_place(phase, cell)
        with self._lock:
            if len(self._buffer) < 3 * CHARGES:
                self._buffer.extend((place, start_ns, end_ns))

    def observe(self, interval: Interval, period_ns: int) -> None:
        """Note what the meter told of *interval*; its first period fixes the lags that are tried."""
        if self._lags_l is None:
            self._lags_l = np.arange(-1, LAGS - 1) * (period_ns // STEPS)
        self._pending.append(interval)
        self._told_ns = interval.end_ns

    def settle(self) -> None:
        """Join intervals and charges, as far as both have come."""
        with self._lock:
            fresh, self._buffer = self._buffer, array("q")
        if fresh:
            fresh_n3 = np.frombuffer(fresh, np.int64).reshape(-1, 3)
            waiting_n3 = self._charges_n3 if self._lags_l is not None else fresh_n3[:0]  # for intervals, if any came
            self._charges_n3 = np.concatenate((waiting_n3, fresh_n3))[-CHARGES:]
        if self._lags_l is None or not len(self._charges_n3):
            return
        while self._pending and self._pending[0].end_ns - self._lags_l[0] <= self._charges_n3[-1, 2]:
            self._join(self._pending.popleft(), self._lags_l)
        oldest_ns = self._pending[0].start_ns if self._pending else self._told_ns  # where the next one starts
        keep = int(np.searchsorted(self._charges_n3[:, 2], oldest_ns - self._lags_l[-1]))
        self._charges_n3 = self._charges_n3[max(keep - 1, 0) :]

    def sums(self, phase: Phase) -> PhaseSums | None:
        """Return the sums of *phase*, if any interval of it was joined."""
        return self._sums.get(self._phases.get(phase, -1))

    def column(self, phase: Phase, cell: Cell) -> int | None:
        """Return which column of the phase's sums is *cell*'s, if it ever ran."""
        place = self._places.get((phase, cell))
        return None if place is None else place % CELLS

    def _new_place(self, phase: Phase, cell: Cell) -> int:
        """Return the number of a cell not met before; those of one phase follow one another."""
        at = self._phases.setdefault(phase, len(self._phases))
        within = sum(known == phase for known, _ in self._places)
        assert within < CELLS  # noqa: S101 - twice the stages and the remainder are fewer
        self._places[phase, cell] = at * CELLS + within
        return self._places[phase, cell]

    def _join(self, interval: Interval, lags_l: Integers) -> None:
        """Add one interval to its phase, if at every lag the charges fill it and are of one phase."""
        places_n, starts_n, ends_n = self._charges_n3.T
        first = int(np.searchsorted(ends_n, interval.start_ns - lags_l[-1], "right"))
        last = int(np.searchsorted(starts_n, interval.end_ns - lags_l[0], "left"))
        if first >= last or places_n[first] // CELLS != places_n[last - 1] // CELLS:
            return
        window = slice(first, last)
        cells_n = places_n[window] % CELLS
        borders_2l = np.stack((interval.start_ns - lags_l, interval.end_ns - lags_l))
        both_la = _between(borders_2l, cells_n, starts_n[window], ends_n[window])
        if (both_la.sum(axis=1) != interval.end_ns - interval.start_ns).any():
            return
        both_la /= 1e9
        both_la[:, CELLS] = interval.energy_j
        from_ns, to_ns = borders_2l[:, 1]  # without any lag
        begun = int(cells_n[np.searchsorted(ends_n[window], from_ns, "right")])
        ended = int(cells_n[np.searchsorted(starts_n[window], to_ns, "left") - 1])
        self._sums[int(places_n[first]) // CELLS].add(both_la, begun, ended, interval.within_ns / 1e9)


def _between(borders_2l: Integers, cells_n: Integers, starts_n: Integers, ends_n: Integers) -> Floats:
    """Return for how many nanoseconds each cell ran between two borders, for each pair of them.

    Charges that ended are summed up to each border; of one that a border cuts, the part before it is added.
    """
    ended_2l = np.searchsorted(ends_n, borders_2l, "right")
    borders_n = np.zeros(len(cells_n) + 1, np.int64)  # how many differing ones lie before each charge's end
    borders_n[ended_2l] = 1
    borders_n = borders_n.cumsum()
    slots_n = borders_n[:-1] * (CELLS + 1) + cells_n
    summed = np.bincount(slots_n, ends_n - starts_n, (borders_n[-1] + 1) * (CELLS + 1))
    before_2la = summed.reshape(-1, CELLS + 1).cumsum(axis=0)[borders_n[ended_2l] - 1]
    cut_2l = np.minimum(ended_2l, len(cells_n) - 1)
    part_2l = np.where(ended_2l < len(cells_n), np.maximum(borders_2l - starts_n[cut_2l], 0), 0)
    before_2la[np.arange(2)[:, None], np.arange(borders_2l.shape[1]), cells_n[cut_2l]] += part_2l
    both_la: Floats = before_2la[1] - before_2la[0]
    return both_la
