"""From a cell's energy rows to its metrics, its totals per phase, and what is doubtful about them."""

import math
import re
from collections.abc import Iterator

import numpy as np

from harness.summary import Tables, unavailable
from profiles.energy.curve import Joules, total
from profiles.energy.telemetry import Telemetry
from profiles.record import EnergyRow, EnergyTotal, Metric, Phase, StageEnergy, StageTotal
from profiles.spread import spread

SAID = 5
"""Epochs that a caveat names one by one; more are only counted."""


def energy_metrics(tables: Tables, devices: set[str], time_per_epoch: Metric) -> list[Metric]:
    """Return the energy of an epoch, training and validation together, of the whole training, and of all phases.

    Energy of several *devices* is summed. Where few steps were measured, an epoch's is what they cost extended in time
    as *time_per_epoch* was.
    """
    every = [row for row in tables.energy_rows() if row.device in devices]
    of_epochs = {"train", "validation"}
    rows = [row for row in every if row.phase in of_epochs]
    counted = [row for row in tables.energy_rows(counted=True) if row.device in devices and row.phase in of_epochs]
    cell = _whole("cell_energy", _joules(every))
    if time_per_epoch.tag == "estimated":
        return [
            _extended(counted, len(devices), time_per_epoch),
            unavailable("training_energy", "J", NOT_TRAINED),
            cell,
        ]
    epochs: dict[int, list[EnergyRow]] = {}
    for row in counted:
        epochs.setdefault(row.epoch, []).append(row)
    costs = [_joules(of_epoch) for of_epoch in epochs.values()]
    known_j = [cost.energy_j for cost in costs if cost.energy_j is not None]
    return [
        _metric("energy_per_epoch", float(np.median(known_j)), len(known_j), spread(known_j))
        if known_j
        else unavailable("energy_per_epoch", "J", costs[0].reason if costs else NOTHING),
        _whole("training_energy", _joules(rows)),
        cell,
    ]


NOT_TRAINED = "not trained to the stopping rule (training.measured_steps)"
NOTHING = "no epoch that counts was run"


def _joules(rows: list[EnergyRow]) -> Joules:
    return total(Joules(row.energy_j, row.error_j, row.method, row.reason) for row in rows)


def _metric(name: str, energy_j: float, n: int, spread_j: float | None) -> Metric:
    return Metric(name=name, value=energy_j, unit="J", n=n, spread=spread_j, tag="measured")


def _whole(name: str, joules: Joules) -> Metric:
    if joules.energy_j is None:
        return unavailable(name, "J", joules.reason)
    return _metric(name, joules.energy_j, 1, None)


def _extended(rows: list[EnergyRow], devices: int, time_per_epoch: Metric) -> Metric:
    joules, wall_s = _joules(rows), math.fsum(row.wall_s for row in rows) / devices
    if joules.energy_j is None or time_per_epoch.value is None:
        return unavailable("energy_per_epoch", "J", joules.reason or NOTHING)
    return Metric(
        name="energy_per_epoch",
        value=joules.energy_j / wall_s * time_per_epoch.value,
        unit="J",
        n=time_per_epoch.n,
        tag="estimated",
    )


def energy_totals(tables: Tables) -> list[EnergyTotal]:
    """Sum each phase's energy on each device, over the epochs that count."""
    groups: dict[tuple[Phase, str], list[EnergyRow]] = {}
    for row in tables.energy_rows(counted=True):
        groups.setdefault((row.phase, row.device), []).append(row)
    return [_total(rows, _joules(rows)) for rows in groups.values()]


def _total(rows: list[EnergyRow], joules: Joules) -> EnergyTotal:
    return EnergyTotal(
        phase=rows[0].phase,
        device=rows[0].device,
        energy_j=joules.energy_j,
        error_j=joules.error_j,
        method=joules.method,
        idle_w=rows[-1].idle_w,
        epochs=len({row.epoch for row in rows}),
        reason=joules.reason or None,
    )


def stage_energies(tables: Tables, totals: list[StageTotal], telemetry: Telemetry) -> list[StageEnergy]:
    """Estimate what each stage of each phase cost, over the epochs that count; see `profiles.energy.split`."""
    rows = tables.energy_rows(counted=True)
    phases = dict.fromkeys(row.phase for row in totals)
    return [
        part
        for phase in phases
        for part in telemetry.stage_energies(
            phase, {(each.stage, each.direction): each.exposed_s for each in totals if each.phase == phase}, rows
        )
    ]


def energy_doubts(tables: Tables) -> Iterator[str]:
    """Say what makes epochs doubtful: others on the device, throttling, a limit that changed; and which epochs."""
    touched: dict[tuple[str, str], list[str]] = {}
    for row in tables.energy_rows():
        for text in filter(None, row.caveats.split("; ")):
            plain = re.sub(r" in \d+ of \d+ readings", "", text)
            touched.setdefault((row.device, plain), []).append(f"{row.phase} {row.epoch}")
    for (device, text), where in touched.items():
        more = f" and {len(where) - SAID} more; see energy.csv" if len(where) > SAID else ""
        yield f"{device}: {text} ({', '.join(where[:SAID])}{more})"
