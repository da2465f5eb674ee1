"""Tests over categories, each against a slow obvious reference or scipy's own."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from reports.claims.significance import Apart, Equivalent, Majority, Paired, Trend, holm, undecidable

VALUES = st.lists(st.integers(-50, 50).filter(bool).map(lambda v: v / 7), min_size=2, max_size=8)


def named(values: list[float]) -> dict[str, float]:
    return {f"c{place}": value for place, value in enumerate(values)}


def flipped(values: list[float]) -> float:
    """Return the sign-flip test's p, sign by sign."""
    signs = itertools.product((1, -1), repeat=len(values))
    sums = [sum(s * v for s, v in zip(sign, values, strict=True)) for sign in signs]
    seen = sum(values)
    more = sum(total >= seen - 1e-9 for total in sums) / len(sums)
    less = sum(total <= seen + 1e-9 for total in sums) / len(sums)
    return min(1.0, 2.0 * min(more, less))


@given(VALUES)
def test_the_paired_test_flips_every_sign(values: list[float]) -> None:
    assert Paired().outcome(named(values)).p == pytest.approx(flipped(values))


@given(VALUES.filter(lambda values: len(values) >= 6))
def test_the_interval_holds_the_centres_that_the_test_does_not_reject(values: list[float]) -> None:
    found = Paired().outcome(named(values))
    assert found.low is not None
    assert found.high is not None
    for centre, kept in ((found.low - 1e-6, False), (found.high + 1e-6, False), (found.effect or 0.0, True)):
        assert (flipped([value - centre for value in values]) > 0.05) == kept


def test_few_values_have_no_interval_and_say_so() -> None:
    found = Paired().outcome(named([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert (found.low, found.high, found.p) == (None, None, 2 / 32)
    assert undecidable(found) == "5 categories: too few, whatever they show"
    assert undecidable(Paired().outcome({})) == "no category has both numbers"


def test_effects_that_are_all_zero_have_no_p() -> None:
    assert Paired().outcome(named([0.0] * 8)).p is None


def one_sided(values: list[float], sign: int) -> float:
    """Return the part of all sign changes whose sum lies as far on the side of *sign* as *values*' own, or farther."""
    sums = [
        sum(s * v for s, v in zip(signs, values, strict=True))
        for signs in itertools.product((1, -1), repeat=len(values))
    ]
    return sum(sign * total >= sign * sum(values) - 1e-9 for total in sums) / len(sums)


@given(VALUES)
def test_equivalence_is_two_one_sided_tests_from_the_margins(values: list[float]) -> None:
    lower, upper = [value + 2.0 for value in values], [value - 2.0 for value in values]
    found = Equivalent(2.0).outcome(named(values))
    assert found.p == pytest.approx(min(1.0, 2.0 * max(one_sided(lower, 1), one_sided(upper, -1))))
    assert found.p_beyond == pytest.approx(min(1.0, 2.0 * min(one_sided(lower, -1), one_sided(upper, 1))))


@given(st.lists(st.integers(-20, 20).map(lambda v: v / 7), min_size=6, max_size=8))
def test_equivalence_is_shown_exactly_where_the_interval_lies_within_the_margin(values: list[float]) -> None:
    found = Equivalent(2.001).outcome(named(values))
    assert found.low is not None
    assert found.high is not None
    assert found.p is not None
    assert (found.p < 0.05) == (found.low > -2.001 and found.high < 2.001)


def test_models_that_differ_by_the_margin_are_called_equal_in_at_most_five_of_a_hundred() -> None:
    generator = np.random.default_rng(5)
    for n in (9, 20):
        found = [Equivalent(2.0).outcome(named(list(generator.normal(2.0, 1.0, n)))).p for _ in range(300)]
        assert sum(p is not None and p < 0.05 for p in found) <= 0.05 * 300 + 8
        near = Equivalent(2.0).outcome(named(list(generator.normal(0.0, 0.3, n))))
        assert near.p is not None
        assert near.p < 0.01
    assert Equivalent(2.0).outcome({}).p is None


def test_beyond_fifteen_pairs_ranks_decide_and_the_interval_covers() -> None:
    generator, covered = np.random.default_rng(4), 0
    for _ in range(200):
        values = generator.normal(0.3, 1.0, 20)
        found = Paired().outcome(named(list(values)))
        assert found.p == pytest.approx(float(stats.wilcoxon(values).pvalue))
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 0.3 <= found.high
    assert 182 <= covered <= 199


def test_regrouping_agrees_with_scipy() -> None:
    generator = np.random.default_rng(1)
    effects = named(list(generator.normal(size=10)))
    members = frozenset({"c0", "c3", "c7"})
    inside, outside = ([v for n, v in effects.items() if (n in members) == side] for side in (True, False))
    theirs = stats.permutation_test(
        (inside, outside), lambda x, y: np.mean(x) - np.mean(y), vectorized=False, n_resamples=np.inf
    )
    found = Apart(members).outcome(effects)
    assert found.p == pytest.approx(float(theirs.pvalue))
    assert found.effect == pytest.approx(np.mean(inside) - np.mean(outside))


def test_a_trend_is_found_and_its_absence_is_not() -> None:
    x = {f"c{place}": float(place) for place in range(12)}
    rising = Trend(x).outcome({name: 2.0 * value + (-1) ** int(value) for name, value in x.items()})
    assert rising.p is not None
    assert rising.p < 0.001
    assert rising.effect == pytest.approx(0.99, abs=0.01)
    assert Trend(x).outcome(named([1.0, 1.0])).p is None


def test_what_could_not_be_tested_says_what_kept_it_from_that() -> None:
    effects = named([float(place) for place in range(8)])
    flat = dict.fromkeys(effects, 1.0)
    assert undecidable(Apart(frozenset({"absent"})).outcome(effects)) == (
        "none of the categories that it names has both numbers"
    )
    assert undecidable(Apart(frozenset(effects)).outcome(effects)) == (
        "no category but those that it names has both numbers"
    )
    assert undecidable(Trend(flat).outcome(effects)) == (
        "the number that the effects may follow is the same in all 8 categories"
    )
    assert undecidable(Trend(effects).outcome(flat)) == "the categories do not differ"
    assert undecidable(Trend(effects).outcome(named([1.0, 2.0]))) == "2 categories: too few, whatever they show"
    assert undecidable(Trend({}).outcome(effects)) == "no category has both numbers"
    assert undecidable(Apart(frozenset({"absent"})).outcome({})) == "no category has both numbers"


def test_a_majority_is_a_binomial_test() -> None:
    found = Majority().outcome(named([1.0] * 9 + [0.0]))
    assert (found.effect, found.p) == (0.9, pytest.approx(22 / 1024))


def test_holm_multiplies_by_how_many_are_left_and_never_falls() -> None:
    assert holm([0.01, 0.04, 0.03, 0.9]) == pytest.approx([0.04, 0.09, 0.09, 0.9])
    assert holm([]) == []


def test_chance_alone_is_called_an_effect_in_at_most_five_of_a_hundred() -> None:
    generator = np.random.default_rng(3)
    found = [Paired().outcome(named(list(generator.normal(size=7)))).p for _ in range(400)]
    assert sum(p is not None and p < 0.05 for p in found) <= 0.05 * 400 + 9
