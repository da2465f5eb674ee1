"""From a cell's tables to its stages: exposed and busy, whether they add up, and what bounds the training."""

import json
import math
from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd

from harness.summary import Tables
from profiles.record import (
    UNATTRIBUTED,
    Bound,
    Closure,
    Direction,
    LoaderRow,
    LoaderTotal,
    Observation,
    Phase,
    PhaseRow,
    ProfilerWindow,
    RankTotal,
    StageRow,
    StageTotal,
    Tag,
    Verdict,
)
from profiles.spread import spread

MAJORITY = 0.5
"""The part of the wall time from which on one resource bounds a training."""

NO_WINDOW = "no profiler window of this phase"
NOT_IN_WINDOWS = "it did not run in a profiler window"


def stage_totals(tables: Tables, observations: list[Observation]) -> list[StageTotal]:
    """Sum each phase's stages over the epochs that count."""
    rows = [StageRow(*row) for row in tables.counted(tables.stages).itertuples(index=False)]
    groups: dict[tuple[Phase, str, Direction], list[StageRow]] = {}
    for row in rows:
        groups.setdefault((row.phase, row.stage, row.direction), []).append(row)
    epochs = {phase: len({row.epoch for row in rows if row.phase == phase}) for phase, _, _ in groups}
    walls_s = {phase: sum(row.exposed_s for row in rows if row.phase == phase) for phase in epochs}
    working = _working_parts(observations)
    return [_total(group, epochs[key[0]], walls_s[key[0]], working) for key, group in groups.items()]


def interrupted_epochs(events: Iterable[str], cell: str) -> set[int]:
    """Return in which epochs a cell was interrupted, by the lines of `events.jsonl`.

    The state that is saved then holds the times of rank 0, on top of which every rank goes on.
    """
    found = set()
    for line in events:
        try:
            event = json.loads(line)
        except json.JSONDecodeError:  # a kill cut it short
            continue
        if event["event"] == "phase_stop" and event["cell"] == cell and not event["completed"]:
            found.add(int(event["epoch"]))
    return found


def rank_totals(by_rank: list[Tables], interrupted: Collection[int] = ()) -> list[RankTotal]:
    """Sum each stage of training and validation over the ranks, and find the rank where it took longest.

    Epochs that were *interrupted* are left out: what a rank's rows of one say is in part what rank 0 measured.
    """
    taken_s: dict[tuple[Phase, str, Direction], list[float]] = {}
    for rank, tables in enumerate(by_rank):
        for row in (StageRow(*values) for values in tables.counted(tables.stages).itertuples(index=False)):
            if row.phase in {"train", "validation"} and row.epoch not in interrupted:
                key = (row.phase, row.stage, row.direction)
                taken_s.setdefault(key, [0.0] * len(by_rank))[rank] += row.exposed_s
    return [
        RankTotal(
            phase=phase,
            stage=stage,
            direction=direction,
            summed_s=math.fsum(seconds),
            slowest_s=max(seconds),
            slowest_rank=seconds.index(max(seconds)),
        )
        for (phase, stage, direction), seconds in taken_s.items()
    ]


def _total(rows: list[StageRow], epochs: int, wall_s: float, working: dict[tuple[str, str], float]) -> StageTotal:
    """Sum one stage's rows; an epoch without a row spent nothing on it."""
    absent = [0.0] * (epochs - len(rows))
    exposed_s = sum(row.exposed_s for row in rows)
    busy_s, busy_tag, reason = _busy(rows, exposed_s, working)
    return StageTotal(
        phase=rows[0].phase,
        stage=rows[0].stage,
        direction=rows[0].direction,
        exposed_s=exposed_s,
        share=exposed_s / wall_s,
        epochs=epochs,
        tag="measured" if all(row.tag == "measured" for row in rows) else "estimated",
        spread_s=spread([*(row.exposed_s for row in rows), *absent]),
        share_spread=spread([*(row.share for row in rows), *absent]),
        busy_s=busy_s,
        busy_tag=busy_tag,
        busy_reason=reason,
    )


def _busy(
    rows: list[StageRow], exposed_s: float, working: dict[tuple[str, str], float]
) -> tuple[float | None, Tag, str | None]:
    """Return what a stage's resource worked: counted, or by the part of its time that worked in the windows."""
    phase, stage, direction = rows[0].phase, rows[0].stage, rows[0].direction
    if stage == UNATTRIBUTED:
        return None, "unavailable", "it has no resource of its own"
    counted = _present(row.busy_s for row in rows)
    if counted:
        return sum(counted), "measured", None
    if phase != "train" or not working:
        return None, "unavailable", NO_WINDOW
    part = working.get((stage, direction))
    return (None, "unavailable", NOT_IN_WINDOWS) if part is None else (exposed_s * part, "estimated", None)


def _present(numbers: Iterable[float | None]) -> list[float]:
    """Return the numbers that a table has; pandas reads the others as NaN."""
    return [number for number in numbers if number is not None and not math.isnan(number)]


def _working_parts(observations: list[Observation]) -> dict[tuple[str, str], float]:
    """Return the busy part of each stage's time in the profiler windows."""
    exposed_s: dict[tuple[str, str], float] = defaultdict(float)
    busy_s: dict[tuple[str, str], float] = defaultdict(float)
    for cell in (cell for seen in observations if seen.window for cell in seen.window.cells):
        exposed_s[cell.stage, cell.direction] += cell.exposed_s
        busy_s[cell.stage, cell.direction] += cell.busy_s
    return {cell: busy_s[cell] / whole_s for cell, whole_s in exposed_s.items() if whole_s > 0}


def loader_totals(tables: Tables, *, beforehand: bool) -> list[LoaderTotal]:
    """Sum the parts of loading: over the epochs that count and, where it happens *beforehand*, before the first one.

    A pipeline that loads in every step has in epoch 0 only the loading of steps that no number counts.
    """
    rows = tables.counted(tables.loader)
    if beforehand:
        rows = pd.concat([rows, tables.loader[tables.loader["epoch"] == 0]])
    sums: dict[tuple[Phase, str], float] = defaultdict(float)
    for row in rows.itertuples(index=False):
        loaded = LoaderRow(*row)
        sums[loaded.phase, loaded.part] += loaded.busy_s
    return [LoaderTotal(phase=phase, part=part, busy_s=busy_s) for (phase, part), busy_s in sums.items()]


def closures(tables: Tables) -> list[Closure]:
    """Say of each phase whether its times add up, over the epochs that count."""
    stages = tables.counted(tables.stages)
    left_s = stages[stages["stage"] == UNATTRIBUTED]
    phases: dict[Phase, list[PhaseRow]] = {}
    for row in tables.counted(tables.phases).itertuples(index=False):
        phases.setdefault(PhaseRow(*row).phase, []).append(PhaseRow(*row))
    return [
        Closure(
            phase=phase,
            wall_s=sum(row.wall_s for row in rows),
            unattributed_s=float(left_s.loc[left_s["phase"] == phase, "exposed_s"].sum()),
            residual_s=max(map(abs, _present(row.residual_s for row in rows)), default=None),
            epochs=len(rows),
        )
        for phase, rows in phases.items()
    ]


def verdict(totals: list[StageTotal], observations: list[Observation], epoch_steps: int, *, on_device: bool) -> Verdict:
    """Say what bounds the training: its input, its arithmetic, or the host that launches it.

    Args:
        totals: of the cell's stages.
        observations: whose windows say how much of a step computes.
        epoch_steps: training steps that an epoch has run.
        on_device: whether a device computes; else the host does, and what it does not compute is launching it.

    """
    waits = sum(total.share for total in totals if total.phase == "train" and total.stage == "data_loading")
    windows = [seen.window for seen in observations if seen.window]
    compute = _device_share(windows, _step_s(totals, epoch_steps)) if on_device else _host_share(windows, waits)
    if compute is None:
        return Verdict(
            bound="input-bound" if waits >= MAJORITY else None,
            input_share=waits,
            compute_share=None,
            host_share=None,
            reason="without a profiler window, compute and host cannot be told apart",
        )
    compute = min(compute, 1 - waits)  # the windows' steps are not those of the wall time, and never quite like them
    shares: dict[Bound, float] = {"input-bound": waits, "compute-bound": compute, "host-bound": 1 - waits - compute}
    largest = max(shares, key=lambda name: shares[name])
    return Verdict(
        bound=largest if shares[largest] >= MAJORITY else "mixed",
        input_share=waits,
        compute_share=compute,
        host_share=1 - waits - compute,
        reason=f"of the training's wall time, {waits:.1%} waits for input and {compute:.1%} computes",
    )


def _step_s(totals: list[StageTotal], epoch_steps: int) -> float:
    """Return the wall time of a training step, over the epochs that count: waits, saving and all."""
    train = [total for total in totals if total.phase == "train"]
    return math.fsum(total.exposed_s for total in train) / (epoch_steps * max(total.epochs for total in train))


def _device_share(windows: list[ProfilerWindow], step_s: float) -> float | None:
    """Return the part of the training in which its device computes: a profiler does not slow down kernels."""
    shares = [(window.busy_s - _loading(window).busy_s) / (window.steps * step_s) for window in windows]
    return float(np.median(shares)) if shares else None


def _host_share(windows: list[ProfilerWindow], waits: float) -> float | None:
    """Return the part of the training in which a CPU computes: of what it does not wait, as in the windows.

    A window has waited for less or more than the epochs that count, and the profiler slows down what it sees.
    """
    shares = [
        (window.busy_s - loading.busy_s) / (window.wall_s - loading.exposed_s)
        for window in windows
        if (loading := _loading(window)).exposed_s < window.wall_s
    ]
    return float(np.median(shares)) * (1 - waits) if shares else None


class _Loading(NamedTuple):
    exposed_s: float
    busy_s: float


def _loading(window: ProfilerWindow) -> _Loading:
    """Return what a window's loading took and worked: the verdict's input, and none of its compute."""
    cells = [cell for cell in window.cells if cell.stage == "data_loading"]
    return _Loading(math.fsum(cell.exposed_s for cell in cells), math.fsum(cell.busy_s for cell in cells))
