"""Linear attention by softmax attention with all else of the model free, over the side of a window and the width."""

from profiles.whatif import SurfaceRecord, SurfaceRow
from reports.page.tables import Column, Entry, Table
from reports.page.whatif import interval, measured_on
from reports.words.format import model_name, number, visible


def surface_tables(surfaces: tuple[SurfaceRecord, ...]) -> tuple[Table, ...]:
    """Return a table for each surface: a row for each side, a column for each width."""
    return tuple(_table(place, surface) for place, surface in enumerate(surfaces))


def _table(place: int, surface: SurfaceRecord) -> Table:
    widths = list(dict.fromkeys(row.width for row in surface.rows))
    at = {(row.window_side, row.width): row for row in surface.rows}
    columns = (
        Column("Window's side", "patches", numeric=True),
        Column("Tokens", numeric=True),
        *(Column(f"Width {width}", numeric=True) for width in widths),
    )
    body = tuple(
        (
            Entry(str(side), sort=side, numeric=True),
            Entry(str(side**2), sort=side**2, numeric=True),
            *(_ratio(at.get((side, width))) for width in widths),
        )
        for side in sorted({row.window_side for row in surface.rows})
    )
    linear, softmax = model_name(surface.linear), model_name(surface.softmax)
    caption = f"{linear} by {softmax}, attention alone, by the window and the width: {surface.backend}"
    detail = (
        f"Time of {linear}'s attention as a multiple of {softmax}'s, forward and backward, projections included, "
        f"medians of rounds (n) with 95 % intervals: below 1 linear attention is faster. {measured_on(surface)}"
    )
    return Table(f"surface-{place}", visible(caption), columns, body, visible(detail))


def _ratio(row: SurfaceRow | None) -> Entry:
    if row is None:
        return Entry("not measured", missing=True)
    note = f"{interval(row.low, row.high, '{:.2f}'.format)}, n\u00a0{row.rounds}"
    return Entry(number(row.ratio), note, sort=row.ratio, numeric=True)
