"""What would a step gain if a stage were free? It is taken with and without, in turns, and both are timed.

A share of a step does not say that: where work overlaps, what hides behind another costs nothing, and what it hides
takes its place once it is gone. So each way of taking a step opens everything it works with anew, a loader included,
takes some steps until it goes evenly, takes those that count, and closes all, so that no way works ahead while another
has its turn.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from time import perf_counter_ns
from typing import Literal, NamedTuple

from profiles.ratio import Ratio, Timed, interleave

Step = Callable[[], object]
"""Takes one step: waits for what it needs, and does the work."""

Opened = Callable[[], AbstractContextManager[Step]]
"""One way of taking a step: opens what it works with, and closes it."""


class Extent(NamedTuple):
    """How many steps are taken of each turn: first those until it goes evenly, then those that are timed.

    Where several workers load, the timed ones are a multiple of their number: batches come in bursts of so many.
    """

    warm: int
    timed: int


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
    clock_ns: Callable[[], int] = perf_counter_ns,
) -> Measured:
    """Let *ways* take turns until all ratios to the first one's time are known to *precision*, or *limit_s* is over."""
    works = {name: turn(opened, extent, drain, clock_ns) for name, opened in ways.items()}
    rounds = interleave(works, precision=precision, limit_s=limit_s, warmups=0, clock_ns=clock_ns)  # turns have theirs
    first, *others = ways
    return Measured({name: rounds.ratio(name, first) for name in others}, rounds.times_ns, rounds.ended_by)


def gain(ratio: Ratio) -> Ratio:
    """Return the part of a step that is saved, 0.3 where it takes 0.7 of its time; below 0 where it takes longer."""
    return Ratio(1.0 - ratio.value, 1.0 - ratio.high, 1.0 - ratio.low, ratio.samples)
