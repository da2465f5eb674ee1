"""Run one checkout's kernel whenever a line comes on stdin, and answer with the nanoseconds of processor time it took.

The time is the process's own, on one thread: being put aside for others costs nothing, and waiting counts for nothing.
The kernel, between its projections, is taken from whichever checkout is first on PYTHONPATH, so
that this file serves any commit that has the table of kernels. A line is the part by which to prolong the work, 0 but
for experiments (0.15 makes it 15 % slower), and the direction: "0 forward" or "0 forward + backward".
"""

import sys
from collections.abc import Callable
from pathlib import Path
from time import process_time_ns

import torch

import models
from harness.kernels.table import KERNELS
from models.attention.sizes import Sizes

WINDOWS, TOKENS, HEADS, WIDTH = 16, 49, 8, 64


def main(name: str) -> None:
    """Answer until stdin ends."""
    if not Path(models.__file__ or "").resolve().is_relative_to(Path.cwd().resolve()):
        sys.exit(f"{Path.cwd()} has no models of its own; those found are {models.__file__}")
    if name not in KERNELS:
        sys.exit(f"{Path.cwd()} has no kernel {name!r}")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    kernel = KERNELS[name]
    mix, module = kernel.build(Sizes(HEADS * WIDTH, HEADS, TOKENS))
    widths = (WIDTH // 2, WIDTH // 2, WIDTH) if kernel.narrow else (WIDTH,) * 3
    leaves = [torch.randn(WINDOWS, TOKENS, HEADS, width, requires_grad=True) for width in widths]
    wanted = [*leaves, *module.parameters()]
    gradient_bthe = torch.randn(WINDOWS, TOKENS, HEADS, WIDTH)

    def forward() -> None:
        with torch.no_grad():
            mix(leaves[0], leaves[1], leaves[2])

    def both() -> None:
        torch.autograd.grad(mix(leaves[0], leaves[1], leaves[2]), wanted, gradient_bthe, allow_unused=True)

    works = {"forward": forward, "forward + backward": both}
    for line in sys.stdin:
        slower, direction = line.strip().split(maxsplit=1)
        print(timed(works[direction], float(slower)), flush=True)


def timed(work: Callable[[], object], slower: float) -> int:
    """Return the nanoseconds that a work takes, prolonged by a part of it."""
    started_ns = process_time_ns()
    work()
    end_ns = process_time_ns() + round(slower * (process_time_ns() - started_ns))
    while process_time_ns() < end_ns:
        pass
    return process_time_ns() - started_ns


if __name__ == "__main__":
    main(*sys.argv[1:])
