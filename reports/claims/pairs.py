"""Two models on the same category: the comparison everything else rests on.

Only cells of one setting (pipeline, device, dtype) and one seed are paired. Seeds of a category are averaged,
so that a category counts once however often it ran. A ratio is other / baseline; its mean is geometric.
"""

import math
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import NamedTuple

from profiles.record import CellRecord
from reports.source.published import categories, published


class Setting(NamedTuple):
    """What two cells must share before their numbers may be compared."""

    pipeline: str
    device: str
    dtype: str


class Pair(NamedTuple):
    """One metric of two models on one category, from one seed."""

    category: str
    baseline: float
    other: float


Effect = Callable[[Pair], float]


def log_ratio(pair: Pair) -> float:
    """Return the logarithm of other / baseline; not a number where that is none, as beside a time of 0."""
    ratio = pair.other / pair.baseline if pair.baseline > 0.0 else 0.0
    return math.log(ratio) if 0.0 < ratio < math.inf else math.nan


def difference(pair: Pair) -> float:
    """Return other - baseline."""
    return pair.other - pair.baseline


def geometric_mean(log_ratios: Sequence[float]) -> float:
    """Return the ratio whose logarithm is the mean of *log_ratios*."""
    return math.exp(fmean(log_ratios))


def setting_of(record: CellRecord) -> Setting:
    """Return the setting under which *record* was measured."""
    return Setting(record.pipeline, record.device, record.dtype)


def settings(records: list[CellRecord]) -> list[Setting]:
    """Return every setting of *records*, in order of appearance."""
    return list(dict.fromkeys(setting_of(record) for record in records))


def measured_pairs(records: list[CellRecord], metric: str, baseline: str, other: str) -> list[Pair]:
    """Return the pairs in *records*, which share a setting; where either lacks the metric there is none."""
    values = {
        (record.category, record.seed, record.model): value
        for record in records
        if (value := metric_value(record, metric)) is not None
    }
    return [
        Pair(category, value, values[category, seed, other])
        for (category, seed, model), value in values.items()
        if model == baseline and (category, seed, other) in values
    ]


def published_pairs(metric: str, baseline: str, other: str) -> list[Pair]:
    """Return the thesis's pairs, over its 15 categories."""
    found = [(name, published(name, baseline, metric), published(name, other, metric)) for name in categories()]
    return [Pair(name, first.value, second.value) for name, first, second in found if first and second]


def by_category(pairs: list[Pair], effect: Effect) -> dict[str, float]:
    """Return each category's *effect*, averaged over its seeds; a pair of which it is not a number is left out."""
    grouped: dict[str, list[float]] = {}
    for pair in pairs:
        if not math.isnan(found := effect(pair)):
            grouped.setdefault(pair.category, []).append(found)
    return {category: fmean(effects) for category, effects in grouped.items()}


def metric_value(record: CellRecord, metric: str) -> float | None:
    """Return a metric's value; None where it is missing, unavailable or not finite."""
    for found in record.metrics:
        if found.name == metric and found.value is not None and math.isfinite(found.value):
            return found.value
    return None
