"""A roofline (Williams et al. 2009): each stage's rate against its arithmetic intensity, below the device's peak."""

from statistics import median
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator

from profiles.record import CellRecord, Environment
from reports.charts.svg import INK, RULE, Chart, Words, chart, figure, styled
from reports.rows.work import WorkRow, work_rows
from reports.words.format import model_name, number, percent, visible
from reports.words.palette import STAGES, UNKNOWN, stage_label

_WIDTH, _HEIGHT = 760.0, 380.0
_MARKERS = {"msa": "o", "mlsa": "s", "intra": "^", "linformer": "D", "fastformer": "v"}
_SHAPES = {"msa": "a circle", "mlsa": "a square", "intra": "a triangle", "linformer": "a diamond"}


class Point(NamedTuple):
    """One stage of one model on one pipeline: medians over `n` cells, and the part of the roof that it reaches."""

    model: str
    pipeline: str
    row: WorkRow
    n: int
    part: float | None


def points(records: list[CellRecord], environment: Environment | None) -> list[Point]:
    """Return a point for each model, pipeline, stage and direction whose arithmetic the records hold."""
    groups: dict[tuple[str, str, str, str], list[WorkRow]] = {}
    for record in records:
        for row in work_rows(record):
            groups.setdefault((record.model, record.pipeline, row.stage, row.direction), []).append(row)
    return [
        Point(model, pipeline, middle, len(rows), _part(middle, environment))
        for (model, pipeline, _, _), rows in groups.items()
        for middle in [_middle(rows)]
    ]


def _middle(rows: list[WorkRow]) -> WorkRow:
    """Return a row of medians; *rows* are of one stage and model."""
    time_s, intensity = median(row.time_s for row in rows), median(row.intensity for row in rows)
    rate, least_bytes = median(row.flops_per_s for row in rows), median(row.least_bytes for row in rows)
    return rows[0]._replace(time_s=time_s, intensity=intensity, flops_per_s=rate, least_bytes=least_bytes)


def roof(intensity: float, environment: Environment | None) -> float | None:
    """Return the most FLOP/s at an *intensity*; None where the device's own peaks were not measured."""
    if environment is None or not environment.flops_per_s or not environment.bytes_per_s:
        return None
    return min(environment.flops_per_s, intensity * environment.bytes_per_s)


def _part(row: WorkRow, environment: Environment | None) -> float | None:
    """Return the rate by the most that is possible; what multiplies nothing can at most move its bytes."""
    if row.flops == 0 and environment is not None and environment.bytes_per_s:
        return row.least_bytes / row.time_s / environment.bytes_per_s
    most = roof(row.intensity, environment)
    return row.flops_per_s / most if most else None


def roofline_chart(ident: str, points: list[Point], environment: Environment | None) -> Chart | None:
    """Return the picture; None without a point or without the device's peaks. No logarithm is of no arithmetic."""
    found = [point for point in points if point.row.flops]
    if not found or environment is None or roof(1.0, environment) is None:
        return None
    words = Words()
    with styled():
        drawn = figure(_WIDTH, _HEIGHT)
        axes = drawn.add_axes((0.1, 0.13, 0.88, 0.84))
        low = min(point.row.intensity for point in found) / 3.0
        high = max(point.row.intensity for point in found) * 3.0
        ridge = (environment.flops_per_s or 0.0) / (environment.bytes_per_s or 1.0)
        line = sorted({low, high, *([ridge] if low < ridge < high else [])})
        told = words.explain("the most that this device was measured to do: a matrix product, a copy")
        axes.plot(line, [(roof(x, environment) or 0.0) / 1e9 for x in line], color=INK, linewidth=1.5, gid=told)
        for point in found:
            _dot(axes, point, words)
        _axes(axes)
        description = (
            "Both scales are logarithmic; the line is the device's measured peak, flat where arithmetic is the limit, "
            f"rising where memory is. A mark per stage and direction: {_marks(found)}, hollow is "
            f"backward{_above(found)}; the table holds the numbers."
        )
        return chart(ident, drawn, words, "Roofline of the stages of training", description)


def _marks(found: list[Point]) -> str:
    """Return which mark is which model's."""
    models = dict.fromkeys(point.model for point in found)
    return ", ".join(f"{_SHAPES.get(model, 'a cross')} is {model_name(model)}" for model in models)


def _above(found: list[Point]) -> str:
    """Say how many points lie where none can: above the roof."""
    above = sum(point.part is not None and point.part > 1.0 for point in found)
    return f"; {above} of {len(found)} lie above the roof, so their times are too short to be right" if above else ""


def _dot(axes: Axes, point: Point, words: Words) -> None:
    row = point.row
    part = "" if point.part is None else f", {percent(point.part)} of the roof"
    told = (
        f"{model_name(point.model)}, {visible(point.pipeline)}: {visible(stage_label(row.stage))}, {row.direction}: "
        f"{number(row.flops_per_s / 1e9)} GFLOP/s at {number(row.intensity)} FLOP per byte{part}"
    )
    axes.plot(
        row.intensity,
        row.flops_per_s / 1e9,
        _MARKERS.get(point.model, "x"),
        color=STAGES.get(row.stage, UNKNOWN),
        markersize=8.0,
        markeredgewidth=1.6,
        fillstyle="none" if row.direction == "backward" else "full",
        gid=words.explain(told),
    )


def _axes(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("FLOP of matrix products per byte that moves at least")
    axes.set_ylabel("GFLOP/s")
    axes.grid(visible=True, color=RULE, linewidth=0.5)
