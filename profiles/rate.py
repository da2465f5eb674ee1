"""How fast this device multiplies matrices: the yardstick of cost estimates."""

from time import perf_counter

import torch

SIDE = 1024
ROUNDS = 5


def matmul_flops_per_s(device: torch.device) -> float:
    """Return the float32 rate of a 1024 x 1024 product, FLOP/s: the best of five, on a device that may be busy."""
    a, b = torch.randn(2, SIDE, SIDE, device=device)
    times_s = []
    for _ in range(ROUNDS + 1):
        started = perf_counter()
        (a @ b).sum().item()  # the number arrives when the product is done
        times_s.append(perf_counter() - started)
    return 2 * SIDE**3 / min(times_s[1:])
