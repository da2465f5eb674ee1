"""Every kernel at the window's length, by pytest-benchmark: `make benchmarks`; no part of the tests.

A benchmark has as many rounds as it takes to know its median to 2 %, or as many as five seconds allow.
"""

from collections.abc import Callable
from itertools import count
from statistics import median
from time import perf_counter_ns

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from harness.kernels.check import TOLERANCE, error_of
from harness.kernels.shape import Shape, arguments, built, work_of
from harness.kernels.table import KERNELS
from profiles.kernels import Direction
from profiles.ratio import paired_ratio

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SHAPE = Shape(64, 49, 8, 64, torch.float32, DEVICE)
PRECISION, LIMIT_S = 0.02, 5.0


def enough_rounds(work: Callable[[], object], clock_ns: Callable[[], int] = perf_counter_ns) -> int:
    """Return after how many rounds the median is known well enough."""
    end_ns = clock_ns() + round(LIMIT_S * 1e9)
    times_ns: list[int] = []
    for rounds in count(1):
        started_ns = clock_ns()
        work()
        times_ns.append(clock_ns() - started_ns)
        if rounds % 5 == 0 and paired_ratio(times_ns, [median(times_ns)] * rounds).half_width <= PRECISION:
            break
        if clock_ns() >= end_ns:
            break
    return len(times_ns)


def device_ns(work: Callable[[], object]) -> int | str:
    """Return the time between two device events around a work."""
    if DEVICE.type != "cuda":
        return "unavailable: on a CPU the host's time is the device's"
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    work()
    end.record()
    torch.cuda.synchronize(DEVICE)
    return round(start.elapsed_time(end) * 1e6)


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
    benchmark.pedantic(drained, rounds=enough_rounds(drained))
