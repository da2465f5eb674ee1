"""A run's directory: where each file is, and writing that is never seen half-done.

manifest.json environment.json config.toml events.jsonl results.csv
cells/<category>/<model>-<pipeline>/seed<k>/
    status.json record.json epochs.csv stages.csv phases.csv loader.csv energy.csv
    telemetry.csv traces/ checkpoints/ maps/
"""

import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic_ns

from pydantic import BaseModel, ValidationError

from profiles.errors import RunDirectoryError
from profiles.files import ASIDE, replacing
from profiles.record import (
    CellRecord,
    CellStatus,
    EnergyRow,
    EpochRow,
    LoaderRow,
    PhaseRow,
    StageRow,
    Status,
    TelemetryRow,
    read_model,
    write_csv,
)

LONGEST_BYTES = 3000
"""Of a run's path; systems know paths up to 4096."""

Scalar = str | int | float | bool | None


def write_atomically(path: Path, content: bytes) -> None:
    """Replace *path* by *content*; see `replacing`."""
    with replacing(path) as aside:
        aside.write_bytes(content)


def write_model(path: Path, model: BaseModel) -> None:
    """Write a model as JSON, atomically."""
    write_atomically(path, model.model_dump_json(indent=2).encode() + b"\n")


def now() -> str:
    """Return the time of day: ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class CellDirectory:
    """The folder of one cell."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.record = root / "record.json"
        self.epochs = root / "epochs.csv"
        self.stages = root / "stages.csv"
        self.phases = root / "phases.csv"
        self.loader = root / "loader.csv"
        self.energy = root / "energy.csv"
        self.telemetry = root / "telemetry.csv"
        self.traces = root / "traces"
        self.checkpoints = root / "checkpoints"
        self.maps = root / "maps"
        self.error = root / "error.txt"
        self.lock = root / "lock"

    def create(self) -> None:
        """Make the folder, with its status and the headers of its tables; what was there before is gone.

        But for the lock, which the caller may hold.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        for path in self.root.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path != self.lock:
                path.unlink()
        self.checkpoints.mkdir()
        self.maps.mkdir()
        self.traces.mkdir()
        write_csv(self.epochs, EpochRow._fields, [])
        write_csv(self.stages, StageRow._fields, [])
        write_csv(self.phases, PhaseRow._fields, [])
        write_csv(self.loader, LoaderRow._fields, [])
        write_csv(self.energy, EnergyRow._fields, [])
        write_csv(self.telemetry, TelemetryRow._fields, [])
        self.set_status("pending")

    def set_status(self, status: Status, error: str | None = None) -> None:
        """Replace the cell's status."""
        write_model(self.root / "status.json", CellStatus(status=status, error=error))

    def fail(self, error: str) -> None:
        """Say that the cell failed, and of what, in one line."""
        self.set_status("failed", error)

    def sweep(self) -> None:
        """Remove what a killed process left half-written; only who holds the lock may."""
        for path in self.root.rglob(f"*{ASIDE}"):
            path.unlink()

    def retry(self) -> None:
        """Have a failed or damaged cell go on from what it saved."""
        self.error.unlink(missing_ok=True)
        self.record.unlink(missing_ok=True)
        self.set_status("pending")

    def is_over(self) -> bool:
        """Whether the cell is done or failed, so that nothing is left to run."""
        return self.status() in {"done", "failed"}

    def has_status(self) -> bool:
        """Whether the folder says how the cell stands; without that it counts as never begun."""
        return (self.root / "status.json").exists()

    def damage(self) -> str | None:
        """Return what is wrong with the status, or with the record of a cell that is done, if anything is.

        Raises:
            RunDirectoryError: the system does not let us read them.

        """
        try:
            if self.status() == "done":
                read_model(CellRecord, self.record)
        except RunDirectoryError as error:
            if isinstance(error.__cause__, ValidationError | FileNotFoundError):
                return str(error)
            raise
        return None

    def status(self) -> Status:
        """Read the cell's status.

        Raises:
            RunDirectoryError: it is missing or damaged.

        """
        return read_model(CellStatus, self.root / "status.json").status


class RunDirectory:
    """The folder of one run."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.manifest = root / "manifest.json"
        self.environment = root / "environment.json"
        self.config = root / "config.toml"
        self.results = root / "results.csv"
        self.generated_data = root / "data"
        self.lock = root / "lock"
        self._events = root / "events.jsonl"

    def of_rank(self, rank: int) -> "RunDirectory":
        """Return where a rank keeps its own tables: here, or for those beside rank 0 a folder laid out as this one."""
        return RunDirectory(self.root / "ranks" / str(rank)) if rank else self

    def cell(self, name: str) -> CellDirectory:
        """Return the folder of the cell of that name."""
        return CellDirectory(self.root / "cells" / name)

    def refuse_occupied(self) -> None:
        """Check that a new run may be written here, without writing.

        Raises:
            RunDirectoryError: there is something already, or it cannot be written.

        """
        length = len(os.fsencode(self.root.absolute()))
        if length > LONGEST_BYTES:
            got, expected = f"a path of {length:,} bytes", f"at most {LONGEST_BYTES:,}, for there are longer ones below"
            raise RunDirectoryError(self.root, got=got, expected=expected, fix="another --out")
        try:
            occupied = self.root.is_dir() and any(path != self.lock for path in self.root.iterdir())
            parent = next(path for path in (self.root, *self.root.absolute().parents) if path.exists())
        except OSError as error:
            raise self._unusable(error) from error
        if occupied:
            fix = f"another --out, or --resume --out {self.root}" if self.manifest.exists() else "another --out"
            raise RunDirectoryError(self.root, got="a folder that is not empty", expected="a new one", fix=fix)
        if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
            got = f"{parent}, which cannot be written"
            raise RunDirectoryError(self.root, got=got, expected="a writable folder", fix="another --out")

    def create(self) -> None:
        """Make the folder.

        Raises:
            RunDirectoryError: the system does not let us.

        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unusable(error) from error

    def _unusable(self, error: OSError) -> RunDirectoryError:
        got = f"a path that cannot be used ({error.strerror})"
        return RunDirectoryError(self.root, got=got, expected="a writable folder", fix="another --out")

    def sweep(self) -> None:
        """Remove what a killed process left half-written beside the cells; only who holds the lock may."""
        for path in self.root.glob(f"*{ASIDE}"):
            path.unlink()
        for path in self.generated_data.glob(".*-*"):  # a category that was being made
            shutil.rmtree(path)

    def events(self) -> list[str]:
        """Return the lines of `events.jsonl`."""
        return self._events.read_text(encoding="utf-8", errors="replace").splitlines()

    def log(self, event: str, **fields: Scalar) -> None:
        """Append a line to `events.jsonl`: what, when by the wall clock, and when by the monotonic clock (ns)."""
        line = {"time": now(), "monotonic_ns": monotonic_ns(), "event": event, **fields}
        with self._events.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
