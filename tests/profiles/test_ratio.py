"""Ratios of times: what the interval promises, and when rounds end. No clock is real, no duration is asserted."""

import math
import random
from functools import cache
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles import ratio
from profiles.ratio import interleave, paired_ratio, ratio_of_samples, timed

POSITIVE = st.floats(1e-3, 1e3)


class Clock:
    """Time passes only while something works."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns

    def work(self, noise: random.Random, median_ns: float, spread: float) -> None:
        self.now_ns += round(median_ns * math.exp(noise.gauss(0.0, spread)))


def run(medians_ns: dict[str, float], spread: float, **options: float) -> tuple[ratio.Rounds, Clock]:
    clock, noise = Clock(), random.Random(1)
    works = {
        name: timed(lambda time_ns=time_ns: clock.work(noise, time_ns, spread), clock)
        for name, time_ns in medians_ns.items()
    }
    settings = {"precision": 0.02, "limit_s": 1000.0, **options}
    return interleave(works, clock_ns=clock, **settings), clock  # type: ignore[arg-type]


def test_a_ratio_is_found_and_rounds_end_when_it_is_known_well_enough() -> None:
    rounds, _ = run({"base": 1e6, "head": 1.3e6}, spread=0.05)
    found = rounds.ratio("head", "base")
    assert rounds.ended_by == "precision"
    assert found.half_width <= 0.02
    assert found.low < 1.3 < found.high
    noisier, _ = run({"base": 1e6, "head": 1.3e6}, spread=0.1)
    assert len(noisier.times_ns["base"]) > len(rounds.times_ns["base"])


def test_rounds_end_when_time_is_up_however_noisy_they_are() -> None:
    rounds, clock = run({"base": 1e8, "head": 1e8}, spread=1.0, limit_s=10.0)
    assert rounds.ended_by == "time"
    before_the_last = sum(times[-1] for times in rounds.times_ns.values())
    assert clock.now_ns - before_the_last < 10e9 <= clock.now_ns


def test_one_round_there_is_even_where_time_is_up_before_it() -> None:
    rounds, _ = run({"base": 1e9, "head": 2e9, "third": 3e9}, spread=0.0, limit_s=0.0)
    assert rounds.times_ns == {"base": [10**9], "head": [2 * 10**9], "third": [3 * 10**9]}


def test_every_ratio_has_to_be_known_not_only_the_first() -> None:
    clock, noise = Clock(), random.Random(1)
    works = {
        name: timed(lambda spread=spread: clock.work(noise, 1e6, spread), clock)
        for name, spread in {"base": 0.0, "calm": 0.0, "wild": 0.2}.items()
    }
    rounds = interleave(works, precision=0.02, limit_s=1000.0, clock_ns=clock)
    assert rounds.ratio("calm", "base").half_width == 0.0
    assert 0.0 < rounds.ratio("wild", "base").half_width <= 0.02


def test_warm_ups_are_run_and_not_kept() -> None:
    calls: list[str] = []
    works = {name: lambda name=name: calls.append(name) or 1000 for name in ("base", "head")}
    rounds = interleave(works, precision=0.1, limit_s=10.0, warmups=3)
    assert calls.count("base") == len(rounds.times_ns["base"]) + 3


def test_the_order_within_a_round_is_drawn_anew() -> None:
    calls: list[str] = []
    works = {name: lambda name=name: calls.append(name) or 1000 for name in ("base", "head")}
    clock = iter(range(0, 100 * 10**9, 10**9))
    interleave(works, precision=-1.0, limit_s=50.0, warmups=0, clock_ns=lambda: next(clock))
    pairs = set(zip(calls[::2], calls[1::2], strict=True))
    assert pairs == {("base", "head"), ("head", "base")}


def test_a_slow_stretch_of_the_machine_does_not_move_the_ratio() -> None:
    base = [1.0] * 20 + [3.0] * 20
    found = paired_ratio([1.1 * time for time in base], base)
    assert found.low == pytest.approx(1.1)
    assert found.high == pytest.approx(1.1)


def test_five_rounds_say_nothing_at_95_percent_and_six_say_something() -> None:
    assert paired_ratio([1.0] * 5, [1.0] * 5)[1:3] == (0.0, math.inf)
    assert paired_ratio([1.0] * 5, [1.0] * 5).half_width == math.inf
    assert paired_ratio([1.0] * 6, [1.0] * 6)[1:3] == (1.0, 1.0)


def test_the_interval_of_very_many_rounds_closes_in() -> None:
    logs = [number / 1000 for number in range(-2000, 2001)]
    found = paired_ratio([math.exp(log) for log in logs], [1.0] * len(logs))
    assert math.log(found.high) == pytest.approx(1.96 * 0.5 * math.sqrt(len(logs)) / 1000, rel=0.02)


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
@pytest.mark.parametrize("size", [1, 6, 7, 12, 30])
def test_the_rank_of_a_paired_interval_is_the_largest_that_keeps_the_promise(size: int, confidence: float) -> None:
    rank = ratio._sign_rank(size, confidence)
    tails = [2 * sum(math.comb(size, below) for below in range(first)) / 2**size for first in (rank, rank + 1)]
    assert tails[0] <= 1 - confidence < tails[1]


@cache
def ways(total: int, size: int, other: int) -> int:
    """Count the orders of two samples in which *total* pairs stand one way."""
    if total < 0:
        return 0
    if size == 0 or other == 0:
        return int(total == 0)
    return ways(total - other, size - 1, other) + ways(total, size, other - 1)


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_the_interval_of_two_samples_keeps_its_promise_for_all_small_sizes(confidence: float) -> None:
    found = 0
    for size, other in product(range(1, 13), repeat=2):
        rank = ratio._rank_sum_rank(size, other, confidence)
        missed = 2 * sum(ways(below, size, other) for below in range(max(0, rank))) / math.comb(size + other, size)
        assert missed <= 1 - confidence
        found += rank >= 1
    assert found > 50


def test_three_epochs_each_are_too_few_for_an_interval_and_four_are_not() -> None:
    assert ratio_of_samples([1.0, 1.1, 1.2], [1.0, 1.1, 1.2])[1:3] == (0.0, math.inf)
    found = ratio_of_samples([2.0, 2.2, 2.4, 2.6], [1.0, 1.1, 1.2, 1.3])
    assert found[1:] == pytest.approx((2.0 / 1.3, 2.6, 16))


@given(st.lists(POSITIVE, min_size=1, max_size=9), st.lists(POSITIVE, min_size=1, max_size=9))
def test_exchanging_the_two_turns_the_ratio_over(times: list[float], baseline: list[float]) -> None:
    there, back = ratio_of_samples(times, baseline), ratio_of_samples(baseline, times)
    assert there.value == pytest.approx(1 / back.value)
    assert there.low == pytest.approx(0.0 if back.high == math.inf else 1 / back.high)
    assert there.low <= there.value <= there.high


@given(st.lists(st.tuples(POSITIVE, POSITIVE), min_size=1, max_size=20), POSITIVE)
def test_a_unit_cancels_out(pairs: list[tuple[float, float]], unit: float) -> None:
    times, baseline = zip(*pairs, strict=True)
    scaled = paired_ratio([unit * time for time in times], [unit * time for time in baseline])
    assert scaled == pytest.approx(paired_ratio(times, baseline))
