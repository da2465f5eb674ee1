"""Run one checkout's attention whenever a line comes on stdin, and answer with the nanoseconds it took.

The module is taken from whichever checkout is first on PYTHONPATH, so that this file serves any commit that has the
table of variants. A line is the part by which to prolong the work, 0 but for experiments: 0.15 makes it 15 % slower.
"""

import sys
from pathlib import Path
from time import perf_counter_ns

import torch

import models
from models.attention.sizes import Sizes
from models.attention.table import VARIANTS

WINDOWS, TOKENS, HEADS, WIDTH = 16, 49, 8, 512


def main(model: str, backend: str) -> None:
    """Answer until stdin ends."""
    if not Path(models.__file__ or "").resolve().is_relative_to(Path.cwd().resolve()):
        sys.exit(f"{Path.cwd()} has no models of its own; those found are {models.__file__}")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    attention = VARIANTS[model].attention[backend](Sizes(WIDTH, HEADS, TOKENS))
    x_btd = torch.randn(WINDOWS, TOKENS, WIDTH, requires_grad=True)
    gradient_btd = torch.randn(WINDOWS, TOKENS, WIDTH)
    leaves = [x_btd, *attention.parameters()]
    for line in sys.stdin:
        started_ns = perf_counter_ns()
        torch.autograd.grad(attention(x_btd), leaves, gradient_btd)
        end_ns = perf_counter_ns() + round(float(line) * (perf_counter_ns() - started_ns))
        while perf_counter_ns() < end_ns:
            pass
        print(perf_counter_ns() - started_ns, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
