"""The answer to the open question, in three sentences per setting, computed from the records.

Which attention trained faster per epoch and how sure that is; why, as far as stages tell; and what it cost: each with
the numbers behind it, and with what forbids a conclusion where something does.
"""

from statistics import median
from typing import NamedTuple

from profiles.record import CellRecord
from reports.claims.effects import BASELINE, OTHER
from reports.claims.pairs import Setting, metric_value, setting_of, settings
from reports.claims.thesis import SLOWER
from reports.page.why import Sentence, joined, why
from reports.rows.claims import ClaimRow
from reports.words.format import (
    between,
    count,
    integer,
    model_name,
    number,
    percent,
    ratio,
    scale,
    with_spread,
)

_EVEN, _FINEST = 0.005, 0.002
_NAMES = {BASELINE: f"softmax attention ({model_name(BASELINE)})", OTHER: f"linear attention ({model_name(OTHER)})"}
"""The two models for a reader who knows neither; later sentences use the short names."""

_UNKNOWN = "unknown"
_SCORE = "segmentation_auroc"
_FURTHER = {
    "detection_auroc": "detection AUROC",
    "training_time": "whole training",
    "training_energy": "its energy",
    "peak_memory": "peak memory",
}


class Answer(NamedTuple):
    """The sentences for one setting."""

    setting: Setting
    sentences: tuple[Sentence, ...]


def answers(records: list[CellRecord], claims: list[ClaimRow]) -> list[Answer]:
    """Return the answer under every setting of the run; *claims* are those settings' rows."""
    slower = {Setting(row.pipeline, row.device, row.dtype): row for row in claims if row.claim == SLOWER.name}
    return [
        answer(setting, [r for r in records if setting_of(r) == setting], slower[setting])
        for setting in settings(records)
    ]


def answer(setting: Setting, records: list[CellRecord], slower: ClaimRow) -> Answer:
    """Return the answer from *records*, which share *setting*."""
    models = list(dict.fromkeys(record.model for record in records))
    return Answer(setting, (_faster(slower), why(records, models), _cost(records, models)))


def _faster(row: ClaimRow) -> Sentence:
    first, second = _NAMES[BASELINE], _NAMES[OTHER]
    if row.measured is None:
        text = f"Which trained faster, {first} or {second}, cannot be told: they share no category here."
        return Sentence(text, f"{row.why}.")
    if _is_even(row):
        text = f"{_capital(second)} and {first} took the same time per epoch, to {percent(_EVEN)}"
    else:
        off, word = abs(row.measured - 1.0), "more" if row.measured > 1.0 else "less"
        digits = None if row.spread is None else max(_FINEST, min(row.spread, off))
        text = f"{_capital(second)} took {percent(off, digits)} {word} time per epoch than {first}{_standing(row)}"
    evidence = (
        f"Geometric mean {ratio(row.measured, row.spread)} (baseline {model_name(BASELINE)}), "
        f"longer in {row.measured_count} "
        f"{'category' if row.n == 1 else 'categories'}{_interval(row)}{_spread(row)}{_tag(row)}; the thesis: "
        f"{ratio(row.published or 0.0)}, longer in {row.published_count}."
    )
    return Sentence(f"{text}.", evidence)


def _capital(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}"


def _is_even(row: ClaimRow) -> bool:
    """Whether the interval leaves no room for a difference worth a word; without one nothing is even."""
    return row.low is not None and row.high is not None and 1.0 - _EVEN <= row.low <= row.high <= 1.0 + _EVEN


def _standing(row: ClaimRow) -> str:
    """Return what the test allows to be said of the difference."""
    if row.verdict == "undecided":
        return f", which settles nothing yet ({row.why})"
    return f", a difference that the test confirms ({row.why})"


def _tag(row: ClaimRow) -> str:
    return ", estimated from some measured steps" if row.tag == "estimated" else ""


def _interval(row: ClaimRow) -> str:
    return f", 95\u00a0% interval {between(row.low, row.high)}" if row.low is not None else ""


def _spread(row: ClaimRow) -> str:
    return f", {with_spread(row.measured or 0.0, row.spread, None)}" if row.spread is not None else ""


def _cost(records: list[CellRecord], models: list[str]) -> Sentence:
    """Return what an epoch of each model took, and what accuracy that bought, on what all of them finished."""
    places = [{(r.category, r.seed) for r in records if r.model == model} for model in models]
    shared = set.intersection(*places)
    ours = [r for r in records if (r.category, r.seed) in shared] or records
    cells = {model: [record for record in ours if record.model == model] for model in models}
    basis = "Medians over cells" if ours is records else f"Medians over the {count(len(shared), 'cell')} of each model"
    time, energy, score = (_each(metric, cells) for metric in ("time_per_epoch", "energy_per_epoch", _SCORE))
    evidence = [
        f"{model_name(model)}: "
        + ", ".join(f"{name} {_median(of, metric)}" for metric, name in _FURTHER.items())
        + f", n\u00a0{integer(len(of))}"
        for model, of in cells.items()
    ]
    text = f"An epoch took {time}; its energy is {energy}, and the segmentation AUROC that was reached is {score}."
    return Sentence(text, f"{basis}{'' if shared else ', which share no category'}. {joined(evidence)}")


def _each(metric: str, cells: dict[str, list[CellRecord]]) -> str:
    """Return the median of *metric* with each model."""
    told = {model: _median(of, metric) for model, of in cells.items()}
    if set(told.values()) == {_UNKNOWN}:
        return _UNKNOWN
    return " and ".join(f"{value} with {model_name(model)}" for model, value in told.items())


def _median(cells: list[CellRecord], metric: str) -> str:
    """Return the median of *metric* over *cells* with its unit, marked where some of it is estimated.

    It has the digits that the least sure of the cells justifies.
    """
    found = [(metric_value(cell, metric), m) for cell in cells for m in cell.metrics if m.name == metric]
    values = [value for value, _ in found if value is not None]
    if not values:
        return _UNKNOWN
    middle = median(values)
    unit = scale(found[0][1].unit, middle)
    spread = max((m.spread for _, m in found if m.spread is not None), default=None)
    told = f"{number(middle / unit.divisor, spread and spread / unit.divisor)}\u00a0{unit.label}"
    some = "" if len(values) == len(cells) else f" in {len(values)} of {count(len(cells), 'cell')}"
    guessed = " (estimated)" if any(m.tag == "estimated" for _, m in found) else ""
    return f"{told}{some}{guessed}"
