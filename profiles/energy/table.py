"""`telemetry.csv`: rows as they come, and never more than a given number of them.

When the table is full, neighbours of one device have been merged, two into one, and from then on a row stands for
twice as many samples. For each row that comes to a table more than half full, two are merged aside, so that no one
waits for all of it. A process that is killed loses the samples of the row that was not yet whole, and what was read in
its last two seconds.
"""

import csv
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from threading import Lock

from profiles.energy.thinning import Thinning, merge, row_of
from profiles.files import replacing
from profiles.record import TelemetryRow, write_csv


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
        rows, lost = _read(path) if path.exists() else ([], 0)
        self.damage = f"{path.name} was damaged: its last {lost} row(s) were left out" if lost else ""
        with replacing(path) as aside:
            write_csv(aside, TelemetryRow._fields, rows)
        self._rows = len(rows)
        self._samples = max((row.samples for row in rows), default=1)
        self._thinning = Thinning(path)
        self._thin()

    def add(self, rows: Iterable[TelemetryRow]) -> None:
        """Add samples, one row each; when enough have come for a row of the file, it is written."""
        with self._lock:
            finished: list[TelemetryRow] = []
            for row in rows:
                waiting = self._waiting.setdefault(row.device, [])
                waiting.append(row)
                if len(waiting) >= self._samples:
                    finished.append(merge(waiting))
                    waiting.clear()
                if len(finished) == self._max_rows - self._rows:
                    self._append(finished)
                    finished = []
            self._append(finished)

    def close(self) -> None:
        """Write what waits, and end."""
        with self._lock:
            for waiting in filter(None, self._waiting.values()):
                self._append([merge(waiting)])
            self._closed = True
            self._thinning.abandon()

    def _append(self, rows: list[TelemetryRow]) -> None:
        """Append to the file as many as it has room for; a disk that is full ends the table, not the run."""
        if not rows or self.why_broken or self._closed:
            return
        try:
            write_csv(self._path, TelemetryRow._fields, rows, append=True)
            self._rows += len(rows)
            self._thin()
        except OSError as error:
            self.why_broken = f"{self._path.name} ends early: {error.strerror}"

    def _thin(self) -> None:
        """Merge rows until no more are left than the table has room for; a full one is then put in its place."""
        while (behind := 2 * self._rows - self._thinning.taken - self._max_rows) > 0:
            self._thinning.take(min(behind, self._rows - self._thinning.taken))
            if self._rows < self._max_rows:
                return
            self._rows, self._samples = self._thinning.finish(), 2 * self._samples
            self._thinning = Thinning(self._path)


def _read(path: Path) -> tuple[list[TelemetryRow], int]:
    """Read the rows before any damage; return them and how many are left out.

    A last one that was cut off by a kill is none.
    """
    rows = []
    lines = path.read_bytes().split(b"\n")[1:-1]
    with suppress(ValueError, TypeError, csv.Error):
        for line in lines:
            rows.append(row_of(next(csv.reader([line.decode()]))))  # noqa: PERF401 - those before the damage stay
    return rows, len(lines) - len(rows)
