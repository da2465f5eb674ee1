"""What a cell's metric is the median of, and the ratio of two such lists with an interval.

What slows an epoch down often slows the next one too, so an interval is widened as its samples follow one another.
"""

import math
from collections.abc import Sequence

import numpy as np

from profiles.ratio import Ratio, ratio_of_samples
from reports.source.load import Cell, read_epoch_energies

FEWEST = 2
"""Samples on each side that make an interval."""

_MOST_FOLLOWING = 0.9


def samples(cell: Cell, metric: str) -> list[float]:
    """Return what a cell's *metric* is the median of, as far as its files hold it; all are positive.

    A cell of several ranks has no samples of energy: its metric sums all of their devices, and its file holds one's.
    Of steps that stand for an epoch the first is left out, which may wait for the loader to start.
    """
    found: list[float] = []
    if metric == "time_per_epoch" and cell.record is not None:
        steps, epochs = cell.record.step_s[1:], [row.wall_s for row in cell.epochs if not row.profiled]
        found = list(steps) if cell.record.step_s else epochs
    if metric == "energy_per_epoch" and cell.record is not None and cell.record.ranks == 1:
        profiled = {row.epoch for row in cell.epochs if row.profiled}
        energies = read_epoch_energies(cell.folder / "energy.csv", cell.record.device)
        found = [energy_j for epoch, energy_j in energies.items() if epoch not in profiled]
    return [value for value in found if value > 0.0]


def widened_ratio(times: Sequence[float], baseline: Sequence[float], confidence: float) -> Ratio:
    """Return the ratio of *times* to *baseline*, its interval as wide as samples that follow one another make it."""
    ratio = ratio_of_samples(times, baseline, confidence)
    follows = min(_MOST_FOLLOWING, max(_following(times), _following(baseline)))
    factor = math.sqrt((1.0 + follows) / (1.0 - follows))
    low, high = (_power(end / ratio.value, factor) * ratio.value for end in (ratio.low, ratio.high))
    return ratio._replace(low=low, high=high)


def _power(base: float, exponent: float) -> float:
    """Return *base* to the power of *exponent*; infinite where no number is so large."""
    try:
        return math.pow(base, exponent)
    except OverflowError:
        return math.inf


def _following(samples: Sequence[float]) -> float:
    """Return the correlation of each sample with the next, corrected for what few samples hide of it; 0 at least."""
    logs = np.log(samples)
    off = logs - np.median(logs)
    whole = float(off @ off)
    return max(0.0, float(off[1:] @ off[:-1]) / whole + 1.0 / len(samples)) if whole else 0.0
