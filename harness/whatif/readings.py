"""What the stage clock says of the same steps, and why a ceiling is not the exposed share.

A step and the step without one of its stages both divide into exposed times that sum to their wall times. So whatever
the gain is short of the stage's exposed time, others took more once it was gone, and the clock says which.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import median
from time import perf_counter_ns
from typing import NamedTuple

import torch

from profiles.ratio import Ratio
from profiles.stages import Stage
from profiles.timing.clock import StageClock
from profiles.timing.device_clock import CudaTimer, DeviceClock
from profiles.timing.times import PhaseTimes
from profiles.turns import Extent, Opened, within

REPEATS = 3
"""Turns by the clock at most, the median of which is taken."""

TELLING = 0.02
"""The part of a step by which a ceiling may differ from the exposed share, beyond its interval, unexplained."""

GROUPS: Mapping[str, tuple[str, ...]] = {"data_loading": ("data_loading", "transfer")}
"""Stages that are taken away together."""

WAITS = ("data_loading", "transfer")
"""Stages whose exposed time is waiting for someone else."""

NAMED = 0.005
"""The part of a step by which a stage has to differ to be named as a reason."""


class Spent(NamedTuple):
    """A turn by the clock, seconds: the whole, exposed by stage, and what loading worked by part, if it was metered."""

    wall_s: float
    exposed_s: dict[str, float]
    loader_s: dict[str, float]

    @property
    def busy_s(self) -> float | None:
        """What loading worked, in whatever process, if it was metered."""
        return sum(self.loader_s.values()) if self.loader_s else None

    def exposed(self, stage: str) -> float:
        """Return the exposed time of what is taken away with *stage*, seconds."""
        return sum(self.exposed_s.get(name, 0.0) for name in GROUPS.get(stage, (stage,)))


def clock_for(device: torch.device) -> StageClock:
    """Return the stage clock of a device."""
    return DeviceClock(CudaTimer(device)) if device.type == "cuda" else StageClock()


def spent(
    ways: Mapping[str, Opened],
    extent: Extent,
    clock: Callable[[], StageClock],
    limit_s: float,
    clock_ns: Callable[[], int] = perf_counter_ns,
) -> dict[str, Spent]:
    """Take turns by the stage clock, once or until *limit_s* is over; return the median of each way."""
    found: dict[str, list[Spent]] = {name: [] for name in ways}
    end_ns = clock_ns() + round(limit_s * 1e9)
    for _ in range(REPEATS):
        for name, opened in ways.items():
            found[name].append(once(opened, extent, clock()))
        if clock_ns() >= end_ns:
            break
    return {name: middle(turns) for name, turns in found.items()}


def once(opened: Opened, extent: Extent, clock: StageClock) -> Spent:
    """Take one turn by the stage clock."""
    kept: list[PhaseTimes] = []

    @contextmanager
    def phase() -> Iterator[None]:
        with clock.phase("train", 1) as times:
            kept.append(times)
            yield

    within(opened, extent, phase)
    (times,) = kept
    exposed_s: dict[str, float] = {}
    for cell, exposed_ns in times.exposed_ns.items():
        exposed_s[cell.stage] = exposed_s.get(cell.stage, 0.0) + exposed_ns / 1e9
    loader_s = {str(name): worked_ns / 1e9 for name, worked_ns in times.loader_ns.items()}
    return Spent(times.wall_ns / 1e9, exposed_s, loader_s)


def middle(turns: Sequence[Spent]) -> Spent:
    """Return the median of turns, name by name."""
    return Spent(
        median(turn.wall_s for turn in turns),
        _medians([turn.exposed_s for turn in turns]),
        _medians([turn.loader_s for turn in turns]),
    )


def _medians(tables: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for table in tables for name in table)
    return {name: median(table.get(name, 0.0) for table in tables) for name in names}


class Worked(NamedTuple):
    """What a stage's resource worked, as a part of the step, *hands* at once at most; or why that is not known."""

    share: float | None
    hands: int = 1
    tag: str = ""
    unknown: str = ""


def metered(full: Spent, workers: int) -> Worked:
    """Return what loading worked: its own meter counts in whatever process it is done."""
    if full.busy_s is None:
        return Worked(None, unknown="nothing was loaded in the steps that were timed")
    return Worked(full.busy_s / full.wall_s, max(1, workers), "measured")


def reading(stage: Stage, saved: Ratio, full: Spent, without: Spent, worked: Worked) -> str:
    """Explain, in a sentence, where ceiling, exposed share and busy share are not the same."""
    low, high = saved.ends
    if low is None or high is None:
        return "too few rounds to tell"
    exposed = full.exposed(stage) / full.wall_s
    if not low - TELLING <= exposed <= high + TELLING:
        told = _short(stage, full, without, exposed - saved.value)
    elif max(exposed - low, high - exposed) <= 2 * TELLING:
        told = "as exposed"
    else:
        told = "not told apart from exposed: the interval is wide"
    return "; ".join([told, *_left(stage, full, without), *_overlapping(worked, exposed)])


def _short(stage: Stage, full: Spent, without: Spent, short: float) -> str:
    """Say what takes the part of a step that a gain is *short* of the exposed share, or gave it where below 0."""
    group = GROUPS.get(stage, (stage,))
    changes = {
        name: (without.exposed_s.get(name, 0.0) - full.exposed_s.get(name, 0.0)) / full.wall_s
        for name in {*full.exposed_s, *without.exposed_s} - {*group}
    }
    telling = [name for name, change in changes.items() if change * short > 0 and abs(change) >= NAMED]
    telling.sort(key=lambda name: -abs(changes[name]))
    if not telling:
        return f"{'less' if short > 0 else 'more'} than exposed, and the clock does not say why"
    named = ", ".join(f"{name} {changes[name]:+.1%}" for name in telling[:2])
    why = "it slowed others down while it worked"
    if short > 0:
        why = "the step waits elsewhere instead" if telling[0] in WAITS else "what it hid takes its place"
    rest = abs(short) > 2 * abs(sum(changes[name] for name in telling))
    return f"{why}: without it {named} of the step" + (", of the rest the clock does not say why" if rest else "")


def _left(stage: Stage, full: Spent, without: Spent) -> Iterator[str]:
    """Say what is still there of a stage that was taken away."""
    left = without.exposed(stage) / full.wall_s
    if left >= NAMED:
        yield f"{left:.1%} of the step is still exposed without it"


def _overlapping(worked: Worked, exposed: float) -> Iterator[str]:
    """Say where more or less is worked than is exposed (spec section 9: overlap, starvation)."""
    if worked.share is None:
        return
    beside = worked.share - worked.hands * exposed  # while the step waits, no more than all hands work
    if beside > TELLING:
        yield f"{beside:.1%} of the step at least is worked beside other stages (overlap)"
    elif worked.share - exposed > TELLING:
        yield "several workers work at once, and whether beside other stages too these shares do not tell"
    elif exposed - worked.share > TELLING:
        yield f"{exposed - worked.share:.1%} of the step is exposed and not worked (starvation)"
