"""The numbers behind the roofline, as a table."""

from profiles.record import Environment
from reports.charts.roofline import Point
from reports.page.tables import Column, Entry, Identity, Table, text
from reports.words.format import integer, model_name, number, percent
from reports.words.palette import stage_class, stage_label


def roofline_table(points: list[Point], environment: Environment | None, who: Identity) -> Table | None:
    """Return each stage's arithmetic, traffic and rate; None without any."""
    if not points:
        return None
    columns = (
        Column("Model"),
        Column("Pipeline"),
        Column("Stage"),
        Column("Direction"),
        Column("Arithmetic", "MFLOP a window, counted", numeric=True),
        Column("Traffic, least", "KB a window, counted", numeric=True),
        Column("Intensity", "FLOP per byte", numeric=True),
        Column("Time", "\u00b5s a window", numeric=True),
        Column("Rate", "GFLOP/s", numeric=True),
        Column("Traffic, least", "GB/s", numeric=True),
        Column("Part of the roof", "%", numeric=True),
    )
    body = tuple(_row(point) for point in points)
    detail = (
        "Arithmetic of matrix products and convolutions and the least traffic are counted; times are medians over "
        f"cells (n), busy where that is known. The device's own peak, measured before the run: {_peaks(environment)}; "
        f"{who.shared}."
    )
    return Table("roofline", "Arithmetic and rate of the stages of training", columns, body, detail)


def _peaks(environment: Environment | None) -> str:
    if environment is None or not environment.flops_per_s or not environment.bytes_per_s:
        return "not measured"
    return f"{number(environment.flops_per_s / 1e9)} GFLOP/s and {number(environment.bytes_per_s / 1e9)} GB/s"


def _row(point: Point) -> tuple[Entry, ...]:
    row = point.row
    return (
        text(model_name(point.model)),
        text(point.pipeline),
        text(stage_label(row.stage), f"stage {stage_class(row.stage)}"),
        text(row.direction),
        _number(row.flops / 1e6),
        _number(row.least_bytes / 1e3),
        _number(row.intensity),
        _number(1e6 * row.time_s)._replace(note=f"{row.time_kind}, n\u00a0{integer(point.n)}"),
        _number(row.flops_per_s / 1e9),
        _number(row.least_bytes / row.time_s / 1e9),
        _part(point.part),
    )


def _part(part: float | None) -> Entry:
    if part is None:
        return Entry("unavailable", numeric=True, missing=True)
    note = "above it: the time is too short to be right" if part > 1.0 else ""
    return Entry(percent(part), note, part, numeric=True)


def _number(value: float) -> Entry:
    return Entry(number(value), sort=value, numeric=True)
