"""Every kernel at the window's length, by pytest-benchmark: `make benchmarks`; no part of the tests.

A benchmark has as many rounds as it takes to know its mean to 2 %, or as many as about five seconds allow; `half_width`
says how well it is known in the end.
"""

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist, mean, median, stdev

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from harness.kernels.check import TOLERANCE, error_of
from harness.kernels.shape import Shape, arguments, built, work_of
from harness.kernels.table import KERNELS
from profiles.kernels import Direction

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SHAPE = Shape(64, 49, 8, 64, torch.float32, DEVICE)
CONFIDENCE = 0.95
UNTIL_PRECISE = pytest.mark.benchmark(precision=0.02, confidence=CONFIDENCE, max_time=5.0, min_rounds=10)
DEVICE_ROUNDS = 25


def half_width(times_s: Sequence[float]) -> float:
    """Return how far the mean may be off, as a part of it, by the rule that ends the rounds."""
    margin = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2) * stdev(times_s) / math.sqrt(len(times_s))
    return margin / mean(times_s)


def device_ns(work: Callable[[], object]) -> int | str:
    """Return the time between two device events around a work, the median of some."""
    if DEVICE.type != "cuda":
        return "unavailable: on a CPU the host's time is the device's"
    return round(median(_between_events_ns(work) for _ in range(DEVICE_ROUNDS)))


def _between_events_ns(work: Callable[[], object]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    work()
    end.record()
    torch.cuda.synchronize(DEVICE)
    return start.elapsed_time(end) * 1e6


@UNTIL_PRECISE
@pytest.mark.parametrize("direction", ["forward", "forward + backward"])
@pytest.mark.parametrize("name", KERNELS)
def bench_kernel(benchmark: BenchmarkFixture, name: str, direction: Direction) -> None:
    kernel = KERNELS[name]
    if reason := kernel.unavailable(DEVICE, SHAPE.dtype):
        pytest.skip(reason)
    mix, module = built(kernel, SHAPE)
    assert error_of(kernel, mix, module, SHAPE, direction) <= TOLERANCE[SHAPE.dtype]
    work = work_of(mix, module, arguments(SHAPE, narrow=kernel.narrow), direction)
    work()

    def drained() -> None:
        work()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize(DEVICE)

    benchmark.extra_info.update(device=str(DEVICE), device_ns=device_ns(work))
    benchmark(drained)
    if benchmark.stats is not None:
        benchmark.extra_info["half_width"] = half_width(benchmark.stats.stats.data)
