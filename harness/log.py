"""What a cell writes while it runs: a line per phase to `events.jsonl`, rows to `stages.csv` and `epochs.csv`."""

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.directory import CellDirectory, RunDirectory, replacing
from profiles.clock import StageClock
from profiles.record import EpochRow, LoaderRow, Phase, PhaseRow, StageRow, write_csv
from profiles.times import PhaseTimes


class CellLog:
    """The log of one cell; it owns the clock."""

    def __init__(self, run: RunDirectory, cell: str, clock: StageClock) -> None:
        self._run = run
        self._cell = cell
        self._directory: CellDirectory = run.cell(cell)
        self._clock = clock

    @contextmanager
    def phase(self, phase: Phase, epoch: int, carried: PhaseTimes | None = None) -> Iterator[PhaseTimes]:
        """Time a phase; append its rows when it ends well. *carried* is the part that ran before an interruption."""
        self._run.log("phase_start", cell=self._cell, phase=phase, epoch=epoch)
        ended = False
        try:
            with self._clock.phase(phase, epoch, carried) as times:
                yield times
            ended = True
        finally:
            self._run.log("phase_stop", cell=self._cell, phase=phase, epoch=epoch, completed=ended)
        write_csv(self._directory.stages, StageRow._fields, times.rows(), append=True)
        row = PhaseRow(phase, epoch, times.wall_ns / 1e9, times.residual_ns / 1e9)
        write_csv(self._directory.phases, PhaseRow._fields, [row], append=True)
        write_csv(self._directory.loader, LoaderRow._fields, times.loader_rows(), append=True)

    def epoch_start(self, epoch: int) -> None:
        """Say that an epoch begins, or goes on."""
        self._run.log("epoch_start", cell=self._cell, epoch=epoch)

    def epoch(self, row: EpochRow) -> None:
        """Append a finished epoch."""
        self._run.log("epoch_stop", cell=self._cell, epoch=row.epoch)
        write_csv(self._directory.epochs, EpochRow._fields, [row], append=True)

    def cut_back(self, epoch: int) -> None:
        """Drop rows that a training which goes on at *epoch* will write again, and what came before epoch 1."""
        _filter(self._directory.epochs, EpochRow._fields, lambda row: int(row["epoch"]) < epoch)
        _filter(self._directory.stages, StageRow._fields, lambda row: _precedes(row, epoch))
        _filter(self._directory.phases, PhaseRow._fields, lambda row: _precedes(row, epoch))
        _filter(self._directory.loader, LoaderRow._fields, lambda row: _precedes(row, epoch))


def _precedes(row: dict[str, str], epoch: int) -> bool:
    return row["phase"] in {"train", "validation"} and 0 < int(row["epoch"]) < epoch


def _filter(path: Path, columns: tuple[str, ...], keep: Callable[[dict[str, str]], bool]) -> None:
    """Rewrite a table with only the whole rows that *keep* wants."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if None not in row.values()]
    with replacing(path) as aside:
        write_csv(aside, columns, [tuple(row.values()) for row in rows if keep(row)])
