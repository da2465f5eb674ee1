"""`telemetry.csv`: rows as they come, and never more than a given number of them.

When the table is full, neighbours of one device are merged, two into one, and from then on a row stands for twice as
many samples. What is kept of the samples of a row, `TelemetryRow` says. A process that is killed loses those
of the row that was not yet whole, and what was read in its last second.
"""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean
from threading import Lock
from typing import Any

from profiles.files import replacing
from profiles.record import TelemetryRow, write_csv

_TEXTS = frozenset({"device", "throttle", "power_source", "unavailable"})
_INTEGERS = frozenset({"memory_bytes", "foreign_processes", "samples"})
_MEANS = (
    "power_w",
    "utilization_pct",
    "sm_clock_mhz",
    "memory_clock_mhz",
    "pcie_rx_bytes_per_s",
    "pcie_tx_bytes_per_s",
)
_LARGEST = ("memory_bytes", "temperature_c", "foreign_processes")
_LAST = ("power_source", "energy_j", "power_limit_w", "clock_limit_mhz")


class TelemetryTable:
    """The table of one run's devices.

    Args:
        path: the file; one that is there is continued.
        max_rows: rows at most.

    """

    def __init__(self, path: Path, max_rows: int) -> None:
        self.why_broken = ""
        self._path = path
        self._max_rows = max_rows
        self._lock = Lock()
        self._closed = False  # a thread that was left behind may still come
        self._waiting: dict[str, list[TelemetryRow]] = {}
        rows = _read(path) if path.exists() else []
        _write(path, rows)
        self._rows = len(rows)
        self._samples = max((row.samples for row in rows), default=1)

    def add(self, rows: Iterable[TelemetryRow]) -> None:
        """Add samples, one row each; when enough have come for a row of the file, it is written."""
        with self._lock:
            finished = []
            for row in rows:
                waiting = self._waiting.setdefault(row.device, [])
                waiting.append(row)
                if len(waiting) >= self._samples:
                    finished.append(merge(waiting))
                    waiting.clear()
            self._append(finished)

    def close(self) -> None:
        """Write what waits, and end."""
        with self._lock:
            self._append([merge(waiting) for waiting in self._waiting.values() if waiting])
            self._closed = True

    def _append(self, rows: list[TelemetryRow]) -> None:
        """Append to the file; a disk that is full ends the table, not the run."""
        if not rows or self.why_broken or self._closed:
            return
        try:
            if self._rows + len(rows) > self._max_rows:
                self._thin(rows)
            else:
                write_csv(self._path, TelemetryRow._fields, rows, append=True)
                self._rows += len(rows)
        except OSError as error:
            self.why_broken = f"{self._path.name} ends early: {error.strerror}"

    def _thin(self, more: list[TelemetryRow]) -> None:
        """Merge neighbours until the table has room for *more*."""
        rows = _read(self._path) + more
        while len(rows) > self._max_rows:
            rows, self._samples = _thinned(rows), 2 * self._samples
        _write(self._path, rows)
        self._rows = len(rows)


def _thinned(rows: list[TelemetryRow]) -> list[TelemetryRow]:
    """Merge neighbours of one device, two into one, in the order in which they came: a reboot sets the clock back."""
    firsts: dict[str, TelemetryRow] = {}
    pairs = []
    for row in rows:
        first = firsts.pop(row.device, None)
        if first is None:
            firsts[row.device] = row
        else:
            pairs.append(merge((first, row)))
    return [*pairs, *firsts.values()]


def merge(rows: Sequence[TelemetryRow]) -> TelemetryRow:
    """Return one row for several of one device, in order."""
    if len(rows) == 1:
        return rows[0]
    columns = dict(zip(TelemetryRow._fields, zip(*rows, strict=True), strict=True))
    kept: dict[str, Any] = {name: _mean(columns[name], columns["samples"]) for name in _MEANS}
    kept |= {name: max(_known(columns[name]), default=None) for name in _LARGEST}
    kept |= {name: next(iter(_known(reversed(columns[name]))), None) for name in _LAST}
    reasons = {reason for text in _known(columns["throttle"]) for reason in text.split("+")}
    kept["throttle"] = "+".join(sorted(reasons - {"none"})) or ("none" if reasons else None)
    kept["unavailable"] = next((text for text in reversed(columns["unavailable"]) if text), "")
    return rows[-1]._replace(samples=sum(columns["samples"]), **kept)


def _known(values: Iterable[Any]) -> list[Any]:
    return [value for value in values if value is not None]


def _mean(values: Sequence[float | None], weights: Sequence[int]) -> float | None:
    known = [(value, weight) for value, weight in zip(values, weights, strict=True) if value is not None]
    if not known:
        return None
    return round(fmean([value for value, _ in known], [weight for _, weight in known]), 3)


def _write(path: Path, rows: list[TelemetryRow]) -> None:
    with replacing(path) as aside:
        write_csv(aside, TelemetryRow._fields, rows)


def _read(path: Path) -> list[TelemetryRow]:
    """Read whole rows; a last one that was cut off by a kill is left out."""
    text = path.read_text(encoding="utf-8")
    lines = csv.reader(text[: text.rfind("\n") + 1].splitlines()[1:])
    return [TelemetryRow(*map(_value, TelemetryRow._fields, line)) for line in lines]


def _value(name: str, text: str) -> Any:  # noqa: ANN401 - a column's own type
    if name in _TEXTS:
        return text if text or name == "unavailable" else None
    if not text:
        return None
    return int(text) if name in _INTEGERS else float(text)
