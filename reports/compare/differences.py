"""In what two runs differ besides what they measured, and whether that forbids to compare them.

Another device, another number type, other images, another configuration or other company on the machine measures
something else. Another driver, another version of the software, another attention backend or another commit may be the
very thing that is to be compared; it is named beside the numbers. So is what only one of the runs says, for the other
may be of a version that did not know it yet: a field of its records, a key of its configuration. Between runs of one
commit, which know the same keys, a key that only one has is a setting that the other leaves unset, and forbids.
"""

import tomllib
from typing import Any, NamedTuple

from profiles.record import CellRecord, Environment, Manifest
from reports.source.load import Run
from reports.words.format import alike, count, listed

_FORBIDDING_OF_CELLS = (
    "device",
    "dtype",
    "image_side",
    "train_images",
    "validation_images",
    "test_images",
    "batch_size",
    "steps_per_epoch",
    "ranks",
    "cells_at_once",
)
_NAMED_OF_CELLS = ("attention_backend", "torch", "commit")
_FORBIDDING = ("device_name", "cpu", "cores", "threads", "power_limit_w")
_NAMED = ("driver", "cuda", "sm_clock_max_mhz", "memory_bytes", "system", "python")
_HARMLESS = ("description", "suite", "data.root", "profiler", "telemetry", "evaluation.samples", "evaluation.save_maps")
_ABSENT = "absent"

_Both = tuple[CellRecord, CellRecord]


class Difference(NamedTuple):
    """One thing in which the runs differ; where it `forbids`, their numbers say nothing of each other."""

    what: str
    base: str
    head: str
    forbids: bool


def differences(base: Run, head: Run) -> list[Difference]:
    """Return every difference, those that forbid to compare first; of cells, that of those both finished."""
    before = {cell.name: cell.record for cell in base.cells}
    shared = [(was, cell.record) for cell in head.cells if cell.record and (was := before.get(cell.name))]
    found = [
        *_of_cells(shared),
        *_of_environments(base.environment, head.environment),
        *_of_extents(shared),
        *_of_configurations(base, head),
        *_of_sources(base.manifest, head.manifest),
        *_of_caveats(shared),
    ]
    return sorted(dict.fromkeys(found), key=lambda difference: not difference.forbids)


def _of_cells(shared: list[_Both]) -> list[Difference]:
    return [
        Difference(name, _values(name, before), _values(name, after), name in _FORBIDDING_OF_CELLS and known)
        for name in (*_FORBIDDING_OF_CELLS, *_NAMED_OF_CELLS)
        if (unequal := [both for both in shared if _of(name, both)[0] != _of(name, both)[1]])
        for before, after in [zip(*unequal, strict=True)]
        for known in [any(None not in _of(name, both) for both in unequal)]
    ]


def _of(name: str, both: _Both) -> list[object]:
    return [getattr(record, name) for record in both]


def _values(name: str, records: tuple[CellRecord, ...]) -> str:
    return ", ".join(sorted({_told(getattr(record, name)) for record in records}))


def _of_extents(shared: list[_Both]) -> list[Difference]:
    """Refuse steps beside epochs, which are samples of different things, whatever the configurations say."""
    base, head = [["measured steps" if both[side].step_s else "whole epochs" for both in shared] for side in (0, 1)]
    if base == head:
        return []
    return [Difference("what was timed", listed(sorted({*base})), listed(sorted({*head})), forbids=True)]


def _of_sources(base: Manifest, head: Manifest) -> list[Difference]:
    """Say where a commit is not the whole of the program, or it is unknown whether it is; alike is not equal here."""
    words = {True: "some", False: "none", None: "unknown"}
    told = [words[side.dirty] for side in (base, head)]
    return [] if told == ["none", "none"] else [Difference("uncommitted changes", told[0], told[1], forbids=False)]


def _of_caveats(shared: list[_Both]) -> list[Difference]:
    """Name the caveats, numbers aside, that cells of only one run have."""
    sides = [[{alike(caveat): caveat for caveat in both[side].caveats} for both in shared] for side in (0, 1)]
    words = dict.fromkeys(word for caveats in (*sides[0], *sides[1]) for word in caveats)
    cells = {word: [sum(word in caveats for caveats in side) for side in sides] for word in words}
    whole = {word: caveat for side in sides for caveats in side for word, caveat in caveats.items()}
    return [
        Difference(f"caveat: {whole[word]}", count(before, "cell"), count(after, "cell"), forbids=False)
        for word, (before, after) in cells.items()
        if 0 in {before, after}
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
    packages = _unequal("package", base.packages, head.packages, but=frozenset({"torch"}))
    return found + packages + _unequal("capability", _capabilities(base), _capabilities(head))


def _capabilities(environment: Environment) -> dict[str, str]:
    return {each.name: "available" if each.available else "not available" for each in environment.capabilities}


def _unequal(
    what: str, base: dict[str, str], head: dict[str, str], but: frozenset[str] = frozenset()
) -> list[Difference]:
    return [
        Difference(f"{what} {name}", _told(base.get(name)), _told(head.get(name)), forbids=False)
        for name in sorted({*base, *head} - but)
        if base.get(name) != head.get(name)
    ]


def _of_configurations(base: Run, head: Run) -> list[Difference]:
    before, after = _flat(base.config), _flat(head.config)
    if before is None or after is None:
        told = ["unreadable" if side is None else "readable" for side in (before, after)]
        return [Difference("config.toml", told[0], told[1], forbids=True)]
    known = {*before, *after} if base.manifest.commit == head.manifest.commit else {*before} & {*after}
    return [
        Difference(
            f"config {key}",
            _told(before.get(key)),
            _told(after.get(key)),
            forbids=key in known and not _harmless(key),
        )
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
