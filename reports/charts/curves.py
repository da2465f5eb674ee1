"""Loss curves: one small picture per category and pipeline, all models in it, on a logarithmic scale."""

import math
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from profiles.record import EpochRow
from reports.charts.svg import RULE, Chart, Drawn, Words, chart, figure, shown, styled
from reports.source.load import Cell
from reports.words.format import count, integer, model_name, short, visible
from reports.words.palette import MODELS, UNKNOWN_MODEL

LARGEST = 1e100
"""Loss, or one over it, that counts as finite and positive: an axis overflows before a number does."""

MOST_POINTS = 200

_WIDTH, _HEIGHT = 420.0, 260.0
_FEW_POINTS = 30
_MARKERS = {"msa": "o", "mlsa": "s", "intra": "^", "linformer": "D", "fastformer": "v"}


class Panel(NamedTuple):
    """A picture of the losses of some cells, and what it leaves out."""

    category: str
    pipeline: str
    chart: Chart
    notes: tuple[str, ...]


def panels(cells: tuple[Cell, ...]) -> list[Panel]:
    """Return the loss curves of every cell that has an epoch, finished or not."""
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        if any(_drawable(row) for row in cell.epochs):
            groups.setdefault((cell.category, cell.pipeline), []).append(cell)
    return [_panel(f"loss{place}", *key, group) for place, (key, group) in enumerate(groups.items())]


def _panel(ident: str, category: str, pipeline: str, cells: list[Cell]) -> Panel:
    words = Words()
    with styled():
        drawn = figure(_WIDTH, _HEIGHT)
        axes = drawn.add_axes((0.14, 0.17, 0.83, 0.8))
        for cell in cells:
            _draw(axes, cell, words)
        rows = [row for cell in cells for row in cell.epochs if _drawable(row)]
        _loss_axis(axes, [loss for row in rows for loss in (row.train_loss, row.validation_loss)])
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.set_xlabel("epoch")
        axes.grid(visible=True, color=RULE, linewidth=0.5)
        title = f"Loss on {short(category)}, {short(pipeline)} pipeline"
        description = f"Training dashed, validation solid; {count(len(cells), 'cell')}. A table of them follows."
        picture = chart(ident, drawn, words, title, description, _numbers(cells))
        return Panel(category, pipeline, picture, _left_out(cells))


def _numbers(cells: list[Cell]) -> Drawn:
    """Return a row for each epoch that is drawn of any of *cells*, of each the losses or nothing."""
    lines = [{row.epoch: row for row in _points(cell)} for cell in cells]
    names = [f"{model_name(cell.model)}, seed {visible(cell.seed)}" for cell in cells]
    rows = [
        (integer(epoch), *(text for line in lines for text in _losses(line.get(epoch))))
        for epoch in sorted({epoch for line in lines for epoch in line})
    ]
    columns = ("Epoch", *(f"{name}: {loss}" for name in names for loss in ("training", "validation")))
    return Drawn(columns, tuple(rows))


def _losses(row: EpochRow | None) -> tuple[str, str]:
    return (shown(row.train_loss), shown(row.validation_loss)) if row else ("", "")


def _points(cell: Cell) -> list[EpochRow]:
    """Return the epochs of *cell* that are drawn, its best one among them."""
    rows = [row for row in cell.epochs if _drawable(row)]
    return sorted({*thinned(rows), _best(rows)}, key=lambda row: row.epoch)


def _best(rows: list[EpochRow]) -> EpochRow:
    return min(rows, key=lambda row: row.validation_loss)


def _draw(axes: Axes, cell: Cell, words: Words) -> None:
    """Draw one cell's two lines and, on the validation line, its best epoch so far."""
    rows = _points(cell)
    epochs = [row.epoch for row in rows]
    colour, marker = MODELS.get(cell.model, UNKNOWN_MODEL), _MARKERS.get(cell.model, "x")
    told = f"{model_name(cell.model)}, seed {visible(cell.seed)}"
    dots = marker if len(rows) <= _FEW_POINTS else ""
    for losses, dashes, name in (
        ([row.train_loss for row in rows], "--", "training"),
        ([row.validation_loss for row in rows], "-", "validation"),
    ):
        gid = words.explain(f"{told}: {name} loss")
        (line,) = axes.plot(epochs, losses, linestyle=dashes, color=colour, linewidth=1.4, gid=gid)
        line.set(marker=dots, markersize=3.5)
    best = _best(rows)
    gid = words.explain(f"{told}: lowest validation loss {best.validation_loss:.4g} at epoch {best.epoch}")
    axes.plot(best.epoch, best.validation_loss, marker=marker, color=colour, markersize=8.0, gid=gid)


def thinned(rows: list[EpochRow]) -> list[EpochRow]:
    """Return at most about `MOST_POINTS` of *rows*, evenly, the last among them."""
    step = math.ceil(len(rows) / MOST_POINTS)
    return rows[::step] + (rows[-1:] if (len(rows) - 1) % step else []) if rows else []


def _drawable(row: EpochRow) -> bool:
    losses = (row.train_loss, row.validation_loss)
    return all(1.0 / LARGEST < loss < LARGEST for loss in losses)


def _loss_axis(axes: Axes, losses: list[float]) -> None:
    """Scale the losses by their logarithm, with two ticks or more at 1, 2 and 5 times a power of ten."""
    low, high = math.floor(math.log10(min(losses))), math.ceil(math.log10(max(losses)))
    steps = [factor * 10.0**power for power in range(low, high + 1) for factor in (1.0, 2.0, 5.0)]
    floor = max(step for step in steps if step <= min(losses) * (1.0 + 1e-9))
    ceiling = min(step for step in steps if step >= max(losses) and step > floor)
    axes.set_yscale("log")
    axes.set_ylim(floor * 0.96, ceiling * 1.04)
    ticks = [step for step in steps if floor <= step <= ceiling]
    many = len(ticks) > 7  # noqa: PLR2004 - what the panel's height has room for
    axes.yaxis.set_major_locator(FixedLocator([t for t in ticks if not many or _is_power(t)]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _is_power(value: float) -> bool:
    return math.isclose(math.log10(value), round(math.log10(value)))


def _left_out(cells: list[Cell]) -> tuple[str, ...]:
    """Say what of *cells* is not drawn."""
    notes = []
    for cell in cells:
        bad = sum(not _drawable(row) for row in cell.epochs)
        good = len(cell.epochs) - bad
        if bad:
            notes.append(f"{short(cell.name)}: {count(bad, 'epoch')} without a positive, finite loss not drawn.")
        if good > MOST_POINTS:
            notes.append(f"{short(cell.name)}: about {MOST_POINTS} of {count(good, 'epoch')} drawn.")
    return tuple(notes)
