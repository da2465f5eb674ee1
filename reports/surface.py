"""The picture of the attention surface: the ratio by the side of a window, a line for each width, from the record."""

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from profiles.files import replacing
from profiles.record import read_model
from profiles.whatif import SurfaceRecord

COLOURS = ("#7a4d9c", "#1f5fa8", "#c2410c", "#3d7a3d", "#6b6b6b")
MARKERS = "osD^v"


def draw(record_file: Path) -> Path:
    """Draw the record's surface beside it, as SVG; return what was written."""
    record = read_model(SurfaceRecord, record_file)
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "surface", "font.size": 10}):
        figure = Figure((7.2, 4.6), layout="constrained")
        axes = figure.subplots()
        for place, width in enumerate(dict.fromkeys(row.width for row in record.rows)):
            rows = [row for row in record.rows if row.width == width]
            sides, colour = [row.window_side for row in rows], COLOURS[place % len(COLOURS)]
            marker = MARKERS[place % len(MARKERS)]
            axes.plot(sides, [row.ratio for row in rows], label=f"width {width}", color=colour, marker=marker, ms=4)
            lows = [row.ratio if row.low is None else row.low for row in rows]
            highs = [row.ratio if row.high is None else row.high for row in rows]
            axes.fill_between(sides, lows, highs, color=colour, alpha=0.15, linewidth=0)
        axes.axhline(1, color="#888888", linewidth=0.8)
        axes.set(xlabel="side of a window, patches", ylabel=f"time of {record.linear} by that of {record.softmax}")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
        here = record.environment
        axes.set_title(
            f"{record.backend} attention alone, forward and backward: {here.device_name}, {record.dtype}", fontsize=10
        )
        path = record_file.with_suffix(".svg")
        with replacing(path) as aside:
            figure.savefig(aside, format="svg", metadata={"Date": None})
    return path
