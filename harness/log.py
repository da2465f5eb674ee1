"""What a cell writes while it runs: a line per phase to `events.jsonl`, and the rows of its tables."""

import csv
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Self

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
            with self._telemetry.phase(phase, epoch), self._clock.phase(phase, epoch, carried) as times:
                yield times
            ended = True
        finally:
            self._run.log("phase_stop", cell=self._cell, phase=phase, epoch=epoch, completed=ended)
            self._write_energy()
        write_csv(self._directory.stages, StageRow._fields, times.rows(), append=True)
        residual_s = None if times.residual_ns is None else times.residual_ns / 1e9
        row = PhaseRow(phase, epoch, times.wall_ns / 1e9, residual_s)
        write_csv(self._directory.phases, PhaseRow._fields, [row], append=True)
        write_csv(self._directory.loader, LoaderRow._fields, times.loader_rows(), append=True)

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

    def cut_back(self, epoch: int, *, within: bool) -> None:
        """Drop rows that a training which goes on at *epoch* will write again, and what came before epoch 1.

        Where it goes on *within* the epoch's training, what its first steps cost stays. What a phase cost is not known
        where the process was killed before the reading that follows it.
        """
        _filter(self._directory.epochs, EpochRow._fields, lambda row: int(row["epoch"]) < epoch)
        _filter(self._directory.stages, StageRow._fields, lambda row: _precedes(row, epoch))
        _filter(self._directory.phases, PhaseRow._fields, lambda row: _precedes(row, epoch))
        _filter(self._directory.loader, LoaderRow._fields, lambda row: _precedes(row, epoch))
        _filter(
            self._directory.energy,
            EnergyRow._fields,
            lambda row: _precedes(row, epoch + (within and row["phase"] == "train")),
        )
        write_csv(self._directory.energy, EnergyRow._fields, self._lost_energy(), append=True)

    def _lost_energy(self) -> list[EnergyRow]:
        """Return rows for the phases that have none on a device."""
        known = {(row["phase"], row["epoch"], row["device"]) for row in _rows(self._directory.energy)}
        return [
            EnergyRow(
                row["phase"],  # type: ignore[arg-type]
                int(row["epoch"]),
                device,
                start_s=None,
                wall_s=float(row["wall_s"]),
                energy_j=None,
                error_j=None,
                method=None,
                idle_w=None,
                reason=LOST,
                caveats="",
            )
            for row in _rows(self._directory.phases)
            for device in self._telemetry.devices
            if (row["phase"], row["epoch"], device) not in known
        ]


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
