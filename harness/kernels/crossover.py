"""From which length on a linear kernel is faster than a softmax one: where the logarithm of their ratio is zero.

Between two measured lengths it is taken to be a straight line over the logarithm of the length, as for times that are
powers of it. Without torch.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

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
    above = [index for index, (_, ratio) in enumerate(points) if ratio > 1.0]
    if not above or above[-1] == len(points) - 1:
        return None
    (left, high), (right, low) = points[above[-1]], points[above[-1] + 1]
    share = math.log(high) / (math.log(high) - math.log(low))
    return float(left * (right / left) ** share)


def crossover(
    linear: str, softmax: str, dtype: str, direction: Direction, points: Sequence[Point], width: int
) -> Crossover:
    """Find the crossover and its interval: where the ends of the ratios' intervals cross."""
    tokens = crossing([(point.tokens, point.ratio.value) for point in points])
    bounded = [point for point in points if point.ratio.low > 0.0 and tokens is not None]
    low, high = (crossing([(point.tokens, getattr(point.ratio, end)) for point in bounded]) for end in ("low", "high"))
    return Crossover(
        linear=linear,
        softmax=softmax,
        dtype=dtype,
        direction=direction,
        tokens=tokens,
        low=low,
        high=high,
        analytic=analytic(width),
        note=_note(points, tokens),
    )


def _note(points: Sequence[Point], tokens: float | None) -> str:
    if tokens is not None:
        return ""
    first, last = points[0].tokens, points[-1].tokens
    faster = points[-1].ratio.value <= 1.0
    which = "linear is faster throughout" if faster else "softmax is faster at the longest"
    return f"none in range: {which}, {first} to {last}"
