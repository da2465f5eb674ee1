"""What is compared: a step with and without each stage, and with each part exchanged, alone and one after the other."""

from collections.abc import Mapping, Sequence
from functools import partial
from statistics import median
from types import MappingProxyType
from typing import Literal, NamedTuple

from harness.cells import Cell
from harness.dataset import LabelledImage
from harness.pipelines.parts import Pipeline
from harness.pipelines.table import PIPELINES
from harness.whatif.epochs import Steps, epochs
from harness.whatif.inspection import SKIPPED, evaluation, has_both_kinds
from harness.whatif.readings import Spent, Worked, clock_for, metered, reading, spent
from harness.whatif.removals import REMOVALS
from harness.whatif.subject import Subject
from harness.whatif.waterfall import falls, ordered, unresolved
from profiles.rate import drain
from profiles.ratio import Ratio
from profiles.record import Phase
from profiles.stages import Stage
from profiles.turns import Extent, Measured, Opened, compare, gain
from profiles.whatif import EffectRow, EpochRow, FallRow, Kind, StepRow

FULL = "the whole step"
PARTS = ("images", "cut", "gather", "attention", "loss", "optimizer", "memory")
"""Parts of a pipeline that a training step is made of, as `Pipeline` names them."""

PAINTING = "paint"
"""The part of a pipeline that an evaluation has and a training step has not."""

PRECISION = 0.02
"""The half width of a ratio's interval at which rounds end."""

ORDER = (
    "parts are exchanged in the order of their gains when exchanged alone, the largest first; every place of the "
    "waterfall is measured in turns with all others"
)

EPOCH_ROUNDS = 3
"""Of what an epoch has besides training steps, at least: it is a small part of one."""

NOT_OBSERVED = "what the resources of other stages than loading work, a profiler sees: name a RUN that was observed"

NO_STAGE = "a part of a pipeline is no stage of the clock"

LEAST_ROUNDS = 7
"""However long they take: fewer than six have no interval, and by their gains the waterfall is ordered."""

Busy = Mapping[tuple[Phase, str], float]
"""The part of a phase that a stage's resource worked."""

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
    epochs: tuple[EpochRow, ...] = ()

    def and_(self, more: "Found") -> "Found":
        """Return this with *more* behind it; a step that both have measured is this one's."""
        known_steps = {step[:4] for step in self.steps}
        steps = tuple(step for step in more.steps if step[:4] not in known_steps)
        return Found(
            self.steps + steps,
            self.effects + more.effects,
            self.waterfall + more.waterfall,
            self.epochs + more.epochs,
        )


class Bench(NamedTuple):
    """A cell to be measured, the test images of its evaluation, how long that may take, and the steps of its epoch.

    *observed* is what a run's profiler windows say of each stage: the part of a phase that its resource worked.
    """

    subject: Subject
    labels: Sequence[LabelledImage]
    extent: Extent
    limit_s: float
    epoch: Steps
    observed: Busy = MappingProxyType({})

    @property
    def pipeline(self) -> Pipeline:
        """The cell's."""
        return PIPELINES[self.subject.cell.pipeline]

    def compare(self, ways: dict[str, Opened], extent: Extent, part: float, least: int) -> Measured:
        """Let *ways* take turns for a *part* of the time at most, but for *least* rounds however long they take."""
        return compare(
            ways,
            extent,
            partial(drain, self.subject.device),
            precision=PRECISION,
            limit_s=part * self.limit_s,
            least=least,
        )

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
    """Take each stage of an evaluation away that only an evaluation has, and exchange the thesis's painting."""
    skipped = {name: words for name, words in SKIPPED.items() if name != "scoring" or has_both_kinds(bench.labels)}
    ways = {FULL: evaluation(bench.subject, bench.pipeline, bench.labels)}
    ways |= {name: evaluation(bench.subject, bench.pipeline, bench.labels, name) for name in skipped}
    swaps = [PAINTING] if bench.subject.cell.pipeline == "thesis" else []
    for part in swaps:
        exchanged = exchanged_parts(bench.pipeline, PIPELINES["fast"], [part])
        ways[part] = evaluation(bench.subject, exchanged, bench.labels)
    return _ceilings(bench, "evaluation", ways, skipped, INSPECTED, swaps)


def _ceilings(
    bench: Bench,
    phase: Phase,
    ways: dict[str, Opened],
    words: dict[Stage, str],
    extent: Extent,
    swaps: Sequence[str] = (),
) -> Found:
    measured = bench.compare(ways, extent, 1 - BY_CLOCK, LEAST_ROUNDS)
    times = bench.spent({name: ways[name] for name in (FULL, *words)}, extent, BY_CLOCK)
    effects = []
    for stage, replaced_by in words.items():
        saved, full = gain(measured.ratios[stage]), times[FULL]
        worked = _worked(bench, phase, stage, full)
        row = _effect(bench.subject.cell, phase, "ceiling", stage, replaced_by, saved)
        row = row._replace(
            exposed=full.exposed(stage) / full.wall_s,
            busy=worked.share,
            reading=reading(stage, saved, full, times[stage], worked),
            unavailable=worked.unknown,
            busy_tag=worked.tag,
        )
        effects.append(row)
    effects += [_swap(bench.subject.cell, phase, part, measured) for part in swaps]
    return Found((_step(bench, phase, measured, extent),), tuple(effects))


def _worked(bench: Bench, phase: Phase, stage: Stage, full: Spent) -> Worked:
    """Return what a stage's resource worked: of loading by its meter, of others by a run's profiler windows."""
    if stage == "data_loading":
        return metered(full, bench.subject.config.data.workers)
    share = bench.observed.get((phase, stage))
    return Worked(share, tag="estimated") if share is not None else Worked(None, unknown=NOT_OBSERVED)


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


def _swap(cell: Cell, phase: Phase, part: str, measured: Measured) -> EffectRow:
    return _effect(cell, phase, "swap", part, "the fast one's", gain(measured.ratios[part]))


def _effect(cell: Cell, phase: Phase, kind: Kind, name: str, replaced_by: str, saved: Ratio) -> EffectRow:
    low, high = saved.ends
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
        unavailable=NO_STAGE,
    )


def exchanging(bench: Bench) -> Found:
    """Exchange the parts of the thesis's step for the fast one's: each alone, then one after the other."""
    subject, slow, fast = bench.subject, PIPELINES["thesis"], PIPELINES["fast"]
    parts = differing(subject, slow, fast)
    alone = {part: subject.way(exchanged_parts(slow, fast, [part])) for part in parts}
    measured = bench.compare({FULL: subject.way(slow)} | alone, bench.extent, 0.45, LEAST_ROUNDS)
    effects = (_swap(subject.cell, "train", part, measured) for part in parts)
    order = ordered(measured, parts)
    places = {FULL: slow} | {
        part: exchanged_parts(slow, fast, order[:place]) for place, part in enumerate(order, start=1)
    }
    steps = {name: subject.way(pipeline) for name, pipeline in places.items()}
    fallen = bench.compare(steps, bench.extent, 0.45, LEAST_ROUNDS)
    waterfall = falls(subject.cell, fallen, unresolved(measured, order))
    step = _step(bench, "train", measured, bench.extent)
    first_s = median(fallen.times_ns[FULL]) / bench.extent.timed / 1e9
    return Found((step,), tuple(effects), tuple(waterfall), tuple(_epochs(bench, first_s, waterfall, places)))


def _epochs(
    bench: Bench, first_s: float, waterfall: Sequence[FallRow], places: Mapping[str, Pipeline]
) -> list[EpochRow]:
    """Measure what an epoch has besides training steps at each place of the waterfall."""
    subject = bench.subject
    starts = {name: subject.start(pipeline) for name, pipeline in places.items()}
    validation = {name: subject.validation(pipeline) for name, pipeline in places.items()}
    started = bench.compare(starts, Extent(0, 1), 0.05, EPOCH_ROUNDS)
    validated = bench.compare(validation, bench.extent, 0.05, EPOCH_ROUNDS)
    return epochs(subject.cell, first_s, waterfall, bench.epoch, started, validated, bench.extent.timed)


def differing(subject: Subject, slow: Pipeline, fast: Pipeline) -> list[str]:
    """Return the parts whose exchange changes the step: a configured attention is the same in both."""
    same = {part for part in PARTS if getattr(slow, part) == getattr(fast, part)}
    if subject.model(slow.attention) is subject.model(fast.attention):
        same.add("attention")
    return [part for part in PARTS if part not in same]


def exchanged_parts(slow: Pipeline, fast: Pipeline, parts: Sequence[str]) -> Pipeline:
    """Return *slow* with *parts* of *fast*."""
    return slow._replace(**{part: getattr(fast, part) for part in parts})
