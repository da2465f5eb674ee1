"""In what two runs differ besides what they measured, and whether that forbids to compare them.

Another device, another number type or another configuration measures something else. Another driver, another version
of the software or another commit may be the very thing that is to be compared; it is named beside the numbers.
"""

import tomllib
from typing import Any, NamedTuple

from profiles.record import CellRecord, Environment
from reports.source.load import Run

_FORBIDDING = ("device_name", "cpu", "cores", "threads", "power_limit_w")
_NAMED = ("driver", "cuda", "sm_clock_max_mhz", "memory_bytes", "system", "python")
_HARMLESS = ("description", "suite", "data.root", "profiler", "telemetry", "evaluation.samples", "evaluation.save_maps")
_ABSENT = "absent"


class Difference(NamedTuple):
    """One thing in which the runs differ; where it `forbids`, their numbers say nothing of each other."""

    what: str
    base: str
    head: str
    forbids: bool


def differences(base: Run, head: Run) -> list[Difference]:
    """Return every difference, those that forbid to compare first."""
    found = [
        *_of_records(base.records, head.records),
        *_of_environments(base.environment, head.environment),
        *_of_configurations(base.config, head.config),
    ]
    return sorted(dict.fromkeys(found), key=lambda difference: not difference.forbids)


def _of_records(base: list[CellRecord], head: list[CellRecord]) -> list[Difference]:
    return [
        Difference(name, ", ".join(before), ", ".join(after), forbids)
        for name, forbids in (("device", True), ("dtype", True), ("torch", False), ("commit", False))
        for before, after in [[sorted({str(getattr(r, name)) for r in records}) for records in (base, head)]]
        if before != after
    ]


def _of_environments(base: Environment | None, head: Environment | None) -> list[Difference]:
    if base is None or head is None:
        told = ["unknown" if side is None else "known" for side in (base, head)]
        return [Difference("environment.json", told[0], told[1], forbids=True)]
    found = [
        Difference(name, _told(getattr(base, name)), _told(getattr(head, name)), name in _FORBIDDING)
        for name in (*_FORBIDDING, *_NAMED)
        if getattr(base, name) != getattr(head, name)
    ]
    return found + [
        Difference(f"package {name}", _told(base.packages.get(name)), _told(head.packages.get(name)), forbids=False)
        for name in sorted({*base.packages, *head.packages} - {"torch"})
        if base.packages.get(name) != head.packages.get(name)
    ]


def _of_configurations(base: str | None, head: str | None) -> list[Difference]:
    before, after = _flat(base), _flat(head)
    if before is None or after is None:
        told = ["unreadable" if side is None else "readable" for side in (before, after)]
        return [Difference("config.toml", told[0], told[1], forbids=True)]
    return [
        Difference(f"config {key}", _told(before.get(key)), _told(after.get(key)), forbids=not _harmless(key))
        for key in sorted({*before, *after})
        if before.get(key) != after.get(key)
    ]


def _harmless(key: str) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in _HARMLESS)


def _flat(config: str | None) -> dict[str, object] | None:
    """Return a configuration's keys with dots; None where it is missing or no TOML."""
    try:
        return None if config is None else dict(_walk("", tomllib.loads(config)))
    except tomllib.TOMLDecodeError:
        return None


def _walk(prefix: str, table: dict[str, Any]) -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = []
    for key, value in table.items():
        rows += _walk(f"{prefix}{key}.", value) if isinstance(value, dict) else [(f"{prefix}{key}", value)]
    return rows


def _told(value: object) -> str:
    return _ABSENT if value is None else str(value)
