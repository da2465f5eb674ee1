"""Why one attention trained faster, as far as the records tell: attention's share, the largest stage, the pace.

Shares are of exposed time in training. Where a few measured steps stand for an epoch, they are of those steps, without
the checkpoint that ends an epoch.
"""

from collections import Counter
from statistics import fmean, median
from typing import NamedTuple

from profiles.record import UNATTRIBUTED, Bound, CellRecord, Verdict
from reports.claims.effects import BASELINE, CHECKPOINT, OTHER, share_once
from reports.words.format import count, integer, model_name, percent, visible
from reports.words.palette import stage_label

_PACES: dict[Bound, str] = {
    "input-bound": "waiting for input",
    "compute-bound": "computing",
    "host-bound": "the host, which launches the work,",
    "mixed": "no single thing",
}
_LEAST = 0.001


class Sentence(NamedTuple):
    """A statement and, in smaller print and in lines, the numbers it rests on."""

    text: str
    evidence: str


def why(records: list[CellRecord], models: list[str]) -> Sentence:
    """Return attention's share of the training, the largest stage, where the two differ, and what sets the pace."""
    clauses = [_attention(records, models), _largest(records, models), _apart(records), _bound(records, models)]
    text = "; ".join(clause.text for clause in clauses if clause.text)
    return Sentence(
        f"{text[0].upper()}{text[1:]}.", "\n".join(clause.evidence for clause in clauses if clause.evidence)
    )


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
        told.append(f"{percent(median(shares))} {'with' if told else 'of the training with'} {model_name(model)}")
        evidence.append(
            f"{model_name(model)}: forward {_middle(forward)}, backward {_middle(backward)}, "
            f"{_range(shares)} over {count(len(shares), 'cell')}"
        )
    text = f"attention, forward and backward, takes {' and '.join(told)}"
    few = any(record.step_s for record in records)
    note = " Shares are of the measured steps, without the checkpoint that ends an epoch." if few else ""
    return Sentence(text, f"Attention, medians of exposed time.{note} {joined(evidence)}")


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
    return Sentence(_name_largest(told), f"Other stages, medians over cells. {joined(evidence)}")


def _name_largest(told: list[tuple[str, str]]) -> str:
    stages = dict.fromkeys(stage for stage, _ in told)
    if len(stages) == 1:
        if "attention" in stages:
            return "no other stage takes more"
        shares = " and ".join(share for _, share in told)
        return f"the largest stage is {visible(stage_label(told[0][0]))}, {shares}"
    each = " and ".join(f"{visible(stage_label(stage))} ({share})" for stage, share in told)
    return f"the largest stages are {each}"


def _apart(records: list[CellRecord]) -> Sentence:
    """Return the stage in which an epoch of both models differs most, as a part of the baseline's epoch."""
    off = stage_differences(records)
    if not off:
        return Sentence("", "")
    first, *others = sorted(off, key=lambda stage: -abs(off[stage]))
    if abs(off[first]) < _LEAST:
        return Sentence(f"the two differ in no stage by {percent(_LEAST)} of an epoch", "")
    told = [f"{visible(stage_label(stage))} {_signed(off[stage])}" for stage in others[:2]]
    pair = f"{model_name(OTHER)} \u2212 {model_name(BASELINE)}"
    text = f"the two differ most in {visible(stage_label(first))}, by {_signed(off[first])} of an epoch of "
    whole = f"all stages together {_signed(sum(off.values()))}"
    evidence = (
        f"Difference, {pair}, mean over categories, of {model_name(BASELINE)}'s epoch: {', '.join([*told, whole])}."
    )
    return Sentence(text + model_name(BASELINE), evidence)


def stage_differences(records: list[CellRecord]) -> dict[str, float]:
    """Return, per training stage, how much longer OTHER takes than BASELINE, as a part of BASELINE's whole time.

    Both of a category and seed are paired; each category counts once. The parts add up to the whole difference.
    """
    seconds = {(r.category, r.seed, r.model): found for r in records if (found := _seconds(r))}
    off: dict[str, list[dict[str, float]]] = {}
    for (category, seed, model), base in seconds.items():
        if model == BASELINE and (other := seconds.get((category, seed, OTHER))):
            whole_s = sum(base.values())
            stages = dict.fromkeys([*base, *other])
            parts = {stage: (other.get(stage, 0.0) - base.get(stage, 0.0)) / whole_s for stage in stages}
            off.setdefault(category, []).append(parts)
    names = dict.fromkeys(stage for found in off.values() for parts in found for stage in parts)
    return {stage: fmean(fmean(parts.get(stage, 0.0) for parts in found) for found in off.values()) for stage in names}


def _seconds(record: CellRecord) -> dict[str, float]:
    """Return the exposed seconds of an epoch's stages, or of its measured steps', then without the checkpoint."""
    found: dict[str, float] = {}
    for total in record.stage_totals:
        if total.phase == "train" and not (record.step_s and total.stage == CHECKPOINT):
            found[total.stage] = found.get(total.stage, 0.0) + total.exposed_s / total.epochs
    return found if sum(found.values()) > 0.0 else {}


def _signed(share: float) -> str:
    return f"{'+' if share > 0.0 else ''}{percent(share)}"


def _bound(records: list[CellRecord], models: list[str]) -> Sentence:
    told, evidence = [], []
    for model in models:
        cells = [record for record in records if record.model == model]
        found = [record.verdict for record in cells if record.verdict is not None]
        bounds = Counter(verdict.bound for verdict in found if verdict.bound is not None)
        if not bounds:
            told.append(f"nothing that the records tell with {model_name(model)}")
            continue
        each = " and ".join(f"{_PACES[bound]} in {n}" for bound, n in bounds.most_common())
        told.append(f"{each} of {count(len(cells), 'cell')} with {model_name(model)}")
        evidence.append(f"{model_name(model)}: {_parts(found)}")
    if not evidence:
        return Sentence("what sets the pace is unknown, for no record holds a verdict that names it", "")
    everywhere = {record.verdict.bound if record.verdict else None for record in records}
    if len(everywhere) == 1 and (bound := everywhere.pop()):
        told = [f"{_PACES[bound]} in {f'all {len(records)} cells' if len(records) > 1 else 'the one cell'}"]
    basis = "Pace, medians over cells; input is exposed time, compute busy time, estimated from profiler windows."
    return Sentence(f"what sets the pace is {', and '.join(told)}", f"{basis} {joined(evidence)}")


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


def joined(evidence: list[str]) -> str:
    """Return what is said of each model as one sentence."""
    return f"{'; '.join(evidence)}." if evidence else ""
