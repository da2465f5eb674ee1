"""Time every kernel at every length: first see that it is right, then let all kernels of a shape take turns.

Shapes: B windows, T tokens, H heads, E width of a head.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from statistics import median
from time import perf_counter_ns
from typing import NamedTuple

import numpy as np
import psutil
import torch
from torch import Tensor

from harness.kernels.table import KERNELS, Kernel, Mix
from models.attention.sizes import Sizes
from profiles.energy.readings import Source
from profiles.kernels import Direction, KernelRow
from profiles.memory import PeakMemory
from profiles.rate import Rates
from profiles.ratio import Rounds, Timed, interleave, timed

MARKS = {49: "window of 7 x 7", 256: "256 px image", 400: "320 px image", 1024: "512 px image"}
"""Lengths that the models have (a window) or would have if a whole image were one."""

LENGTHS = (16, 49, 64, 128, 256, 400, 1024, 2048, 4096)
TOKENS = {"cpu": 4096, "cuda": 131072}
"""Tokens of a batch: arguments and output then exceed the caches of a CPU, and keep every part of a GPU busy."""

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
"""How far a right result may be from that in float64, as a part of its norm."""

PRECISION = 0.03
LEAST_ENERGY_S = 1.0


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


def sweep_shape(
    names: Sequence[str],
    shape: Shape,
    direction: Direction,
    rates: Rates,
    source: Source,
    limit_s: float,
    interleaver: Callable[..., Rounds] = interleave,
) -> tuple[list[KernelRow], Rounds | None]:
    """Check and time the kernels *names* at one shape; return their rows, and the rounds of those that were timed."""
    works: dict[str, Callable[[], object]] = {}
    rows: dict[str, KernelRow] = {}
    known: Exact = {}
    for name in names:
        kernel = KERNELS[name]
        reason = kernel.unavailable(shape.device, shape.dtype) or _too_large(kernel, shape, direction)
        error = None
        if reason is None:
            mix, module = _built(kernel, shape)
            error = error_of(kernel, mix, module, shape, direction, known)  # of the first window and the last
            if not error <= TOLERANCE[shape.dtype]:
                reason = f"wrong result: {error:.1e} from that in float64, more than {TOLERANCE[shape.dtype]:.0e}"
            else:
                works[name] = work_of(kernel, mix, shape, direction)
        rows[name] = _row(name, shape, direction, error=error, reason=reason or "")
    if not works:
        return list(rows.values()), None
    clocks = {name: _synchronized(work, shape.device) for name, work in works.items()}
    rounds = interleaver(clocks, precision=PRECISION, limit_s=limit_s) if len(clocks) > 1 else _alone(clocks)
    for name, work in works.items():
        rows[name] = _measured(rows[name], shape, rounds.times_ns[name], work, rates, source)
    return list(rows.values()), rounds


def _built(kernel: Kernel, shape: Shape) -> tuple[Mix, torch.nn.Module]:
    torch.manual_seed(0)
    mix, module = kernel.build(Sizes(shape.heads * shape.width, shape.heads, shape.tokens))
    module.to(shape.device, shape.dtype)
    return mix, module


def arguments(kernel: Kernel, shape: Shape) -> list[Tensor]:
    """Draw queries, keys, values and the gradient of the output."""
    generator = torch.Generator().manual_seed(1)
    narrow = max(1, shape.width // 2) if kernel.narrow else shape.width
    return [
        torch.randn(shape.windows, shape.tokens, shape.heads, width, generator=generator).to(shape.device, shape.dtype)
        for width in (narrow, narrow, shape.width, shape.width)
    ]


CHECKED_TOKENS = 4096
"""Of whole windows, compared at once with the formula in float64."""

Exact = dict[tuple[object, bool], list[list[Tensor]]]
"""What is right at a shape, by formula and width of the queries: some windows after others."""


def error_of(
    kernel: Kernel, mix: Mix, module: torch.nn.Module, shape: Shape, direction: Direction, known: Exact | None = None
) -> float:
    """Return how far a window's output or gradients are off the formula's in float64 at most, as a part of their norm.

    *known* holds what other kernels of the same formula were compared with.
    """
    known = {} if known is None else known
    *given, gradient = arguments(kernel, shape)
    at_once = max(1, CHECKED_TOKENS // shape.tokens)
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
    windows = zip(checked, known[key], strict=True)
    distances = [
        _distances(one[some], other) for some, exact in windows for one, other in zip(found, exact, strict=True)
    ]
    return float(torch.cat(distances).max())


def _outcome(mix: Mix, given: list[Tensor], gradient: Tensor, *, backward: bool) -> list[Tensor]:
    """Return the output and, with *backward*, the gradients of those arguments that have one."""
    leaves = [x.detach().requires_grad_(backward) for x in given]
    with torch.set_grad_enabled(backward):
        mixed = mix(leaves[0], leaves[1], leaves[2])
    if not backward:
        return [mixed]
    found = torch.autograd.grad(mixed, leaves, gradient, allow_unused=True)
    return [mixed.detach(), *(x for x in found if x is not None)]


def _distances(found: Tensor, exact: Tensor) -> Tensor:
    """Return each window's distance; not a number where the result is none."""
    off, size = (x.flatten(1).norm(dim=1) for x in (found.double() - exact, exact))
    return torch.where(off == 0.0, 0.0, off / size)


def work_of(kernel: Kernel, mix: Mix, shape: Shape, direction: Direction) -> Callable[[], object]:
    """Return what is timed."""
    *given, gradient = arguments(kernel, shape)
    leaves = [x.requires_grad_(direction != "forward") for x in given]

    def forward() -> object:
        with torch.no_grad():
            return mix(leaves[0], leaves[1], leaves[2])

    def both() -> object:
        mixed = mix(leaves[0], leaves[1], leaves[2])
        return torch.autograd.grad(mixed, leaves, gradient, allow_unused=True)

    return forward if direction == "forward" else both


def _synchronized(work: Callable[[], object], device: torch.device) -> Timed:
    def run() -> None:
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return timed(run)


def _alone(clocks: dict[str, Timed]) -> Rounds:
    """Time a single kernel, which has none to take turns with."""
    ((name, run),) = clocks.items()
    return Rounds({name: [run() for _ in range(8)][1:]}, "time")


def _too_large(kernel: Kernel, shape: Shape, direction: Direction) -> str | None:
    """Say whether the kernel needs more than half the free memory, by what it keeps at least."""
    copies = 12 if direction == "forward" else 24
    kept = shape.windows * shape.heads * shape.tokens**2 * shape.dtype.itemsize * kernel.pairs
    needed = copies * shape.matrix_bytes + kept * (1 if direction == "forward" else 1.5)
    cuda = shape.device.type == "cuda"
    free = torch.cuda.mem_get_info(shape.device)[0] if cuda else psutil.virtual_memory().available
    gib = 2**30
    return (
        f"needs about {needed / gib:.1f} GiB, more than half of {free / gib:.1f} GiB free"
        if needed > free / 2
        else None
    )


def cost_of(kernel: Kernel, shape: Shape, direction: Direction) -> tuple[int, int]:
    """Return operations of the formula's products, and bytes that have to move at least."""
    backward = direction != "forward"
    flops = 2 * shape.windows * shape.heads * kernel.multiplications(shape.tokens, shape.width)
    narrow = max(1, shape.width // 2) / shape.width if kernel.narrow else 1
    passes = (2 * narrow + 2) + ((2 * narrow + 2) + (2 * narrow + 1) if backward else 0)
    return flops * (3 if backward else 1), round(passes * shape.matrix_bytes)


def _row(name: str, shape: Shape, direction: Direction, *, error: float | None, reason: str) -> KernelRow:
    flops, least_bytes = cost_of(KERNELS[name], shape, direction)
    return KernelRow(
        kernel=name,
        tokens=shape.tokens,
        marks=MARKS.get(shape.tokens, ""),
        windows=shape.windows,
        dtype=str(shape.dtype).removeprefix("torch."),
        direction=direction,
        reason=reason,
        error=error,
        flops=flops,
        least_bytes=least_bytes,
    )


def _measured(
    row: KernelRow, shape: Shape, times_ns: list[int], work: Callable[[], object], rates: Rates, source: Source
) -> KernelRow:
    time_s = median(times_ns) / 1e9
    watch = PeakMemory(shape.device)
    work()
    peak_bytes = watch.peak_bytes()
    energy_j, energy_reason = joules(work, source, time_s)
    return row.model_copy(
        update={
            "time_s": time_s,
            "spread_s": float(np.subtract(*np.percentile(times_ns, [75, 25]))) / 1e9 if len(times_ns) > 1 else None,
            "rounds": len(times_ns),
            "flops_per_s": row.flops / time_s if row.flops else None,
            "bytes_per_s": row.least_bytes / time_s,
            "roofline_share": rates.least_s(row.flops, row.least_bytes) / time_s,
            "peak_bytes": None if peak_bytes is None or watch.in_use_bytes is None else peak_bytes - watch.in_use_bytes,
            "energy_j": energy_j,
            "energy_reason": energy_reason,
        }
    )


def joules(
    work: Callable[[], object], source: Source, time_s: float, clock_ns: Callable[[], int] = perf_counter_ns
) -> tuple[float | None, str]:
    """Return the energy of one *work* by the device's counter over a second of them; or nothing, and why."""
    started = source.read_meter().energy_j
    if started is None:
        why = source.read(clock_ns()).why
        return None, why.get("energy_j", "the device has no energy counter")
    times = max(1, round(LEAST_ENERGY_S / time_s))
    for _ in range(times):
        work()
    ended = source.read_meter().energy_j
    return (None, "the energy counter fell silent") if ended is None else ((ended - started) / times, "")


def shapes(
    lengths: Sequence[int], dtypes: Sequence[torch.dtype], heads: int, width: int, tokens: int, device: str
) -> Iterator[Shape]:
    """Return the shapes of a sweep, the shortest first."""
    for dtype in dtypes:
        for length in sorted(lengths):
            yield Shape.filling(length, tokens, heads, width, dtype, device)
