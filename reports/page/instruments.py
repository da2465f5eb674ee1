"""What the instruments say of themselves: whether times add up, what measuring costs, whether two routes agree.

A bound that is named here is the one beyond which the run writes a caveat, which the page prints among the others.
"""

from statistics import median

from profiles.bounds import CLOCK_BOUND, LATER_BOUND, RESIDUAL_BOUND, ROUTES_BOUND, UNATTRIBUTED_BOUND
from profiles.record import CellRecord, Observation
from profiles.spread import spread
from reports.page.ranks import ranks_table
from reports.page.tables import Column, Entry, Identity, Reasons, Table, quantity, text
from reports.rows.details import (
    NOT_HELD,
    ClosureRow,
    RouteRow,
    StepRow,
    closure_rows,
    route_rows,
    stages_busy_s,
    step_rows,
    trace_path,
)
from reports.words.format import Scale, count, integer, number, percent, points, ratio, scale, with_spread
from reports.words.palette import in_order, stage_class, stage_label

_STATES = {"bare": "Bare", "clock": "Clock", "window": "In window", "after": "After"}


def tables(records: list[CellRecord], who: Identity) -> list[Table]:
    """Return every table of the instruments that has a row."""
    found = (
        closure_table(records, who),
        steps_table(records, who),
        routes_table(records, who),
        windows_table(records, who),
        ranks_table(records, who),
    )
    return [table for table in found if table.rows]


def closure_table(records: list[CellRecord], who: Identity) -> Table:
    """Return, per cell and phase, whether the times add up."""
    held = [(record, row) for record in records for row in closure_rows(record)]
    unit = scale("s", max((row.wall_s for _, row in held), default=0.0))
    body = tuple(who.entries(record) + _closure(row, unit) for record, row in held)
    columns = (
        *who.columns(),
        Column("Phase"),
        *(Column(name, f"{unit.label}, exposed", numeric=True) for name in ("Stages", "Unattributed", "Wall")),
        Column("Unattributed share", "% of wall", numeric=True),
        Column("Residual", "ms an epoch", numeric=True),
    )
    detail = (
        "Stages and unattributed are the wall time, summed over the epochs that count (n). Bound: "
        f"{_bound(UNATTRIBUTED_BOUND)} of the wall time unattributed. Residual: the most by which device events and "
        f"host clock disagree on an epoch, part of unattributed; bound {_bound(RESIDUAL_BOUND)} of its wall time. "
        f"{who.shared}."
    )
    beyond = sum(row.unattributed_share > row.unattributed_bound for _, row in held)
    gist = f"{integer(beyond)} of {count(len(held), 'phase')} beyond the bound of unattributed time"
    return Table("closure", "Closure: whether the times add up", columns, body, detail, gist=gist)


def _closure(row: ClosureRow, unit: Scale) -> tuple[Entry, ...]:
    one_clock = Entry("\u2013", "one clock", numeric=True, missing=True)
    return (
        text(row.phase),
        _scaled(row.stages_s, unit),
        _scaled(row.unattributed_s, unit),
        _scaled(row.wall_s, unit)._replace(note=f"n\u00a0{integer(row.n)}"),
        Entry(
            percent(row.unattributed_share),
            _beyond(row.unattributed_share, row.unattributed_bound),
            row.unattributed_share,
            numeric=True,
        ),
        one_clock
        if row.residual_s is None
        else _milliseconds(row.residual_s)._replace(note=_beyond(row.residual_s, RESIDUAL_BOUND * row.wall_s / row.n)),
    )


def steps_table(records: list[CellRecord], who: Identity) -> Table:
    """Return, per cell and close look, how long a step takes under which instrument."""
    held = [(record, step_rows(record)) for record in records]
    unit = scale("s", min((row.median_s for _, rows in held for row in rows), default=0.0))
    reasons = Reasons()
    body = tuple(
        (*who.entries(record), _epoch(epoch), *_steps([row for row in rows if row.epoch == epoch], unit, reasons))
        for record, rows in held
        for epoch in dict.fromkeys(row.epoch for row in rows)
    )
    columns = (
        *who.columns(),
        Column("Epoch", numeric=True),
        *(Column(name, f"{unit.label} a step", numeric=True) for name in _STATES.values()),
    )
    detail = (
        "Wall time of a training step: without instrument, with the stage clock, inside a profiler window, after it. "
        "Median, IQR and number of steps (n), each with its ratio to the baseline it names. Bounds: the clock may cost "
        f"{_bound(CLOCK_BOUND)} of a bare step; a step after the window may be {_bound(LATER_BOUND)} slower than one "
        f"before it. {who.shared}."
    )
    title = "Self-perturbation: what measuring costs"
    gist = _cost([row.ratio for _, rows in held for row in rows if row.state == "clock" and row.ratio is not None])
    return Table("perturbation", title, columns, body, detail, reasons.footnotes(), gist)


def _cost(ratios: list[float]) -> str:
    """Return what the clock costs a step, over all close looks."""
    if not ratios:
        return ""
    middle, across = median(ratios), spread(ratios)
    told = ratio(middle, across)
    return f"a step with the clock takes {told}\u00a0\u00d7\u00a0bare, {with_spread(middle, across, len(ratios))} looks"


def _steps(rows: list[StepRow], unit: Scale, reasons: Reasons) -> list[Entry]:
    """Return an entry for each state, in which *rows* hold one or none."""
    found = {row.state: row for row in rows}
    return [_step(found[s], unit) if s in found else reasons.missing("no step was timed so") for s in _STATES]


def _step(row: StepRow, unit: Scale) -> Entry:
    across = None if row.spread_s is None else row.spread_s / unit.divisor
    told = ""
    if row.ratio is not None:
        base_s = row.median_s / row.ratio
        told = f"{ratio(row.ratio, row.spread_s and row.spread_s / base_s)}\u00a0\u00d7\u00a0{row.baseline}"
    return quantity(row.median_s / unit.divisor, across, row.n, told)._replace(sort=row.median_s)


def routes_table(records: list[CellRecord], who: Identity) -> Table:
    """Return, per cell, stage and direction, the window in which stage clock and profiler disagree most on it."""
    body = [
        who.entries(record) + _route(found)
        for record in records
        for rows in [route_rows(record)]
        for stage in in_order({row.stage for row in rows})
        for direction in ("forward", "backward", "none")
        if (found := [row for row in rows if (row.stage, row.direction) == (stage, direction)])
    ]
    columns = (
        *who.columns(),
        Column("Stage"),
        Column("Direction"),
        Column("Epoch", numeric=True),
        *(Column(name, "% of window, exposed", numeric=True) for name in ("Clock", "Profiler")),
        Column("Difference", "percentage points", numeric=True),
        Column("Exposed", "ms, profiler", numeric=True),
        Column("Busy", "ms, profiler", numeric=True),
    )
    detail = (
        "Two independent routes to the same steps' stages: host times or device events at the stages' marks, and the "
        "profiler's events. Of each stage's windows (n) the one in which they differ most; all are in routes.csv. "
        f"Bound: {100 * ROUTES_BOUND:g} percentage points. {who.shared}."
    )
    differences = [abs(row.difference) for record in records for row in route_rows(record)]
    largest = points(max(differences, default=0.0)).removeprefix("+")
    gist = f"they differ by {largest} percentage points at most, n\u00a0{integer(len(differences))}"
    return Table("routes", "Clock against profiler, stage by stage", columns, tuple(body), detail, gist=gist)


def _route(rows: list[RouteRow]) -> tuple[Entry, ...]:
    """Return the entries of the row, among one stage's, whose two shares differ most."""
    row = max(rows, key=lambda row: abs(row.difference))
    return (
        text(stage_label(row.stage), f"stage {stage_class(row.stage)}"),
        text(row.direction),
        _epoch(row.epoch)._replace(note=f"of n\u00a0{integer(len(rows))}"),
        Entry(percent(row.clock_share), sort=row.clock_share, numeric=True),
        Entry(percent(row.profiler_share), sort=row.profiler_share, numeric=True),
        Entry(points(row.difference), _beyond(row.difference, row.bound), row.difference, numeric=True),
        _milliseconds(row.exposed_s),
        _milliseconds(row.busy_s),
    )


def windows_table(records: list[CellRecord], who: Identity) -> Table:
    """Return, per cell and close look, its profiler window: what it held, what it took and where its trace lies."""
    reasons = Reasons()
    body = tuple(
        (*who.entries(record), _epoch(seen.epoch), *_window(record, seen, reasons))
        for record in records
        for seen in record.observations
    )
    columns = (
        *who.columns(),
        Column("Epoch", numeric=True),
        Column("Steps", numeric=True),
        Column("Events", numeric=True),
        Column("Wall", "ms", numeric=True),
        Column("Busy, union", "ms, busy", numeric=True),
        Column("Busy, stages", "ms, busy", numeric=True),
        Column("Memory", "MB", numeric=True),
        Column("File", "MB", numeric=True),
        Column("Trace", "in the run's directory"),
    )
    detail = (
        "A few steps under the profiler, kept out of every other number. Busy is the union of the device's kernels, on "
        "a CPU of operators; beside it the sum of the stages' busy times. Memory is what the process grew by. Of many "
        f"traces a run keeps an early, a middle and a late one. {who.shared}."
    )
    windows = [seen.window for record in records for seen in record.observations if seen.window]
    kept = sum(window.trace is not None for window in windows)
    gist = f"{count(len(windows), 'window')}, {count(kept, 'trace')} kept"
    return Table("windows", "Profiler windows", columns, body, detail, reasons.footnotes(), gist)


def _window(record: CellRecord, seen: Observation, reasons: Reasons) -> tuple[Entry, ...]:
    window = seen.window
    if window is None:
        gone = reasons.missing(f"no profiler window: {seen.reason or NOT_HELD}")
        return (*[gone] * 7, gone._replace(numeric=False))
    grown, trace = window.resident_bytes, trace_path(record, window)
    return (
        _whole(window.steps),
        _whole(window.events),
        _milliseconds(window.wall_s),
        _milliseconds(window.busy_s),
        _milliseconds(stages_busy_s(window)),
        reasons.missing("this system does not tell memory in use") if grown is None else _megabytes(grown),
        _megabytes(window.trace_bytes),
        text(trace) if trace else Entry("not kept", missing=True),
    )


def _bound(share: float) -> str:
    return f"{100.0 * share:g}\u00a0%"


def _beyond(value: float, bound: float) -> str:
    return "beyond the bound" if abs(value) > bound else ""


def _epoch(epoch: int) -> Entry:
    return Entry(integer(epoch), sort=epoch, numeric=True)


def _whole(value: int) -> Entry:
    return Entry(integer(value), sort=value, numeric=True)


def _scaled(value: float, unit: Scale) -> Entry:
    return Entry(number(value / unit.divisor), sort=value, numeric=True)


def _milliseconds(value_s: float) -> Entry:
    return Entry(number(1e3 * value_s), sort=value_s, numeric=True)


def _megabytes(value: int) -> Entry:
    return Entry(number(value / 1e6), sort=value, numeric=True)
