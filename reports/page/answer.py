"""The answer to the open question, in three sentences per setting, computed from the records.

Which attention trained faster per epoch and how sure that is; why, as far as stages tell; and what it cost: each with
the numbers behind it, and with what forbids a conclusion where something does.
"""

from collections import Counter
from statistics import median
from typing import NamedTuple

from profiles.record import UNATTRIBUTED, CellRecord, Verdict
from reports.claims.effects import BASELINE, CHECKPOINT, OTHER, share_once
from reports.claims.pairs import Setting, metric_value, setting_of, settings
from reports.claims.thesis import SLOWER
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
    visible,
    with_spread,
)
from reports.words.palette import stage_label

_EVEN = 0.005
_UNKNOWN = "unknown"
_SCORE = "segmentation_auroc"
_FURTHER = {
    "detection_auroc": "detection AUROC",
    "training_time": "whole training",
    "training_energy": "its energy",
    "peak_memory": "peak memory",
}


class Sentence(NamedTuple):
    """A statement and, in smaller print, the numbers it rests on."""

    text: str
    evidence: str


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
    return Answer(setting, (_faster(slower), _why(records, models), _cost(records, models)))


def _faster(row: ClaimRow) -> Sentence:
    first, second = model_name(BASELINE), model_name(OTHER)
    if row.measured is None:
        text = f"Which attention trained faster cannot be told: {second} and {first} share no category here."
        return Sentence(text, f"{row.why}.")
    if _is_even(row):
        text = f"{second} and {first} took the same time per epoch, to {percent(_EVEN)}"
    else:
        off, word = abs(row.measured - 1.0), "more" if row.measured > 1.0 else "less"
        digits = row.spread if row.spread is not None and row.spread < off else None
        text = f"{second} took {percent(off, digits)} {word} time per epoch than {first}{_standing(row)}"
    evidence = (
        f"Geometric mean {ratio(row.measured, row.spread)} (baseline {first}), longer in {row.measured_count} "
        f"{'category' if row.n == 1 else 'categories'}{_interval(row)}{_spread(row)}{_tag(row)}; the thesis: "
        f"{ratio(row.published or 0.0)}, longer in {row.published_count}."
    )
    return Sentence(f"{text}.", evidence)


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


def _why(records: list[CellRecord], models: list[str]) -> Sentence:
    """Return attention's share of the training, the largest stage and what bounds it all."""
    clauses = (_attention(records, models), _largest(records, models), _bound(records, models))
    text = "; ".join(clause.text for clause in clauses)
    return Sentence(f"{text[0].upper()}{text[1:]}.", " ".join(clause.evidence for clause in clauses if clause.evidence))


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
    return Sentence(text, f"{basis}{'' if shared else ', which share no category'}. {_joined(evidence)}")


def _each(metric: str, cells: dict[str, list[CellRecord]]) -> str:
    """Return the median of *metric* with each model."""
    told = {model: _median(of, metric) for model, of in cells.items()}
    if set(told.values()) == {_UNKNOWN}:
        return _UNKNOWN
    return " and ".join(f"{value} with {model_name(model)}" for model, value in told.items())


def _median(cells: list[CellRecord], metric: str) -> str:
    """Return the median of *metric* over *cells* with its unit, marked where some of it is estimated."""
    found = [(metric_value(cell, metric), m) for cell in cells for m in cell.metrics if m.name == metric]
    values = [value for value, _ in found if value is not None]
    if not values:
        return _UNKNOWN
    middle = median(values)
    unit = scale(found[0][1].unit, middle)
    told = f"{number(middle / unit.divisor)}\u00a0{unit.label}"
    some = "" if len(values) == len(cells) else f" in {len(values)} of {count(len(cells), 'cell')}"
    guessed = " (estimated)" if any(m.tag == "estimated" for _, m in found) else ""
    return f"{told}{some}{guessed}"


def _attention(records: list[CellRecord], models: list[str]) -> Sentence:
    told, evidence = [], []
    for model in models:
        cells = [record for record in records if record.model == model]
        shares = _shares(cells, "attention")
        if not shares:
            told.append(f"an unknown share with {model_name(model)}")
            continue
        forward = _shares(cells, "attention", "forward")
        backward = _shares(cells, "attention", "backward")
        told.append(f"{percent(median(shares))} {'with' if told else 'of the training phase with'} {model_name(model)}")
        evidence.append(
            f"{model_name(model)}: forward {_middle(forward)}, backward {_middle(backward)}, "
            f"{_range(shares)} over {count(len(shares), 'cell')}"
        )
    text = f"attention, forward and backward, takes {' and '.join(told)}"
    few = any(record.step_s for record in records)
    note = " Shares are of the measured steps, without the checkpoint that ends an epoch." if few else ""
    return Sentence(text, f"Medians of exposed time.{note} {_joined(evidence)}")


def _largest(records: list[CellRecord], models: list[str]) -> Sentence:
    told, evidence = [], []
    for model in models:
        cells = [record for record in records if record.model == model]
        medians = _stage_medians(cells)
        if not medians:
            continue
        stage = max((name for name in medians if name != UNATTRIBUTED), key=medians.__getitem__, default=UNATTRIBUTED)
        told.append((stage, f"{percent(medians[stage])} with {model_name(model)}"))
        rest = sorted((n for n in medians if n != stage), key=medians.__getitem__, reverse=True)[:2]
        others = ", ".join(f"{visible(stage_label(name))} {percent(medians[name])}" for name in rest)
        left = f"; unattributed {percent(medians[UNATTRIBUTED])}" if UNATTRIBUTED in {*medians} - {*rest} else ""
        evidence.append(f"{model_name(model)}: next {others or 'nothing'}{left}")
    if not told:
        return Sentence("the largest stage is unknown, for no record holds stages of the training phase", "")
    return Sentence(_name_largest(told), f"Medians over cells. {_joined(evidence)}")


def _name_largest(told: list[tuple[str, str]]) -> str:
    stages = dict.fromkeys(stage for stage, _ in told)
    if len(stages) == 1:
        shares = " and ".join(share for _, share in told)
        return f"the largest stage is {visible(stage_label(told[0][0]))}, {shares}"
    each = " and ".join(f"{visible(stage_label(stage))} ({share})" for stage, share in told)
    return f"the largest stages are {each}"


def _bound(records: list[CellRecord], models: list[str]) -> Sentence:
    told, evidence = [], []
    for model in models:
        cells = [record for record in records if record.model == model]
        found = [record.verdict for record in cells if record.verdict is not None]
        bounds = Counter(verdict.bound for verdict in found if verdict.bound is not None)
        if not bounds:
            told.append(f"bound by nothing that the records tell with {model_name(model)}")
            continue
        each = " and ".join(f"{bound} in {n}" for bound, n in bounds.most_common())
        told.append(f"{each} of {count(len(cells), 'cell')} with {model_name(model)}")
        evidence.append(f"{model_name(model)}: {_parts(found)}")
    if not evidence:
        return Sentence("what bounds the training is unknown, for no record holds a verdict that names it", "")
    everywhere = {record.verdict.bound if record.verdict else None for record in records}
    if len(everywhere) == 1:
        told = [f"{everywhere.pop()} in {f'all {len(records)} cells' if len(records) > 1 else 'the one cell'}"]
    basis = "Medians over cells; input is exposed time, compute busy time, estimated from profiler windows."
    return Sentence(f"training is {', and '.join(told)}", f"{basis} {_joined(evidence)}")


def _parts(verdicts: list[Verdict]) -> str:
    """Return the median of each part of the wall time, and over how many cells."""
    parts = {
        "input": [verdict.input_share for verdict in verdicts],
        "compute": [verdict.compute_share for verdict in verdicts if verdict.compute_share is not None],
        "host": [verdict.host_share for verdict in verdicts if verdict.host_share is not None],
    }
    shares = ", ".join(f"{name} {_middle(found) if found else 'unavailable'}" for name, found in parts.items())
    return f"{shares}, n\u00a0{integer(len(verdicts))}"


def _stage_medians(cells: list[CellRecord]) -> dict[str, float]:
    """Return each training stage's median share over *cells*."""
    names = {total.stage for cell in cells for total in cell.stage_totals if total.phase == "train"}
    if any(cell.step_s for cell in cells):
        names -= {CHECKPOINT}
    return {name: median(_shares(cells, name)) for name in sorted(names)}


def _shares(cells: list[CellRecord], stage: str, direction: str | None = None) -> list[float]:
    """Return, per cell that has stages of the training phase, the share of *stage* (in one *direction*).

    Where a few steps stand for an epoch, it is of those steps, without the checkpoint.
    """
    train = [(cell, [total for total in cell.stage_totals if total.phase == "train"]) for cell in cells]
    chosen = {direction} if direction else {"forward", "backward", "none"}
    return [
        sum(total.share for total in totals if total.stage == stage and total.direction in chosen)
        / (1.0 - share_once(cell, totals))
        for cell, totals in train
        if totals
    ]


def _middle(shares: list[float]) -> str:
    return percent(median(shares))


def _range(shares: list[float]) -> str:
    return f"range {percent(min(shares))} to {percent(max(shares))}" if len(shares) > 1 else "one value"


def _joined(evidence: list[str]) -> str:
    return f"{'; '.join(evidence)}." if evidence else ""
