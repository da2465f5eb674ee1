"""What would a step gain if a stage were free? It is taken with and without, in turns, and both are timed.

A share of a step does not say that: where work overlaps, what hides behind another costs nothing, and what it hides
takes its place once it is gone. So each way of taking a step opens everything it works with anew, a loader included,
takes some steps until it goes evenly, takes those that count, and closes all, so that no way works ahead while another
has its turn.
"""

import random
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from time import perf_counter_ns, sleep
from typing import Literal, NamedTuple

from profiles.ratio import Ratio, Rounds, Timed, interleave

Step = Callable[[], object]
"""Takes one step: waits for what it needs, and does the work."""

Opened = Callable[[], AbstractContextManager[Step]]
"""One way of taking a step: opens what it works with, and closes it."""


AHEAD = 2
"""Batches that each worker of a `DataLoader` has under way before they are asked for; torch's own number."""

SURPLUS = 3
"""Times as long as loading needs, at which a step is held up by itself for sure: workers share processors with it."""

SETTLED_LOADS, SETTLED_BATCHES = 12, 6
"""Times a batch takes to be loaded, and batches of each worker, after either of which an empty queue has settled."""


class Extent(NamedTuple):
    """How many steps are taken of each turn: first those until it goes evenly, then those that are timed.

    Where several workers load, the timed ones are a multiple of their number: batches come in bursts of so many.
    """

    warm: int
    timed: int


def bursts(least: int, workers: int) -> int:
    """Return the fewest steps from *least* on that are a multiple of *workers*, from whom batches come in bursts."""
    return workers * -(-least // workers)


def settle(
    step: Step,
    drop: Callable[[], object],
    loading_ns: int,
    workers: int,
    idle: Callable[[float], None] = sleep,
    clock_ns: Callable[[], int] = perf_counter_ns,
) -> None:
    """Take steps, one at least, until the queue of batches before them is as full as it is in the long run.

    It is full there if loading takes less than steps, else empty. On the way workers would take more from the step, or
    deliver more to it, than they do later. So it is filled, which takes less time than to wait until it is full; and
    where a step then turns out not to take long enough for it to stay so, emptied.

    Args:
        step: waits for a batch, and works.
        drop: waits for a batch, and does not work.
        loading_ns: what a batch takes a worker; 0 where nobody loads.
        workers: who load, batches in turn.
        idle: waits for so many seconds.
        clock_ns: what *loading_ns* was measured by.

    """
    idle(AHEAD * loading_ns / 1e9)
    began_ns = clock_ns()
    step()
    if (clock_ns() - began_ns) * workers >= SURPLUS * loading_ns:
        return
    for _ in range(AHEAD * workers):
        drop()
    end_ns = clock_ns() + SETTLED_LOADS * loading_ns
    for _ in range(SETTLED_BATCHES * workers):
        step()
        if clock_ns() >= end_ns:
            return


def most_settling(workers: int) -> int:
    """Return the most batches that `settle` takes, and those made ahead then."""
    return 1 + (AHEAD + SETTLED_BATCHES + AHEAD) * workers


def turn(
    opened: Opened, extent: Extent, drain: Callable[[], None], clock_ns: Callable[[], int] = perf_counter_ns
) -> Timed:
    """Return what times a turn's steps, from an idle device to an idle device; opening and closing are not timed."""

    def run() -> int:
        with opened() as step:
            for _ in range(extent.warm):
                step()
            drain()
            started_ns = clock_ns()
            for _ in range(extent.timed):
                step()
            drain()
            return clock_ns() - started_ns

    return run


def within(opened: Opened, extent: Extent, timed: Callable[[], AbstractContextManager[object]]) -> None:
    """Take a turn whose steps that count lie within the block that *timed* opens, as a phase of the stage clock."""
    with opened() as step:
        for _ in range(extent.warm):
            step()
        with timed():
            for _ in range(extent.timed):
                step()


class Measured(NamedTuple):
    """Turns of each way of taking a step, and each but the first as a multiple of the first one's time."""

    ratios: dict[str, Ratio]
    times_ns: dict[str, list[int]]
    ended_by: Literal["precision", "time"]


def compare(
    ways: Mapping[str, Opened],
    extent: Extent,
    drain: Callable[[], None],
    *,
    precision: float,
    limit_s: float,
    least: int = 1,
    clock_ns: Callable[[], int] = perf_counter_ns,
) -> Measured:
    """Let *ways* take turns until all ratios to the first one's time are known to *precision*, or *limit_s* is over.

    There are *least* rounds or more, however long they take.
    """
    works = {name: turn(opened, extent, drain, clock_ns) for name, opened in ways.items()}
    order = random.Random(0)  # noqa: S311 - no secret
    take = partial(
        interleave, works, precision=precision, warmups=0, order=order, clock_ns=clock_ns
    )  # turns have theirs
    rounds = take(limit_s=limit_s)
    first, *others = ways
    while len(rounds.times_ns[first]) < least:
        rounds = _joined(rounds, take(limit_s=0.0))  # one more
    return Measured({name: rounds.ratio(name, first) for name in others}, rounds.times_ns, rounds.ended_by)


def _joined(rounds: Rounds, more: Rounds) -> Rounds:
    return rounds._replace(times_ns={name: times + more.times_ns[name] for name, times in rounds.times_ns.items()})


def gain(ratio: Ratio) -> Ratio:
    """Return the part of a step that is saved, 0.3 where it takes 0.7 of its time; below 0 where it takes longer."""
    return Ratio(1.0 - ratio.value, 1.0 - ratio.high, 1.0 - ratio.low, ratio.samples)
