"""The verdict per category: which of the two models that the thesis compares was faster there, and which better."""

import math
from typing import NamedTuple

from profiles.ratio import Ratio
from profiles.record import CellRecord
from reports.claims.effects import BASELINE, OTHER
from reports.claims.pairs import metric_value, setting_of
from reports.claims.samples import FEWEST, samples, widened_ratio
from reports.page.tables import Column, Entry, Identity, Table, quantity
from reports.source.load import Cell
from reports.source.published import published
from reports.words.format import between, count, integer, model_name, points, ratio, scale

_SCORES = ("segmentation_auroc", "detection_auroc")
_FIRST, _SECOND = model_name(BASELINE), model_name(OTHER)
_CONFIDENCE = 0.95
_NONE = Entry("\u2013", "none", numeric=True, missing=True)


class Match(NamedTuple):
    """Both models on one category, under one setting and from one seed; `ratio` is of their samples, where enough."""

    baseline: CellRecord
    other: CellRecord
    ratio: Ratio | None


def matches_table(cells: tuple[Cell, ...], who: Identity) -> Table | None:
    """Return a row per category, setting and seed that both models finished; None without any."""
    found = _matches(cells)
    if not found:
        return None
    who = Identity(tuple(name for name in who.fields if name != "model"), who.shared)
    times = [value for match in found for r in match[:2] if (value := metric_value(r, "time_per_epoch")) is not None]
    unit = scale("s", max(times, default=0.0))
    columns = (
        *who.columns(),
        Column(_FIRST, f"{unit.label} per epoch", numeric=True),
        Column(_SECOND, f"{unit.label} per epoch", numeric=True),
        Column(f"{_SECOND} / {_FIRST}", f"time, baseline {_FIRST}", numeric=True),
        Column("published", f"time, baseline {_FIRST}", numeric=True),
        Column("Faster"),
        *(
            Column(name, f"AUROC points, {_SECOND} \u2212 {_FIRST}", numeric=True)
            for name in ("Segmentation", "Detection")
        ),
    )
    body = tuple(who.entries(match.baseline) + _entries(match, unit.divisor) for match in found)
    detail = (
        "Faster is whom the 95\u00a0% interval of the ratio leaves no doubt of. Both are over pairs of both cells' "
        "samples (n; epochs, or measured steps but the first) and know nothing of what else the machine did during one "
        "of them; without an interval the ratio is of the times beside it. "
        f"A score is one evaluation of all test images (published below it). {count(len(body), 'row')}; {who.shared}."
    )
    return Table("matches", f"Verdict per category, {_FIRST} against {_SECOND}", columns, body, detail)


def _matches(cells: tuple[Cell, ...]) -> list[Match]:
    held: dict[tuple[object, ...], tuple[Cell, CellRecord]] = {
        (r.model, r.category, r.seed, setting_of(r)): (cell, r) for cell in cells if (r := cell.record) is not None
    }
    return [
        Match(record, theirs, _ratio(cell, other))
        for (model, *where), (cell, record) in held.items()
        if model == BASELINE and (OTHER, *where) in held
        for other, theirs in [held[OTHER, *where]]
    ]


def _ratio(baseline: Cell, other: Cell) -> Ratio | None:
    times = [samples(cell, "time_per_epoch") for cell in (other, baseline)]
    return widened_ratio(times[0], times[1], _CONFIDENCE) if min(map(len, times)) >= FEWEST else None


def _entries(match: Match, divisor: float) -> tuple[Entry, ...]:
    return (
        *(_time(record, divisor) for record in match[:2]),
        _times(match),
        _published_ratio(match.baseline.category),
        _faster(match.ratio),
        *(_score(match, metric) for metric in _SCORES),
    )


def _time(record: CellRecord, divisor: float) -> Entry:
    found = next((metric for metric in record.metrics if metric.name == "time_per_epoch"), None)
    value = metric_value(record, "time_per_epoch")
    if found is None or value is None:
        return _NONE
    note = "" if found.tag == "measured" else found.tag
    spread = None if found.spread is None else found.spread / divisor
    return quantity(value / divisor, spread, found.n, note)._replace(sort=value)


def _times(match: Match) -> Entry:
    values = [metric_value(record, "time_per_epoch") for record in match[:2]]
    if values[0] is None or values[1] is None or min(values[0], values[1]) <= 0.0:
        return _NONE
    known = match.ratio is not None and math.isfinite(match.ratio.high)
    value = match.ratio.value if match.ratio and known else values[1] / values[0]
    return Entry(ratio(value), _interval(match.ratio), value, numeric=True)


def _interval(found: Ratio | None) -> str:
    if found is None or not math.isfinite(found.high):
        return "too few samples for an interval"
    return f"{between(found.low, found.high)}, n\u00a0{integer(found.samples)} pairs"


def _faster(found: Ratio | None) -> Entry:
    if found is None or not math.isfinite(found.high):
        return Entry("untested", "too few samples", "untested", mark="verdict-undecided")
    if found.low > 1.0 or found.high < 1.0:
        return Entry(_FIRST if found.low > 1.0 else _SECOND, sort=_FIRST if found.low > 1.0 else _SECOND)
    return Entry("undecided", "the interval holds 1", "undecided", mark="verdict-undecided")


def _published_ratio(category: str) -> Entry:
    found = [published(category, model, "time_per_epoch") for model in (BASELINE, OTHER)]
    if found[0] is None or found[1] is None:
        return Entry("\u2013", "none published", numeric=True, missing=True)
    value = found[1].value / found[0].value
    return Entry(ratio(value), found[1].source, value, numeric=True)


def _score(match: Match, metric: str) -> Entry:
    values = [metric_value(record, metric) for record in match[:2]]
    if values[0] is None or values[1] is None:
        return _NONE
    found = [published(match.baseline.category, model, metric) for model in (BASELINE, OTHER)]
    theirs = (
        "" if found[0] is None or found[1] is None else f"published {points((found[1].value - found[0].value) / 100.0)}"
    )
    return Entry(points((values[1] - values[0]) / 100.0), theirs, values[1] - values[0], numeric=True)
