"""How many times as long one thing takes as another, on a machine that is never quiet.

What is compared takes turns, in an order drawn anew for every round, so that a slow second is slow for all. Each round
gives one ratio; their median does not mind a round that was disturbed, and its interval assumes nothing about how the
ratios are distributed: it lies between two of them, chosen by the binomial distribution as in a sign test. Two lists of
times that did not take turns are compared pair by pair instead (Hodges & Lehmann 1963), with the interval that belongs
to the rank sum test (Mann & Whitney 1947).
"""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from statistics import NormalDist, median
from time import perf_counter_ns
from typing import Literal, NamedTuple

import numpy as np

CONFIDENCE = 0.95

Timed = Callable[[], int]
"""Does its work once and returns how long that took, in nanoseconds."""


class Ratio(NamedTuple):
    """Times of one thing as multiples of another's, and where that number lies by the confidence asked for.

    The interval is from 0 to infinity where the samples are too few for any, as fewer than six rounds are for 95 %.
    `samples` counts rounds, or pairs of times that did not take turns.
    """

    value: float
    low: float
    high: float
    samples: int

    @property
    def half_width(self) -> float:
        """How far the ends are from the middle, as a part of the ratio: 0.02 is give or take 2 %."""
        return math.inf if self.low == 0.0 else math.sqrt(self.high / self.low) - 1.0

    @property
    def ends(self) -> tuple[float, float] | tuple[None, None]:
        """The interval, or none where the samples are too few."""
        return (None, None) if math.isinf(self.low) or math.isinf(self.high) else (self.low, self.high)


class Rounds(NamedTuple):
    """What was timed, by name; the n-th times of all names are of one round."""

    times_ns: dict[str, list[int]]
    ended_by: Literal["precision", "time"]

    def ratio(self, name: str, baseline: str, confidence: float = CONFIDENCE) -> Ratio:
        """Return how many times as long *name* takes as *baseline*."""
        return paired_ratio(self.times_ns[name], self.times_ns[baseline], confidence)


def timed(work: Callable[[], object], clock_ns: Callable[[], int] = perf_counter_ns) -> Timed:
    """Time a *work* by a clock; it has to wait for what it starts elsewhere, as on a GPU."""

    def run() -> int:
        started_ns = clock_ns()
        work()
        return clock_ns() - started_ns

    return run


def interleave(
    works: Mapping[str, Timed],
    *,
    precision: float,
    limit_s: float,
    least_rounds: int = 7,
    warmups: int = 1,
    confidence: float = CONFIDENCE,
    order: random.Random | None = None,
    clock_ns: Callable[[], int] = perf_counter_ns,
) -> Rounds:
    """Let *works* take turns until every ratio to the first one's time is known well enough, or time is up.

    Args:
        works: two or more; the first is the baseline.
        precision: the largest half width of a ratio's interval, as a part of it.
        limit_s: the time, that of warm-ups included, after which no round begins; one round there is always.
        least_rounds: as many as there are at least, unless time is up.
        warmups: rounds before the first, not kept.
        confidence: of the intervals.
        order: draws the order within each round; a fixed seed unless told otherwise.
        clock_ns: what *limit_s* is measured by.

    """
    order = order or random.Random(0)  # noqa: S311 - no secret
    end_ns = clock_ns() + round(limit_s * 1e9)
    names = list(works)
    for _ in range(warmups):
        _take_turns(works, order.sample(names, len(names)))
    times_ns: dict[str, list[int]] = {name: [] for name in names}
    look = least_rounds
    for rounds in count(1):
        for name, time_ns in _take_turns(works, order.sample(names, len(names))):
            times_ns[name].append(time_ns)
        if rounds == look:
            if _widest(times_ns, confidence) <= precision:
                return Rounds(times_ns, "precision")
            look += 1 + rounds // 10  # who looks after every round finds luck
        if clock_ns() >= end_ns:
            break
    return Rounds(times_ns, "time")


def _take_turns(works: Mapping[str, Timed], names: Sequence[str]) -> list[tuple[str, int]]:
    return [(name, works[name]()) for name in names]


def _widest(times_ns: dict[str, list[int]], confidence: float) -> float:
    baseline_ns, *others_ns = times_ns.values()
    return max(paired_ratio(other_ns, baseline_ns, confidence).half_width for other_ns in others_ns)


def paired_ratio(times: Sequence[float], baseline: Sequence[float], confidence: float = CONFIDENCE) -> Ratio:
    """Return the median ratio of *times* to those of *baseline* in the same rounds, with its interval."""
    logs = sorted(math.log(time / base) for time, base in zip(times, baseline, strict=True))
    return _between(median(logs), logs, _sign_rank(len(logs), confidence), len(logs))


def ratio_of_samples(times: Sequence[float], baseline: Sequence[float], confidence: float = CONFIDENCE) -> Ratio:
    """Return the ratio of *times* to *baseline*, which were not measured in turns and may differ in number.

    It is the median over all pairs of one time from each. What changed between the two measurements besides the thing
    compared, as another machine's load, is in the ratio and not in its interval.
    """
    logs = np.sort(np.subtract.outer(np.log(times), np.log(baseline)), axis=None).tolist()
    return _between(median(logs), logs, _rank_sum_rank(len(times), len(baseline), confidence), len(logs))


def _between(middle: float, logs: list[float], rank: int, samples: int) -> Ratio:
    """Make a ratio of sorted logarithms; its interval goes from the *rank*-th smallest to the *rank*-th largest."""
    if rank < 1:
        return Ratio(math.exp(middle), 0.0, math.inf, samples)
    return Ratio(math.exp(middle), math.exp(logs[rank - 1]), math.exp(logs[-rank]), samples)


def _sign_rank(size: int, confidence: float) -> int:
    """Return the largest rank of a sample that the median is below with probability (1 - confidence) / 2 at most."""
    tail, rank = 0.0, 0
    all_ways = math.lgamma(size + 1) - size * math.log(2)
    while rank < size:
        tail += math.exp(all_ways - math.lgamma(rank + 1) - math.lgamma(size - rank + 1))
        if tail > (1 - confidence) / 2:
            break
        rank += 1
    return rank


def _rank_sum_rank(size: int, baseline_size: int, confidence: float) -> int:
    """Return the rank of the pair where the interval begins, by the normal approximation, which is never too narrow."""
    pairs = size * baseline_size
    spread = math.sqrt(pairs * (size + baseline_size + 1) / 12)
    return math.floor(pairs / 2 - NormalDist().inv_cdf((1 + confidence) / 2) * spread)
