"""What a record says of its cell's energy, as rows of the report's CSV files; every joule is the record's.

`drawn_by` is the device that a number is of, where `device` is the one that the cell ran on.
"""

from typing import NamedTuple

from profiles.record import CellRecord


class PhaseEnergyRow(NamedTuple):
    """What one phase cost on one device, over the `n` epochs that count; an empty `energy_j` has a `reason`.

    Within `error_j`, as far as the device's own meter is true. `idle_w` is the idle device's power before the cell, not
    subtracted.
    """

    phase: str
    drawn_by: str
    energy_j: float | None
    error_j: float | None
    method: str | None
    idle_w: float | None
    n: int
    reason: str | None


class StageEnergyRow(NamedTuple):
    """An estimate of what one stage of one phase cost on one device, in one direction, over the epochs that count.

    `error_j` is half of a 95 % interval, `above_idle_j` what is left without the idle device's power, and `share` the
    part of the phase's energy. The stage `unresolved` is what all stages with a `reason` instead of an energy cost
    together, so that the rows of a phase and device sum to its energy.
    """

    phase: str
    drawn_by: str
    stage: str
    direction: str
    exposed_s: float
    energy_j: float | None
    error_j: float | None
    above_idle_j: float | None
    share: float | None
    tag: str
    method: str
    reason: str | None


def phase_energy_rows(record: CellRecord) -> list[PhaseEnergyRow]:
    """Return the rows of `phase_energy.csv`."""
    return [
        PhaseEnergyRow(
            phase=total.phase,
            drawn_by=total.device,
            energy_j=total.energy_j,
            error_j=total.error_j,
            method=total.method,
            idle_w=total.idle_w,
            n=total.epochs,
            reason=total.reason,
        )
        for total in record.energy_totals
    ]


def stage_energy_rows(record: CellRecord) -> list[StageEnergyRow]:
    """Return the rows of `stage_energy.csv`."""
    totals_j = {(total.phase, total.device): total.energy_j for total in record.energy_totals}
    return [
        StageEnergyRow(
            phase=part.phase,
            drawn_by=part.device,
            stage=part.stage,
            direction=part.direction,
            exposed_s=part.exposed_s,
            energy_j=part.energy_j,
            error_j=part.error_j,
            above_idle_j=part.above_idle_j,
            share=_share(part.energy_j, totals_j.get((part.phase, part.device))),
            tag=part.tag,
            method=part.method,
            reason=part.reason,
        )
        for part in record.stage_energies
    ]


def _share(energy_j: float | None, total_j: float | None) -> float | None:
    return None if energy_j is None or not total_j else energy_j / total_j
