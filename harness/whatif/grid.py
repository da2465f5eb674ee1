"""A grid of settings, each measured in turns with all others: the whole step, and the step with loading taken away."""

import random
from collections.abc import Callable, Mapping, Sequence
from itertools import count, product
from statistics import fmean
from time import perf_counter_ns
from typing import NamedTuple

from harness.images import stored_size
from harness.pipelines.parts import Pipeline
from harness.pipelines.table import PIPELINES
from harness.whatif.loads import Setting, Shape
from harness.whatif.projection import Observed
from harness.whatif.readings import Spent, clock_for, middle, once
from harness.whatif.removals import replayed
from harness.whatif.subject import Subject
from profiles.turns import Extent, bursts

ROUNDS = 9
"""At most."""

LEAST = 4
"""Steps that are timed of a turn, at least."""

Made = Callable[[Setting, Extent], Subject]
"""Makes the subject of a setting."""


class Seen(NamedTuple):
    """Turns of a setting so far: the whole step, and the step with loading taken away."""

    whole: list[Spent]
    alone: list[Spent]


def settings_of(levels: Mapping[str, Sequence[int]]) -> list[Setting]:
    """Return every combination of the levels of each of `Setting`'s fields."""
    return [Setting(*values) for values in product(*(levels[name] for name in Setting._fields))]


def held_out(setting: Setting, levels: Mapping[str, Sequence[int]]) -> bool:
    """Whether a setting is of the half that nothing is fitted to: the black squares of a chessboard."""
    places = (levels[name].index(value) for name, value in setting._asdict().items())
    return sum(places) % 2 == 1


def extent_of(setting: Setting) -> Extent:
    """Return how many steps a turn has: batches come in bursts, so a multiple of the workers is timed."""
    return Extent(0, bursts(LEAST, setting.workers))


def observe(
    made: Made,
    settings: Sequence[Setting],
    limit_s: float,
    advanced: Callable[[], None] = lambda: None,
    clock_ns: Callable[[], int] = perf_counter_ns,
) -> list[Observed]:
    """Measure every setting at least once, and in more rounds until *limit_s* is over; return the medians.

    Args:
        made: makes the subject of a setting.
        settings: which.
        limit_s: after which no round begins.
        advanced: called after each setting.
        clock_ns: what *limit_s* is measured by.

    """
    order, end_ns = random.Random(0), clock_ns() + round(limit_s * 1e9)  # noqa: S311 - no secret
    subjects = {setting: made(setting, extent_of(setting)) for setting in settings}
    seen = {setting: Seen([], []) for setting in settings}
    for rounds in count(1):
        for setting in order.sample(settings, len(settings)):
            _look(subjects[setting], setting, seen[setting])
            advanced()
        if rounds == ROUNDS or clock_ns() >= end_ns:
            break
    return [_observed(setting, seen[setting]) for setting in settings]


def _look(subject: Subject, setting: Setting, seen: Seen) -> None:
    """Take a turn of the whole step and one without loading; their order changes from round to round."""
    pipeline, extent = PIPELINES[subject.cell.pipeline], extent_of(setting)
    turns = [(seen.whole, subject.way(pipeline)), (seen.alone, subject.way(pipeline, replayed))]
    for kept, opened in turns if len(seen.whole) % 2 == 0 else reversed(turns):
        kept.append(once(opened, extent, clock_for(subject.device)))


def _observed(setting: Setting, seen: Seen) -> Observed:
    """Divide medians of turns by their steps."""
    steps, whole, alone = extent_of(setting).timed, middle(seen.whole), middle(seen.alone)
    return Observed(
        setting,
        whole.wall_s / steps,
        {stage: exposed_s / steps for stage, exposed_s in alone.exposed_s.items()},
        {part: worked_s / steps for part, worked_s in whole.loader_s.items()},
        len(seen.whole),
    )


def shape_of(subject: Subject, pipeline: Pipeline) -> Shape:
    """Return what no setting changes of a subject."""
    model = subject.model(pipeline.attention)
    attention = sum(parameter.numel() for name, parameter in model.named_parameters() if ".attention." in name)
    positions = model.positions.weight.numel()
    everything = sum(parameter.numel() for parameter in model.parameters())
    pixels, values = _mean_sizes(subject)
    return Shape(
        subject.cell.model,
        subject.config.model,
        pipeline,
        attention,
        everything - attention - positions,
        pixels,
        values,
    )


def _mean_sizes(subject: Subject) -> tuple[float, float]:
    """Return the mean pixels, and pixels times channels, of the files of a subject."""
    sizes = [stored_size(path) for path in subject.paths]
    return fmean(pixels for pixels, _ in sizes), fmean(values for _, values in sizes)
