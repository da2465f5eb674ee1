"""What a record says of its cell's stages and of its own instruments, as rows of the report's CSV files.

Every number is the record's, but for sums, differences and ratios of two of them. Shares are parts of 1.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from profiles.bounds import ROUTES_BOUND, UNATTRIBUTED_BOUND
from profiles.record import UNATTRIBUTED, CellRecord, Closure, Observation, ProfilerWindow, StepState
from reports.rows.energy import PhaseEnergyRow, StageEnergyRow, phase_energy_rows, stage_energy_rows
from reports.rows.work import WorkRow, work_rows
from reports.source.load import cell_name

NOT_HELD = "the record does not hold it"

_BASELINES: dict[StepState, StepState] = {"clock": "bare", "window": "clock", "after": "clock"}


class StageShareRow(NamedTuple):
    """One stage of one phase, in one direction, over the `n` epochs that count.

    `exposed_s` is summed over them and `share` its part of the phase; `spread_s` and `share_spread` are over them.
    `busy_s` is what the stage's resource worked in them; `busy_tag` says how that is known.
    """

    phase: str
    stage: str
    direction: str
    exposed_s: float
    share: float
    share_spread: float | None
    n: int
    tag: str
    busy_s: float | None
    busy_tag: str
    busy_reason: str | None
    spread_s: float | None


class LoaderPartRow(NamedTuple):
    """CPU seconds of one part of loading in one phase, over all processes; in training with those before epoch 1."""

    phase: str
    part: str
    busy_s: float


class VerdictRow(NamedTuple):
    """What bounds the training: the exposed wait for input, the busy part of a step, and the rest, the host's."""

    bound: str | None
    input_share: float | None
    compute_share: float | None
    host_share: float | None
    reason: str


class ClosureRow(NamedTuple):
    """Whether a phase's times add up: `stages_s` and `unattributed_s` are `wall_s`, all summed over `n` epochs.

    `residual_s` is the largest disagreement of an epoch's two clocks, empty where there is one clock.
    """

    phase: str
    wall_s: float
    stages_s: float
    unattributed_s: float
    unattributed_share: float
    unattributed_bound: float
    residual_s: float | None
    n: int


class StepRow(NamedTuple):
    """The time of a training step in one state of the instruments; `ratio` is to that in the state `baseline`."""

    epoch: int
    state: str
    median_s: float
    spread_s: float | None
    n: int
    baseline: str | None
    ratio: float | None


class WindowRow(NamedTuple):
    """One close look at an epoch's steps; where it has no profiler window, `reason` says why.

    `busy_s` is the union of what the resource worked in the window, `stages_busy_s` the stages' sum. `trace` is
    relative to the run's directory, empty where the trace was thinned out.
    """

    epoch: int
    steps: int | None = None
    events: int | None = None
    resident_bytes: int | None = None
    trace: str | None = None
    trace_bytes: int | None = None
    wall_s: float | None = None
    busy_s: float | None = None
    stages_busy_s: float | None = None
    largest_difference: float | None = None
    reason: str | None = None


class RouteRow(NamedTuple):
    """One stage in one direction in one profiler window, by stage clock and by profiler; busy is the profiler's."""

    epoch: int
    stage: str
    direction: str
    clock_share: float
    profiler_share: float
    difference: float
    bound: float
    exposed_s: float
    busy_s: float


def stage_rows(record: CellRecord) -> list[StageShareRow]:
    """Return the rows of `stages.csv`."""
    return [
        StageShareRow(
            phase=total.phase,
            stage=total.stage,
            direction=total.direction,
            exposed_s=total.exposed_s,
            share=total.share,
            share_spread=total.share_spread,
            n=total.epochs,
            tag=total.tag,
            busy_s=total.busy_s,
            busy_tag=total.busy_tag,
            busy_reason=(total.busy_reason or NOT_HELD) if total.busy_s is None else None,
            spread_s=total.spread_s,
        )
        for total in record.stage_totals
    ]


def loader_rows(record: CellRecord) -> list[LoaderPartRow]:
    """Return the rows of `loader.csv`."""
    return [LoaderPartRow(total.phase, total.part, total.busy_s) for total in record.loader_totals]


def verdict_rows(record: CellRecord) -> list[VerdictRow]:
    """Return the row of `verdicts.csv`."""
    found = record.verdict
    if found is None:
        return [VerdictRow(None, None, None, None, NOT_HELD)]
    return [VerdictRow(found.bound, found.input_share, found.compute_share, found.host_share, found.reason)]


def closure_rows(record: CellRecord) -> list[ClosureRow]:
    """Return the rows of `closure.csv`."""
    return [_closure_row(record, closure) for closure in record.closures]


def _closure_row(record: CellRecord, closure: Closure) -> ClosureRow:
    totals = [total for total in record.stage_totals if total.phase == closure.phase and total.stage != UNATTRIBUTED]
    return ClosureRow(
        phase=closure.phase,
        wall_s=closure.wall_s,
        stages_s=sum(total.exposed_s for total in totals),
        unattributed_s=closure.unattributed_s,
        unattributed_share=closure.unattributed_s / closure.wall_s,
        unattributed_bound=UNATTRIBUTED_BOUND,
        residual_s=closure.residual_s,
        n=closure.epochs,
    )


def step_rows(record: CellRecord) -> list[StepRow]:
    """Return the rows of `steps.csv`."""
    return [row for seen in record.observations for row in _step_rows(seen)]


def _step_rows(seen: Observation) -> list[StepRow]:
    rows = []
    for step in seen.steps:
        baseline = _BASELINES.get(step.state)
        base_s = seen.median_s(baseline) if baseline else None
        ratio = step.median_s / base_s if base_s else None
        named = baseline if ratio is not None else None
        rows.append(StepRow(seen.epoch, step.state, step.median_s, step.spread_s, step.n, named, ratio))
    return rows


def window_rows(record: CellRecord) -> list[WindowRow]:
    """Return the rows of `windows.csv`."""
    return [_window_row(record, seen) for seen in record.observations]


def _window_row(record: CellRecord, seen: Observation) -> WindowRow:
    window = seen.window
    if window is None:
        return WindowRow(seen.epoch, reason=seen.reason or NOT_HELD)
    return WindowRow(
        epoch=seen.epoch,
        steps=window.steps,
        events=window.events,
        resident_bytes=window.resident_bytes,
        trace=trace_path(record, window),
        trace_bytes=window.trace_bytes,
        wall_s=window.wall_s,
        busy_s=window.busy_s,
        stages_busy_s=stages_busy_s(window),
        largest_difference=window.difference if window.cells else None,
    )


def trace_path(record: CellRecord, window: ProfilerWindow) -> str | None:
    """Return where in the run's directory the window's trace lies, if it was kept."""
    return f"cells/{cell_name(record)}/traces/{window.trace}" if window.trace else None


def stages_busy_s(window: ProfilerWindow) -> float:
    """Return the sum of the stages' busy times, which where they overlap exceeds their union."""
    return sum(cell.busy_s for cell in window.cells)


def route_rows(record: CellRecord) -> list[RouteRow]:
    """Return the rows of `routes.csv`."""
    return [
        RouteRow(
            epoch=seen.window.epoch,
            stage=cell.stage,
            direction=cell.direction,
            clock_share=cell.clock_share,
            profiler_share=cell.profiler_share,
            difference=cell.clock_share - cell.profiler_share,
            bound=ROUTES_BOUND,
            exposed_s=cell.exposed_s,
            busy_s=cell.busy_s,
        )
        for seen in record.observations
        if seen.window
        for cell in seen.window.cells
    ]


class DetailFile(NamedTuple):
    """One of the report's CSV files: the columns beside those of the cell, and a record's rows of it."""

    columns: tuple[str, ...]
    rows: Callable[[CellRecord], Sequence[tuple[object, ...]]]


FILES = {
    "stages.csv": DetailFile(StageShareRow._fields, stage_rows),
    "loader.csv": DetailFile(LoaderPartRow._fields, loader_rows),
    "verdicts.csv": DetailFile(VerdictRow._fields, verdict_rows),
    "closure.csv": DetailFile(ClosureRow._fields, closure_rows),
    "steps.csv": DetailFile(StepRow._fields, step_rows),
    "windows.csv": DetailFile(WindowRow._fields, window_rows),
    "routes.csv": DetailFile(RouteRow._fields, route_rows),
    "phase_energy.csv": DetailFile(PhaseEnergyRow._fields, phase_energy_rows),
    "stage_energy.csv": DetailFile(StageEnergyRow._fields, stage_energy_rows),
    "work.csv": DetailFile(WorkRow._fields, work_rows),
}
