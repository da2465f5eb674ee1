"""A run's directory, read: finished, still going, partial or damaged.

Only the manifest must be whole. Whatever else is missing or damaged is left out and said: in the cell's `why`
where it costs the cell its numbers, in `notes` where it does not.
"""

import csv
import math
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, TypeVar

from pydantic import TypeAdapter, ValidationError

from profiles.errors import RunDirectoryError
from profiles.record import (
    CellRecord,
    CellStatus,
    Environment,
    EpochRow,
    Manifest,
    Status,
    read_model,
)
from profiles.whatif import ProjectionRecord, SurfaceRecord, WhatIfRecord

State = Status | Literal["damaged"]

_DEPTH = 3
_ASTRAY = "The manifest's name for this cell is no <category>/<model>-<pipeline>/seed<k>."
_STATES: tuple[State, ...] = ("done", "failed", "damaged", "running", "pending")


@dataclass(frozen=True)
class Cell:
    """One cell: what its files say of it. `record` is there only when it is done; `why` says why not."""

    name: str
    category: str
    model: str
    pipeline: str
    seed: str
    folder: Path
    state: State
    why: str
    record: CellRecord | None
    epochs: tuple[EpochRow, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """A run: its manifest, its machine, its configuration as text, its cells in the manifest's order.

    `whatif` and `projection` are there where `bench whatif` measured the run's configuration, `surfaces` where somebody
    laid what `bench surface` wrote beside them.
    """

    folder: Path
    manifest: Manifest
    environment: Environment | None
    config: str | None
    cells: tuple[Cell, ...]
    notes: tuple[str, ...]
    whatif: WhatIfRecord | None = None
    projection: ProjectionRecord | None = None
    surfaces: tuple[SurfaceRecord, ...] = ()

    @property
    def records(self) -> list[CellRecord]:
        """The finished cells' records."""
        return [cell.record for cell in self.cells if cell.record is not None]

    @property
    def states(self) -> dict[State, int]:
        """How many cells stand how, in the order of telling; every state that occurs."""
        counts = Counter(cell.state for cell in self.cells)
        return {state: counts[state] for state in _STATES if counts[state]}


_Model = TypeVar("_Model", CellRecord, CellStatus, Environment, WhatIfRecord, ProjectionRecord, SurfaceRecord)


def read_run(folder: Path) -> Run:
    """Read a run's directory.

    Raises:
        RunDirectoryError: *folder* is no run's directory, or its manifest is damaged.

    """
    if not (folder / "manifest.json").is_file():
        got = "a folder without manifest.json" if folder.is_dir() else "no folder"
        raise RunDirectoryError(folder, got=got, expected="a run's directory", fix="name what `bench run --out` wrote")
    manifest = read_model(Manifest, folder / "manifest.json")
    environment, why_not = _try_read(Environment, folder / "environment.json")
    config = _text(folder / "config.toml")
    notes = [why_not] if why_not else []
    if config is None:
        notes.append("config.toml is missing or unreadable, so the resolved configuration is not shown.")
    cells = tuple(_read_cell(folder, name) for name in dict.fromkeys(manifest.cells))
    notes += _strays(folder, {cell.name for cell in cells})
    whatif, why_not = _read_aside(WhatIfRecord, folder / "whatif" / "whatif.json")
    projection, why_neither = _read_aside(ProjectionRecord, folder / "whatif" / "projection.json")
    notes += [why for why in (why_not, why_neither) if why]
    found = [_try_read(SurfaceRecord, path) for path in sorted((folder / "whatif").glob("surface*.json"))]
    notes += [why for surface, why in found if surface is None]
    surfaces = tuple(surface for surface, _ in found if surface is not None)
    return Run(folder, manifest, environment, config, cells, tuple(notes), whatif, projection, surfaces)


def _read_cell(run: Path, name: str) -> Cell:
    """Read the cell *name*, which is data: a name that leads out of the run's directory is not followed."""
    category, model, pipeline, seed = _split(name)
    folder = run / "cells" / name
    state, why, record = _standing(folder) if is_within(name, _DEPTH) else ("damaged", _ASTRAY, None)
    started = state not in {"pending", "damaged"}
    epochs, note = _read_epochs(folder / "epochs.csv") if started else ((), "")
    notes = [note] if note else []
    if record is not None:
        if cell_name(record) != name:
            notes.append(f"The record calls itself {cell_name(record)}; it is shown under that name.")
        category, model, pipeline, seed = record.category, record.model, record.pipeline, str(record.seed)
    return Cell(name, category, model, pipeline, seed, folder, state, why, record, epochs, tuple(notes))


def _split(name: str) -> tuple[str, str, str, str]:
    """Return category, model, pipeline and seed of a cell's name, as far as it has them."""
    category, variant, seed = [*name.split("/"), "", ""][:_DEPTH]
    model, _, pipeline = variant.rpartition("-")
    return category, model or variant, pipeline if model else "", seed.removeprefix("seed")


def cell_name(record: CellRecord) -> str:
    """Return the name of *record*'s cell: its folder under `cells/`."""
    return f"{record.category}/{record.model}-{record.pipeline}/seed{record.seed}"


def is_within(name: str, depth: int) -> bool:
    """Whether *name*, which is data, is a relative path of *depth* parts that does not lead upwards."""
    path = PurePosixPath(name)
    return not path.is_absolute() and len(path.parts) == depth and ".." not in path.parts


def _standing(folder: Path) -> tuple[State, str, CellRecord | None]:
    """Return the cell's state, what explains it, and its record when it is done."""
    if not os.path.isdir(folder):  # noqa: PTH112 - unlike Path.is_dir, no error for a name too long for a folder
        return "pending", "Not started: it has no folder yet.", None
    status, why_not = _try_read(CellStatus, folder / "status.json")
    if status is None:
        return "damaged", why_not, None
    if status.status != "done":
        return status.status, status.error or ("Begun, not ended." if status.status == "running" else ""), None
    record, why_not = _try_read(CellRecord, folder / "record.json")
    return ("done", "", record) if record is not None else ("damaged", why_not, None)


def _try_read(kind: type[_Model], path: Path) -> tuple[_Model | None, str]:
    """Return what the file holds, or None and why not."""
    try:
        return read_model(kind, path), ""
    except RunDirectoryError as error:
        return None, f"{path.name} cannot be used: {error}."


def _read_aside(kind: type[_Model], path: Path) -> tuple[_Model | None, str]:
    """Return what a file holds that need not be there, or None and why not where it is."""
    return _try_read(kind, path) if path.exists() else (None, "")


def _text(path: Path) -> str | None:
    try:
        return path.read_bytes().decode("utf-8", errors="replace")
    except OSError:
        return None


def _read_epochs(path: Path) -> tuple[tuple[EpochRow, ...], str]:
    """Read the rows before the first that is not whole, for a run may be writing; say what is left out."""
    text = _text(path)
    if text is None:
        return (), f"{path.name} is missing."
    whole, newline, torn = text.rpartition("\n")
    header, *lines = list(csv.reader((whole + newline).splitlines(keepends=True))) or [[]]
    if not set(EpochRow._fields) <= set(header):
        return (), f"{path.name} lacks columns that it should have; none of it is used."
    rows = _validated(lines, [header.index(field) for field in EpochRow._fields])
    if len(rows) < len(lines):
        return rows, f"{path.name}: row {len(rows) + 1} is damaged; it and what follows were left out."
    return rows, f"{path.name}: its last line is not whole and was left out." if torn else ""


def _validated(lines: list[list[str]], places: list[int]) -> tuple[EpochRow, ...]:
    """Return the rows before the first that does not validate; an empty field is an absent value."""
    adapter, rows = TypeAdapter(EpochRow), list[EpochRow]()
    for line in lines:
        try:
            rows.append(adapter.validate_python([line[place] or None for place in places]))
        except (ValidationError, IndexError):
            break
    return tuple(rows)


def read_epoch_energies(path: Path, device: str) -> dict[int, float]:
    """Return what *device* drew in training and validation of each epoch, of which every stretch is known."""
    text = _text(path)
    energies: dict[float, float] = {}
    for row in csv.DictReader((text or "").splitlines()):
        if row.get("device") == device and row.get("phase") in {"train", "validation"}:
            epoch = _number(row.get("epoch"))
            energies[epoch] = energies.get(epoch, 0.0) + _number(row.get("energy_j"))
    known = {epoch: energy_j for epoch, energy_j in energies.items() if epoch.is_integer() and math.isfinite(energy_j)}
    return {int(epoch): energy_j for epoch, energy_j in known.items() if epoch > 0}


def _number(field: str | None) -> float:
    """Return a field's number, NaN where it is empty, missing or damaged."""
    try:
        return float(field or math.nan)
    except ValueError:
        return math.nan


def _strays(run: Path, known: set[str]) -> list[str]:
    """Say which cells lie in the directory but not in the manifest."""
    found = (path.parent.relative_to(run / "cells").as_posix() for path in (run / "cells").glob("*/*/*/status.json"))
    strays = sorted(set(found) - known)
    return [f"On disk but not in the manifest, so not shown: {', '.join(strays)}."] if strays else []
