"""Is a kernel right? Its result and gradients are compared with the formula's in float64, token by token.

Shapes: B windows, T tokens, H heads, E width of a head.
"""

from collections.abc import Iterable, Sequence
from functools import partial

import torch
from torch import Tensor

from harness.kernels.shape import Shape, arguments, weights_of
from harness.kernels.table import KERNELS, Kernel, Mix
from profiles.kernels import Direction
from profiles.memory import free_bytes

TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 1e-1}
"""How far a right result may be off: over twice the largest seen on a CPU, 4.4e-6 and 3.9e-2, from 1 token to 1,024."""

NO_PROGRAM = ("No available kernel", "No viable backend")
"""How torch's words begin where the one program that it was told to use is not for such a shape, type or device."""

NOTHING = 1e-9
"""A gradient that is less of the largest one is zero but for rounding, as those of one token's queries and keys are."""

CHECKED_TOKENS = 4096
"""Of whole windows, compared at once with the formula in float64."""

FORMULAS = len({(kernel.formula, kernel.narrow) for kernel in KERNELS.values()})
EXACT_BYTES = 8
EXACT_PAIRS = {"forward": 3, "forward + backward": 6}
"""How many T x T matrices the formula makes, in float64."""

Exact = dict[tuple[object, bool], tuple[list[list[Tensor]], list[Tensor]]]
"""What is right at a shape, by formula and width of the queries: some windows after others, and weights' gradients."""


def error_of(
    kernel: Kernel, mix: Mix, module: torch.nn.Module, shape: Shape, direction: Direction, known: Exact | None = None
) -> float:
    """Return how far the output or a gradient of any token and head is off the formula's in float64 at most.

    It is a part of that token's norm, or of that usual in its window where the token's is less, or of the largest
    gradient's where the gradient is zero. A weight's gradient is compared row by row in the same way, over all windows.
    *known* holds what other kernels of the same formula were compared with.
    """
    known = {} if known is None else known
    *given, gradient = arguments(shape, narrow=kernel.narrow)
    at_once = _windows_at_once(shape)
    checked = [slice(first, first + at_once) for first in range(0, shape.windows, at_once)]
    backward = direction != "forward"
    weights = dict(module.named_parameters())
    found, found_of_weights = _outcome(mix, given, list(weights.values()), gradient, backward=backward)
    key = (kernel.formula, kernel.narrow)
    if key not in known:
        wide = {name: weight.detach().double().requires_grad_(backward) for name, weight in weights.items()}
        parts = ([x[some].double() for x in (*given, gradient)] for some in checked)
        known[key] = _exact(partial(kernel.formula, weights=wide), list(wide.values()), parts, backward=backward)
    exact, exact_of_weights = known[key]
    distances = [_distance([x[some] for x in found], right) for some, right in zip(checked, exact, strict=True)]
    if exact_of_weights:
        distances.append(_farthest(_as_tokens(found_of_weights), _as_tokens(exact_of_weights)))
    return float(torch.stack(distances).max())


def judged(
    kernel: Kernel, mix: Mix, module: torch.nn.Module, shape: Shape, direction: Direction, known: Exact
) -> tuple[float | None, str | None]:
    """Return the error of a kernel, if it runs, and why it must not be timed, if so; see `error_of`."""
    try:
        error = error_of(kernel, mix, module, shape, direction, known)
    except RuntimeError as refused:
        if not str(refused).startswith(NO_PROGRAM):
            raise
        return None, f"torch refuses: {str(refused).splitlines()[0]}"
    if error <= TOLERANCE[shape.dtype]:
        return error, None
    return error, f"wrong result: {error:.1e} from that in float64, more than {TOLERANCE[shape.dtype]:.0e}"


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
    """Return what arguments, weights, results and T x T matrices take.

    The matrices are the kernel's or the formula's, which come in turn; the weights are there for both at once.
    """
    forward = direction == "forward"
    exact_results = FORMULAS * (1 if forward else 4) * shape.matrix_bytes // shape.dtype.itemsize * EXACT_BYTES
    pair = shape.heads * shape.tokens**2
    pairs = shape.windows * pair * shape.dtype.itemsize * kernel.pairs * (1 if forward else 1.5)
    exact_pairs = _windows_at_once(shape) * pair * EXACT_BYTES * EXACT_PAIRS[direction]
    weights = weights_of(kernel, shape) * (shape.dtype.itemsize + EXACT_BYTES) * (1 if forward else 2)
    return (12 if forward else 24) * shape.matrix_bytes + exact_results + weights + max(pairs, exact_pairs)


def _exact(
    formula: Mix, weights: list[Tensor], parts: Iterable[list[Tensor]], *, backward: bool
) -> tuple[list[list[Tensor]], list[Tensor]]:
    """Return the formula's outcome of each part's windows, and gradients of its weights summed over all."""
    outcomes: list[list[Tensor]] = []
    of_weights = [torch.zeros_like(weight) for weight in weights] if backward else []
    for *given, gradient in parts:
        outcome, found = _outcome(formula, given, weights, gradient, backward=backward)
        outcomes.append(outcome)
        for total, part in zip(of_weights, found, strict=True):
            total.add_(part)
    return outcomes, of_weights


def _outcome(
    mix: Mix, given: list[Tensor], weights: list[Tensor], gradient: Tensor, *, backward: bool
) -> tuple[list[Tensor], list[Tensor]]:
    """Return the output and, with *backward*, the gradients of those arguments that have one; and of the weights."""
    leaves = [x.detach().requires_grad_(backward) for x in given]
    with torch.set_grad_enabled(backward):
        mixed = mix(leaves[0], leaves[1], leaves[2])
    if not backward:
        return [mixed], []
    found = torch.autograd.grad(mixed, [*leaves, *weights], gradient, allow_unused=True)
    of_given, of_weights = found[: len(leaves)], found[len(leaves) :]
    return [mixed.detach(), *(x for x in of_given if x is not None)], list(of_weights)


def _as_tokens(weights: Sequence[Tensor]) -> list[Tensor]:
    """Return rows of each weight as if they were tokens of a window with one head."""
    return [weight.reshape(1, -1, 1, weight.shape[-1]) for weight in weights]


def _distance(found: Sequence[Tensor], exact: Sequence[Tensor]) -> Tensor:
    """Return the largest distance of a token and head in some windows; not a number where a result is none."""
    kinds = [slice(0, 1), slice(1, None)] if len(exact) > 1 else [slice(0, 1)]
    return torch.stack([_farthest(found[kind], exact[kind]) for kind in kinds]).amax()


def _farthest(found: Sequence[Tensor], exact: Sequence[Tensor]) -> Tensor:
    """Return the largest distance of a token and head in tensors of one kind, whose sizes compare."""
    usual_b11 = [x_bthe.norm(dim=-1).square().mean((1, 2), keepdim=True).sqrt() for x_bthe in exact]
    largest_b11 = torch.stack(usual_b11).amax(dim=0)
    farthest = []
    for found_bthe, exact_bthe, usual in zip(found, exact, usual_b11, strict=True):
        size_bth = exact_bthe.norm(dim=-1).maximum(torch.where(usual < NOTHING * largest_b11, largest_b11, usual))
        off_bth = (found_bthe.double() - exact_bthe).norm(dim=-1)
        farthest.append(torch.where(off_bth == 0.0, 0.0, off_bth / size_bth).amax())
    return torch.stack(farthest).amax()
