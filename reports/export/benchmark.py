"""A run's metrics as github-action-benchmark reads them: a file for what should be small, one for what should be large.

Each file is a list of `name`, `value` and `unit`, with `range` where the spread is known; an unavailable metric is left
out, and so is what is no finite number, for neither the tool nor JSON has a word for it, and what is neither better nor
worse for being larger, as a count of what was done.
"""

import json
import math
from typing import NamedTuple

from profiles.record import CellRecord, Metric
from reports.rows.metrics import BETTER_HIGH, has_side
from reports.source.load import cell_name
from reports.words.format import visible

SMALLER, BIGGER = "benchmark-smaller.json", "benchmark-bigger.json"
"""Files for the tools `customSmallerIsBetter` and `customBiggerIsBetter`."""


class Direction(NamedTuple):
    """One of the two files."""

    file: str
    text: str


def benchmarks(records: list[CellRecord]) -> tuple[Direction, Direction]:
    """Return both files of *records*."""
    rows = [(metric, _row(record, metric)) for record in records for metric in record.metrics]
    known = [(metric, row) for metric, row in rows if _is_finite(metric.value) and has_side(metric.unit)]
    smaller = [row for metric, row in known if metric.name not in BETTER_HIGH]
    bigger = [row for metric, row in known if metric.name in BETTER_HIGH]
    return Direction(SMALLER, _json(smaller)), Direction(BIGGER, _json(bigger))


def _json(rows: list[dict[str, object]]) -> str:
    return json.dumps(rows, indent=2, allow_nan=False)


def _is_finite(number: float | None) -> bool:
    return number is not None and math.isfinite(number)


def _row(record: CellRecord, metric: Metric) -> dict[str, object]:
    row: dict[str, object] = {
        "name": f"{visible(cell_name(record))} {metric.name}",
        "value": metric.value,
        "unit": metric.unit,
        "extra": f"{record.device}, {record.dtype}, torch {record.torch}, {metric.tag}",
    }
    return row | ({"range": f"IQR {metric.spread:g}"} if _is_finite(metric.spread) else {})
