"""The CSV files, read back, and the tables of the page."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import NoneType
from typing import get_args, get_type_hints

import pandas as pd
import pytest
from report_runs import NO_ENERGY, Build, Spec, metered, pair, record

from profiles.bounds import ROUTES_BOUND, UNATTRIBUTED_BOUND
from profiles.record import UNATTRIBUTED, CellRecord, Metric
from reports.claims.alone import checks
from reports.claims.verdicts import claim_rows
from reports.commands import write_report
from reports.page.tables import identity, metric_table
from reports.rows.claims import CheckRow, ClaimRow
from reports.rows.details import (
    ClosureRow,
    LoaderPartRow,
    RouteRow,
    StageShareRow,
    StepRow,
    VerdictRow,
    WindowRow,
)
from reports.rows.energy import PhaseEnergyRow, StageEnergyRow
from reports.rows.metrics import (
    ACCURACY,
    TIMING,
    CellColumns,
    MetricRow,
    accuracy_rows,
    mean_rows,
    timing_rows,
)
from reports.rows.work import WorkRow
from reports.source.load import read_run
from reports.source.published import published

METRIC_COLUMNS = (
    "run,suite,level,category,kind,model,pipeline,seed,device,dtype,torch,commit,image_side,"
    "metric,value,unit,n,spread,tag,reason,published,published_source"
)
CELL_COLUMNS = "run,suite,category,kind,model,pipeline,seed,device,dtype,torch,commit,"
DETAIL_COLUMNS = {
    "stages.csv": "phase,stage,direction,exposed_s,share,share_spread,n,tag,busy_s,busy_tag,busy_reason,spread_s",
    "loader.csv": "phase,part,busy_s",
    "verdicts.csv": "bound,input_share,compute_share,host_share,reason",
    "closure.csv": "phase,wall_s,stages_s,unattributed_s,unattributed_share,unattributed_bound,residual_s,n",
    "steps.csv": "epoch,state,median_s,spread_s,n,baseline,ratio",
    "windows.csv": (
        "epoch,steps,events,resident_bytes,trace,trace_bytes,wall_s,busy_s,stages_busy_s,largest_difference,reason"
    ),
    "routes.csv": "epoch,stage,direction,clock_share,profiler_share,difference,bound,exposed_s,busy_s",
    "work.csv": "stage,direction,flops,least_bytes,intensity,time_s,time_kind,flops_per_s",
    "phase_energy.csv": "phase,drawn_by,energy_j,error_j,method,idle_w,n,reason",
    "stage_energy.csv": (
        "phase,drawn_by,stage,direction,exposed_s,energy_j,error_j,above_idle_j,share,tag,method,reason"
    ),
}
CLAIM_COLUMNS = (
    "claim,statement,pipeline,device,dtype,effect,published,published_count,published_p_value,"
    "measured,measured_count,spread,n,p_value,tag,test,verdict,why,section,quote,low,high,p_adjusted,"
    "published_low,published_high,published_p_adjusted,published_verdict"
)


@pytest.fixture
def written(build: Build, tmp_path: Path) -> Path:
    specs = [*pair("carpet", 100.0, 110.0), *pair("bottle", 50.0, 52.0, kind="object", segmentation=90.0)]
    return write_report(read_run(build(*specs)), tmp_path / "report").parent


@pytest.mark.parametrize(
    ("file", "columns"),
    [
        ("auroc.csv", METRIC_COLUMNS),
        ("timing.csv", METRIC_COLUMNS),
        ("energy.csv", METRIC_COLUMNS),
        ("claims.csv", CLAIM_COLUMNS),
        ("published.csv", "check,statement,source,printed,computed,unit,verdict,detail"),
        *((file, CELL_COLUMNS + columns) for file, columns in DETAIL_COLUMNS.items()),
    ],
)
def test_columns_are_as_promised(written: Path, file: str, columns: str) -> None:
    assert ",".join(pd.read_csv(written / file).columns) == columns


METRIC_UNITS = {"auroc.csv": {"%"}, "timing.csv": {"s", "1/s", "epoch", "bytes", "count"}, "energy.csv": {"J"}}
BASELINES = {"clock": "bare", "window": "clock", "after": "clock"}


def expected_metrics(file: str, r: CellRecord) -> list[dict[str, object]]:
    """Return what a file of metrics is to hold of a cell, from the record and the published tables."""
    return [
        metric.model_dump()
        | {"level": "cell", "metric": metric.name, "image_side": r.image_side}
        | {"published": found and found.value, "published_source": found and found.source}
        for metric in r.metrics
        if metric.unit in METRIC_UNITS[file]
        for found in [published(r.category, r.model, metric.name)]
    ]


def expected_closures(r: CellRecord) -> list[dict[str, object]]:
    return [
        closure.model_dump()
        | {"n": closure.epochs, "unattributed_bound": UNATTRIBUTED_BOUND}
        | {"unattributed_share": closure.unattributed_s / closure.wall_s}
        | {
            "stages_s": sum(
                t.exposed_s for t in r.stage_totals if (t.phase, t.stage != UNATTRIBUTED) == (closure.phase, True)
            )
        }
        for closure in r.closures
    ]


def expected_steps(r: CellRecord) -> list[dict[str, object]]:
    return [
        step.model_dump()
        | {"epoch": seen.epoch, "baseline": baseline}
        | {"ratio": step.median_s / by_state[baseline] if baseline else None}
        for seen in r.observations
        for by_state in [{step.state: step.median_s for step in seen.steps}]
        for step in seen.steps
        for baseline in [BASELINES.get(step.state)]
    ]


def expected_windows(r: CellRecord) -> list[dict[str, object]]:
    none = dict.fromkeys(("steps", "events", "resident_bytes", "trace", "trace_bytes", "wall_s", "busy_s"))
    folder = f"cells/{r.category}/{r.model}-{r.pipeline}/seed{r.seed}/traces"
    return [
        none
        | ({} if window is None else window.model_dump() | {"trace": f"{folder}/{window.trace}"})
        | {"stages_busy_s": window and sum(cell.busy_s for cell in window.cells)}
        | {"largest_difference": window and max(abs(c.clock_share - c.profiler_share) for c in window.cells)}
        | {"epoch": seen.epoch, "reason": seen.reason}
        for seen in r.observations
        for window in [seen.window]
    ]


def expected_routes(r: CellRecord) -> list[dict[str, object]]:
    return [
        cell.model_dump()
        | {"epoch": seen.epoch, "difference": cell.clock_share - cell.profiler_share, "bound": ROUTES_BOUND}
        for seen in r.observations
        for cell in (seen.window.cells if seen.window else ())
    ]


def expected_work(r: CellRecord) -> list[dict[str, object]]:
    spent_s = {(t.stage, t.direction): t.busy_s for t in r.stage_totals if t.phase == "train"}
    windows = 5 * r.windows_per_epoch
    return [
        work.model_dump()
        | {"intensity": work.flops / work.least_bytes, "time_s": busy_s / windows, "time_kind": "busy"}
        | {"flops_per_s": work.flops / (busy_s / windows)}
        for work in r.work
        for busy_s in [spent_s[work.stage, work.direction] or 0.0]
    ]


def expected_stage_energies(r: CellRecord) -> list[dict[str, object]]:
    whole_j = {(total.phase, total.device): total.energy_j for total in r.energy_totals}
    return [
        part.model_dump()
        | {"drawn_by": part.device}
        | {"share": None if part.energy_j is None else part.energy_j / (whole_j[part.phase, part.device] or 0.0)}
        for part in r.stage_energies
    ]


EXPECTED: dict[str, tuple[type[tuple[object, ...]], Callable[[CellRecord], list[dict[str, object]]]]] = {
    **{file: (MetricRow, partial(expected_metrics, file)) for file in METRIC_UNITS},
    "stages.csv": (StageShareRow, lambda r: [total.model_dump() | {"n": total.epochs} for total in r.stage_totals]),
    "loader.csv": (LoaderPartRow, lambda r: [total.model_dump() for total in r.loader_totals]),
    "verdicts.csv": (VerdictRow, lambda r: [r.verdict.model_dump()] if r.verdict else []),
    "closure.csv": (ClosureRow, expected_closures),
    "steps.csv": (StepRow, expected_steps),
    "windows.csv": (WindowRow, expected_windows),
    "routes.csv": (RouteRow, expected_routes),
    "work.csv": (WorkRow, expected_work),
    "phase_energy.csv": (
        PhaseEnergyRow,
        lambda r: [total.model_dump() | {"drawn_by": total.device, "n": total.epochs} for total in r.energy_totals],
    ),
    "stage_energy.csv": (StageEnergyRow, expected_stage_energies),
}
"""Of each file that holds what records hold: the type of its rows, and what it is to hold of a cell."""


@pytest.fixture
def known(build: Build, tmp_path: Path) -> tuple[Path, list[CellRecord]]:
    """Return a report of cells of which everything is measured, and their records."""
    specs = [*pair("carpet", 100.0, 110.0), *pair("bottle", 50.0, 52.0, kind="object", segmentation=90.0)]
    run = read_run(build(*map(metered, specs)))
    return write_report(run, tmp_path / "report").parent, run.records


def read_back(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, keep_default_na=False, na_values=[""])


def assert_types(frame: pd.DataFrame, hints: dict[str, object]) -> None:
    """Check that each column that holds anything has its type; whole numbers of which one is absent are floats."""
    for column in frame:
        kinds, values = get_args(hints[str(column)]) or (hints[str(column)],), frame[column].dropna()
        if float in kinds:
            assert pd.api.types.is_float_dtype(values), column
        elif int in kinds:
            assert pd.api.types.is_integer_dtype(values) or (NoneType in kinds and (values % 1 == 0).all()), column
        else:
            assert values.map(type).isin([str]).all(), column


def assert_values(frame: pd.DataFrame, expected: list[dict[str, object]]) -> None:
    """Check each value; an empty text is an empty field, as what is absent."""
    assert len(frame) == len(expected) > 0
    for column in map(str, frame):
        found = [None if pd.isna(value) else value for value in frame[column]]
        assert found == [None if row[column] == "" else row[column] for row in expected], column


@pytest.mark.parametrize("file", EXPECTED)
def test_every_column_has_its_type_and_every_value_is_the_records(
    known: tuple[Path, list[CellRecord]], file: str
) -> None:
    (folder, records), (kind, expected) = known, EXPECTED[file]
    frame = read_back(folder / file)
    assert_types(frame, get_type_hints(CellColumns) | get_type_hints(kind))
    of_cells = frame[frame["level"] == "cell"] if "level" in frame else frame
    cells = [(r, {name: getattr(r, name) for name in CellColumns._fields}) for r in records]
    assert_values(of_cells, [row | columns for r, columns in cells for row in expected(r)])


def test_claims_and_checks_are_read_back_as_they_were_computed(known: tuple[Path, list[CellRecord]]) -> None:
    folder, records = known
    files: dict[str, Sequence[ClaimRow | CheckRow]] = {"claims.csv": claim_rows(records), "published.csv": checks()}
    for file, rows in files.items():
        frame = read_back(folder / file)
        assert_types(frame, get_type_hints(type(rows[0])))
        assert_values(frame, [row._asdict() for row in rows])


def test_every_file_is_read_back(known: tuple[Path, list[CellRecord]]) -> None:
    assert {path.name for path in known[0].glob("*.csv")} == {*EXPECTED, "claims.csv", "published.csv"}


def test_a_count_that_does_not_apply_is_empty(written: Path) -> None:
    timing = pd.read_csv(written / "timing.csv", dtype={"n": "Int64"})
    assert timing.loc[timing["metric"] == "time_per_epoch", "n"].tolist() == [5] * 4
    assert timing.loc[timing["metric"] == "parameters", "n"].isna().all()


def test_every_metric_is_in_exactly_one_file(written: Path) -> None:
    names = [name for f in ("auroc", "timing", "energy") for name in set(pd.read_csv(written / f"{f}.csv")["metric"])]
    assert sorted(names) == sorted(metric.name for metric in record(Spec()).metrics)


def test_what_is_unavailable_is_empty_and_never_zero(written: Path) -> None:
    energy = pd.read_csv(written / "energy.csv")
    assert energy["value"].isna().all()
    assert set(energy["tag"]) == {"unavailable"}
    assert set(energy["reason"]) == {NO_ENERGY}


def test_published_values_stand_beside_the_measured(written: Path) -> None:
    auroc = pd.read_csv(written / "auroc.csv").set_index(["level", "category", "model", "metric"])
    row = auroc.loc[("cell", "carpet", "mlsa", "segmentation_auroc")]
    assert (row["published"], row["published_source"]) == (91.52, "table 5.1")


def test_means_are_computed_over_the_same_categories() -> None:
    rows = accuracy_rows([record(Spec(segmentation=80.0)), record(Spec("bottle", kind="object", segmentation=91.0))])
    (mean,) = [row for row in rows if row.level != "cell" and row.metric == "segmentation_auroc"]
    assert (mean.level, mean.value, mean.n, mean.spread) == ("mean_all", 85.5, 2, 5.5)
    assert mean.published == pytest.approx((90.44 + 65.82) / 2)


def test_a_mean_has_no_published_side_where_one_category_was_not_published() -> None:
    rows = accuracy_rows([record(Spec()), record(Spec("striped"))])
    means = [row for row in rows if row.level == "mean_all"]
    assert means
    assert all(row.published is None for row in means)


def test_a_mean_leaves_out_what_is_unavailable() -> None:
    gone = Metric(name="segmentation_auroc", value=None, unit="%", tag="unavailable", reason="no defect")
    specs = [Spec(), Spec("grid", segmentation=70.0), Spec("wood", values={gone.name: gone})]
    rows = accuracy_rows([record(spec) for spec in specs])
    (mean,) = [row for row in rows if row.level == "mean_all" and row.metric == "segmentation_auroc"]
    assert (mean.value, mean.n) == (75.0, 2)


def test_one_cell_has_no_mean() -> None:
    assert mean_rows(accuracy_rows([record(Spec())])) == []


def test_shares_of_a_phase_sum_to_one_with_unattributed(written: Path) -> None:
    stages = pd.read_csv(written / "stages.csv")
    sums = stages.groupby(["category", "model", "phase"])["share"].sum()
    assert sums.tolist() == pytest.approx([1.0] * len(sums))
    assert set(stages["phase"]) == {"train", "evaluation"}
    assert "unattributed" in set(stages["stage"])


def test_device_and_dtype_become_columns_where_records_differ() -> None:
    records = [record(Spec()), record(replace(Spec(seed=1), device="cuda:0"))]
    who = identity(records, None)
    assert who.fields == ("category", "model", "pipeline", "seed", "device")
    table = metric_table("t", "T", timing_rows(records), (), who)
    assert [row[4].text for row in table.rows] == ["cpu", "cuda:0"]
    assert "device" not in table.detail
    assert "dtype float32, torch 2.13.0, commit 0123456789ab" in table.detail


def test_a_column_without_a_measured_number_is_told_in_the_unit_of_the_published() -> None:
    gone = Metric(name="training_time", value=None, unit="s", tag="unavailable", reason="not trained to the end")
    records = [record(Spec(values={gone.name: gone}))]
    table = metric_table("t", "t", timing_rows(records), TIMING, identity(records, None))
    (place,) = [n for n, column in enumerate(table.columns) if column.label == "Training time"]
    assert [column.unit for column in table.columns[place : place + 2]] == ["h", "h"]
    assert table.rows[0][place + 1].text == "220.7"


def test_detection_under_the_other_setting_of_rescaled_maps_stands_beside_detection() -> None:
    other = Metric(name="detection_auroc_rescaled", value=74.5, unit="%", n=83, tag="measured")
    records = [record(Spec(values={other.name: other}))]
    table = metric_table("t", "t", accuracy_rows(records), ACCURACY, identity(records, None))
    shown = {column.label: entry.text for column, entry in zip(table.columns, table.rows[0], strict=True)}
    places = [number for number, label in enumerate(shown) if label.startswith("Detection AUROC")]
    assert places[1] - places[0] <= 2  # what was published may come between
    assert shown["Detection AUROC, had each map been rescaled"] == "74.50"
    assert other.name not in {row.metric for row in timing_rows(records)}


def test_a_missing_number_points_at_its_reason() -> None:
    gone = Metric(name="peak_memory", value=None, unit="bytes", tag="unavailable", reason="no counter on a CPU")
    records = [record(Spec(values={gone.name: gone}))]
    table = metric_table("t", "T", timing_rows(records), (), identity(records, None))
    assert table.footnotes == ("Note 1: no counter on a CPU",)
    (entry,) = [entry for entry in table.rows[0] if entry.missing and entry.note == "note 1"]
    assert (entry.text, entry.sort) == ("unavailable", None)
