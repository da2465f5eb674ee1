"""What this device can do at best: how fast it multiplies matrices, and how fast it moves memory.

The yardstick of cost estimates and of rooflines (Williams et al. 2009). Both are measured by torch's own operations, so
no kernel of torch is expected to be faster; the vendor's figures are for clocks and instructions that it may not reach.
"""

from collections.abc import Callable
from time import perf_counter_ns
from typing import NamedTuple

import torch

ROUNDS = 5
PRODUCT_SIDE = {"cpu": 1024, "cuda": 8192}
"""Side of the matrices whose product is timed: enough to keep a device of that kind busy."""

COPIED_BYTES = {"cpu": 2**28, "cuda": 2**30}
"""What is copied: several times what caches hold."""


class Rates(NamedTuple):
    """The most that was seen of a device; a copy counts what is read and what is written."""

    flops_per_s: float
    bytes_per_s: float

    def least_s(self, flops: float, moved_bytes: float) -> float:
        """Return the time below which no work of so much arithmetic and traffic can be: the roofline."""
        return max(flops / self.flops_per_s, moved_bytes / self.bytes_per_s)


def drain(device: torch.device) -> None:
    """Wait until a device has done all that it was given; a CPU has, whenever one asks."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def rates(device: torch.device, dtype: torch.dtype) -> Rates:
    """Measure both rates of a device, that of products for numbers of *dtype*."""
    return Rates(matmul_flops_per_s(device, dtype), copied_bytes_per_s(device))


def matmul_flops_per_s(
    device: torch.device, dtype: torch.dtype = torch.float32, clock_ns: Callable[[], int] = perf_counter_ns
) -> float:
    """Return the rate of a product of two square matrices, FLOP/s: the best of five, on a device that may be busy."""
    side = PRODUCT_SIDE[device.type]
    a, b = torch.randn(2, side, side, device=device).to(dtype)
    return 2 * side**3 / _best_s(lambda: torch.matmul(a, b), device, clock_ns)


def copied_bytes_per_s(device: torch.device, clock_ns: Callable[[], int] = perf_counter_ns) -> float:
    """Return the rate at which a large array is copied, bytes read and written per second: the best of five."""
    source = torch.ones(COPIED_BYTES[device.type], dtype=torch.uint8, device=device).view(torch.float32)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _best_s(lambda: target.copy_(source), device, clock_ns)


def _best_s(work: Callable[[], object], device: torch.device, clock_ns: Callable[[], int]) -> float:
    """Return the shortest time of *work*, seconds, after one that does not count."""
    times_ns = []
    for _ in range(ROUNDS + 1):
        started_ns = clock_ns()
        work()
        drain(device)
        times_ns.append(clock_ns() - started_ns)
    return min(times_ns[1:]) / 1e9
