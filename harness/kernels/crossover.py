"""From which length on a linear kernel is faster than a softmax one: where the logarithm of their ratio is zero.

Between two measured lengths it is taken to be a straight line over the logarithm of the length, as for times that are
powers of it. Without torch.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from profiles.kernels import Crossover, Direction
from profiles.ratio import Ratio


class Point(NamedTuple):
    """How many times as long the linear kernel takes as the softmax one at a length."""

    tokens: int
    ratio: Ratio


def analytic(width: int) -> float:
    """Return where both do the same multiplications: 2·T·T·E of softmax, 2·T·E·E + T·E of linear attention."""
    return width + 0.5


def crossing(points: Sequence[tuple[int, float]]) -> float | None:
    """Return the first length from which on the ratio stays at or below 1 in all that was measured, or nothing.

    Nothing also where it is below 1 from the first length on: it crosses somewhere below, out of range.
    """
    before = _last_above([ratio for _, ratio in points])
    if before is None:
        return None
    (left, high), (right, low) = points[before : before + 2]
    share = math.log(high) / (math.log(high) - math.log(low))
    return float(left * (right / left) ** share)


def _last_above(ratios: Sequence[float]) -> int | None:
    """Return the place of the last ratio above 1; nothing where it is the last of all, or none is."""
    above = [index for index, ratio in enumerate(ratios) if ratio > 1.0]
    return above[-1] if above and above[-1] < len(ratios) - 1 else None


def _crossing_of(points: Sequence[Point], end: Literal["value", "low", "high"]) -> tuple[float | None, bool]:
    """Return where an *end* of the ratios crosses, and whether the ratios on both sides have an interval.

    A ratio that has none stands in with its value.
    """
    ratios = [getattr(point.ratio, end) if point.ratio.low > 0.0 else point.ratio.value for point in points]
    before = _last_above(ratios)
    sides = points[before : before + 2] if before is not None else ()
    crossed = crossing([(point.tokens, ratio) for point, ratio in zip(points, ratios, strict=True)])
    return crossed, all(point.ratio.low > 0.0 for point in sides)


def crossover(
    linear: str, softmax: str, dtype: str, direction: Direction, points: Sequence[Point], width: int
) -> Crossover:
    """Find the crossover and its interval: where the ends of the ratios' intervals cross.

    Where a ratio beside the crossover, or beside an end, has no interval, nothing bounds that end. An end can be in
    range where the crossover is not: ratios of 0.98 [0.95, 1.02] and 0.8 [0.7, 0.9] bound it from above alone.
    """
    tokens, bounded = _crossing_of(points, "value")
    (low, low_bounded), (high, high_bounded) = _crossing_of(points, "low"), _crossing_of(points, "high")
    return Crossover(
        linear=linear,
        softmax=softmax,
        dtype=dtype,
        direction=direction,
        tokens=tokens,
        low=low if bounded and low_bounded else None,
        high=high if bounded and high_bounded else None,
        analytic=analytic(width),
        note=_note(points, tokens),
    )


def _note(points: Sequence[Point], tokens: float | None) -> str:
    """Say why there is no crossover; where the interval of a length that decides holds 1, that is why."""
    if tokens is not None:
        return ""
    first, last = points[0], points[-1]
    faster = last.ratio.value <= 1.0
    ends = {first.tokens: "the shortest length", last.tokens: "the longest length"}
    doubted = [
        ends.get(point.tokens, f"{point.tokens} tokens")
        for point in (points if faster else points[-1:])
        if 0.0 < point.ratio.low <= 1.0 <= point.ratio.high
    ]
    if doubted:
        which = f"not told apart from 1 at {', '.join(doubted)}"
    else:
        which = "linear is faster throughout" if faster else "softmax is faster at the longest"
    return f"none in range: {which}, {first.tokens} to {last.tokens}"
