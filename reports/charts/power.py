"""Power and utilisation over time, phases as bands: one small picture per cell."""

import math
from itertools import chain, zip_longest
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from reports.charts.svg import ACCENT, INK, RULE, Chart, Drawn, Words, chart, figure, shown, styled
from reports.source.load import Cell, cell_name
from reports.source.telemetry import Band, Series, Telemetry, read_telemetry
from reports.words.format import count, listed, scale, short, visible
from reports.words.palette import PHASES, UNKNOWN

_WIDTH, _HEIGHT = 420.0, 200.0
_DASHES = ("-", "--", ":")
_COLOURS = (ACCENT, INK, INK)


class PowerPanel(NamedTuple):
    """A cell's picture, and what it leaves out."""

    name: str
    chart: Chart
    note: str


class PowerPanels(NamedTuple):
    """The pictures, the phases in them, and why others have none."""

    panels: tuple[PowerPanel, ...]
    phases: tuple[str, ...]
    gaps: tuple[str, ...]


def power_panels(cells: tuple[Cell, ...]) -> PowerPanels:
    """Return a picture of every finished cell that was sampled."""
    panels, phases, gaps = [], dict[str, None](), dict[str, int]()
    for place, (cell, record) in enumerate((cell, cell.record) for cell in cells if cell.record is not None):
        found = read_telemetry(cell.folder)
        if found.series:
            panels.append(_panel(f"power{place}", cell_name(record), found))
            phases |= dict.fromkeys(band.phase for band in found.bands)
        else:
            gaps[found.why] = gaps.get(found.why, 0) + 1
    return PowerPanels(
        tuple(panels), tuple(phases), tuple(f"{visible(why)} ({count(n, 'cell')})" for why, n in gaps.items())
    )


def _panel(ident: str, name: str, found: Telemetry) -> PowerPanel:
    powered = [series for series in found.series if any(map(math.isfinite, series.power_w))]
    words = Words()
    with styled():
        drawn = figure(_WIDTH, _HEIGHT if powered else 0.62 * _HEIGHT)
        heights = (0.5, 0.17) if powered else (0.27,)
        axes = [drawn.add_axes((0.13, bottom, 0.85, 0.4 if powered else 0.68)) for bottom in heights]
        _time_axis(axes, found)
        for axis, label in zip(axes, ("power, W", "used, %") if powered else ("used, %",), strict=True):
            _bands(axis, found.bands, words)
            _lines(axis, found.series, label, words)
        axes[-1].set_ylim(0.0, 103.0)
        title = f"Power and utilisation of {short(name)} over time"
        devices = listed([series.device for series in found.series])
        description = f"Of {devices}; phases as bands behind. A table of the points follows."
        note = "" if powered else "no device told its power"
        return PowerPanel(name, chart(ident, drawn, words, title, description, _numbers(found.series)), note)


def _numbers(series: tuple[Series, ...]) -> Drawn:
    """Return a row for each point, the devices side by side, for each has times of its own."""
    lines = [[tuple(map(shown, point)) for point in zip(*one[1:], strict=True)] for one in series]
    rows = zip_longest(*lines, fillvalue=("", "", ""))
    columns = [f"{visible(one.device)}: {name}" for one in series for name in ("time, s", "power, W", "used, %")]
    return Drawn(tuple(columns), tuple(tuple(chain(*row)) for row in rows))


def _time_axis(axes: list[Axes], found: Telemetry) -> None:
    last_s = max(series.time_s[-1] for series in found.series)
    unit = scale("s", max(last_s, 1.0))
    for axis in axes:
        axis.set_xlim(0.0, max(last_s, 1e-9))
        axis.xaxis.set_major_locator(MaxNLocator(5))
        axis.xaxis.set_major_formatter(lambda value, _: f"{value / unit.divisor:g}")
        axis.yaxis.set_major_locator(MaxNLocator(3))
        axis.grid(visible=True, color=RULE, linewidth=0.5)
    for axis in axes[:-1]:
        axis.tick_params(labelbottom=False)
    axes[-1].set_xlabel(unit.label)


def _bands(axis: Axes, bands: tuple[Band, ...], words: Words) -> None:
    for band in bands:
        span = axis.axvspan(
            band.start_s, band.stop_s, facecolor=PHASES.get(band.phase, UNKNOWN), alpha=0.35, linewidth=0
        )
        span.set_gid(words.explain(f"{visible(band.phase)}: {band.stop_s - band.start_s:.1f} s"))


def _lines(axis: Axes, series: tuple[Series, ...], label: str, words: Words) -> None:
    axis.set_ylabel(label)
    for place, one in enumerate(series):
        values = one.power_w if label.startswith("power") else one.utilization_pct
        gid = words.explain(f"{visible(one.device)}: {label}")
        (line,) = axis.plot(one.time_s, values, linewidth=1.2, gid=gid)
        line.set(linestyle=_DASHES[min(place, 2)], color=_COLOURS[min(place, 2)])
