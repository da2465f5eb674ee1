"""From the thesis's step to the fast one's, part by part: in what order, how sure that is, and what each takes off."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import fmean, median

from harness.cells import Cell
from profiles.ratio import CONFIDENCE, paired_ratio
from profiles.turns import Measured
from profiles.whatif import FallRow


def ordered(measured: Measured, names: Sequence[str]) -> list[str]:
    """Return the names whose exchange alone saves the most first."""
    return sorted(names, key=lambda name: measured.ratios[name].value)


def unresolved(measured: Measured, order: Sequence[str]) -> dict[str, str]:
    """Say of each but the first, as far as it is so, that the rounds do not tell whether it belongs after the last."""
    doubts = {}
    for before, name in pairwise(order):
        low, _ = paired_ratio(measured.times_ns[name], measured.times_ns[before], CONFIDENCE).ends
        if low is None or low <= 1:
            doubts[name] = f"order not resolved: alone its gain is not told from that of {before}, exchanged before it"
    return doubts


def falls(cell: Cell, measured: Measured, doubts: Mapping[str, str]) -> list[FallRow]:
    """Return the waterfall through steps in the order in which they were given; its gains sum exactly to the whole.

    *doubts* are about places in that order, by part.

    A step is the geometric mean over rounds of its time by the whole step's, so that steps divided by each other are
    the ratios to the step before, and gains are differences of steps. Whole rounds are trimmed, which keeps that so: a
    fifth of them, those whose ratios are the furthest from their medians. Intervals are of medians, by
    sign tests over all rounds' own ratios and differences, wide enough to hold the value printed.
    """
    names = list(measured.times_ns)
    logs = [[math.log(times[0] / time) for time in times] for times in zip(*measured.times_ns.values(), strict=True)]
    kept = _undisturbed(logs)
    steps = [math.exp(-fmean(logs[place] for logs in kept)) for place in range(len(names))]
    rows = [_fall(cell, measured, names, steps, place) for place in range(1, len(names))]
    return [row._replace(reading=doubts.get(row.part, "")) for row in rows]


def _undisturbed(rounds: list[list[float]]) -> list[list[float]]:
    """Leave out the fifth of rounds that are the furthest from the medians."""
    middles = [median(values) for values in zip(*rounds, strict=True)]

    def distance(values: list[float]) -> float:
        distances: list[float] = [abs(value - middle) for value, middle in zip(values, middles, strict=True)]
        return max(distances)

    return sorted(rounds, key=distance)[: len(rounds) - len(rounds) // 5]


def _fall(cell: Cell, measured: Measured, names: list[str], steps: list[float], place: int) -> FallRow:
    part, before = names[place], names[place - 1]
    by_previous = paired_ratio(measured.times_ns[part], measured.times_ns[before], CONFIDENCE)
    step, previous = steps[place], steps[place - 1]
    off = [
        (earlier - later) / whole
        for whole, earlier, later in zip(*(measured.times_ns[name] for name in (names[0], before, part)), strict=True)
    ]
    as_ratio = paired_ratio([math.exp(share) for share in off], [1.0] * len(off), CONFIDENCE)
    ends = [None if end is None else math.log(end) for end in as_ratio.ends]
    return FallRow(
        cell.category,
        cell.model,
        place,
        part,
        step,
        previous - step,
        step / previous,
        *_holding(step / previous, *by_previous.ends),
        by_previous.samples,
        *_holding(previous - step, *ends),
    )


def _holding(value: float, low: float | None, high: float | None) -> tuple[float | None, float | None]:
    """Widen an interval as far as its value, if there is one."""
    return (None, None) if low is None or high is None else (min(low, value), max(high, value))
