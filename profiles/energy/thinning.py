"""`telemetry.csv` made coarser: neighbours of one device merged, two into one.

What is kept of the samples of a row, `TelemetryRow` says.
"""

import csv
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

from profiles.files import ASIDE, replacing
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


class Thinning:
    """Merges a table's rows a few at a time into a file aside, which takes the table's place in the end.

    Rows are merged in the order in which they came: a reboot sets the clock back.
    """

    def __init__(self, path: Path) -> None:
        self.taken = 0
        self._path = path
        self._aside = path.with_name(path.name + ASIDE)
        self._at_byte = 0
        self._kept = 0
        self._firsts: dict[str, TelemetryRow] = {}

    def take(self, count: int) -> None:
        """Merge the next *count* rows; the table has that many more."""
        header = not self.taken
        pairs = []
        with self._path.open("rb") as file:
            file.seek(self._at_byte)
            lines = csv.reader(line.decode() for line in iter(file.readline, b""))  # reads no line ahead
            for line in islice(lines, int(header), count + int(header)):
                row = row_of(line)
                first = self._firsts.pop(row.device, None)
                if first is None:
                    self._firsts[row.device] = row
                else:
                    pairs.append(merge((first, row)))
            self._at_byte = file.tell()
        write_csv(self._aside, TelemetryRow._fields, pairs, append=not header)
        self.taken, self._kept = self.taken + count, self._kept + len(pairs)

    def finish(self) -> int:
        """Put what was merged in the table's place; return how many rows that are."""
        with replacing(self._path) as aside:
            write_csv(aside, TelemetryRow._fields, self._firsts.values(), append=True)
        return self._kept + len(self._firsts)

    def abandon(self) -> None:
        """Leave the table as it is."""
        self._aside.unlink(missing_ok=True)


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


def row_of(line: Sequence[str]) -> TelemetryRow:
    """Return a row as the file has it.

    Raises:
        ValueError: a field is none of its column's.
        TypeError: there are not as many fields as columns.

    """
    return TelemetryRow(*map(_value, TelemetryRow._fields, line))


def _value(name: str, text: str) -> Any:  # noqa: ANN401 - a column's own type
    if name in _TEXTS:
        return text if text or name == "unavailable" else None
    if not text and name not in {"time_s", "samples"}:
        return None
    return int(text) if name in _INTEGERS else float(text)
