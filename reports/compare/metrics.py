"""Each metric before and after, its ratio with an interval, and what that allows to be said.

A ratio is head / base. Where a cell holds a metric's samples (an epoch's or a step's time, an epoch's energy) its
interval is over those. A cell is worse where the ratio is beyond the threshold and the interval excludes that nothing
changed.

Yet an interval over a run's samples knows nothing of what else the machine did during one run and not during the other.
So a run has a regression in such a metric only where it has four cells or more, half of them or more are worse, and by
more than the machine's speed changed within any cell of either run: what it did within one it may have done between the
two. And no cell may be better beyond the threshold: cells that disagree so show the machine, not the program. A
metric that each cell tells once, as a score, is judged over all cells together, by intervals that hold together with
95 %, or not at all; where no cell's has changed, nothing has.

What is worse and could not be decided so is `suspected`: a score or a memory beyond the threshold in half of the cells
or more, and so what samples show to be worse; what a busy machine moves too in all of them. Of a time or an energy told
once an interval over cells says no more either, for all of them were measured by one machine in one run. A machine that
was slower during the whole of one run looks like a slower program; only further runs tell one from the other. How often
that is wrong: `docs/decisions/report-statistics.md`.
"""

import math
from statistics import median
from typing import Literal, NamedTuple

from profiles.ratio import Ratio, paired_ratio
from reports.claims.pairs import metric_value
from reports.claims.samples import FEWEST, samples, widened_ratio
from reports.rows.metrics import BETTER_HIGH, has_side
from reports.source.load import Cell, Run

Verdict = Literal["regression", "improvement", "suspected", "worse", "better", "no change", "unclear", "not tested"]
"""The first three are of a whole run, the next two of one cell."""

EVERY_CELL = "all cells"

_CONFIDENCE = 0.95
_FEWEST_CELLS = 4
"""Cells from which samples say something of the run: what disturbs one or two cells does not decide."""

_FEWEST_TOLD = 6
"""Samples of a cell that tell how its machine's speed changed."""

_MACHINE_UNITS = frozenset({"s", "J", "1/s"})
"""Units of what depends on what else the machine did."""


class Compared(NamedTuple):
    """One metric of one cell, or of all cells together, in both runs; samples behind each side."""

    cell: str
    metric: str
    unit: str
    base: float | None
    head: float | None
    ratio: float | None
    low: float | None
    high: float | None
    base_n: int
    head_n: int
    verdict: Verdict


class _Sampled(NamedTuple):
    """A metric of one cell before it is judged, with the samples of both sides."""

    cell: str
    metric: str
    unit: str
    base: float | None
    head: float | None
    base_samples: list[float]
    head_samples: list[float]

    @property
    def is_tested(self) -> bool:
        return min(len(self.base_samples), len(self.head_samples)) >= FEWEST


def compared(base: Run, head: Run, threshold: float) -> list[Compared]:
    """Return every metric of all cells together that both runs finished, then those of each."""
    before = {cell.name: cell for cell in base.cells if cell.record}
    pairs = [(before[cell.name], cell) for cell in head.cells if cell.record and cell.name in before]
    found = [row for pair in pairs for row in _of_cell(*pair)]
    metrics = dict.fromkeys((row.metric, row.unit) for row in found if has_side(row.unit))
    cells = [_judged(row, threshold) for row in found]
    confidence = 1.0 - (1.0 - _CONFIDENCE) / max(1, len(metrics))
    together = [
        _together(unit, [row for row in cells if row.metric == metric], confidence, threshold, _swing(found, metric))
        for metric, unit in metrics
    ]
    return together + cells


def _of_cell(base: Cell, head: Cell) -> list[_Sampled]:
    before, after = base.record, head.record
    if before is None or after is None:
        return []
    units = {metric.name: metric.unit for metric in (*after.metrics, *before.metrics)}
    return [
        _Sampled(
            base.name,
            name,
            unit,
            metric_value(before, name),
            metric_value(after, name),
            samples(base, name),
            samples(head, name),
        )
        for name, unit in units.items()
    ]


def _swing(rows: list[_Sampled], metric: str) -> float:
    """Return by what part a third of a cell's samples exceeds another third of them at most: the machine did that."""
    every = [samples for row in rows if row.metric == metric for samples in (row.base_samples, row.head_samples)]
    thirds = [[median(third) for third in _thirds(samples)] for samples in every if len(samples) >= _FEWEST_TOLD]
    return max((max(each) / min(each) for each in thirds), default=1.0) - 1.0


def _thirds(samples: list[float]) -> list[list[float]]:
    """Divide samples into three stretches of one length; what is over is in none."""
    length = len(samples) // 3
    return [samples[start * length : (start + 1) * length] for start in range(3)]


def _judged(row: _Sampled, threshold: float) -> Compared:
    sizes = (len(row.base_samples), len(row.head_samples))
    if row.is_tested:
        ratio = widened_ratio(row.head_samples, row.base_samples, _CONFIDENCE)
        if ratio.low > 0.0 and math.isfinite(ratio.high):
            return Compared(*row[:5], *ratio[:3], *sizes, _verdict(ratio, row.metric, threshold))
    return Compared(*row[:5], _plain_ratio(row.base, row.head), None, None, *sizes, "not tested")


def _plain_ratio(base: float | None, head: float | None) -> float | None:
    return head / base if base and head and min(base, head) > 0.0 else None


def _together(unit: str, rows: list[Compared], confidence: float, threshold: float, swing: float) -> Compared:
    """Return one metric of all cells; *rows* are its cells'."""
    pairs = [(row.base, row.head) for row in rows if row.base and row.head and min(row.base, row.head) > 0.0]
    whole = Compared(EVERY_CELL, rows[0].metric, unit, None, None, None, None, None, 0, 0, "not tested")
    if pairs:
        n = len(pairs)
        ratio = paired_ratio([head for _, head in pairs], [base for base, _ in pairs], confidence)
        low, high = (ratio.low, ratio.high) if ratio.low > 0.0 else (None, None)
        whole = whole._replace(ratio=ratio.value, low=low, high=high, base_n=n, head_n=n)
    return whole._replace(verdict=_of_run(whole, rows, threshold, swing))


_RUNS: dict[Verdict, Verdict] = {"worse": "regression", "better": "improvement"}
_SUSPICIONS: dict[Verdict, Verdict] = {"worse": "suspected", "better": "unclear"}
"""What is said of a run whose numbers are worse, or better; and where a slower machine would have moved all of them."""


def _of_run(whole: Compared, rows: list[Compared], threshold: float, swing: float) -> Verdict:
    """Return the verdict of a run on a metric, *whole*, whose cells are *rows*."""
    known = [row for row in rows if row.base is not None and row.head is not None]
    tested = [row for row in known if row.verdict != "not tested"]
    found = _of_cells(tested, threshold, swing) if tested else _over_cells(whole, threshold)
    if found == "not tested" and known and all(row.base == row.head for row in known):
        return "no change"
    if found in {"not tested", "unclear"} and _is_suspected(known, threshold):
        return "suspected"
    return found


def _disagree(cells: list[Compared], threshold: float) -> bool:
    """Whether one cell is worse and another better, both beyond the threshold: an unsteady machine does so."""
    worse = [_times_worse(row) for row in cells]
    return max(worse) > 1.0 + threshold and min(worse) < 1.0 / (1.0 + threshold)


def _of_cells(cells: list[Compared], threshold: float, swing: float) -> Verdict:
    """Return a run's verdict from its cells' samples: what half of them or more say, of good and bad the bad."""
    if all(row.verdict == "no change" for row in cells):
        return "no change"
    steady = [row.verdict for row in cells if not 1.0 / (1.0 + swing) <= _times_worse(row) <= 1.0 + swing]
    decided = len(cells) >= _FEWEST_CELLS and not _disagree(cells, threshold)
    for of_cell in _RUNS if decided else ():
        if 2 * steady.count(of_cell) >= len(cells):
            return _RUNS[of_cell]
    return "unclear"


def _over_cells(whole: Compared, threshold: float) -> Verdict:
    """Return what the interval over cells says of a run, of what depends on the machine no more than a suspicion."""
    if whole.ratio is None or whole.low is None or whole.high is None:
        return "not tested"
    found = _verdict(Ratio(whole.ratio, whole.low, whole.high, whole.base_n), whole.metric, threshold)
    return (_SUSPICIONS if whole.unit in _MACHINE_UNITS else _RUNS).get(found, found)


def _is_suspected(rows: list[Compared], threshold: float) -> bool:
    """Whether all *rows* are worse, or half of them in a way that no busy machine explains by one cell's epochs."""
    beyond = [row for row in rows if _times_worse(row) > 1.0 + threshold]
    sure = [row for row in beyond if row.verdict == "worse" or row.unit not in _MACHINE_UNITS]
    return bool(rows) and (len(beyond) == len(rows) or 2 * len(sure) >= len(rows))


def _times_worse(row: Compared) -> float:
    """Return how many times as bad a cell has become, below 1 where it is better; 0 or infinity beside a value of 0."""
    base, head = row.base or 0.0, row.head or 0.0
    more = row.ratio or (1.0 if head == base else math.inf if head > base else 0.0)
    if row.metric not in BETTER_HIGH:
        return more
    return 1.0 / more if more else math.inf


def _verdict(ratio: Ratio, metric: str, threshold: float) -> Verdict:
    value, low, high = ratio[:3]
    if metric in BETTER_HIGH:
        value, low, high = 1.0 / value, 1.0 / high, 1.0 / low
    most, least = 1.0 + threshold, 1.0 / (1.0 + threshold)
    if value > most and low > 1.0:
        return "worse"
    if value < least and high < 1.0:
        return "better"
    return "no change" if least <= low and high <= most else "unclear"
