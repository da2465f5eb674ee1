"""The numbers behind the loss curves: each cell's first, lowest and last losses."""

import math

from profiles.record import EpochRow
from reports.page.tables import Column, Entry, Identity, Table, text
from reports.source.load import Cell
from reports.words.format import count, integer, model_name, number


def losses_table(cells: tuple[Cell, ...], who: Identity) -> Table | None:
    """Return a row per cell that has an epoch, finished or not; None without any."""
    body = tuple(_row(cell) for cell in cells if cell.epochs)
    if not body:
        return None
    columns = (
        *(Column(name, numeric=name == "Seed") for name in ("Category", "Model", "Pipeline", "Seed")),
        Column("Epochs", numeric=True),
        Column("Training", "first epoch", numeric=True),
        Column("Training", "last epoch", numeric=True),
        Column("Validation", "first epoch", numeric=True),
        Column("Validation", "lowest", numeric=True),
        Column("Validation", "last epoch", numeric=True),
    )
    detail = (
        "Losses have no unit; each is of one epoch, so has no spread. Every epoch's is in the cell's epochs.csv. "
        f"{count(len(body), 'cell')}; {who.shared}."
    )
    return Table("losses-table", "Losses: first, lowest, last", columns, body, detail)


def _row(cell: Cell) -> tuple[Entry, ...]:
    first, last = cell.epochs[0], cell.epochs[-1]
    finite = [row for row in cell.epochs if math.isfinite(row.validation_loss)]
    best = min(finite, key=lambda row: row.validation_loss, default=None)
    return (
        text(cell.category),
        text(model_name(cell.model)),
        text(cell.pipeline),
        text(cell.seed)._replace(numeric=True),
        Entry(integer(len(cell.epochs)), sort=len(cell.epochs), numeric=True),
        _loss(first.train_loss),
        _loss(last.train_loss),
        _loss(first.validation_loss),
        _lowest(best),
        _loss(last.validation_loss),
    )


def _lowest(row: EpochRow | None) -> Entry:
    if row is None:
        return Entry("\u2013", "none is finite", numeric=True, missing=True)
    return _loss(row.validation_loss)._replace(note=f"epoch {integer(row.epoch)}")


def _loss(value: float) -> Entry:
    return Entry(number(value), sort=value if math.isfinite(value) else None, numeric=True)
