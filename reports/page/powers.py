"""The numbers behind power and utilisation over time: what each device told in each phase."""

import numpy as np

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
        "Mean, IQR and most are of the samples (n) that fell into the phase: the rows of the cell's telemetry.csv, of "
        "which in a long run one stands for as many as its column samples says. "
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
        for series in found.samples
        for phase in dict.fromkeys(band.phase for band in found.bands)
    ]


def _entries(series: Series, bands: list[Band]) -> tuple[Entry, ...]:
    duration_s = sum(band.stop_s - band.start_s for band in bands)
    power_w = _within(series.time_s, series.power_w, bands)
    used_pct = _within(series.time_s, series.utilization_pct, bands)
    most = Entry(number(max(used_pct)), sort=max(used_pct), numeric=True) if used_pct else _NONE
    return (Entry(number(duration_s), sort=duration_s, numeric=True), _mean(power_w), _mean(used_pct), most)


def _within(time_s: list[float], values: list[float], bands: list[Band]) -> list[float]:
    """Return what of *values* was told within *bands*."""
    at_s, found = np.array(time_s), np.array(values)
    inside = [(band.start_s <= at_s) & (at_s <= band.stop_s) for band in bands]
    kept: list[float] = found[np.any(inside, axis=0) & np.isfinite(found)].tolist()
    return kept


def _mean(values: list[float]) -> Entry:
    return quantity(float(np.mean(values)), spread(values), len(values)) if values else _NONE
