"""What a cell writes while it runs: a line per phase to `events.jsonl`, and the rows of its tables."""

import csv
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

from harness.directory import CellDirectory, RunDirectory
from profiles.energy.telemetry import Telemetry
from profiles.files import replacing, sync
from profiles.record import EnergyRow, EpochRow, LoaderRow, Phase, PhaseRow, StageRow, write_csv
from profiles.timing.clock import StageClock
from profiles.timing.times import PhaseTimes

LOST = "the process was killed before the reading that follows this phase"


class CellLog(AbstractContextManager["CellLog"]):
    """The log of one cell; it owns the clock, and inside its block samples the devices."""

    def __init__(self, run: RunDirectory, cell: str, clock: StageClock, telemetry: Telemetry) -> None:
        self._run = run
        self._cell = cell
        self._directory: CellDirectory = run.cell(cell)
        self._clock = clock
        self._telemetry = telemetry
        self._part = ExitStack()
        self._times: PhaseTimes | None = None

    def __enter__(self) -> Self:
        """Begin sampling."""
        self._telemetry.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        """End sampling; write the energy of the last phases, which is known only now."""
        self._telemetry.__exit__(*error)
        self._write_energy()

    @contextmanager
    def phase(self, phase: Phase, epoch: int, carried: PhaseTimes | None = None) -> Iterator[PhaseTimes]:
        """Time a phase; append its rows when it ends well. *carried* is the part that ran before an interruption."""
        self._run.log("phase_start", cell=self._cell, phase=phase, epoch=epoch)
        ended = False
        try:
            with self._part:
                times = self._begin_part(carried or PhaseTimes(phase, epoch))
                yield times
            ended = True
        finally:
            self._run.log("phase_stop", cell=self._cell, phase=phase, epoch=epoch, completed=ended)
            self._write_energy()
        write_csv(self._directory.stages, StageRow._fields, times.rows(), append=True)
        residual_s = None if times.residual_ns is None else times.residual_ns / 1e9
        row = PhaseRow(phase, epoch, times.wall_ns / 1e9, residual_s, len(times.parts_ns))
        write_csv(self._directory.phases, PhaseRow._fields, [row], append=True)
        write_csv(self._directory.loader, LoaderRow._fields, times.loader_rows(), append=True)

    def _begin_part(self, times: PhaseTimes) -> PhaseTimes:
        """Begin to time a phase, or a further part of it, to be added to *times*."""
        self._part.enter_context(self._telemetry.phase(times.phase, times.epoch))
        self._times = self._part.enter_context(self._clock.phase(times.phase, times.epoch, times))
        return times

    def next_part(self) -> PhaseTimes:
        """End the part of the current phase that has run so far and begin another; return the times so far.

        Between the two parts, the energy's last reading is waited for, no longer than a moment.
        """
        assert self._times is not None  # noqa: S101 - asked inside a phase
        self._part.close()
        so_far = PhaseTimes.from_state(self._times.to_state())
        self._telemetry.settle()
        self._write_energy()
        self._begin_part(self._times)
        return so_far

    def _write_energy(self) -> None:
        """Append the phases whose last reading has come, also those that were interrupted: their energy was spent."""
        write_csv(self._directory.energy, EnergyRow._fields, self._telemetry.settled(), append=True)

    def epoch_start(self, epoch: int) -> None:
        """Say that an epoch begins, or goes on."""
        self._run.log("epoch_start", cell=self._cell, epoch=epoch)

    def epoch(self, row: EpochRow) -> None:
        """Append a finished epoch."""
        self._run.log("epoch_stop", cell=self._cell, epoch=row.epoch)
        write_csv(self._directory.epochs, EpochRow._fields, [row], append=True)

    def sync(self) -> None:
        """Have the disk hold every row so far, before a checkpoint says that they were written."""
        folder = self._directory
        for path in (folder.epochs, folder.stages, folder.phases, folder.loader, folder.energy):
            sync(path)

    def cut_back(self, epoch: int, within: dict[str, Any] | None) -> None:
        """Drop rows that a training which goes on at *epoch* will write again, and what came before epoch 1.

        Where it goes on *within* the epoch's training, with those times of it, what their parts cost stays, and no
        more. What a phase or a part of one cost is not known where the process was killed before the reading that
        follows it.
        """
        _filter(self._directory.epochs, EpochRow._fields, lambda row: int(row["epoch"]) < epoch)
        _filter(self._directory.stages, StageRow._fields, lambda row: _precedes(row, epoch))
        _filter(self._directory.phases, PhaseRow._fields, lambda row: _precedes(row, epoch))
        _filter(self._directory.loader, LoaderRow._fields, lambda row: _precedes(row, epoch))
        ended = [_phase(row) for row in _rows(self._directory.phases)]
        if within is not None:
            parts_ns = within["parts_ns"]
            ended.append(PhaseRow("train", epoch, sum(parts_ns) / 1e9, None, len(parts_ns)))
        energy = self._energy_of(ended)
        with replacing(self._directory.energy) as aside:
            write_csv(aside, EnergyRow._fields, energy)

    def _energy_of(self, phases: list[PhaseRow]) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of energy of *phases*, and for each of their parts that has none on a device one without.

        Such parts share what the others leave of the phase's wall time.
        """
        rows: dict[tuple[str, int, str], list[dict[str, str]]] = {}
        devices = dict.fromkeys(self._telemetry.devices)
        for row in _rows(self._directory.energy):
            rows.setdefault((row["phase"], int(row["epoch"]), row["device"]), []).append(row)
            devices.setdefault(row["device"])
        for phase in phases:
            for device in devices:
                known = rows.get((phase.phase, phase.epoch, device), [])[: phase.parts]
                yield from (tuple(row.values()) for row in known)
                lost = phase.parts - len(known)
                left_s = phase.wall_s - math.fsum(float(row["wall_s"]) for row in known)
                yield from [_lost_energy(phase, device, max(0.0, left_s / max(1, lost)))] * lost


def _phase(row: dict[str, str]) -> PhaseRow:
    """Read a row of `phases.csv`, but for its residual."""
    return PhaseRow(row["phase"], int(row["epoch"]), float(row["wall_s"]), None, int(row["parts"]))  # type: ignore[arg-type]


def _lost_energy(phase: PhaseRow, device: str, wall_s: float) -> EnergyRow:
    return EnergyRow(
        phase.phase,
        phase.epoch,
        device,
        start_s=None,
        wall_s=wall_s,
        energy_j=None,
        error_j=None,
        method=None,
        idle_w=None,
        reason=LOST,
        caveats="",
    )


def _precedes(row: dict[str, str], epoch: int) -> bool:
    return row["phase"] in {"train", "validation"} and 0 < int(row["epoch"]) < epoch


def _rows(path: Path) -> list[dict[str, str]]:
    """Read the whole rows of a table; a kill may have cut the last one short."""
    with path.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if None not in row.values()]


def _filter(path: Path, columns: tuple[str, ...], keep: Callable[[dict[str, str]], bool]) -> None:
    """Rewrite a table with only the whole rows that *keep* wants."""
    rows = _rows(path)
    with replacing(path) as aside:
        write_csv(aside, columns, [tuple(row.values()) for row in rows if keep(row)])
