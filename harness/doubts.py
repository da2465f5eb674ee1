"""Doubts about the instruments themselves: what a record's own numbers say against it.

Each has a stated bound; what lies beyond it becomes a caveat, which the report prints.
"""

from collections.abc import Iterator

from harness.summary import Tables
from profiles.bounds import (
    BUSY_BOUND,
    CLOCK_BOUND,
    LATER_BOUND,
    RESIDUAL_BOUND,
    ROUTES_BOUND,
    STEADY_BOUND,
    UNATTRIBUTED_BOUND,
)
from profiles.record import Closure, Observation, StageTotal, StepState
from profiles.tracing.window import ProfilerConfig

TRAINED_STAGES = ("patching", "embedding", "attention", "feed_forward", "head", "loss", "optimizer")
"""What every training consists of, and marks."""

FEWEST_TIMED = 2
"""Steps of a kind of which a spread can be told."""

NAMED = 5
"""Epochs that a caveat names; more are only counted."""


def doubts(
    totals: list[StageTotal], closures: list[Closure], observations: list[Observation], config: ProfilerConfig
) -> list[str]:
    """Return the caveats of a record's instruments."""
    return [
        *_closing(closures),
        *_unmarked(totals),
        *(text for seen in observations for text in _observed(seen, config)),
    ]


def unsteady(tables: Tables) -> Iterator[str]:
    """Name the epochs that lasted far longer than the others: medians are safe from them, sums over epochs are not."""
    epochs = tables.counted_epochs()
    median_s = epochs["wall_s"].median()
    slow = epochs[epochs["wall_s"] > STEADY_BOUND * median_s]
    if len(slow):
        named = ", ".join(f"{row.epoch} ({row.wall_s:.3g} s)" for row in slow.head(NAMED).itertuples())
        more = f" and {len(slow) - NAMED} more" if len(slow) > NAMED else ""
        yield (
            f"unsteady: epochs {named}{more} lasted more than {STEADY_BOUND:g} times the median of {median_s:.3g} s, "
            "as if something else had the machine; sums over epochs, and shares of them, include them"
        )


def incomplete(tables: Tables, epochs: int) -> Iterator[str]:
    """Name the epochs that were trained but whose rows are gone, as after a loss of power."""
    if lost := tables.lost_epochs(epochs):
        more = f" and {len(lost) - NAMED} more" if len(lost) > NAMED else ""
        yield (
            f"rows of epochs {', '.join(map(str, lost[:NAMED]))}{more} are lost: "
            "times and energy summed over epochs are too low by theirs"
        )


def _closing(closures: list[Closure]) -> Iterator[str]:
    for closure in closures:
        if (share := closure.unattributed_s / closure.wall_s) > UNATTRIBUTED_BOUND:
            yield f"{share:.1%} of {closure.phase} is unattributed; the bound is {UNATTRIBUTED_BOUND:.0%}"
        if (closure.residual_s or 0) > RESIDUAL_BOUND * closure.wall_s / closure.epochs:
            yield f"device events and host clock disagree by {closure.residual_s:.3g} s on an epoch's {closure.phase}"


def _unmarked(totals: list[StageTotal]) -> Iterator[str]:
    """Name the stages whose marks were not met: `torch.compile` keeps only the marks around what it compiles."""
    met = {total.stage for total in totals if total.phase == "train" and total.exposed_s > 0}
    if met and (unmet := [stage for stage in TRAINED_STAGES if stage not in met]):
        yield f"no mark of {', '.join(unmet)} was met in training: its time is in the stage around it, or unattributed"


def _observed(seen: Observation, config: ProfilerConfig) -> Iterator[str]:
    where = f"epoch {seen.epoch}" if seen.epoch else "after the measured steps"
    if seen.window is None:
        yield f"no profiler window, {where}: {seen.reason}"
    else:
        if seen.window.difference > ROUTES_BOUND:
            worst = max(seen.window.cells, key=lambda cell: abs(cell.clock_share - cell.profiler_share))
            yield (
                f"stage clock and profiler disagree on {worst.stage} ({worst.direction}), {where}: "
                f"{worst.clock_share:.1%} and {worst.profiler_share:.1%} of the window"
            )
        if (more_s := seen.window.busy_residual_s or 0) > BUSY_BOUND * seen.window.busy_s:
            more = f"{more_s / seen.window.busy_s:.1%} more than the device was busy"
            yield f"the stages' busy times sum to {more}, {where}: kernels of several stages ran at once"
        if (seen.window.resident_bytes or 0) > config.memory_mb * 10**6:
            yield f"the profiler window, {where}, took {seen.window.resident_bytes} bytes of memory: over its budget"
        if seen.window.trace_bytes > config.file_mb * 10**6:
            yield f"the profiler window's trace, {where}, has {seen.window.trace_bytes} bytes: over its budget"
    if few := [step.state for step in seen.steps if step.state != "window" and step.n < FEWEST_TIMED]:
        yield f"one step each ({', '.join(few)}), {where}: whether the instruments slow steps down is not known"
    if slower := _slower(seen, "bare", "clock", CLOCK_BOUND):
        yield f"steps with the stage clock are {slower:.1%} slower than without, {where}"
    if slower := _slower(seen, "clock", "after", LATER_BOUND):
        yield f"steps after the profiler window stay {slower:.1%} slower than before it, {where}"


def _slower(seen: Observation, base: StepState, later: StepState, bound: float) -> float | None:
    """Return by which part *later* steps are slower than *base* ones, if beyond the bound and beyond their spread."""
    times = {step.state: step for step in seen.steps}
    if base not in times or later not in times:
        return None
    one, other = times[base], times[later]
    if one.spread_s is None or other.spread_s is None:
        return None  # a single step says nothing about its like
    excess_s = other.median_s - one.median_s
    if excess_s <= max(bound * one.median_s, one.spread_s, other.spread_s):
        return None
    return excess_s / one.median_s
