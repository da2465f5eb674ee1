"""A clock that tests move, and work that takes time by it, forward and backward."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass
class FakeClock:
    """A clock that moves only when told."""

    now_ns: int = 0

    def __call__(self) -> int:
        return self.now_ns

    def pass_ns(self, duration_ns: int) -> None:
        self.now_ns += duration_ns


class Delay(torch.autograd.Function):
    """The identity, taking time forward and backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, clock: FakeClock, forward_ns: int, backward_ns: int) -> Tensor:
        ctx.passes = lambda: clock.pass_ns(backward_ns)
        clock.pass_ns(forward_ns)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        ctx.passes()
        return gradients[0], None, None, None


def delay(x: Tensor, clock: FakeClock, forward_ns: int, backward_ns: int) -> Tensor:
    return Delay.apply(x, clock, forward_ns, backward_ns)
