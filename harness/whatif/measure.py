"""What is compared: a step with and without each stage, and with each part exchanged, alone and one after the other."""

import math
from collections.abc import Sequence
from functools import partial
from statistics import fmean, median
from typing import Literal, NamedTuple

import torch

from harness.cells import Cell
from harness.dataset import LabelledImage
from harness.pipelines.parts import Pipeline
from harness.pipelines.table import PIPELINES
from harness.whatif.inspection import SKIPPED, evaluation
from harness.whatif.readings import Spent, clock_for, reading, spent
from harness.whatif.removals import REMOVALS
from harness.whatif.subject import Subject
from profiles.ratio import CONFIDENCE, Ratio, paired_ratio
from profiles.record import Phase
from profiles.stages import Stage
from profiles.turns import Extent, Measured, Opened, compare, gain
from profiles.whatif import EffectRow, FallRow, Kind, StepRow

FULL = "the whole step"
PARTS = ("images", "cut", "gather", "attention", "loss", "optimizer", "memory")
"""Parts of a pipeline that a training step is made of, as `Pipeline` names them."""

PRECISION = 0.02
"""The half width of a ratio's interval at which rounds end."""

ORDER = (
    "parts are exchanged in the order of their gains when exchanged alone, the largest first; every place of the "
    "waterfall is measured in turns with all others"
)

Section = Literal["ceilings", "evaluation", "exchanges"]

SHARES: dict[Section, float] = {"ceilings": 0.36, "evaluation": 0.2, "exchanges": 0.44}
"""What can be measured of a cell, and the part of the time that it gets where all is."""

BY_CLOCK = 0.25
"""The part of the time of ceilings in which the stage clock watches, to explain them."""

INSPECTED = Extent(warm=1, timed=1)


class Found(NamedTuple):
    """What was found of one cell or of several."""

    steps: tuple[StepRow, ...] = ()
    effects: tuple[EffectRow, ...] = ()
    waterfall: tuple[FallRow, ...] = ()

    def and_(self, more: "Found") -> "Found":
        """Return this with *more* behind it; a step that both have measured is this one's."""
        known_steps = {step[:4] for step in self.steps}
        steps = tuple(step for step in more.steps if step[:4] not in known_steps)
        return Found(self.steps + steps, self.effects + more.effects, self.waterfall + more.waterfall)


class Bench(NamedTuple):
    """A cell to be measured, the test images that its evaluation is measured on, and how long that may take."""

    subject: Subject
    labels: Sequence[LabelledImage]
    extent: Extent
    limit_s: float

    @property
    def pipeline(self) -> Pipeline:
        """The cell's."""
        return PIPELINES[self.subject.cell.pipeline]

    def drain(self) -> None:
        """Wait for the device."""
        if self.subject.device.type == "cuda":
            torch.cuda.synchronize(self.subject.device)

    def compare(self, ways: dict[str, Opened], extent: Extent, part: float) -> Measured:
        """Let *ways* take turns for a *part* of the time at most."""
        return compare(ways, extent, self.drain, precision=PRECISION, limit_s=part * self.limit_s)

    def spent(self, ways: dict[str, Opened], extent: Extent, part: float) -> dict[str, Spent]:
        """Take turns by the stage clock, for a *part* of the time at most."""
        return spent(ways, extent, partial(clock_for, self.subject.device), part * self.limit_s)


def measure(bench: Bench, sections: Sequence[Section]) -> Found:
    """Measure *sections* of a cell, in their order; exchanges are of the thesis's pipeline alone."""
    works = {"ceilings": training, "evaluation": inspecting, "exchanges": exchanging}
    chosen = [name for name in sections if name != "exchanges" or bench.subject.cell.pipeline == "thesis"]
    found = Found()
    for name in chosen:
        part = SHARES[name] / sum(SHARES[each] for each in chosen)
        found = found.and_(works[name](bench._replace(limit_s=part * bench.limit_s)))
    return found


def training(bench: Bench) -> Found:
    """Take each stage of a training step away."""
    subject = bench.subject
    ways = {FULL: subject.way(bench.pipeline)}
    ways |= {name: subject.way(bench.pipeline, removal) for name, (removal, _) in REMOVALS.items()}
    words = {name: words for name, (_, words) in REMOVALS.items()}
    return _ceilings(bench, "train", ways, words, bench.extent)


def inspecting(bench: Bench) -> Found:
    """Take each stage of an evaluation away that only an evaluation has."""
    ways = {FULL: evaluation(bench.subject, bench.pipeline, bench.labels)}
    ways |= {name: evaluation(bench.subject, bench.pipeline, bench.labels, name) for name in SKIPPED}
    return _ceilings(bench, "evaluation", ways, dict.fromkeys(SKIPPED, "skipped"), INSPECTED)


def _ceilings(bench: Bench, phase: Phase, ways: dict[str, Opened], words: dict[Stage, str], extent: Extent) -> Found:
    measured = bench.compare(ways, extent, 1 - BY_CLOCK)
    times = bench.spent(ways, extent, BY_CLOCK)
    effects = []
    for stage, replaced_by in words.items():
        saved, full = gain(measured.ratios[stage]), times[FULL]
        busy = full.busy_s / full.wall_s if stage == "data_loading" and full.busy_s is not None else None
        why = reading(stage, saved, full, times[stage])
        row = _effect(bench.subject.cell, phase, "ceiling", stage, replaced_by, saved)
        effects.append(row._replace(exposed=full.exposed(stage) / full.wall_s, busy=busy, reading=why))
    return Found((_step(bench, phase, measured, extent),), tuple(effects))


def _step(bench: Bench, phase: Phase, measured: Measured, extent: Extent) -> StepRow:
    cell, config, times_ns = bench.subject.cell, bench.subject.config, measured.times_ns[FULL]
    return StepRow(
        cell.category,
        cell.model,
        cell.pipeline,
        phase,
        median(times_ns) / extent.timed / 1e9,
        len(times_ns),
        config.training.batch_size,
        config.image_side(cell.category),
        config.data.workers,
        measured.ended_by,
    )


def _effect(cell: Cell, phase: Phase, kind: Kind, name: str, replaced_by: str, saved: Ratio) -> EffectRow:
    low, high = known(saved)
    return EffectRow(
        cell.category,
        cell.model,
        cell.pipeline,
        phase,
        kind,
        name,
        replaced_by,
        saved.value,
        low,
        high,
        saved.samples,
        exposed=None,
        busy=None,
        reading="",
    )


def known(ratio: Ratio) -> tuple[float | None, float | None]:
    """Return the ends of an interval, or none where the rounds were too few for one."""
    bounded = abs(ratio.low) != float("inf") and abs(ratio.high) != float("inf")
    return (ratio.low, ratio.high) if bounded else (None, None)


def exchanging(bench: Bench) -> Found:
    """Exchange the parts of the thesis's step for the fast one's: each alone, then one after the other."""
    subject, slow, fast = bench.subject, PIPELINES["thesis"], PIPELINES["fast"]
    alone = {part: exchanged_parts(slow, fast, [part]) for part in PARTS}
    ways = {FULL: subject.way(slow)} | {part: subject.way(pipeline) for part, pipeline in alone.items()}
    measured = bench.compare(ways, bench.extent, 0.5)
    gains = {part: gain(ratio) for part, ratio in measured.ratios.items()}
    effects = (_effect(subject.cell, "train", "swap", part, "the fast one's", gains[part]) for part in PARTS)
    order = sorted(PARTS, key=lambda part: -gains[part].value)
    steps = {FULL: subject.way(slow)}
    for place, part in enumerate(order, start=1):
        steps[part] = subject.way(exchanged_parts(slow, fast, order[:place]))
    waterfall = falls(subject.cell, bench.compare(steps, bench.extent, 0.5))
    return Found((_step(bench, "train", measured, bench.extent),), tuple(effects), tuple(waterfall))


def exchanged_parts(slow: Pipeline, fast: Pipeline, parts: Sequence[str]) -> Pipeline:
    """Return *slow* with *parts* of *fast*."""
    return slow._replace(**{part: getattr(fast, part) for part in parts})


def falls(cell: Cell, measured: Measured) -> list[FallRow]:
    """Return the waterfall through steps in the order in which they were given; its gains sum exactly to the whole.

    A step is the geometric mean over rounds of its time by the whole step's, so that steps divided by each other are
    the ratios to the step before, and gains are differences of steps. Whole rounds are trimmed, which keeps that so: a
    fifth of them, those whose ratios are the furthest from their medians. Intervals are of medians, by
    sign tests over all rounds' own ratios and differences, wide enough to hold the value printed.
    """
    names = list(measured.times_ns)
    logs = [[math.log(times[0] / time) for time in times] for times in zip(*measured.times_ns.values(), strict=True)]
    kept = _undisturbed(logs)
    steps = [math.exp(-fmean(logs[place] for logs in kept)) for place in range(len(names))]
    return [_fall(cell, measured, names, steps, place) for place in range(1, len(names))]


def _undisturbed(rounds: list[list[float]]) -> list[list[float]]:
    """Leave out the fifth of rounds that are the furthest from the medians."""
    middles = [median(values) for values in zip(*rounds, strict=True)]

    def distance(values: list[float]) -> float:
        distances: list[float] = [abs(value - middle) for value, middle in zip(values, middles, strict=True)]
        return max(distances)

    return sorted(rounds, key=distance)[: len(rounds) - len(rounds) // 5]


def _fall(cell: Cell, measured: Measured, names: list[str], steps: list[float], place: int) -> FallRow:
    part, before = names[place], names[place - 1]
    by_previous = paired_ratio(measured.times_ns[part], measured.times_ns[before], CONFIDENCE)
    step, previous = steps[place], steps[place - 1]
    off = [
        (earlier - later) / whole
        for whole, earlier, later in zip(*(measured.times_ns[name] for name in (names[0], before, part)), strict=True)
    ]
    as_ratio = paired_ratio([math.exp(share) for share in off], [1.0] * len(off), CONFIDENCE)
    ends = [None if end is None else math.log(end) for end in known(as_ratio)]
    return FallRow(
        cell.category,
        cell.model,
        place,
        part,
        step,
        previous - step,
        step / previous,
        *_holding(step / previous, *known(by_previous)),
        by_previous.samples,
        *_holding(previous - step, *ends),
    )


def _holding(value: float, low: float | None, high: float | None) -> tuple[float | None, float | None]:
    """Widen an interval as far as its value, if there is one."""
    return (None, None) if low is None or high is None else (min(low, value), max(high, value))
