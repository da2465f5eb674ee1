"""A step at other settings and on other machines, as the queueing model has it, beside the steps it was tried on."""

from profiles.whatif import AskedRow, FitRow, ProjectionRecord, SettingRow
from reports.page.tables import Column, Entry, Table, text
from reports.page.whatif import measured_on
from reports.words.format import integer, model_name, number, percent, scale, visible

_RESOURCES = ("loader_s", "host_s", "device_s")


def projection_tables(record: ProjectionRecord | None) -> tuple[Table, ...]:
    """Return for each cell what was asked, and the grid behind it."""
    if record is None:
        return ()
    return tuple(
        table
        for place, fit in enumerate(record.fits)
        for table in (_answers(place, fit, record), _grid(place, fit, record))
    )


def _answers(place: int, fit: FitRow, record: ProjectionRecord) -> Table:
    columns = (
        Column("Asked"),
        Column("Workers", numeric=True),
        Column("Batch", "windows", numeric=True),
        Column("Side", "pixels", numeric=True),
        Column("Step", "s", numeric=True),
        Column("Epoch's steps", numeric=True),
        Column("Held up by"),
        *(Column(name.removesuffix("_s").capitalize(), "s a step", numeric=True) for name in _RESOURCES),
        Column("Beyond the measured"),
    )
    rows = tuple(_answer(row) for row in record.asked if row[:3] == fit[:3])
    detail = f"Predicted, not measured. {_error(fit)} {measured_on(record)}"
    return Table(f"asked-{place}", f"Projected: {_cell(fit)}", columns, rows, detail, record.assumptions)


def _answer(row: AskedRow) -> tuple[Entry, ...]:
    epoch = scale("s", row.epoch_s)
    settings = (row.workers, row.batch_size, row.image_side)
    return (
        text(row.asked),
        *(Entry(integer(value), sort=value, numeric=True) for value in settings),
        _seconds(row.step_s),
        Entry(f"{number(row.epoch_s / epoch.divisor)}\u00a0{epoch.label}", sort=row.epoch_s, numeric=True),
        text(row.held_up_by),
        *(_seconds(getattr(row, name)) for name in _RESOURCES),
        text(row.beyond or "nothing"),
    )


def _grid(place: int, fit: FitRow, record: ProjectionRecord) -> Table:
    columns = (
        Column("Workers", numeric=True),
        Column("Batch", "windows", numeric=True),
        Column("Side", "pixels", numeric=True),
        Column("Half"),
        Column("Measured", "s a step", numeric=True),
        Column("Predicted", "s a step", numeric=True),
        Column("Off by", numeric=True),
        Column("Held up by"),
    )
    rows = tuple(_setting(row) for row in record.settings if row[:3] == fit[:3])
    rate = "" if fit.decoded_per_s is None else (
        f" A processor decodes {number(fit.decoded_per_s / 1e6)} million stored values a second, of which an image has "
        f"{number(fit.stored_values / 1e6)} million; a batch costs its worker {number(fit.overhead)} times what is "
        f"metered, and a step occupies {number(fit.occupied)} processors."
    )  # fmt: skip
    detail = f"Measured times are medians of rounds (n). {_error(fit)}{rate} {measured_on(record)}"
    return Table(f"grid-{place}", f"The model on trial: {_cell(fit)}", columns, rows, detail)


def _setting(row: SettingRow) -> tuple[Entry, ...]:
    settings = (row.workers, row.batch_size, row.image_side)
    return (
        *(Entry(integer(value), sort=value, numeric=True) for value in settings),
        text("held out" if row.held_out else "fitted"),
        _seconds(row.measured_s)._replace(note=f"n\u00a0{row.rounds}"),
        _seconds(row.predicted_s),
        Entry(percent(row.error), sort=row.error, numeric=True),
        text(row.held_up_by),
    )


def _error(fit: FitRow) -> str:
    return (
        f"On {integer(fit.held_out)} settings that nothing was fitted to, predictions are off by "
        f"{percent(fit.held_out_error)} (median; {percent(fit.largest_error)} at most), on the {integer(fit.fitted)} "
        f"fitted ones by {percent(fit.fitted_error)}."
    )


def _cell(fit: FitRow) -> str:
    return visible(f"{fit.category}, {model_name(fit.model)}, {fit.pipeline} pipeline")


def _seconds(value: float) -> Entry:
    return Entry(number(value), sort=value, numeric=True)
