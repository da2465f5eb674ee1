"""Time every kernel at every length: first see that it is right, then let all kernels of a shape take turns.

The same program is a few per cent faster or slower by where in memory its arguments lie. So each kernel has several
instances, one after the other, whose arguments lie elsewhere each time, and ratios are compared between those.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from statistics import median
from time import perf_counter_ns

import torch

from harness.kernels.check import Exact, judged, too_large
from harness.kernels.shape import Shape, arguments, built, cost_of, work_of
from harness.kernels.table import KERNELS, Mix
from profiles.energy.readings import Source
from profiles.kernels import Direction, KernelRow
from profiles.memory import PeakMemory
from profiles.rate import Rates, drain
from profiles.ratio import Ratio, Rounds, Timed, interleave, paired_ratio, timed
from profiles.spread import spread

MARKS = {49: "window of 7 x 7", 256: "256 px image", 400: "320 px image", 1024: "512 px image"}
"""Lengths that the models have (a window) or would have if a whole image were one."""

LENGTHS = (16, 32, 49, 64, 128, 256, 400, 1024, 2048, 4096)
TOKENS = {"cpu": 4096, "cuda": 131072}
"""Of a batch, if so many fit: arguments and output then exceed a CPU's caches, and keep every part of a GPU busy."""

INSTANCES = 6
"""Of each kernel: as many as a median needs to have an interval of 95 %, which is from the least to the largest."""

PRECISION = 0.03
LEAST_ENERGY_S = 1.0


def sweep_shape(
    names: Sequence[str],
    shape: Shape,
    direction: Direction,
    rates: Rates,
    source: Source,
    limit_s: float,
    interleaver: Callable[..., Rounds] = interleave,
) -> tuple[list[KernelRow], list[Rounds]]:
    """Check and time the kernels *names* at one shape; return their rows, and the rounds of each instance."""
    rows, ready = _checked(names, shape, direction)
    if not ready:
        return list(rows.values()), []
    drawn = {narrow: arguments(shape, narrow=narrow) for narrow in {KERNELS[name].narrow for name in ready}}

    def make(name: str) -> Callable[[], object]:
        return work_of(*ready[name], drawn[KERNELS[name].narrow], direction)

    instances = _timed(list(ready), make, shape.device, limit_s, interleaver)
    for name in ready:
        times_ns = list(chain.from_iterable(rounds.times_ns[name] for rounds in instances))
        rows[name] = _measured(rows[name], shape, times_ns, make(name), rates, source)
    return list(rows.values()), instances


def fitting(shape: Shape, names: Sequence[str]) -> Shape:
    """Halve the windows until each kernel of *names* that is here fits, forward and backward, or one window is left."""
    here = [kernel for kernel in map(KERNELS.__getitem__, names) if not kernel.unavailable(shape.device, shape.dtype)]
    while shape.windows > 1 and any(too_large(kernel, shape, "forward + backward") for kernel in here):
        shape = shape._replace(windows=shape.windows // 2)
    return shape


def ratio(instances: Sequence[Rounds], name: str, baseline: str) -> Ratio:
    """Return how many times as long *name* takes as *baseline*, with the interval of the instances' own ratios."""
    ratios = [rounds.ratio(name, baseline).value for rounds in instances]
    return paired_ratio(ratios, [1.0] * len(ratios))


def _checked(
    names: Sequence[str], shape: Shape, direction: Direction
) -> tuple[dict[str, KernelRow], dict[str, tuple[Mix, torch.nn.Module]]]:
    """Return a row for each kernel, and those kernels that are here, fit, and are right."""
    rows: dict[str, KernelRow] = {}
    ready: dict[str, tuple[Mix, torch.nn.Module]] = {}
    known: Exact = {}
    for name in names:
        kernel = KERNELS[name]
        reason = kernel.unavailable(shape.device, shape.dtype) or too_large(kernel, shape, direction)
        error = None
        if reason is None:
            made = built(kernel, shape)
            error, reason = judged(kernel, *made, shape, direction, known)
            if reason is None:
                ready[name] = made
        rows[name] = _row(name, shape, direction, error=error, reason=reason or "")
    return rows, ready


def _timed(
    names: Sequence[str],
    make: Callable[[str], Callable[[], object]],
    device: torch.device,
    limit_s: float,
    interleaver: Callable[..., Rounds],
) -> list[Rounds]:
    """Time one instance of every kernel after another; at least one, and no more once time is up."""
    order = random.Random(0)  # noqa: S311 - no secret
    instances: list[Rounds] = []
    spent_s = 0.0
    while not instances or (len(instances) < INSTANCES and spent_s < limit_s):
        instances.append(_instance(names, make, device, limit_s / INSTANCES, interleaver, order))
        spent_s += sum(map(sum, instances[-1].times_ns.values())) / 1e9
    return instances


def _instance(
    names: Sequence[str],
    make: Callable[[str], Callable[[], object]],
    device: torch.device,
    limit_s: float,
    interleaver: Callable[..., Rounds],
    order: random.Random,
) -> Rounds:
    """Let kernels take turns whose arguments are made in an order drawn anew: one's lie where another's did before."""
    works = {name: make(name) for name in order.sample(names, len(names))}
    clocks = {name: _synchronized(works[name], device) for name in names}
    return interleaver(clocks, precision=PRECISION, limit_s=limit_s) if len(clocks) > 1 else _alone(clocks)


def _synchronized(work: Callable[[], object], device: torch.device) -> Timed:
    def run() -> None:
        work()
        drain(device)

    return timed(run)


def _alone(clocks: dict[str, Timed]) -> Rounds:
    """Time a single kernel, which has none to take turns with."""
    ((name, run),) = clocks.items()
    return Rounds({name: [run() for _ in range(8)][1:]}, "time")


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
    time_s, between_ns = median(times_ns) / 1e9, spread(times_ns)
    work()  # a kernel keeps what it was given last, so that of the last timed instance is in use until now
    watch = PeakMemory(shape.device)
    work()
    peak_bytes = watch.peak_bytes()
    energy_j, energy_reason = joules(work, partial(drain, shape.device), source, time_s)
    return row.model_copy(
        update={
            "time_s": time_s,
            "spread_s": None if between_ns is None else between_ns / 1e9,
            "rounds": len(times_ns),
            "flops_per_s": None if row.flops is None else row.flops / time_s,
            "bytes_per_s": row.least_bytes / time_s,
            "roofline_share": rates.least_s(row.flops or 0, row.least_bytes) / time_s,
            "peak_bytes": None if peak_bytes is None or watch.in_use_bytes is None else peak_bytes - watch.in_use_bytes,
            "energy_j": energy_j,
            "energy_reason": energy_reason,
        }
    )


def joules(
    work: Callable[[], object],
    drain: Callable[[], None],
    source: Source,
    time_s: float,
    clock_ns: Callable[[], int] = perf_counter_ns,
) -> tuple[float | None, str]:
    """Return the energy of one *work* by the device's counter over a second of them; or nothing, and why.

    The counter is read once the device is drained, of what came before and of the works themselves.
    """
    drain()
    started = source.read_meter().energy_j
    if started is None:
        why = source.read(clock_ns()).why
        return None, why.get("energy_j", "the device has no energy counter")
    times = max(1, round(LEAST_ENERGY_S / time_s))
    for _ in range(times):
        work()
    drain()
    ended = source.read_meter().energy_j
    return (None, "the energy counter fell silent") if ended is None else ((ended - started) / times, "")


def shapes(
    lengths: Sequence[int], dtypes: Sequence[torch.dtype], heads: int, width: int, tokens: int, device: str
) -> Iterator[Shape]:
    """Return the shapes of a sweep, the shortest first."""
    for dtype in dtypes:
        for length in sorted(lengths):
            yield Shape.filling(length, tokens, heads, width, dtype, device)
