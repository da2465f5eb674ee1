"""A batch of one shape: what a kernel is given, what is timed, and what that costs.

Shapes: B windows, T tokens, H heads, E width of a head.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from harness.kernels.table import Kernel, Mix
from models.attention.sizes import Sizes
from profiles.kernels import Direction


class Shape(NamedTuple):
    """Of one batch."""

    windows: int
    tokens: int
    heads: int
    width: int
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def filling(
        cls, tokens: int, batch_tokens: int, heads: int, width: int, dtype: torch.dtype, device: str
    ) -> "Shape":
        """Return the shape whose batch has as many windows as *batch_tokens* allow, at least one."""
        return cls(max(1, batch_tokens // tokens), tokens, heads, width, dtype, torch.device(device))

    @property
    def matrix_bytes(self) -> int:
        """Bytes of the queries of a batch."""
        return self.windows * self.tokens * self.heads * self.width * self.dtype.itemsize


def built(kernel: Kernel, shape: Shape) -> tuple[Mix, torch.nn.Module]:
    """Build a kernel, with the weights that it has on every call."""
    torch.manual_seed(0)
    mix, module = kernel.build(Sizes(shape.heads * shape.width, shape.heads, shape.tokens))
    module.to(shape.device, shape.dtype)
    return mix, module


def arguments(shape: Shape, *, narrow: bool) -> list[Tensor]:
    """Draw queries and keys, half as wide where they are *narrow*, values, and the gradient of the output."""
    generator = torch.Generator().manual_seed(1)
    query_width = max(1, shape.width // 2) if narrow else shape.width
    return [
        torch.randn(shape.windows, shape.tokens, shape.heads, width, generator=generator).to(shape.device, shape.dtype)
        for width in (query_width, query_width, shape.width, shape.width)
    ]


def work_of(mix: Mix, module: torch.nn.Module, drawn: Sequence[Tensor], direction: Direction) -> Callable[[], object]:
    """Return what is timed, on copies of what was drawn that no other work reads; weights have gradients, too."""
    *given, gradient = (x.clone() for x in drawn)
    leaves = [x.requires_grad_(direction != "forward") for x in given]
    wanted = [*leaves, *module.parameters()]

    def forward() -> object:
        with torch.no_grad():
            return mix(leaves[0], leaves[1], leaves[2])

    def both() -> object:
        mixed = mix(leaves[0], leaves[1], leaves[2])
        return torch.autograd.grad(mixed, wanted, gradient, allow_unused=True)

    return forward if direction == "forward" else both


def weights_of(kernel: Kernel, shape: Shape) -> int:
    """Return how many numbers a kernel has of its own, between its projections."""
    return shape.heads * kernel.weights(shape.tokens, shape.width)


def cost_of(kernel: Kernel, shape: Shape, direction: Direction) -> tuple[int | None, int]:
    """Return operations of the formula's products, if it has any, and bytes that have to move at least.

    With backward everything that was read is read again, and has a gradient.
    """
    backward = direction != "forward"
    flops = None
    if kernel.multiplications is not None:
        flops = 2 * shape.windows * shape.heads * kernel.multiplications(shape.tokens, shape.width)
        flops *= 3 if backward else 1
    narrow = max(1, shape.width // 2) / shape.width if kernel.narrow else 1
    read = (2 * narrow + kernel.reads_values) * shape.matrix_bytes + weights_of(kernel, shape) * shape.dtype.itemsize
    return flops, round(read + shape.matrix_bytes + (2 * read + shape.matrix_bytes if backward else 0))
