"""The numbers behind power and utilisation over time: what each device told in each phase."""

import math
from statistics import fmean

from profiles.spread import spread
from reports.page.tables import Column, Entry, Identity, Table, quantity, text
from reports.source.load import Cell
from reports.source.telemetry import Band, Series, read_telemetry
from reports.words.format import count, model_name, number

_NONE = Entry("\u2013", "not told", numeric=True, missing=True)


def powers_table(cells: tuple[Cell, ...], who: Identity) -> Table | None:
    """Return a row per finished cell, device and phase; None where no cell was sampled."""
    body = tuple(row for cell in cells if cell.record is not None for row in _rows(cell))
    if not body:
        return None
    columns = (
        *(Column(name, numeric=name == "Seed") for name in ("Category", "Model", "Pipeline", "Seed")),
        Column("Read from"),
        Column("Phase"),
        Column("Duration", "s", numeric=True),
        Column("Power", "W, mean", numeric=True),
        Column("Used", "%, mean", numeric=True),
        Column("Used", "%, most", numeric=True),
    )
    detail = (
        "Means over the points of the picture (n), each the mean of one stretch of time; IQR is over those points. "
        "The cell's telemetry.csv holds each sample; of a long run, one row for as many as its column samples says. "
        f"{count(len(body), 'row')}; {who.shared}."
    )
    return Table("powers", "Power and utilisation by phase", columns, body, detail)


def _rows(cell: Cell) -> list[tuple[Entry, ...]]:
    found = read_telemetry(cell.folder)
    identity = (
        text(cell.category),
        text(model_name(cell.model)),
        text(cell.pipeline),
        text(cell.seed)._replace(numeric=True),
    )
    return [
        (*identity, text(series.device), text(phase), *_entries(series, [b for b in found.bands if b.phase == phase]))
        for series in found.series
        for phase in dict.fromkeys(band.phase for band in found.bands)
    ]


def _entries(series: Series, bands: list[Band]) -> tuple[Entry, ...]:
    duration_s = sum(band.stop_s - band.start_s for band in bands)
    power_w = _within(series.time_s, series.power_w, bands)
    used_pct = _within(series.time_s, series.utilization_pct, bands)
    most = Entry(number(max(used_pct)), sort=max(used_pct), numeric=True) if used_pct else _NONE
    return (Entry(number(duration_s), sort=duration_s, numeric=True), _mean(power_w), _mean(used_pct), most)


def _within(time_s: list[float], values: list[float], bands: list[Band]) -> list[float]:
    return [
        value
        for at_s, value in zip(time_s, values, strict=True)
        if math.isfinite(value) and any(band.start_s <= at_s <= band.stop_s for band in bands)
    ]


def _mean(values: list[float]) -> Entry:
    return quantity(fmean(values), spread(values), len(values)) if values else _NONE
