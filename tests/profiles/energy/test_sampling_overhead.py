"""What sampling at 10 Hz costs the thread that trains: a ratio of steps, interleaved by the millisecond.

    python -m pytest tests/profiles/energy/test_sampling_overhead.py -s

Whole runs with and without sampling differ by more than it costs, on any machine that does something else as well. So
steps of a millisecond are timed one by one: each step during which the sampling thread worked is compared with its
nearest neighbours during which it did not, and so, for the fault of the method itself, is the step at a moment when it
might have but did not: other programs make that longer as often. What the former took longer than the latter, over all,
is what sampling costs.
"""

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.profiles.energy.conftest import Play

MOST = 0.005
RUNS = 3
"""Undisturbed runs, of which the middle one counts."""

MIDDLE = 0.67
"""The standard error of the middle of three independent normal values, in that of each."""

BUSY = 0.02
"""Where a thread that computes alone waited for more than this of the time, other programs had its processor."""

DEARER_MS = 5

LATER_NS = 20_000_000
"""So long after each poll, one is imagined."""


def cost(borders_ns: list[int], polls_ns: list[tuple[int, int]]) -> tuple[float, float]:
    """Return what sampling adds to a second of steps, and the standard error of that."""
    borders, steps, polls = np.array(borders_ns), np.diff(borders_ns), np.array(polls_ns)
    hit = during(borders, polls)
    shadow = np.setdiff1d(during(borders, polls + LATER_NS), hit)
    free = np.setdiff1d(np.arange(len(steps)), np.concatenate((hit, shadow)))
    excess, chance = (above_neighbours(steps, chosen, free) for chosen in (hit, shadow))
    scale = len(excess) / steps.sum()
    error = np.sqrt(excess.var() / len(excess) + chance.var() / len(chance))
    return float((excess.mean() - chance.mean()) * scale), float(error * scale)


def during(borders: NDArray[np.int64], polls: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the steps that lie, at least in part, within *polls*."""
    firsts, lasts = (np.searchsorted(borders, polls, "right") - 1).T
    within = (firsts >= 0) & (lasts < len(borders) - 1)
    spans = zip(firsts[within], lasts[within], strict=True)
    return np.unique(np.concatenate([np.arange(first, last + 1) for first, last in spans]))


def above_neighbours(
    steps: NDArray[np.int64], chosen: NDArray[np.int64], free: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return how much longer the *chosen* steps took than *free* ones near them; none is left out as too long."""
    at = np.searchsorted(free, chosen)
    inner = (at > 2) & (at < len(free) - 2)
    usual = np.median([steps[free[at[inner] + beside]] for beside in (-3, -2, 1, 2)], axis=0)
    return np.asarray(steps[chosen[inner]] - usual, np.float64)


def undisturbed(play: Play, runs: int, *arguments: object) -> list[tuple[float, float]]:
    """Return what sampling cost in *runs* during which no other program had the processor."""
    found: list[tuple[float, float]] = []
    for _ in range(4 * runs):
        played = play("square=250:100:37 pids=own call_us=50", "overhead", *arguments)
        assert played["why_ended"] == ""
        if played["waited"] > BUSY:
            print(f"busy: {played['waited']:.1%} of the time waited")
            continue
        found.append(cost(played["borders_ns"], played["polls_ns"]))
        share, error = found[-1]
        print(f"sampling, {arguments}: {share:.3%} of step time, standard error {error:.3%}")
        if len(found) == runs:
            return found
    pytest.skip(f"busy: other programs had the processor: {len(found)} of {4 * runs} runs were undisturbed")


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.parametrize("device", ["board", "host"])
def test_sampling_costs_a_training_less_than_half_a_percent(play: Play, device: str) -> None:
    shares, errors = zip(*undisturbed(play, RUNS, 10, device), strict=True)
    assert np.median(shares) + 2 * MIDDLE * np.mean(errors) < MOST


@pytest.mark.alone
@pytest.mark.slow
def test_a_sampler_that_computes_for_long_is_seen(play: Play) -> None:
    ((share, error),) = undisturbed(play, 1, 5, "board", DEARER_MS)
    assert share - 2 * error > MOST


def test_a_real_cost_is_seen_and_what_other_programs_take_is_none() -> None:
    generator = np.random.default_rng(0)
    steps_ns = generator.normal(1e6, 1e5, 60_000) + 5e6 * (generator.random(60_000) < 0.004)
    hit = np.unique(np.searchsorted(np.cumsum(steps_ns), np.arange(30e6, steps_ns.sum(), 51e6)))  # long ones more often
    for share in (0.0, 0.01):
        slower_ns = steps_ns.copy()
        slower_ns[hit] += share * 51e6
        borders_ns = np.concatenate(([0], np.cumsum(slower_ns))).astype(int)
        polls_ns = [(int(borders_ns[step]) + 1, int(borders_ns[step]) + 2) for step in hit]
        found, error = cost(borders_ns.tolist(), polls_ns)
        assert found == pytest.approx(share, abs=3 * error + 0.1 * share)
        assert (found + 2 * error < MOST) == (share < MOST)
