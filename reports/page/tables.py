"""Tables as the page shows them, built from the rows of the CSV files, so that both say the same.

What identifies a cell stands in columns: category, model, pipeline and seed always; device, dtype, torch and
commit only where records differ in them, else in the caption. An entry has a main text and a small note below
it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from profiles.record import CellRecord
from reports.rows.metrics import ACCURACY, MetricRow
from reports.source.published import image_side
from reports.words.format import Scale, count, integer, metric_name, number, scale, visible, with_spread

_IDENTITY = ("category", "model", "pipeline", "seed")
_PROVENANCE = ("device", "dtype", "torch", "commit")
_COMMIT_LENGTH = 12
_LEVELS = {"mean_all": "mean of all"}


class Entry(NamedTuple):
    """One field of a table; `sort` orders it, `mark` is a class of its own (a stage's, a state's)."""

    text: str
    note: str = ""
    sort: float | str | None = None
    numeric: bool = False
    mark: str = ""
    missing: bool = False


class Column(NamedTuple):
    """One column's heading."""

    label: str
    unit: str = ""
    numeric: bool = False


@dataclass(frozen=True)
class Table:
    """A table with its caption, in which `detail` says what the columns leave open; `gist` is its outcome in short."""

    ident: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Entry, ...], ...]
    detail: str = ""
    footnotes: tuple[str, ...] = ()
    gist: str = ""


@dataclass
class Reasons:
    """Why numbers are missing: each reason once, numbered in order of appearance."""

    texts: list[str] = field(default_factory=list)

    def missing(self, reason: str | None) -> Entry:
        """Return the entry of an unavailable number, which points at its reason."""
        reason = visible(reason or "no reason was recorded")
        if reason not in self.texts:
            self.texts.append(reason)
        return Entry("unavailable", f"note {self.texts.index(reason) + 1}", numeric=True, missing=True)

    def footnotes(self) -> tuple[str, ...]:
        """Return the reasons with their numbers."""
        return tuple(f"Note {place}: {text}" for place, text in enumerate(self.texts, start=1))


def text(value: object, mark: str = "") -> Entry:
    """Return an entry of words, which are data."""
    shown = visible(str(value))
    return Entry(shown, sort=shown.casefold(), mark=mark)


def quantity(value: float, spread: float | None = None, n: int | None = None, extra: str = "") -> Entry:
    """Return an entry of a number, its spread and sample count below it."""
    note = ", ".join(part for part in (with_spread(value, spread, n), extra) if part)
    return Entry(number(value, spread), note, sort=value, numeric=True)


class Identity(NamedTuple):
    """Which columns tell cells apart, and what all of them share, as prose."""

    fields: tuple[str, ...]
    shared: str

    def columns(self) -> tuple[Column, ...]:
        """Return the headings."""
        return tuple(Column(name.capitalize(), numeric=name == "seed") for name in self.fields)

    def entries(self, row: object) -> tuple[Entry, ...]:
        """Return the entries of *row*, which has the fields."""
        return tuple(_identity_entry(name, getattr(row, name)) for name in self.fields)


def identity(records: list[CellRecord], device_name: str | None) -> Identity:
    """Return how *records* are told apart; *device_name* describes the machine's device where it is known."""
    varying = tuple(name for name in _PROVENANCE if len({getattr(record, name) for record in records}) > 1)
    shared = [
        f"{name} {visible(str(getattr(records[0], name)))[: _COMMIT_LENGTH if name == 'commit' else None]}"
        + (f" ({visible(device_name)})" if name == "device" and device_name else "")
        for name in _PROVENANCE
        if records and name not in varying
    ]
    return Identity(_IDENTITY + varying, ", ".join(shared))


def metric_table(ident: str, caption: str, rows: list[MetricRow], order: Iterable[str], who: Identity) -> Table:
    """Return *rows* with a row per cell and a column per metric, published values beside measured ones."""
    order = tuple(order)
    metrics = [m for m in order if any(r.metric == m for r in rows)]
    metrics += sorted({row.metric for row in rows} - set(metrics))
    scales = {metric: _scale_of([row for row in rows if row.metric == metric]) for metric in metrics}
    beside = {row.metric for row in rows if row.published is not None}
    reasons = Reasons()
    groups: dict[tuple[object, ...], dict[str, MetricRow]] = {}
    for row in rows:
        groups.setdefault(_key(row), {})[row.metric] = row
    body = [
        who.entries(_named(next(iter(found.values())))) + _values(metrics, found, scales, beside, reasons)
        for found in groups.values()
    ]
    columns = who.columns() + _headings(metrics, scales, beside)
    detail = f"{count(len(body), 'row')}; {who.shared}."
    return Table(ident, caption, columns, tuple(body), detail, reasons.footnotes())


def _values(
    metrics: list[str],
    found: dict[str, MetricRow],
    scales: dict[str, Scale],
    beside: set[str],
    reasons: Reasons,
) -> tuple[Entry, ...]:
    entries: list[Entry] = []
    for metric in metrics:
        row = found.get(metric)
        entries.append(_value(row, scales[metric], reasons))
        if metric in beside:
            entries.append(_published(row, scales[metric]))
    return tuple(entries)


def _value(row: MetricRow | None, unit: Scale, reasons: Reasons) -> Entry:
    if row is None or row.value is None:
        return reasons.missing(row.reason if row else "the record does not hold this metric")
    if row.unit in {"count", "epoch"} and row.value.is_integer() and not row.spread:
        return Entry(integer(row.value), _extra(row), sort=row.value, numeric=True)
    spread = None if row.spread is None else row.spread / unit.divisor
    entry = quantity(row.value / unit.divisor, spread, row.n, _extra(row))
    return entry._replace(sort=row.value)


def _extra(row: MetricRow) -> str:
    return "" if row.tag == "measured" else row.tag


def _published(row: MetricRow | None, unit: Scale) -> Entry:
    if row is None or row.published is None:
        return Entry("\u2013", "none published", numeric=True, missing=True)
    note, side = row.published_source or "", image_side(row.category)
    if row.metric in ACCURACY and side not in {None, row.image_side}:
        note += f", at {side} px"
    shown = integer(row.published) if row.unit == "epoch" else number(row.published / unit.divisor)
    return Entry(shown, note, row.published, numeric=True)


def _headings(metrics: list[str], scales: dict[str, Scale], beside: set[str]) -> tuple[Column, ...]:
    columns: list[Column] = []
    for metric in metrics:
        unit = scales[metric].label
        columns.append(Column(metric_name(metric), unit, numeric=True))
        if metric in beside:
            columns.append(Column("published", unit, numeric=True))
    return tuple(columns)


def _scale_of(rows: list[MetricRow]) -> Scale:
    """Return the unit that suits what was measured, or, where nothing was, what was published."""
    known = [row.value for row in rows if row.value is not None] or [row.published or 0.0 for row in rows]
    return scale(rows[0].unit, max(map(abs, known)))


def _key(row: MetricRow) -> tuple[object, ...]:
    return tuple(getattr(row, name) for name in ("level", *_IDENTITY, *_PROVENANCE))


def _named(row: MetricRow) -> MetricRow:
    """Return *row* with, for a mean, its level where a cell has its category."""
    if row.level == "cell":
        return row
    return row._replace(category=_LEVELS.get(row.level, f"mean of {row.level.removeprefix('mean_')}s"))


def _identity_entry(name: str, value: object) -> Entry:
    if name == "seed":
        return Entry(str(value), sort=float(str(value)) if str(value).isdecimal() else None, numeric=True)
    return text(str(value)[:_COMMIT_LENGTH] if name == "commit" else value)
