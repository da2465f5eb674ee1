"""The report's pictures: where the training phase goes, and the two attentions' times."""

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator, PercentFormatter

from profiles.record import CellRecord, StageTotal
from reports.charts.svg import ACCENT, INK, ON_STAGE, PAPER, RULE, Chart, Drawn, Words, chart, figure, shown, styled
from reports.claims.pairs import Pair, Setting, by_category, log_ratio, measured_pairs, published_pairs, setting_of
from reports.source.load import cell_name
from reports.words.format import model_name, number, percent, ratio, short, visible
from reports.words.palette import STAGES, UNKNOWN, in_order, stage_label

_WIDTH, _RATIO_WIDTH = 1080.0, 640.0
_BAR, _THIN_BAR, _FEW_BARS = 38.0, 25.0, 12
_NAMED, _NUMBERED = 0.115, 0.04


def stage_chart(ident: str, records: list[CellRecord], phase: str = "train") -> Chart | None:
    """Return one stacked bar per record: the *phase*'s shares; None where no record holds that phase."""
    bars = [(r, [t for t in r.stage_totals if t.phase == phase and t.share > 0.0]) for r in records]
    bars = [(record, totals) for record, totals in bars if totals]
    if not bars:
        return None
    words = Words()
    with styled():
        drawn = figure(_WIDTH, (_BAR if len(bars) <= _FEW_BARS else _THIN_BAR) * len(bars) + 44.0)
        axes = _axes(drawn, 30.0, [_cell_label(record) for record, _ in bars])
        for place, (_, totals) in enumerate(bars):
            _bar(axes, place, totals, words)
        labels = [words.label(_cell_label(record)) for record, _ in bars]
        axes.set_yticks(range(len(bars)), labels)
        axes.set(xlim=(0.0, 1.0), ylim=(len(bars) - 0.45, -0.55))
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.tick_params(axis="y", length=0.0)
        axes.spines["left"].set_visible(False)
        description = f"Stacked bars, one per cell; a table of them follows. {len(bars)} bars."
        rows = tuple(_share(record, total) for record, totals in bars for total in totals)
        numbers = Drawn(("Cell", "Stage", "Direction", "Share of exposed time, %"), rows)
        return chart(ident, drawn, words, f"Stages of the {phase} phase, share of exposed time", description, numbers)


def _share(record: CellRecord, total: StageTotal) -> tuple[str, ...]:
    return visible(cell_name(record)), visible(stage_label(total.stage)), total.direction, shown(100.0 * total.share)


def _axes(drawn: Figure, below: float, labels: list[str]) -> Axes:
    """Return axes that leave room for *labels* on the left and, in pixels, for what stands *below*."""
    width, height = drawn.bbox.width, drawn.bbox.height
    left = (6.8 * max(map(len, labels)) + 12.0) / width
    return drawn.add_axes((left, below / height, 0.98 - left, 1.0 - (below + 6.0) / height))


def _bar(axes: Axes, place: int, totals: list[StageTotal], words: Words) -> None:
    """Draw one cell's stages from left to right; hatched is backward."""
    left = 0.0
    for stage in in_order({total.stage for total in totals}):
        start = left
        for total in sorted((t for t in totals if t.stage == stage), key=lambda t: t.direction == "backward"):
            direction = "" if total.direction == "none" else f", {total.direction}"
            told = f"{visible(stage_label(stage))}{direction}: {percent(total.share)}, {number(total.exposed_s)} s"
            (drawn,) = axes.barh(
                place,
                total.share,
                left=left,
                height=0.78,
                color=STAGES.get(stage, UNKNOWN),
                edgecolor=PAPER,
                linewidth=0.8,
                hatch="///" if total.direction == "backward" else None,
            )
            drawn.set_gid(words.explain(told))
            left += total.share
        _label(axes, place, (start, left), stage, words)


def _label(axes: Axes, place: int, span: tuple[float, float], stage: str, words: Words) -> None:
    share = span[1] - span[0]
    if share < _NUMBERED:
        return
    text = f"{100.0 * share:.0f}\u00a0%"
    if share >= _NAMED:
        text = f"{short(stage_label(stage), int(120 * share))} {text}"
    axes.text(sum(span) / 2.0, place, words.label(text), ha="center", va="center", size=11.0, color=ON_STAGE)


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
    positive = [pair for pair in pairs if min(pair.baseline, pair.other) > 0.0]
    return {name: math.exp(effect) for name, effect in by_category(positive, log_ratio).items()}


def _cell_label(record: CellRecord) -> str:
    return f"{short(record.category, 16)} {short(f'{record.model}-{record.pipeline}', 18)} s{record.seed}"
