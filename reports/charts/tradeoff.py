"""What accuracy cost: each cell's segmentation AUROC against the time and against the energy of its training."""

from matplotlib.axes import Axes

from profiles.record import CellRecord
from reports.charts.svg import RULE, Chart, Drawn, Words, chart, figure, shown, styled
from reports.claims.pairs import metric_value
from reports.words.format import count, model_name, number, scale, visible
from reports.words.palette import MODELS, UNKNOWN_MODEL

_WIDTH, _HEIGHT = 520.0, 320.0
_MARKERS = {"msa": "o", "mlsa": "s", "intra": "^", "linformer": "D", "fastformer": "v"}

COSTS = {"training_time": "time", "training_energy": "energy"}
"""Metric and word of what a training costs."""


def tradeoff_chart(ident: str, records: list[CellRecord], cost: str) -> Chart | None:
    """Return a dot for each cell that has both numbers; None where none has."""
    found = [
        (record, spent, reached)
        for record in records
        if (spent := metric_value(record, cost)) is not None
        and (reached := metric_value(record, "segmentation_auroc")) is not None
    ]
    if not found:
        return None
    unit = scale("s" if cost == "training_time" else "J", max(spent for _, spent, _ in found))
    words = Words()
    with styled():
        drawn = figure(_WIDTH, _HEIGHT)
        axes = drawn.add_axes((0.12, 0.15, 0.83, 0.81))
        for record, spent, reached in found:
            _dot(axes, record, (spent / unit.divisor, reached), unit.label, words)
        axes.set_xlabel(f"{COSTS[cost]} of the training, {unit.label}")
        axes.set_ylabel("segmentation AUROC, %")
        axes.margins(0.08)
        axes.grid(visible=True, color=RULE, linewidth=0.5)
        title = f"Segmentation AUROC against the {COSTS[cost]} of the training"
        description = f"A dot per cell, {count(len(found), 'cell')}; further up is more accurate, further left cheaper."
        rows = [(*_names(record), shown(spent / unit.divisor), shown(reached)) for record, spent, reached in found]
        columns = ("Category", "Model", "Pipeline", "Seed", f"{COSTS[cost]}, {unit.label}", "segmentation AUROC, %")
        return chart(ident, drawn, words, title, description, Drawn(columns, tuple(rows)))


def _names(record: CellRecord) -> tuple[str, str, str, str]:
    return visible(record.category), model_name(record.model), visible(record.pipeline), str(record.seed)


def _dot(axes: Axes, record: CellRecord, place: tuple[float, float], unit: str, words: Words) -> None:
    """Draw a cell; hollow is the thesis's pipeline."""
    colour = MODELS.get(record.model, UNKNOWN_MODEL)
    category, model, pipeline, seed = _names(record)
    gid = words.explain(
        f"{category}, {model}, {pipeline}, seed {seed}: {number(place[1])} % after {number(place[0])} {unit}"
    )
    axes.plot(
        *place,
        _MARKERS.get(record.model, "x"),
        color=colour,
        markersize=8.0,
        fillstyle="none" if record.pipeline == "thesis" else "full",
        gid=gid,
    )
