"""The report's pictures: where the training phase goes, and the two attentions' times."""

import math
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator, PercentFormatter

from profiles.record import CellRecord, StageTotal
from reports.charts.svg import ACCENT, INK, ON_STAGE, PAPER, RULE, Chart, Drawn, Words, chart, figure, shown, styled
from reports.claims.pairs import Pair, Setting, by_category, log_ratio, measured_pairs, published_pairs, setting_of
from reports.source.load import cell_name
from reports.words.format import model_name, number, percent, ratio, short, visible
from reports.words.palette import STAGES, UNKNOWN, in_order, stage_label

_WIDTH, _RATIO_WIDTH = 1080.0, 640.0
_BAR, _THIN_BAR, _FEW_BARS = 48.0, 33.0, 12
_EXPOSED, _BUSY = (-0.12, 0.56), (0.29, 0.2)
"""How far below a cell's middle its two bars lie and how thick they are, as parts of its height."""

_NAMED, _NUMBERED = 0.115, 0.04
_MOST = 1e6
"""Times the phase's own from which busy time is no time that anything worked."""


class _Part(NamedTuple):
    """One stage of a phase in one direction; both shares are of the phase's exposed time."""

    total: StageTotal
    exposed: float
    busy: float | None


def stage_chart(ident: str, records: list[CellRecord], phase: str = "train") -> Chart | None:
    """Return two stacked bars per record, the *phase* exposed and busy; None where no record holds that phase."""
    bars = [(record, parts) for record in records if (parts := _parts(record, phase))]
    if not bars:
        return None
    words, busiest = Words(), max(sum(part.busy or 0.0 for part in parts) for _, parts in bars)
    with styled():
        drawn = figure(_WIDTH, (_BAR if len(bars) <= _FEW_BARS else _THIN_BAR) * len(bars) + 44.0)
        axes = _axes(drawn, 30.0, [_cell_label(record) for record, _ in bars])
        axes.set(xlim=(0.0, max(1.0, busiest)), ylim=(len(bars) - 0.45, -0.55))
        for place, (_, parts) in enumerate(bars):
            _bars(axes, place, parts, words)
        labels = [words.label(_cell_label(record)) for record, _ in bars]
        axes.set_yticks(range(len(bars)), labels)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.tick_params(axis="y", length=0.0)
        axes.spines["left"].set_visible(False)
        description = f"Stacked bars, two per cell; a table of them follows. {len(bars)} cells."
        rows = tuple(_row(record, part) for record, parts in bars for part in parts)
        numbers = Drawn(("Cell", "Stage", "Direction", "Share of exposed time, %", "Busy, %"), rows)
        return chart(ident, drawn, words, f"Stages of the {phase} phase, exposed and busy", description, numbers)


def _parts(record: CellRecord, phase: str) -> list[_Part]:
    """Return the stages of *phase* that took or worked any time, in the order of telling, backward last."""
    totals = [total for total in record.stage_totals if total.phase == phase]
    stages = in_order({total.stage for total in totals})
    totals.sort(key=lambda total: (stages.index(total.stage), total.direction == "backward"))
    wall_s = sum(total.exposed_s for total in totals)
    parts = [_Part(total, total.share, _busy(total, wall_s)) for total in totals]
    return [part for part in parts if part.exposed or part.busy]


def _busy(total: StageTotal, wall_s: float) -> float | None:
    busy = total.busy_s / wall_s if total.busy_s is not None and wall_s else math.nan
    return busy if 0.0 <= busy < _MOST else None


def _row(record: CellRecord, part: _Part) -> tuple[str, ...]:
    busy = "unavailable" if part.busy is None else shown(100.0 * part.busy)
    stage = visible(stage_label(part.total.stage))
    return visible(cell_name(record)), stage, part.total.direction, shown(100.0 * part.exposed), busy


def _axes(drawn: Figure, below: float, labels: list[str]) -> Axes:
    """Return axes that leave room for *labels* on the left and, in pixels, for what stands *below*."""
    width, height = drawn.bbox.width, drawn.bbox.height
    left = (6.8 * max(map(len, labels)) + 12.0) / width
    return drawn.add_axes((left, below / height, 0.98 - left, 1.0 - (below + 6.0) / height))


def _bars(axes: Axes, place: int, parts: list[_Part], words: Words) -> None:
    """Draw a cell's stages from left to right, exposed and below that busy, where it is known."""
    exposed = [(p.total, p.exposed, f"{percent(p.exposed)}, {number(p.total.exposed_s)} s") for p in parts]
    busy = [
        (p.total, p.busy, f"busy {percent(p.busy)}, {number(p.total.busy_s)} s, {p.total.busy_tag}")
        for p in parts
        if p.busy is not None and p.total.busy_s is not None
    ]
    for pieces, (below, thick) in ((exposed, _EXPOSED), (busy, _BUSY)):
        left = 0.0
        for total, length, numbers in pieces:
            if length:
                _piece(axes, (left, place + below, length, thick), total, words.explain(_told(total, numbers)))
                left += length
    _labels(axes, place + _EXPOSED[0], parts, words)


def _told(total: StageTotal, numbers: str) -> str:
    direction = "" if total.direction == "none" else f", {total.direction}"
    return f"{visible(stage_label(total.stage))}{direction}: {numbers}"


def _piece(axes: Axes, box: tuple[float, float, float, float], total: StageTotal, gid: str) -> None:
    """Draw a piece of a bar, its *box* left, middle, length and thickness; hatched is backward.

    `Axes.barh` would look at its limits anew for every piece, which are set.
    """
    left, middle, length, thick = box
    axes.add_artist(
        Rectangle(
            (left, middle - thick / 2.0),
            length,
            thick,
            facecolor=STAGES.get(total.stage, UNKNOWN),
            edgecolor=PAPER,
            linewidth=0.8,
            hatch="///" if total.direction == "backward" else None,
            clip_on=False,
            gid=gid,
        )
    )


def _labels(axes: Axes, middle: float, parts: list[_Part], words: Words) -> None:
    """Name the stages of an exposed bar, and number them, as far as there is room."""
    left, whole = 0.0, axes.get_xlim()[1]
    for stage in dict.fromkeys(part.total.stage for part in parts):
        share = sum(part.exposed for part in parts if part.total.stage == stage)
        text, room = f"{100.0 * share:.0f}\u00a0%", share / whole
        if room >= _NAMED:
            text = f"{short(stage_label(stage), int(120 * room))} {text}"
        if room >= _NUMBERED:
            label = words.label(text)
            axes.text(left + share / 2.0, middle, label, ha="center", va="center", size=11.0, color=ON_STAGE)
        left += share


def ratio_chart(ident: str, records: list[CellRecord], setting: Setting, baseline: str, other: str) -> Chart | None:
    """Return each category's ratio of time per epoch, measured and published; None without a pair."""
    ours = [record for record in records if setting_of(record) == setting]
    measured = _ratios(measured_pairs(ours, "time_per_epoch", baseline, other))
    if not measured:
        return None
    thesis = _ratios(published_pairs("time_per_epoch", baseline, other))
    words = Words()
    with styled():
        drawn = figure(_RATIO_WIDTH, 24.0 * len(measured) + 60.0)
        axes = _axes(drawn, 46.0, [short(name, 32) for name in measured])
        for place, (name, value) in enumerate(measured.items()):
            _dots(axes, place, name, (value, thesis.get(name)), words)
        _ratio_axes(
            axes,
            words,
            list(measured),
            [*measured.values(), *(thesis[name] for name in measured if name in thesis)],
        )
        axes.set_xlabel(
            words.label(
                f"time per epoch, {model_name(other)} / {model_name(baseline)} (baseline {model_name(baseline)})"
            )
        )
        description = (
            f"A dot per category; right of the line at 1, {model_name(other)} takes longer. {len(measured)} categories."
        )
        return chart(
            ident,
            drawn,
            words,
            f"Time per epoch, {model_name(other)} / {model_name(baseline)}, by category",
            description,
            _numbers(measured, thesis),
        )


def _numbers(measured: dict[str, float], thesis: dict[str, float]) -> Drawn:
    """Return a row for each category's pair of dots."""
    rows = [(visible(name), shown(ours), shown(thesis.get(name, math.nan))) for name, ours in measured.items()]
    return Drawn(("Category", "Measured", "Published"), tuple(rows))


def _dots(axes: Axes, place: int, name: str, ratios: tuple[float, float | None], words: Words) -> None:
    """Draw a category's measured ratio, filled, and the published one, hollow."""
    value, thesis = ratios
    if thesis is not None:
        axes.plot([thesis, value], [place, place], color=RULE, linewidth=1.5, zorder=1)
        told = words.explain(f"{visible(name)}, published: {ratio(thesis)}")
        axes.plot(thesis, place, "o", mfc=PAPER, mec=INK, ms=7.0, gid=told)
    told = words.explain(f"{visible(name)}, measured: {ratio(value)}")
    axes.plot(value, place, "o", color=ACCENT, ms=8.0, gid=told)


def _ratio_axes(axes: Axes, words: Words, names: list[str], values: list[float]) -> None:
    """Scale the ratios by their logarithm, so that a half and a double stand equally far from 1."""
    low, high = min(0.95, *values), max(1.05, *values)
    margin = (high / low) ** 0.06
    axes.set_xscale("log")
    axes.set(xlim=(low / margin, high * margin), ylim=(len(names) - 0.5, -0.5))
    axes.axvline(1.0, color=INK, linewidth=1.0, zorder=0)
    steps = (0.01, 0.1, 0.2, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.5, 2.0, 3.0, 5.0, 10.0, 100.0)
    axes.xaxis.set_major_locator(FixedLocator([step for step in steps if low / margin < step < high * margin]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_yticks(range(len(names)), [words.label(short(name, 32)) for name in names])
    axes.tick_params(axis="y", length=0.0)
    axes.grid(visible=True, axis="y", color=RULE, linewidth=0.5)


def _ratios(pairs: list[Pair]) -> dict[str, float]:
    return {name: math.exp(effect) for name, effect in by_category(pairs, log_ratio).items()}


def _cell_label(record: CellRecord) -> str:
    return f"{short(record.category, 16)} {short(f'{record.model}-{record.pipeline}', 18)} s{record.seed}"
