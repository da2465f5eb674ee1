"""The CSV files, read back, and the tables of the page."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from report_runs import NO_ENERGY, Build, Spec, pair, record

from profiles.record import Metric
from reports.commands import write_report
from reports.page.tables import identity, metric_table
from reports.rows.metrics import TIMING, accuracy_rows, mean_rows, timing_rows
from reports.source.load import read_run

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


def test_types_survive_the_csv(written: Path) -> None:
    timing = pd.read_csv(written / "timing.csv", dtype={"n": "Int64"})
    assert pd.api.types.is_float_dtype(timing["value"])
    assert pd.api.types.is_integer_dtype(timing["seed"])
    assert timing.loc[timing["metric"] == "time_per_epoch", "n"].tolist() == [5] * 4
    assert timing.loc[timing["metric"] == "parameters", "n"].isna().all()


def test_values_equal_the_records(written: Path) -> None:
    timing = pd.read_csv(written / "timing.csv")
    ours = timing[(timing["category"] == "carpet") & (timing["model"] == "mlsa")].set_index("metric")["value"]
    expected = {m.name: m.value for m in record(pair("carpet", 100.0, 110.0)[1]).metrics}
    assert ours.to_dict() == {name: expected[name] for name in ours.index}
    assert set(ours.index) >= {"time_per_epoch", "training_time", "best_epoch", "windows_per_second", "peak_memory"}


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


def test_a_missing_number_points_at_its_reason() -> None:
    gone = Metric(name="peak_memory", value=None, unit="bytes", tag="unavailable", reason="no counter on a CPU")
    records = [record(Spec(values={gone.name: gone}))]
    table = metric_table("t", "T", timing_rows(records), (), identity(records, None))
    assert table.footnotes == ("Note 1: no counter on a CPU",)
    (entry,) = [entry for entry in table.rows[0] if entry.missing and entry.note == "note 1"]
    assert (entry.text, entry.sort) == ("unavailable", None)
