"""Is a kernel right? Its result and gradients are compared with the formula's in float64, token by token.

Shapes: B windows, T tokens, H heads, E width of a head.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from harness.kernels.shape import Shape, arguments
from harness.kernels.table import KERNELS, Kernel, Mix
from profiles.kernels import Direction
from profiles.memory import free_bytes

TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 1e-1}
"""How far a right result may be off: over twice the largest seen on a CPU, 4.4e-6 and 3.9e-2, from 1 token to 1,024."""

NOTHING = 1e-9
"""A gradient that is less of the largest one is zero but for rounding, as those of one token's queries and keys are."""

CHECKED_TOKENS = 4096
"""Of whole windows, compared at once with the formula in float64."""

FORMULAS = len({(kernel.formula, kernel.narrow) for kernel in KERNELS.values()})
EXACT_BYTES = 8
EXACT_PAIRS = {"forward": 3, "forward + backward": 6}
"""How many T x T matrices the formula makes, in float64."""

Exact = dict[tuple[object, bool], list[list[Tensor]]]
"""What is right at a shape, by formula and width of the queries: some windows after others."""


def error_of(
    kernel: Kernel, mix: Mix, module: torch.nn.Module, shape: Shape, direction: Direction, known: Exact | None = None
) -> float:
    """Return how far the output or a gradient of any token and head is off the formula's in float64 at most.

    It is a part of that token's norm, or of that usual in its window where the token's is less, or of the largest
    gradient's where the gradient is zero. *known* holds what other kernels of the same formula were compared with.
    """
    known = {} if known is None else known
    *given, gradient = arguments(shape, narrow=kernel.narrow)
    at_once = _windows_at_once(shape)
    checked = [slice(first, first + at_once) for first in range(0, shape.windows, at_once)]
    backward = direction != "forward"
    found = _outcome(mix, given, gradient, backward=backward)
    key = (kernel.formula, kernel.narrow)
    if key not in known:
        weights = {name: parameter.detach().double() for name, parameter in module.named_parameters()}
        formula = partial(kernel.formula, weights=weights)
        known[key] = [
            _outcome(formula, [x[some].double() for x in given], gradient[some].double(), backward=backward)
            for some in checked
        ]
    distances = [_distance([x[some] for x in found], exact) for some, exact in zip(checked, known[key], strict=True)]
    return float(torch.stack(distances).max())


def too_large(kernel: Kernel, shape: Shape, direction: Direction) -> str | None:
    """Say whether the kernel and what it is compared with need more than half the free memory, at least."""
    needed, free = _needed_bytes(kernel, shape, direction), free_bytes(shape.device)
    gib = 2**30
    return (
        f"needs about {needed / gib:.1f} GiB to be run and compared, more than half of {free / gib:.1f} GiB free"
        if needed > free / 2
        else None
    )


def _windows_at_once(shape: Shape) -> int:
    return min(shape.windows, max(1, CHECKED_TOKENS // shape.tokens))


def _needed_bytes(kernel: Kernel, shape: Shape, direction: Direction) -> float:
    """Return what arguments, results and T x T matrices take, the kernel's or the formula's, which come in turn."""
    forward = direction == "forward"
    exact_results = FORMULAS * (1 if forward else 4) * shape.matrix_bytes // shape.dtype.itemsize * EXACT_BYTES
    pair = shape.heads * shape.tokens**2
    pairs = shape.windows * pair * shape.dtype.itemsize * kernel.pairs * (1 if forward else 1.5)
    exact_pairs = _windows_at_once(shape) * pair * EXACT_BYTES * EXACT_PAIRS[direction]
    return (12 if forward else 24) * shape.matrix_bytes + exact_results + max(pairs, exact_pairs)


def _outcome(mix: Mix, given: list[Tensor], gradient: Tensor, *, backward: bool) -> list[Tensor]:
    """Return the output and, with *backward*, the gradients of those arguments that have one."""
    leaves = [x.detach().requires_grad_(backward) for x in given]
    with torch.set_grad_enabled(backward):
        mixed = mix(leaves[0], leaves[1], leaves[2])
    if not backward:
        return [mixed]
    found = torch.autograd.grad(mixed, leaves, gradient, allow_unused=True)
    return [mixed.detach(), *(x for x in found if x is not None)]


def _distance(found: Sequence[Tensor], exact: Sequence[Tensor]) -> Tensor:
    """Return the largest distance of a token and head in some windows; not a number where a result is none."""
    mixed_b11, *gradients_b11 = (x_bthe.norm(dim=-1).square().mean((1, 2), keepdim=True).sqrt() for x_bthe in exact)
    if gradients_b11:
        largest_b11 = torch.stack(gradients_b11).amax(dim=0)
        gradients_b11 = [torch.where(x_b11 < NOTHING * largest_b11, largest_b11, x_b11) for x_b11 in gradients_b11]
    farthest = []
    for found_bthe, exact_bthe, usual_b11 in zip(found, exact, (mixed_b11, *gradients_b11), strict=True):
        off_bth = (found_bthe.double() - exact_bthe).norm(dim=-1)
        size_bth = exact_bthe.norm(dim=-1).maximum(usual_b11)
        farthest.append(torch.where(off_bth == 0.0, 0.0, off_bth / size_bth).amax())
    return torch.stack(farthest).amax()
