"""An epoch at each place of the waterfall: to begin loading, the training steps, those of validation."""

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import median
from typing import NamedTuple

from harness.cells import Cell
from harness.config import RunConfig
from profiles.turns import Measured
from profiles.whatif import EpochRow, FallRow

PHASES = 2
"""Of an epoch that each begin to load: training and validation."""


class Steps(NamedTuple):
    """How many steps an epoch has."""

    training: int
    validation: int


def steps_of(images: int, validated: int, config: RunConfig) -> Steps:
    """Return the steps of a whole epoch of *images* that are trained on and of those that are *validated* on."""
    each, batch_size = config.training.windows_per_image, config.training.batch_size
    return Steps(*(math.ceil(count * each / batch_size) for count in (images, validated)))


def epochs(
    cell: Cell,
    first_s: float,
    waterfall: Sequence[FallRow],
    steps: Steps,
    starts: Measured,
    validation: Measured,
    timed: int,
) -> list[EpochRow]:
    """Return the epoch at every place of a *waterfall*.

    Args:
        cell: whose.
        first_s: the step at place 0.
        waterfall: what is left of it at the others.
        steps: of an epoch.
        starts: turns of beginning to load, by place.
        validation: turns of validation steps, by place.
        timed: how many of those a turn has.

    """
    shares = [1.0, *(row.step for row in waterfall)]
    rows: list[EpochRow] = []
    for place, (part, times_ns) in enumerate(starts.times_ns.items()):
        start_s, validation_s = median(times_ns) / 1e9, median(validation.times_ns[part]) / timed / 1e9
        step_s = first_s * shares[place]
        epoch_s = PHASES * start_s + steps.training * step_s + steps.validation * validation_s
        rows.append(
            EpochRow(
                cell.category,
                cell.model,
                place,
                part,
                start_s,
                steps.training,
                step_s,
                steps.validation,
                validation_s,
                epoch_s,
                0.0,
                len(times_ns),
            )
        )
    gained = [row._replace(gain_s=before.epoch_s - row.epoch_s) for before, row in pairwise(rows)]
    return [rows[0], *gained]
