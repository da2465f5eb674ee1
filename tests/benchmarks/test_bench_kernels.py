"""The rounds of a benchmark end on precision: pytest-benchmark's own rule, on a clock that the work moves on."""

import random

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from tests.benchmarks.bench_kernels import UNTIL_PRECISE, half_width


class Clock:
    """Goes on by what a work takes, and by a nanosecond at every look."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        self.now_s += 1e-9
        return self.now_s


CLOCK = Clock()


@pytest.mark.alone
@pytest.mark.benchmark(**{**UNTIL_PRECISE.mark.kwargs, "timer": CLOCK})
@pytest.mark.parametrize(("noise", "precise"), [(0.0, True), (0.1, True), (0.5, False)])
def test_rounds_go_on_until_the_mean_is_known_or_time_is_up(
    benchmark: BenchmarkFixture,
    noise: float,
    precise: bool,  # noqa: FBT001 - a case
) -> None:
    drawn = random.Random(1)

    def work() -> None:
        CLOCK.now_s += 0.01 * (1 + noise * drawn.uniform(-1, 1) * 3**0.5)

    benchmark(work)
    times_s = benchmark.stats.stats.data
    wanted = UNTIL_PRECISE.mark.kwargs["precision"]
    assert (half_width(times_s) <= wanted) == precise
    assert len(times_s) >= UNTIL_PRECISE.mark.kwargs["min_rounds"]
    if noise:
        assert half_width(times_s[:-1]) > wanted
        assert precise or sum(times_s) >= UNTIL_PRECISE.mark.kwargs["max_time"]
