"""A report's CSV files: one named tuple per kind of row, whose fields are the columns, in this order.

    auroc.csv, timing.csv, energy.csv   MetricRow, one metric of one cell (in auroc.csv also means over cells)
    claims.csv                          reports.rows.claims.ClaimRow, one claim under one setting
    published.csv                       reports.rows.claims.CheckRow, what the thesis's tables say by themselves

and, after the columns that say which cell, `CellColumns`, the rows of `reports.rows.details` and `reports.rows.energy`:

    stages.csv     StageShareRow, one stage of one phase, in one direction
    loader.csv     LoaderPartRow, CPU time of one part of loading in one phase
    verdicts.csv   VerdictRow, what bounds the training
    closure.csv    ClosureRow, whether the times of one phase add up
    steps.csv      StepRow, how long a step takes without instrument, with the clock, in a window, after it
    windows.csv    WindowRow, one close look at a few steps and its profiler window
    work.csv       reports.rows.work.WorkRow, one stage's arithmetic, traffic and rate in training
    routes.csv     RouteRow, one stage in one window, by the stage clock and by the profiler

    phase_energy.csv   PhaseEnergyRow, what one phase cost on one device
    stage_energy.csv   StageEnergyRow, an estimate of what one stage of one phase cost, in one direction

An absent number is an empty field, never 0, and its tag says `unavailable` and its reason why. Values are in
the record's own units, unrounded: percent from 0 to 100, seconds, joules, bytes. `spread` is an interquartile
range and `n` the sample count behind value and spread. `level` is `cell`, or `mean_texture`, `mean_object`,
`mean_all` for a mean over the cells of one model, pipeline and seed; then `category` is empty, `n` counts
categories and `published` is the mean of what was published for those same categories, empty unless all of
them have it. Names are written as they are, so read with `pandas.read_csv(path, keep_default_na=False,
na_values=[""])` where one may be called `NA`.
"""

from statistics import fmean
from typing import NamedTuple

from profiles.record import CellRecord, Metric
from profiles.spread import spread
from reports.source.published import published

ACCURACY = (
    "segmentation_auroc",
    "detection_auroc",
    "detection_auroc_rescaled",
    "detection_auroc_not_rescaled",
    "aupro_30",
    "average_precision",
)
"""Metrics of how well a model does, in percent, in the order of telling."""

BETTER_HIGH = frozenset({*ACCURACY, "windows_per_second"})
"""Metrics of which more is better; of all others less is."""

TIMING = ("time_per_epoch", "training_time", "best_epoch", "windows_per_second", "peak_memory")


class MetricRow(NamedTuple):
    """One metric of one cell, beside what was published for it."""

    run: str
    suite: str
    level: str
    category: str
    kind: str
    model: str
    pipeline: str
    seed: int
    device: str
    dtype: str
    torch: str
    commit: str
    image_side: int | None
    metric: str
    value: float | None
    unit: str
    n: int | None
    spread: float | None
    tag: str
    reason: str | None
    published: float | None
    published_source: str | None


class CellColumns(NamedTuple):
    """Which cell a row is of, and under what it was measured."""

    run: str
    suite: str
    category: str
    kind: str
    model: str
    pipeline: str
    seed: int
    device: str
    dtype: str
    torch: str
    commit: str


def has_side(unit: str) -> bool:
    """Whether more or less of a metric is better; of a count of what was done and of an epoch's number neither is."""
    return unit not in {"count", "epoch"}


def is_energy(metric: str) -> bool:
    """Whether *metric* is told with the energies."""
    return metric.startswith("energy_") or metric.endswith("_energy")


def accuracy_rows(records: list[CellRecord]) -> list[MetricRow]:
    """Return the rows of `auroc.csv`: every cell's, then the means."""
    rows = [_row(record, metric) for record in records for metric in record.metrics if metric.name in ACCURACY]
    return rows + mean_rows(rows)


def timing_rows(records: list[CellRecord]) -> list[MetricRow]:
    """Return the rows of `timing.csv`: every metric that is neither accuracy nor energy."""
    return [
        _row(record, metric)
        for record in records
        for metric in record.metrics
        if metric.name not in ACCURACY and not is_energy(metric.name)
    ]


def energy_rows(records: list[CellRecord]) -> list[MetricRow]:
    """Return the rows of `energy.csv`."""
    return [_row(record, metric) for record in records for metric in record.metrics if is_energy(metric.name)]


def mean_rows(rows: list[MetricRow]) -> list[MetricRow]:
    """Return the means over categories, of each kind and of all, where there are two or more."""
    groups: dict[tuple[object, ...], list[MetricRow]] = {}
    for row in rows:
        if row.value is not None:
            for level in (f"mean_{row.kind}", "mean_all"):
                key = (row.model, row.pipeline, row.seed, row.device, row.dtype, level, row.metric)
                groups.setdefault(key, []).append(row)
    return [_mean(str(key[5]), group) for key, group in groups.items() if len(group) > 1]


def cell_columns(record: CellRecord) -> CellColumns:
    """Return the columns that say which cell *record* is of."""
    return CellColumns(*(getattr(record, name) for name in CellColumns._fields))


def _row(record: CellRecord, metric: Metric) -> MetricRow:
    beside = published(record.category, record.model, metric.name)
    return MetricRow(
        run=record.run,
        suite=record.suite,
        level="cell",
        category=record.category,
        kind=record.kind,
        model=record.model,
        pipeline=record.pipeline,
        seed=record.seed,
        device=record.device,
        dtype=record.dtype,
        torch=record.torch,
        commit=record.commit,
        image_side=record.image_side,
        metric=metric.name,
        value=metric.value,
        unit=metric.unit,
        n=metric.n,
        spread=metric.spread,
        tag=metric.tag,
        reason=metric.reason,
        published=beside.value if beside else None,
        published_source=beside.source if beside else None,
    )


def _mean(level: str, rows: list[MetricRow]) -> MetricRow:
    """Return the mean over *rows*, one metric of one model, pipeline and seed on several categories."""
    values = [row.value for row in rows if row.value is not None]
    beside = [row.published for row in rows if row.published is not None]
    whole = len(beside) == len(rows)
    return rows[0]._replace(
        level=level,
        category="",
        kind=rows[0].kind if level != "mean_all" else "",
        torch=_agreed([row.torch for row in rows]),
        commit=_agreed([row.commit for row in rows]),
        image_side=None,
        value=fmean(values),
        n=len(values),
        spread=spread(values),
        tag="measured" if all(row.tag == "measured" for row in rows) else "estimated",
        reason=None,
        published=fmean(beside) if whole else None,
        published_source=rows[0].published_source if whole else None,
    )


def _agreed(words: list[str]) -> str:
    return words[0] if len(set(words)) == 1 else ""
