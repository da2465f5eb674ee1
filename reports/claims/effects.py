"""Where a claim's effects come from: one number per category, from the thesis's tables and from a run's records.

An effect is of the two models that the thesis compares, MSA (the baseline) and MLSA, on the same category. Seeds of a
category are averaged, so that it counts once.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean
from typing import Protocol

from profiles.record import CellRecord, StageTotal, Tag
from reports.claims.pairs import Effect, Pair, by_category, difference, measured_pairs, published_pairs
from reports.claims.significance import Effects
from reports.source.published import categories, facts, image_side, published

BASELINE, OTHER = "msa", "mlsa"
CHECKPOINT = "checkpoint"
OF_WHOLE_TRAININGS = frozenset({"best_epoch", "training_time"})
"""Metrics that say something of a model only where the training ended by itself, not at a limit of epochs."""


class Numbers(Protocol):
    """Where a number of each category comes from."""

    def published(self) -> Effects:
        """Return the thesis's numbers; none where it printed none."""
        ...

    def measured(self, records: list[CellRecord]) -> Effects:
        """Return the numbers in *records*, which share a setting."""
        ...


class Source(Numbers, Protocol):
    """Where effects come from."""

    def tags(self, records: list[CellRecord]) -> set[Tag]:
        """Return what the numbers behind the effects are: measured, estimated."""
        ...


@dataclass(frozen=True)
class OfPairs:
    """One metric of both models, on all categories or on those of one *kind*."""

    metric: str
    effect: Effect
    kind: str | None = None

    def published(self) -> Effects:
        """Return the effects in the thesis's tables."""
        pairs = published_pairs(self.metric, BASELINE, OTHER)
        return by_category([pair for pair in pairs if self.kind in {None, facts()[pair.category].kind}], self.effect)

    def measured(self, records: list[CellRecord]) -> Effects:
        """Return the effects of the pairs in *records*."""
        return by_category(measured_pairs(self._ours(records), self.metric, BASELINE, OTHER), self.effect)

    def tags(self, records: list[CellRecord]) -> set[Tag]:
        """Return the metric's tags."""
        return {metric.tag for record in self._ours(records) for metric in record.metrics if metric.name == self.metric}

    def _ours(self, records: list[CellRecord]) -> list[CellRecord]:
        return [record for record in records if self.kind in {None, record.kind} and self._is_whole(record)]

    def _is_whole(self, record: CellRecord) -> bool:
        return self.metric not in OF_WHOLE_TRAININGS or record.stopped_by == "patience"


def gap(pair: Pair) -> float:
    """Return how far apart the models are, whichever is better."""
    return abs(pair.other - pair.baseline)


def above_chance(pair: Pair) -> float:
    """Return how far the mean of both models lies above 50 %, the AUROC of guessing."""
    return middle(pair) - 50.0


def middle(pair: Pair) -> float:
    """Return the mean of both models."""
    return (pair.baseline + pair.other) / 2


def above_intra(metric: str) -> Effect:
    """Return the effect by which the better model is above InTra's *metric*; not a number where none is published."""

    def above(pair: Pair) -> float:
        intra = published(pair.category, "intra", metric)
        return max(pair.baseline, pair.other) - intra.value if intra else math.nan

    return above


class ImageSides:
    """The side of a category's images, pixels."""

    def published(self) -> Effects:
        """Return the sides of table 5.1."""
        return {name: float(side) for name in categories() if (side := image_side(name))}

    def measured(self, records: list[CellRecord]) -> Effects:
        """Return the sides at which *records* were measured."""
        return {record.category: float(record.image_side) for record in records}


@dataclass(frozen=True)
class Disagreement:
    """1 where one model is better by the first metric and the other by the second, 0 where one is better by both.

    Where the models are equal by either metric there is none.
    """

    first: str
    second: str

    def published(self) -> Effects:
        """Return the effects in the thesis's tables."""
        return self._of(lambda metric: OfPairs(metric, difference).published())

    def measured(self, records: list[CellRecord]) -> Effects:
        """Return the effects of the categories that have both metrics."""
        return self._of(lambda metric: OfPairs(metric, difference).measured(records))

    def tags(self, records: list[CellRecord]) -> set[Tag]:
        """Return both metrics' tags."""
        return OfPairs(self.first, difference).tags(records) | OfPairs(self.second, difference).tags(records)

    def _of(self, effects_of: Callable[[str], Effects]) -> Effects:
        first, second = effects_of(self.first), effects_of(self.second)
        products = {name: first[name] * second[name] for name in first if name in second}
        return {name: float(product < 0.0) for name, product in products.items() if product}


@dataclass(frozen=True)
class StageTimes:
    """How much longer (logarithm of the ratio) an epoch of MLSA spends in a stage than one of MSA."""

    stage: str

    def published(self) -> Effects:
        """Return nothing: the thesis has no stages."""
        return {}

    def measured(self, records: list[CellRecord]) -> Effects:
        """Return the effects of exposed time in training."""
        seconds = {
            (record.category, record.seed, record.model): sum(total.exposed_s / total.epochs for total in found)
            for record in records
            if (found := [total for total in _training(record) if total.stage == self.stage])
        }
        grouped: dict[str, list[float]] = {}
        for (category, seed, model), spent_s in seconds.items():
            other_s = seconds.get((category, seed, OTHER))
            if model == BASELINE and other_s and spent_s:
                grouped.setdefault(category, []).append(math.log(other_s / spent_s))
        return {category: fmean(found) for category, found in grouped.items()}

    def tags(self, records: list[CellRecord]) -> set[Tag]:
        """Return the stage's tags."""
        return {total.tag for record in records for total in _training(record) if total.stage == self.stage}


@dataclass(frozen=True)
class StageShares:
    """By how many points some stages' share of training is above attention's, mean of both models.

    Where a few steps stand for an epoch, shares are of those steps, without the checkpoint.
    """

    stages: tuple[str, ...]

    def published(self) -> Effects:
        """Return nothing: the thesis has no stages."""
        return {}

    def measured(self, records: list[CellRecord]) -> Effects:
        """Return the effects of exposed shares in training, in percentage points."""
        above = {
            (record.category, record.seed, record.model): _share(record, self.stages) - _share(record, ("attention",))
            for record in records
            if _training(record)
        }
        grouped: dict[str, list[float]] = {}
        for (category, seed, model), share in above.items():
            if model == BASELINE and (category, seed, OTHER) in above:
                grouped.setdefault(category, []).append(50.0 * (share + above[category, seed, OTHER]))
        return {category: fmean(found) for category, found in grouped.items()}

    def tags(self, records: list[CellRecord]) -> set[Tag]:
        """Return the stages' tags."""
        return {total.tag for record in records for total in _training(record) if total.stage in self.stages}


def _share(record: CellRecord, stages: tuple[str, ...]) -> float:
    totals = _training(record)
    return sum(total.share for total in totals if total.stage in stages) / (1.0 - share_once(record, totals))


def share_once(record: CellRecord, totals: list[StageTotal]) -> float:
    """Return the share of what an epoch does once, which beside a few measured steps is far larger than in an epoch."""
    share = sum(total.share for total in totals if total.stage == CHECKPOINT) if record.step_s else 0.0
    return share if share < 1.0 else 0.0


def _training(record: CellRecord) -> list[StageTotal]:
    return [total for total in record.stage_totals if total.phase == "train"]
