"""What phases and stages cost in energy, on each device, give or take how much; and where it is not known, why.

The two kinds of row say how a number was come by in their last column: a phase's by a meter's method, a stage's
estimate by the method that split the phase, and what is unavailable by its reason, which is each row's own.
"""

import math
from collections.abc import Iterable, Sequence

from profiles.record import UNRESOLVED, CellRecord
from reports.page.breakdown import PHASES
from reports.page.tables import Column, Entry, Identity, Table, text
from reports.rows.energy import PhaseEnergyRow, StageEnergyRow, phase_energy_rows, stage_energy_rows
from reports.rows.metrics import MetricRow
from reports.words.format import Scale, alike, count, integer, listed, number, percent, scale, visible, within
from reports.words.palette import in_order, stage_class, stage_label

_UNKNOWN = Entry("unavailable", numeric=True, missing=True)
_DIRECTIONS = ("forward", "backward", "none")
_NO_REASON = "no reason was recorded"


def tables(records: list[CellRecord], who: Identity) -> list[Table]:
    """Return the table of phases and those of each phase's stages, as far as any of their rows has an energy."""
    found = (phases_table(records, who), *(stages_table(phase, records, who) for phase in PHASES))
    return [table for table in found if table]


def why_none(records: list[CellRecord], metrics: list[MetricRow]) -> list[str] | None:
    """Return the reasons, one of each that are alike, where no record holds any energy; None where one does."""
    rows: list[PhaseEnergyRow | StageEnergyRow] = []
    for record in records:
        rows += [*phase_energy_rows(record), *stage_energy_rows(record)]
    if any(row.energy_j is not None for row in rows) or any(row.value is not None for row in metrics):
        return None
    return [visible(found[0]) for found in _alike(row.reason for row in (*metrics, *rows))]


def of_run(records: list[CellRecord]) -> str:
    """Say what all that the finished cells ran drew together; unknown where that of one of them is."""
    costs_j = [metric.value for record in records for metric in record.metrics if metric.name == "cell_energy"]
    known_j, cells = [cost_j for cost_j in costs_j if cost_j is not None], count(len(records), "finished cell")
    if len(known_j) < len(records):
        return f"What all cells drew together is unknown: known of {integer(len(known_j))} of {cells}."
    if any((record.cells_at_once or 1) > 1 and record.device == "cpu" for record in records):
        return (
            "What all cells drew together is unknown: several ran at once (--jobs) on one CPU, whose meter is shared."
        )
    unit = scale("J", math.fsum(known_j))
    return f"All that {cells} ran drew {number(math.fsum(known_j) / unit.divisor)} {unit.label}."


def not_known(records: list[CellRecord]) -> list[str]:
    """Say which energies are not known, of how many phases and of how many stages on which device, and why."""
    phases = [row for record in records for row in phase_energy_rows(record)]
    stages = [row for record in records for row in stage_energy_rows(record) if row.stage != UNRESOLVED]
    return [*_not_known("phase", phases), *_not_known("stage", stages)]


def _not_known(noun: str, rows: Sequence[PhaseEnergyRow | StageEnergyRow]) -> list[str]:
    return [
        f"Energy that {visible(device)} drew in {len(found)} of {count(len(mine), noun)}: {visible(found[0])}."
        for device in dict.fromkeys(row.drawn_by for row in rows)
        for mine in [[row for row in rows if row.drawn_by == device]]
        for found in _alike(row.reason or _NO_REASON for row in mine if row.energy_j is None)
    ]


def _alike(reasons: Iterable[str | None]) -> list[list[str]]:
    """Return *reasons* in groups that differ in their numbers only."""
    groups: dict[str, list[str]] = {}
    for reason in filter(None, reasons):
        groups.setdefault(alike(reason), []).append(reason)
    return list(groups.values())


def phases_table(records: list[CellRecord], who: Identity) -> Table | None:
    """Return, per cell and phase, what each device drew; None where no row has an energy."""
    held = [(record, row) for record in records for row in phase_energy_rows(record)]
    held.sort(key=lambda pair: (records.index(pair[0]), PHASES.index(pair[1].phase)))
    known_j = [row.energy_j for _, row in held if row.energy_j is not None]
    if not known_j:
        return None
    unit = scale("J", min(known_j))
    columns = (
        *who.columns(),
        Column("Phase"),
        Column("Drawn by"),
        Column("Energy", unit.label, numeric=True),
        Column("Idle power", "W", numeric=True),
        Column("How it is known"),
    )
    detail = (
        "Summed over the epochs that count (n), idle power not subtracted but beside it. Counter: the difference of "
        "the device's own energy counter; trapezoid: sampled power, integrated. \u00b1 is how far off they can be, as "
        f"far as the device's meter is true. {count(len(held), 'row')}; {who.shared}."
    )
    body = tuple(who.entries(record) + _phase(row, unit) for record, row in held)
    gist = f"{integer(len(known_j))} of {integer(len(held))} known"
    return Table("energy-phases", "Energy of each phase, by device", columns, body, detail, gist=gist)


def _phase(row: PhaseEnergyRow, unit: Scale) -> tuple[Entry, ...]:
    energy = _joules(row.energy_j, row.error_j, unit)
    return (
        text(row.phase),
        text(row.drawn_by),
        energy._replace(note=", ".join(filter(None, (energy.note, f"n\u00a0{integer(row.n)}")))),
        _UNKNOWN if row.idle_w is None else Entry(number(row.idle_w), sort=row.idle_w, numeric=True),
        _how("unavailable" if row.energy_j is None else row.method or "unknown", row.reason),
    )


def stages_table(phase: str, records: list[CellRecord], who: Identity) -> Table | None:
    """Return, per cell, what each stage of *phase* cost in each direction; None where no row has an energy."""
    held = [(record, row) for record in records for row in _in_order(phase, record)]
    known_j = [row.energy_j for _, row in held if row.energy_j is not None]
    if not known_j:
        return None
    unit = scale("J", max(known_j))
    devices = sorted({row.drawn_by for _, row in held})
    another = len(devices) > 1 and any(row.drawn_by != record.device for record, row in held)
    columns = (
        *who.columns(),
        *([Column("Drawn by")] if another else []),
        Column("Stage"),
        Column("Direction"),
        Column("Exposed", "s", numeric=True),
        Column("Energy", unit.label, numeric=True),
        Column("Above idle", unit.label, numeric=True),
        Column("Share of phase", "% of energy", numeric=True),
        Column("How it is known"),
    )
    detail = (
        f"Estimates of what {listed(devices)} drew over the epochs that count; \u00b1 is half of a 95\u00a0% interval. "
        "Above idle is without the power of the idle device during the exposed time. A stage that the meter cannot "
        "tell from others has a reason instead of an energy; unresolved is what all such stages of a cell cost "
        f"together, so that its rows sum to the phase's energy. {count(len(held), 'row')}; {who.shared}."
    )
    own = [row for _, row in held if row.stage != UNRESOLVED]
    told = sum(row.energy_j is not None for row in own)
    gist = f"{integer(told)} of {integer(len(own))} told apart"
    body = tuple(who.entries(record) + _stage(row, unit)[not another :] for record, row in held)
    return Table(f"energy-{phase}", f"Energy of each stage of the {phase} phase", columns, body, detail, gist=gist)


def _in_order(phase: str, record: CellRecord) -> list[StageEnergyRow]:
    rows = [row for row in stage_energy_rows(record) if row.phase == phase]
    stages = in_order({row.stage for row in rows})
    return sorted(rows, key=lambda row: (row.drawn_by, stages.index(row.stage), _DIRECTIONS.index(row.direction)))


def _stage(row: StageEnergyRow, unit: Scale) -> tuple[Entry, ...]:
    above = _joules(row.above_idle_j, row.error_j, unit)
    return (
        text(row.drawn_by),
        text(stage_label(row.stage), f"stage {stage_class(row.stage)}"),
        text(row.direction),
        Entry(number(row.exposed_s), sort=row.exposed_s, numeric=True),
        _joules(row.energy_j, row.error_j, unit),
        above._replace(note="") if row.above_idle_j is not None or row.energy_j is None else _NO_IDLE,
        _UNKNOWN if row.share is None else Entry(percent(row.share), sort=row.share, numeric=True),
        _how(row.tag, row.reason if row.energy_j is None else row.method),
    )


_NO_IDLE = _UNKNOWN._replace(note="idle power unknown")


def _joules(energy_j: float | None, error_j: float | None, unit: Scale) -> Entry:
    """Return an energy with its error bar below it, to the same digit."""
    if energy_j is None:
        return _UNKNOWN
    value, error = energy_j / unit.divisor, None if error_j is None else error_j / unit.divisor
    return Entry(number(value, error), within(value, error), sort=energy_j, numeric=True)


def _how(way: str, told: str | None) -> Entry:
    """Return by which way a number is known and what there is to tell of it; why there is none, where there is none."""
    if way == "unavailable":
        return Entry(way, visible(told or _NO_REASON), missing=True)
    return text(way)._replace(note=visible(told or ""))
