"""Profiler windows: a few steps under `torch.profiler`, short enough for their budget, attributed to stages.

A window is kept out of every timing statistic, since the profiler slows down what it watches.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch.profiler import ProfilerActivity, profile, record_function

from profiles.memory import give_back, resident_bytes
from profiles.record import ProfilerWindow, WindowCell
from profiles.timing.clock import StageClock
from profiles.timing.times import Cell
from profiles.tracing.attribution import STEP, Attributed, KinetoEvent, attribute, intervals
from profiles.watchers import watchers

RESIDENT_PER_EVENT = 5000
"""Bytes that an event takes in memory until the window is written, at most: 1,900 to 4,700 (torch 2.13)."""

COMPRESSED_PER_EVENT = 20
"""Bytes that an event takes in the trace file: 18 (torch 2.13)."""


NO_DEVICE = "no device computes: a CPU's operators hold one another and are no kernels whose times could add up"


class ProfilerConfig(BaseModel):
    """How much is profiled, and what that may cost."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    steps: int = Field(default=3, ge=0, description="training steps of a profiler window at most; 0: no windows")
    memory_mb: int = Field(default=256, gt=0, description="resident memory that a window may take, MB")
    file_mb: int = Field(default=64, gt=0, description="size of a window's compressed trace, MB")
    compare_s: float = Field(
        default=5.0, gt=0, allow_inf_nan=False, description="time for comparing steps with and without stage clock, s"
    )


def affordable_steps(config: ProfilerConfig, events_per_step: int) -> int:
    """Return how many steps a window may have within its budgets; 0 where not even one fits."""
    by_memory = config.memory_mb * 10**6 // (events_per_step * RESIDENT_PER_EVENT)
    by_file = config.file_mb * 10**6 // (events_per_step * COMPRESSED_PER_EVENT)
    return min(config.steps, by_memory, by_file)


class ProfilerRefusedError(Exception):
    """The profiler does not work in this process just now; a training goes on without it. Reaches no user."""


@contextmanager
def profiling() -> Iterator[profile]:
    """Profile the block, whose own errors pass through.

    Raises:
        ProfilerRefusedError: the profiler does not start or stop, as where another one holds it.

    """
    profiler = new_profiler()
    try:
        profiler.start()
    except RuntimeError as error:
        message = f"the profiler does not start: {error}"
        raise ProfilerRefusedError(message) from error
    try:
        yield profiler
    except BaseException:
        with suppress(RuntimeError):  # the block's error is the one to tell
            profiler.stop()
        raise
    try:
        profiler.stop()
    except RuntimeError as error:
        message = f"the profiler does not stop: {error}"
        raise ProfilerRefusedError(message) from error


def count_events(step: Callable[[], None]) -> int:
    """Run one step under the profiler and return how many events it makes; this also warms the profiler up."""
    with profiling() as profiler:
        step()
    return len(raw_events(profiler))


def held_bytes() -> int | None:
    """Return the memory that this process holds, without what it has freed and only kept."""
    give_back(torch.device("cpu"))
    return resident_bytes()


def profile_steps(
    step: Callable[[], None],
    steps: int,
    clock: StageClock,
    path: Path,
    epoch: int,
    *,
    before_bytes: int | None = None,
    on_device: bool = False,
) -> ProfilerWindow:
    """Profile *steps* steps, write their trace to *path*, and set both routes to stages side by side.

    Args:
        step: runs one training step, inside a phase of *clock*.
        steps: how many; at least one.
        clock: the stage clock that hears the steps' marks.
        path: `*.pt.trace.json.gz`, which Perfetto, TensorBoard's profiler plugin and TraceInsight open.
        epoch: of the window, for its record.
        before_bytes: what the process held some steps before, which have taken the memory of a step again; if known.
        on_device: whether a device computes, whose kernels must be seen: the host's operators would not be its work.

    Raises:
        ProfilerRefusedError: the profiler does not start or stop, or does not see the device's kernels.

    """
    with profiling() as profiler, clock.annotating():
        before_ns = clock.read()
        for number in range(steps):
            with record_function(f"{STEP}{number}"):
                step()
        after_ns = clock.read()
    events = intervals(raw_events(profiler))
    if on_device and not any(event.on_device and not event.annotation for event in events):
        message = f"kernels of the device are not seen: {'; '.join(watchers()) or 'CUPTI was refused'}"
        raise ProfilerRefusedError(message)
    after_bytes = None if before_bytes is None else held_bytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    profiler.export_chrome_trace(str(path))
    attributed = attribute(events)
    return ProfilerWindow(
        epoch=epoch,
        steps=steps,
        events=len(events),
        resident_bytes=None if before_bytes is None or after_bytes is None else max(0, after_bytes - before_bytes),
        reckoned_bytes=len(events) * RESIDENT_PER_EVENT,
        trace=path.name,
        trace_bytes=path.stat().st_size,
        wall_s=attributed.wall_ns / 1e9,
        busy_s=attributed.union_ns / 1e9,
        busy_residual_s=attributed.residual_ns / 1e9 if on_device else None,
        busy_residual_reason=None if on_device else NO_DEVICE,
        cells=_cells({cell: after_ns[cell] - before_ns.get(cell, 0) for cell in after_ns}, attributed),
    )


def _cells(clocked_ns: dict[Cell, int], attributed: Attributed) -> tuple[WindowCell, ...]:
    """Set side by side what the two routes say of the same steps."""
    clocked_wall_ns = sum(clocked_ns.values())
    return tuple(
        WindowCell(
            stage=cell.stage,
            direction=cell.direction,
            clock_share=clocked_ns.get(cell, 0) / clocked_wall_ns,
            profiler_share=attributed.exposed_ns.get(cell, 0) / attributed.wall_ns,
            exposed_s=attributed.exposed_ns.get(cell, 0) / 1e9,
            busy_s=attributed.busy_ns.get(cell, 0) / 1e9,
        )
        for cell in sorted(clocked_ns.keys() | attributed.exposed_ns.keys())
    )


def new_profiler() -> profile:
    """Return a profiler of operators and, where there is a device, its kernels."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or Kineto writes of its start and stop on stderr
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    return profile(activities=activities)


def raw_events(profiler: profile) -> Sequence[KinetoEvent]:
    """Return torch's raw events."""
    assert profiler.profiler is not None and profiler.profiler.kineto_results is not None  # noqa: PT018, S101 - it ran
    return profiler.profiler.kineto_results.events()
