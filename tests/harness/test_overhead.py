"""What the always-on stage clock costs: steps with and without it, in turn, in one benchmark.

    python -m pytest tests/harness/test_overhead.py -s

A step's cost is its processor time, which other processes do not disturb as they do its wall time; on one thread the
two are the same. Each pair of steps gives one difference; their median counts.
"""

from collections.abc import Callable
from contextlib import nullcontext
from time import process_time_ns
from typing import NamedTuple

import numpy as np
import pytest

from harness.config import build, suite_table
from models.transformer import ModelConfig
from profiles.energy.stage_power import StagePower
from profiles.stages import recorder, unheard
from profiles.timing.clock import StageClock
from profiles.timing.times import REMAINDER, REMAINDER_BACKWARD, Cell
from tests.harness.test_planted_delays import real_step

FEWEST_PAIRS = 20
MOST_PAIRS = 500

SMOKE = build(suite_table("smoke"), "smoke")


class Cost(NamedTuple):
    """What the clock adds to a step, as part of it; the standard error of that; what it leaves unattributed."""

    share: float
    error: float
    unattributed: float


def cost(step: Callable[[], None], bound: float) -> Cost:
    """Compare steps with and without a clock, now the one first and now the other, until *bound* is met or missed.

    It is where the share lies two standard errors off it.
    """
    took_ns: dict[bool, list[int]] = {True: [], False: []}
    power = StagePower()  # what the clock tells of every charge, for energy per stage
    clock = StageClock(charged=lambda *charge: power.charged("train", *charge))
    for _ in range(2):
        step()
    share, standard_error = bound, 1.0
    while abs(share - bound) <= 2 * standard_error and len(took_ns[True]) < MOST_PAIRS:
        with clock.phase("train", 1):
            for pair in range(FEWEST_PAIRS):
                for clocked in (True, False) if pair % 2 else (False, True):
                    started_ns = process_time_ns()
                    with nullcontext() if clocked else unheard():
                        step()
                    took_ns[clocked].append(process_time_ns() - started_ns)
        more_ns, plain_ns = np.subtract(took_ns[True], took_ns[False]), np.median(took_ns[False])
        low_ns, high_ns = np.percentile(more_ns, [25, 75])
        deviation_ns = (high_ns - low_ns) / 1.35  # of a normal distribution; 1.25 of it is a median's, by the root of n
        share = float(np.median(more_ns) / plain_ns)
        standard_error = float(1.25 * deviation_ns / np.sqrt(len(more_ns)) / plain_ns)
    with clock.phase("train", 1) as times:
        for _ in range(FEWEST_PAIRS):
            step()
    left_ns = sum(times.exposed_ns.get(cell, 0) for cell in (REMAINDER, REMAINDER_BACKWARD))
    return Cost(share, standard_error, left_ns / times.wall_ns)


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.parametrize(("model", "windows", "most"), [
    (SMOKE.model, SMOKE.training.batch_size, 0.03),
    (ModelConfig(), 4, 0.01),  # a 64th of the thesis's batch, and the clock's cost a step the same
], ids=["smoke", "thesis"])  # fmt: skip
def test_the_clock_costs_next_to_nothing(model: ModelConfig, windows: int, most: float) -> None:
    found = cost(real_step(lambda _: None, model, windows), most)
    print(
        f"{found.share:.2%} of a step of {windows} windows, standard error {found.error:.2%}; "
        f"{found.unattributed:.2%} unattributed"
    )
    assert found.share + 2 * found.error < most
    assert found.unattributed < 0.02


def test_a_clock_that_costs_too_much_would_be_seen() -> None:
    def dear(_: Cell) -> None:
        if recorder() is not None:  # only where a clock listens
            end_ns = process_time_ns() + 500_000
            while process_time_ns() < end_ns:
                pass

    found = cost(real_step(dear), 0.03)
    assert found.share - 2 * found.error > 0.03
