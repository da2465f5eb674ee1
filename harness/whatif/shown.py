"""What `bench whatif` prints: every step's table, the waterfalls, and the epochs at their places."""

from collections.abc import Iterable, Sequence

from rich.table import Column, Table

from harness.commands import out_console
from harness.whatif.epochs import PHASES
from harness.whatif.measure import Found
from profiles.whatif import EffectRow, EpochRow, FallRow


def show(found: Found) -> None:
    """Print every step's table, and the waterfalls."""
    for step in found.steps:
        title = f"{step.category}, {step.model}, {step.pipeline}: {step.phase}"
        out_console.print(f"{title}, {step.step_s:.4g} s a step, median of {step.rounds} rounds")
        key = (step.category, step.model, step.pipeline, step.phase)
        _show_effects([row for row in found.effects if row[:4] == key])
    for category, model in dict.fromkeys((row.category, row.model) for row in found.waterfall):
        out_console.print(f"{category}, {model}: from the thesis's step to the fast one's, in % of the former")
        _show_falls([row for row in found.waterfall if (row.category, row.model) == (category, model)])
        out_console.print(f"{category}, {model}: the epoch, from the thesis's to the fast one's, in seconds")
        _show_epochs([row for row in found.epochs if (row.category, row.model) == (category, model)])


def _show_effects(rows: Sequence[EffectRow]) -> None:
    table = Table("stage or part", "gain", "95 %", "n", "exposed", "busy", Column("reading", overflow="fold"), box=None)
    for row in rows:
        name = row.name if row.kind == "ceiling" else f"{row.name} exchanged"
        table.add_row(
            name,
            _percent(row.gain),
            _interval(row.low, row.high),
            str(row.rounds),
            _percent(row.exposed),
            _percent(row.busy),
            row.reading,
        )
    out_console.print(table)
    for why in dict.fromkeys(row.unavailable for row in rows if row.unavailable):
        names = ", ".join(row.name for row in rows if row.unavailable == why)
        out_console.print(f"unavailable ({names}): {why}")


def _show_falls(rows: Iterable[FallRow]) -> None:
    reading = Column("reading", overflow="fold")
    table = Table("exchanged", "off", "95 %", "left", "times the step before", "95 %", "n", reading, box=None)
    for row in rows:
        previous = f"{row.by_previous:.3f}"
        ends = "" if row.low is None or row.high is None else f"{row.low:.3f} to {row.high:.3f}"
        off = _interval(row.gain_low, row.gain_high)
        table.add_row(
            row.part, _percent(row.gain), off, _percent(row.step), previous, ends, str(row.rounds), row.reading
        )
    out_console.print(table)


def _show_epochs(rows: Sequence[EpochRow]) -> None:
    """Print what an epoch is made of at each place, and what it loses to the place before."""
    table = Table("exchanged", "to start", "training", "validation", "epoch", "off", "n", box=None)
    for row in rows:
        training_s, validation_s = row.steps * row.step_s, row.validation_steps * row.validation_step_s
        seconds = (PHASES * row.start_s, training_s, validation_s, row.epoch_s, row.gain_s)
        table.add_row(row.part, *(f"{value:.4g}" for value in seconds), str(row.rounds))
    out_console.print(table)


def _percent(share: float | None) -> str:
    return "unavailable" if share is None else f"{100 * share:.1f} %"


def _interval(low: float | None, high: float | None) -> str:
    return "too few rounds" if low is None or high is None else f"{100 * low:.1f} to {100 * high:.1f}"
