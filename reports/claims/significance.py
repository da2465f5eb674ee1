"""Tests over categories: how large an effect is, within which interval, and how likely it would be by chance.

Every test is two-sided. *Effects* are one number per category; what they are is the claim's business.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from reports.words.format import count

LEVEL = 0.05

_MOST_EXACT = 15
_SEED = 20221101
_RESAMPLES = 9_999
_FEWEST_TREND = 4

UNVARIED = "the categories do not differ"
"""Why there is nothing to test where every effect is the same."""

Effects = dict[str, float]
"""A number for each category that has one."""


@dataclass(frozen=True)
class Outcome:
    """An effect over *n* categories, its 95 % interval and the chance of one as far from `null`, as far as there are.

    `reachable` is the smallest p that so many categories could give. Of an equivalence test `p` is the chance of
    effects so close to `null` if the truth lay beyond its margin, `p_beyond` that of effects so far off if it lay
    within. `why` says what kept it from being tested, where something did.
    """

    effect: float | None
    low: float | None
    high: float | None
    p: float | None
    n: int
    null: float
    reachable: float
    p_beyond: float | None = None
    why: str = ""


class Test(Protocol):
    """One way to test effects; `each` says that every category shows a claim or does not."""

    each: ClassVar[bool]

    @property
    def words(self) -> str:
        """Its name, for the reader."""
        ...

    def outcome(self, effects: Effects) -> Outcome:
        """Return what *effects* show."""
        ...


@dataclass(frozen=True)
class Paired:
    """Whether the effects lie around zero: their signs are flipped in every way; beyond 15, Wilcoxon's ranks."""

    each: ClassVar[bool] = True

    @property
    def words(self) -> str:
        """Its name, for the reader."""
        return "exact sign-flip permutation of the mean (beyond 15 categories Wilcoxon signed-rank)"

    def outcome(self, effects: Effects) -> Outcome:
        """Return the mean effect. Without a difference anywhere there is nothing to test."""
        values = np.array(list(effects.values()))
        n = len(values)
        if n == 0:
            return _nothing(n, 0.0)
        mean, reachable = float(values.mean()), _least_of_signs(n)
        if n < 2:  # noqa: PLR2004 - one value has no chance to vary
            return Outcome(mean, None, None, None, n, 0.0, reachable)
        if not values.any():
            return Outcome(mean, mean, mean, None, n, 0.0, reachable)
        p = float(stats.wilcoxon(values).pvalue) if n > _MOST_EXACT else min(1.0, 2.0 * min(_tails(values)))
        return Outcome(mean, *_interval(values), p, n, 0.0, reachable)


@dataclass(frozen=True)
class Equivalent:
    """Whether the effects lie around a centre within `margin` of zero: two sign-flip tests, one from each margin.

    Both one-sided p are doubled, so that the larger is below 0.05 exactly where the 95 % interval lies within the
    margin (twice as strict as what is usual for equivalence).
    """

    each: ClassVar[bool] = True

    margin: float

    @property
    def words(self) -> str:
        """Its name, for the reader."""
        return (
            f"equivalence within \u00b1\u00a0{self.margin:g}: two one-sided sign-flip permutations of the mean (TOST)"
        )

    def outcome(self, effects: Effects) -> Outcome:
        """Return the mean effect; no difference anywhere is the closest that effects can be."""
        values = np.array(list(effects.values()))
        n = len(values)
        if n == 0:
            return _nothing(n, 0.0)
        (less, beyond), (short, more) = (_tails(values + shift) for shift in (-self.margin, self.margin))
        p, p_beyond = min(1.0, 2.0 * max(less, more)), min(1.0, 2.0 * min(beyond, short))
        reachable = _least_of_signs(n)
        return Outcome(float(values.mean()), *_interval(values), p, n, 0.0, reachable, p_beyond)


@dataclass(frozen=True)
class Apart:
    """Whether some categories lie elsewhere than the rest: categories change sides in every way."""

    each: ClassVar[bool] = False

    members: frozenset[str]

    @property
    def words(self) -> str:
        """Its name, for the reader."""
        return "exact permutation of the difference of two means; interval by Welch's t"

    def outcome(self, effects: Effects) -> Outcome:
        """Return mean of the members − mean of the others."""
        inside = [value for name, value in effects.items() if name in self.members]
        outside = [value for name, value in effects.items() if name not in self.members]
        n = len(effects)
        if not inside or not outside:
            side = "no category but those that it names" if inside else "none of the categories that it names"
            return _nothing(n, 0.0, f"{side} has both numbers" if n else "")
        effect = float(np.mean(inside) - np.mean(outside))
        reachable = min(1.0, 2.0 / math.comb(n, len(inside)))
        if min(len(inside), len(outside)) < 2 or len(set(effects.values())) == 1:  # noqa: PLR2004 - one has no variance
            return Outcome(effect, None, None, None, n, 0.0, reachable)
        p = _regrouped(inside, outside)
        interval = stats.ttest_ind(inside, outside, equal_var=False).confidence_interval()
        return Outcome(effect, float(interval.low), float(interval.high), p, n, 0.0, reachable)


@dataclass(frozen=True)
class Trend:
    """Whether the effects follow another number of each category: Pearson's r, by permutation."""

    each: ClassVar[bool] = False

    against: Effects = field(default_factory=dict)

    @property
    def words(self) -> str:
        """Its name, for the reader."""
        return f"Pearson's r, {_RESAMPLES:,} random permutations; interval by Fisher's z"

    def outcome(self, effects: Effects) -> Outcome:
        """Return the correlation over the categories of which both numbers are known."""
        names = [name for name in effects if name in self.against]
        x, y = [self.against[name] for name in names], [effects[name] for name in names]
        n = len(names)
        if n < _FEWEST_TREND:
            return _nothing(n, 0.0)
        if len(set(x)) == 1:
            return _nothing(n, 0.0, f"the number that the effects may follow is the same in all {n} categories")
        if len(set(y)) == 1:
            return _nothing(n, 0.0, UNVARIED)
        found = stats.pearsonr(
            x, y, method=stats.PermutationMethod(n_resamples=_RESAMPLES, rng=np.random.default_rng(_SEED))
        )
        interval = stats.pearsonr(x, y).confidence_interval()
        reachable = min(1.0, 2.0 / math.factorial(n))
        return Outcome(
            float(found.statistic), float(interval.low), float(interval.high), float(found.pvalue), n, 0.0, reachable
        )


@dataclass(frozen=True)
class Majority:
    """Whether an effect of 1 (it is so) is more frequent than one of 0: the binomial test."""

    each: ClassVar[bool] = True

    @property
    def words(self) -> str:
        """Its name, for the reader."""
        return "exact binomial test of a half; interval by Clopper and Pearson"

    def outcome(self, effects: Effects) -> Outcome:
        """Return the part of the categories that are so."""
        n, so = len(effects), sum(value > 0.5 for value in effects.values())  # noqa: PLR2004 - 0 or 1
        if n == 0:
            return _nothing(n, 0.5)
        found = stats.binomtest(so, n, 0.5)
        interval = found.proportion_ci()
        reachable = _least_of_signs(n)
        return Outcome(so / n, float(interval.low), float(interval.high), float(found.pvalue), n, 0.5, reachable)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return *p_values* corrected for their number: Holm's step-down procedure."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = largest
    return corrected


def undecidable(outcome: Outcome) -> str:
    """Say why nothing could be decided, whatever so many categories had shown; empty where something could."""
    if outcome.why or outcome.reachable < LEVEL:
        return outcome.why
    seen = count(outcome.n, "category", "categories")
    return f"{seen}: too few, whatever they show" if outcome.n else "no category has both numbers"


def _nothing(n: int, null: float, why: str = "") -> Outcome:
    return Outcome(None, None, None, None, n, null, 1.0, why=why)


def _least_of_signs(n: int) -> float:
    """Return the smallest two-sided p that the signs of so many effects can give."""
    return min(1.0, 2.0 ** (1 - n))


def _subset_means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of every subset but the empty one, in order.

    Changing the signs of a subset makes the mean no smaller exactly where the subset's own mean is not positive, so
    these means hold the test; and its interval, for they are the centres at which it changes its mind (Hartigan 1969).
    """
    n = len(values)
    chosen = (np.arange(1, 2**n)[:, None] >> np.arange(n)) & 1
    return np.sort(chosen @ values / chosen.sum(axis=1))


def _tails(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the part of all sign changes that leave the mean no larger, and the part that leave it no smaller.

    The first is the chance that *values* lie so low without a centre below zero, the second that they lie so high.
    Beyond 15 values both are of the signed ranks.
    """
    if not values.any():
        return 1.0, 1.0
    if len(values) > _MOST_EXACT:
        less, more = (float(stats.wilcoxon(values, alternative=way).pvalue) for way in ("less", "greater"))
        return less, more
    means = _subset_means(values)
    tie = 1e-12 * float(np.abs(means).max())
    return float(((means >= -tie).sum() + 1) / 2 ** len(values)), float(((means <= tie).sum() + 1) / 2 ** len(values))


def _interval(values: NDArray[np.float64]) -> tuple[float | None, float | None]:
    """Return the centres that the paired test does not reject."""
    return _walsh_interval(values) if len(values) > _MOST_EXACT else _between(_subset_means(values), len(values))


def _between(means: NDArray[np.float64], n: int) -> tuple[float | None, float | None]:
    """Return the centres that the sign-flip test does not reject; too few values reject none."""
    outside = math.floor(LEVEL / 2 * 2**n)
    return (float(means[outside - 1]), float(means[-outside])) if outside else (None, None)


def _regrouped(inside: list[float], outside: list[float]) -> float:
    """Return twice the smaller tail of all ways to choose as many categories; beyond 15, of the rank sum."""
    values, size = [*inside, *outside], len(inside)
    if len(values) > _MOST_EXACT:
        return float(stats.mannwhitneyu(inside, outside).pvalue)
    sums = np.array([sum(chosen) for chosen in combinations(values, size)])
    tie = 1e-12 * float(np.abs(sums).max())
    smaller: int = min((sums <= sum(inside) + tie).sum(), (sums >= sum(inside) - tie).sum())
    return float(min(1.0, 2.0 * smaller / len(sums)))


def _walsh_interval(values: NDArray[np.float64]) -> tuple[float | None, float | None]:
    """Return the centres that the signed-rank test does not reject, from the means of all pairs."""
    n = len(values)
    means = np.sort(np.add.outer(values, values)[np.triu_indices(n)] / 2)
    z = float(stats.norm.ppf(1 - LEVEL / 2))
    outside = math.floor(n * (n + 1) / 4 - z * math.sqrt(n * (n + 1) * (2 * n + 1) / 24))
    return float(means[outside - 1]), float(means[-outside])
