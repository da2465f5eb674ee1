"""The same work executed in two ways: the thesis's pipeline against the fast one, whole and stage by stage.

A pipeline changes how the work is done and never what is computed, so every ratio is of the same cell.
"""

from typing import NamedTuple

from profiles.record import CellRecord
from reports.claims.pairs import metric_value
from reports.page.tables import Column, Entry, Identity, Table, quantity, text
from reports.words.format import count, listed, model_name, number, ratio, scale, visible
from reports.words.palette import in_order, stage_class, stage_label

SLOW, FAST = "thesis", "fast"

_METRICS = ("time_per_epoch", "calibration_time", "evaluation_time")
_NONE = Entry("\u2013", "none", numeric=True, missing=True)


class Pipelines(NamedTuple):
    """The tables of the cells that ran on both pipelines, and what there is to say where none did."""

    tables: tuple[Table, ...]
    gap: str


Pair = tuple[CellRecord, CellRecord]


def pipelines(records: list[CellRecord], who: Identity) -> Pipelines:
    """Return the comparison of the pipelines, or why there is none."""
    pairs = _pairs(records)
    if pairs:
        return Pipelines((_whole(pairs, who), _stages(pairs, who)), "")
    ran = sorted({record.pipeline for record in records})
    lacking = [name for name in (SLOW, FAST) if name not in ran]
    why = (
        f"only the {listed(ran)} pipeline was run, {listed(lacking)} was not"
        if lacking
        else "no cell was finished on both with one device and number type"
    )
    return Pipelines((), f"Not measured: {why}. `bench run --pipeline {SLOW} --pipeline {FAST}` runs both.")


def _pairs(records: list[CellRecord]) -> list[Pair]:
    """Return the cells that were finished on both pipelines under one device and number type."""
    key = {(r.category, r.model, r.seed, r.device, r.dtype): r for r in records if r.pipeline == FAST}
    return [
        (record, key[found])
        for record in records
        if record.pipeline == SLOW
        and (found := (record.category, record.model, record.seed, record.device, record.dtype)) in key
    ]


def _whole(pairs: list[Pair], who: Identity) -> Table:
    unit = scale("s", max((metric_value(slow, _METRICS[0]) or 0.0 for slow, _ in pairs), default=0.0))
    columns = (
        *_IDENTITY,
        *(
            Column(f"{name}, {side}", of, numeric=True)
            for name in ("Epoch", "Calibration", "Evaluation")
            for side, of in ((SLOW, unit.label), (FAST, unit.label), ("ratio", f"{SLOW} / {FAST}"))
        ),
    )
    body = tuple(
        _identity(slow) + tuple(entry for metric in _METRICS for entry in _metric(slow, fast, metric, unit.divisor))
        for slow, fast in pairs
    )
    detail = (
        f"Seconds of the same work on both pipelines; a ratio is {SLOW} / {FAST} (baseline {FAST}). "
        f"What is estimated was extended from fewer steps "
        f"or images. {count(len(pairs), 'cell')} on both; {who.shared}."
    )
    return Table("pipelines", f"{SLOW.capitalize()} pipeline against {FAST}", columns, body, detail)


def _metric(slow: CellRecord, fast: CellRecord, metric: str, divisor: float) -> list[Entry]:
    values = [metric_value(record, metric) for record in (slow, fast)]
    return [*(_value(record, metric, divisor) for record in (slow, fast)), _ratio(values[0], values[1])]


def _value(record: CellRecord, metric: str, divisor: float) -> Entry:
    """Return a metric with its spread and sample count, and its tag where it is not measured."""
    found, value = next((m for m in record.metrics if m.name == metric), None), metric_value(record, metric)
    if found is None or value is None:
        return _NONE
    spread = None if found.spread is None else found.spread / divisor
    tag = "" if found.tag == "measured" else found.tag
    return quantity(value / divisor, spread, found.n, tag)._replace(sort=value)


def _ratio(slow: float | None, fast: float | None) -> Entry:
    if slow is None or not fast:
        return _NONE
    return Entry(ratio(slow / fast), sort=slow / fast, numeric=True)


def _stages(pairs: list[Pair], who: Identity) -> Table:
    columns = (
        *_IDENTITY,
        Column("Stage"),
        Column(SLOW.capitalize(), "ms a step, exposed", numeric=True),
        Column(FAST.capitalize(), "ms a step, exposed", numeric=True),
        Column("Ratio", f"{SLOW} / {FAST}", numeric=True),
    )
    body = tuple(
        (*_identity(slow), text(stage_label(stage), f"stage {stage_class(stage)}"), *_stage(slow, fast, stage))
        for slow, fast in pairs
        for stage in in_order({t.stage for record in (slow, fast) for t in record.stage_totals if t.phase == "train"})
    )
    detail = (
        "Exposed time of training, forward and backward, of a step, in the epochs that count. A ratio "
        f"is {SLOW} / {FAST} (baseline {FAST}). Its spread over epochs is in the stages' own table. "
        f"{count(len(body), 'row')}; {who.shared}."
    )
    return Table("pipeline-stages", "Stage by stage, training", columns, body, detail)


def _stage(slow: CellRecord, fast: CellRecord, stage: str) -> tuple[Entry, ...]:
    spent = [_per_step_s(record, stage) for record in (slow, fast)]
    shown = [_NONE if s is None else Entry(number(1e3 * s), sort=s, numeric=True) for s in spent]
    return (*shown, _ratio(*spent))


def _per_step_s(record: CellRecord, stage: str) -> float | None:
    """Return what a training step spends on *stage*; None where the record holds none of it."""
    steps = len(record.step_s) or record.steps_per_epoch
    found = [total for total in record.stage_totals if total.phase == "train" and total.stage == stage]
    return sum(total.exposed_s / total.epochs for total in found) / steps if found else None


_IDENTITY = (Column("Category"), Column("Model"), Column("Seed", numeric=True))


def _identity(record: CellRecord) -> tuple[Entry, ...]:
    return (
        text(record.category),
        text(model_name(record.model))._replace(note=visible(f"{record.device}, {record.dtype}")),
        Entry(str(record.seed), sort=record.seed, numeric=True),
    )
