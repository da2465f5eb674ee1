"""The picture of `bench kernels`: time by length of the sequence, both on logarithms, from the record alone."""

from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from profiles.files import replacing
from profiles.kernels import KernelRow, KernelsRecord
from profiles.record import read_model

COLOURS = {
    "softmax": "#1f5fa8",
    "linear": "#c2410c",
    "linformer": "#3d7a3d",
    "fastformer": "#7a4d9c",
    "feature": "#6b6b6b",
}
"""Of a family; its kernels differ in line and marker."""

LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)))
POINTS = "osD^vP"
WIDTH, HEIGHT = 7.2, 5.0


def draw(record_file: Path) -> list[Path]:
    """Draw a panel for each number type and direction, beside the record as SVG and PNG; return what was written."""
    record = read_model(KernelsRecord, record_file)
    panels = list(dict.fromkeys((row.dtype, row.direction) for row in record.rows if row.time_s is not None))
    if not panels:
        return []
    style = {"svg.fonttype": "none", "svg.hashsalt": "kernels", "font.size": 10}
    with mpl.rc_context(style):  # type: ignore[arg-type]
        figure = Figure((WIDTH * len(panels), HEIGHT), layout="constrained")
        for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False, sharey=True)[0], panels, strict=True):
            _panel(axes, [row for row in record.rows if (row.dtype, row.direction) == panel])
            axes.set_title(f"{panel[1]}, {panel[0]}")
        figure.axes[0].set_ylabel("microseconds per token")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right center", frameon=False)
        here = record.environment
        figure.suptitle(f"{here.device_name}, {here.threads} threads, {record.heads} heads of {record.head_width}")
        return [_saved(figure, record_file.with_suffix(suffix)) for suffix in (".svg", ".png")]


def _panel(axes: Axes, rows: list[KernelRow]) -> None:
    """Draw each kernel's time for a token, so that what grows with the length alone is a level line."""
    names = list(dict.fromkeys(row.kernel for row in rows))
    for name in names:
        family = name.split()[0]
        place = [other for other in names if other.split()[0] == family].index(name) % len(LINES)
        points = [(r.tokens, 1e6 * r.time_s / (r.windows * r.tokens)) for r in rows if r.kernel == name and r.time_s]
        if points:
            (line,) = axes.plot(*zip(*points, strict=True), label=name, linestyle=LINES[place], linewidth=1.4)
            line.set(color=COLOURS.get(family, "#000000"), marker=POINTS[place], markersize=4)
    lengths = sorted({row.tokens for row in rows})
    axes.set(xscale="log", yscale="log", xlabel="tokens of a sequence (lines: window, whole images)")
    axes.set_xticks(lengths, [str(length) for length in lengths])
    axes.minorticks_off()
    for length in sorted({row.tokens for row in rows if row.marks}):
        axes.axvline(length, color="#bbbbbb", linewidth=0.8, zorder=0)
    axes.spines[["top", "right"]].set_visible(False)


def _saved(figure: Figure, path: Path) -> Path:
    with replacing(path) as aside:
        stamp = {"Date": None} if path.suffix == ".svg" else {}
        figure.savefig(aside, format=path.suffix[1:], dpi=130, metadata=stamp)
    return path
