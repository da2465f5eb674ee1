"""What a step would gain if a stage were free, beside the shares of it that the stage clock gives."""

from collections.abc import Callable

from profiles.whatif import EffectRow, EpochRow, FallRow, ProjectionRecord, StepRow, SurfaceRecord, WhatIfRecord
from reports.page.tables import Column, Entry, Reasons, Table, text
from reports.words.format import count, model_name, number, percent, visible
from reports.words.palette import stage_class, stage_label


def whatif_tables(record: WhatIfRecord | None) -> tuple[Table, ...]:
    """Return a table for each step that was measured, and one for each waterfall."""
    if record is None:
        return ()
    steps = [_ceilings(place, step, record) for place, step in enumerate(record.steps)]
    cells = list(dict.fromkeys((row.category, row.model) for row in record.waterfall))
    falls = [
        _waterfall(place, [row for row in record.waterfall if (row.category, row.model) == cell], record)
        for place, cell in enumerate(cells)
    ]
    epochs = [
        _epochs(place, [row for row in record.epochs if (row.category, row.model) == cell], record)
        for place, cell in enumerate(dict.fromkeys((row.category, row.model) for row in record.epochs))
    ]
    return (*steps, *falls, *epochs)


def _ceilings(place: int, step: StepRow, record: WhatIfRecord) -> Table:
    columns = (
        Column("Stage or part"),
        Column("What takes its place"),
        Column("Gain", "of the step", numeric=True),
        Column("Exposed", "of the step", numeric=True),
        Column("Busy", "of the step", numeric=True),
        Column("Reading"),
    )
    key = (step.category, step.model, step.pipeline, step.phase)
    reasons = Reasons()
    rows = tuple(_effect(row, reasons) for row in record.effects if row[:4] == key)
    caption = f"If it were free: {step.category}, {model_name(step.model)}, {step.pipeline} pipeline, {step.phase}"
    unit = f"{count(step.windows, 'window')} at a side of {step.image_side} pixels"
    detail = (
        f"Gains are medians of rounds (n) with 95 % intervals; a step of {unit} takes {number(step.step_s)} s, the "
        f"median of {step.rounds} rounds, {count(step.workers, 'worker')}. {measured_on(record)}"
    )
    return Table(
        f"whatif-{place}", visible(caption), columns, rows, detail, (*reasons.footnotes(), *record.not_measured)
    )


def _effect(row: EffectRow, reasons: Reasons) -> tuple[Entry, ...]:
    name = (
        text(stage_label(row.name), f"stage {stage_class(row.name)}")
        if row.kind == "ceiling"
        else text(f"{row.name} (exchanged)")
    )
    note = f"{interval(row.low, row.high)}, n\u00a0{row.rounds}"
    gain = Entry(percent(row.gain), note, sort=row.gain, numeric=True)
    exposed, busy = (_share(share, row, reasons) for share in (row.exposed, row.busy))
    busy = busy._replace(note=row.busy_tag) if row.busy_tag == "estimated" else busy
    return name, text(row.replaced_by), gain, exposed, busy, text(row.reading)


def interval(low: float | None, high: float | None, shown: Callable[[float], str] = percent) -> str:
    """Return the ends of an interval as they are *shown*; without them the rounds were too few for any."""
    return "too few rounds" if low is None or high is None else f"{shown(low)} to {shown(high)}"


def _share(value: float | None, row: EffectRow, reasons: Reasons) -> Entry:
    return reasons.missing(row.unavailable) if value is None else Entry(percent(value), sort=value, numeric=True)


def _waterfall(place: int, rows: list[FallRow], record: WhatIfRecord) -> Table:
    columns = (
        Column("Place", numeric=True),
        Column("Part exchanged"),
        Column("Taken off", "of the thesis's step", numeric=True),
        Column("Left", "of the thesis's step", numeric=True),
        Column("By the step before", numeric=True),
        Column("Reading"),
    )
    body = tuple(
        (
            Entry(str(row.place), sort=row.place, numeric=True),
            text(row.part),
            Entry(percent(row.gain), interval(row.gain_low, row.gain_high), sort=row.gain, numeric=True),
            Entry(percent(row.step), sort=row.step, numeric=True),
            Entry(
                number(row.by_previous),
                f"{interval(row.low, row.high, '{:.3f}'.format)}, n\u00a0{row.rounds}",
                sort=row.by_previous,
                numeric=True,
            ),
            text(row.reading),
        )
        for row in rows
    )
    caption = f"From the thesis's step to the fast one's: {rows[0].category}, {model_name(rows[0].model)}"
    detail = f"What is taken off sums to the whole; {record.order}. {measured_on(record)}"
    return Table(f"waterfall-{place}", visible(caption), columns, body, detail)


def _epochs(place: int, rows: list[EpochRow], record: WhatIfRecord) -> Table:
    columns = (
        Column("Place", numeric=True),
        Column("Part exchanged"),
        Column("To start", "s", numeric=True),
        Column("Training", "s", numeric=True),
        Column("Validation", "s", numeric=True),
        Column("Epoch", "s", numeric=True),
        Column("Taken off", "s", numeric=True),
    )
    body = tuple(
        (
            Entry(str(row.place), sort=row.place, numeric=True),
            text(row.part),
            Entry(number(row.epoch_s - _steps_s(row)), f"n\u00a0{row.rounds}", numeric=True),
            Entry(number(row.steps * row.step_s), count(row.steps, "step"), numeric=True),
            Entry(
                number(row.validation_steps * row.validation_step_s), count(row.validation_steps, "step"), numeric=True
            ),
            Entry(number(row.epoch_s), sort=row.epoch_s, numeric=True),
            Entry(number(row.gain_s), sort=row.gain_s, numeric=True),
        )
        for row in rows
    )
    caption = f"From the thesis's epoch to the fast one's: {rows[0].category}, {model_name(rows[0].model)}"
    detail = (
        "Steps of each place times their number in a whole epoch, and to begin and end loading twice, for training and "
        f"for validation; medians of n rounds. What is taken off sums to the whole. {measured_on(record)}"
    )
    return Table(f"epochs-{place}", visible(caption), columns, body, detail)


def _steps_s(row: EpochRow) -> float:
    return row.steps * row.step_s + row.validation_steps * row.validation_step_s


def measured_on(record: WhatIfRecord | ProjectionRecord | SurfaceRecord) -> str:
    """Say where a record's times are of, and of which code."""
    here = record.environment
    return visible(
        f"{here.device_name}, {here.threads} threads, {record.dtype}, torch {here.packages.get('torch', 'unknown')}, "
        f"commit {record.commit[:12]}."
    )
