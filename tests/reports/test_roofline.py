"""The stages' arithmetic against the device's own peak."""

import pytest
from report_runs import Build, Spec, environment, pair, record

from profiles.record import StageWork
from reports.charts.roofline import points, roof, roofline_chart
from reports.commands import write_report
from reports.page.roofline import roofline_table
from reports.page.tables import identity
from reports.rows.work import work_rows
from reports.source.load import read_run


def test_a_rate_is_arithmetic_over_measured_time() -> None:
    found = record(Spec())
    row = next(row for row in work_rows(found) if (row.stage, row.direction) == ("attention", "forward"))
    total = next(t for t in found.stage_totals if (t.stage, t.direction, t.phase) == ("attention", "forward", "train"))
    assert total.busy_s is not None
    assert row.time_kind == "busy"
    assert row.flops_per_s == pytest.approx(1_400_000 * 5 * 151_200 / total.busy_s)
    assert row.intensity == pytest.approx(25.0)


def test_measured_steps_are_what_their_times_are_divided_by() -> None:
    whole, some = record(Spec()), record(Spec()).model_copy(update={"step_s": (1.0, 1.0)})
    ratio = work_rows(some)[0].time_s / work_rows(whole)[0].time_s
    assert ratio == pytest.approx(151_200 / 512)


def test_the_roof_rises_with_intensity_and_then_is_flat() -> None:
    here = environment()
    assert roof(2.0, here) == pytest.approx(20e9)
    assert roof(100.0, here) == pytest.approx(50e9)
    assert roof(2.0, None) is None


def test_a_point_is_the_median_of_its_models_cells() -> None:
    records = [record(spec) for name in "abc" for spec in pair(name, 100.0, 110.0)]
    found = points(records, environment())
    assert {(point.model, point.n) for point in found} == {("msa", 3), ("mlsa", 3)}
    assert len(found) == 8
    table = roofline_table(found, environment(), identity(records, None))
    assert table is not None
    assert "50.00 GFLOP/s and 10.00 GB/s" in table.detail


def test_a_point_above_the_roof_is_called_wrong() -> None:
    records, slow = [record(Spec())], environment().model_copy(update={"flops_per_s": 1e3, "bytes_per_s": 1e3})
    found = points(records, slow)
    chart, table = roofline_chart("r", found, slow), roofline_table(found, slow, identity(records, None))
    assert chart is not None
    assert table is not None
    assert "a circle is MSA, hollow is backward; 4 of 4 lie above the roof" in chart.description
    assert {row[-1].note for row in table.rows} == {"above it: the time is too short to be right"}
    fast = environment().model_copy(update={"flops_per_s": 1e15, "bytes_per_s": 1e15})
    good = roofline_table(points(records, fast), fast, identity(records, None))
    assert good is not None
    assert {row[-1].note for row in good.rows} == {""}


def test_an_optimizer_is_judged_by_its_traffic_and_not_drawn() -> None:
    whole = record(Spec())
    update = StageWork(stage="optimizer", direction="none", flops=0, least_bytes=4590.0)
    found = points([whole.model_copy(update={"work": (*whole.work, update)})], environment())
    (point,) = (point for point in found if point.row.stage == "optimizer")
    assert point.part == pytest.approx(4590.0 / point.row.time_s / 10e9)
    table = roofline_table(found, environment(), identity([whole], None))
    assert table is not None
    row = next(row for row in table.rows if row[2].text == "optimizer")
    assert [row[place].text for place in (4, 6, 8)] == ["0", "0", "0"]
    assert row[9].sort == pytest.approx(4590.0 / point.row.time_s / 1e9)
    chart = roofline_chart("r", found, environment())
    assert chart is not None
    assert "optimizer" not in chart.svg
    assert roofline_chart("r", [point], environment()) is None


def test_without_the_devices_peak_there_is_a_table_and_no_picture(build: Build) -> None:
    older = environment().model_copy(update={"flops_per_s": None, "bytes_per_s": None})
    found = points([record(Spec())], older)
    assert roofline_chart("r", found, older) is None
    run = build(Spec())
    (run / "environment.json").write_text(older.model_dump_json(), encoding="utf-8")
    page = write_report(read_run(run), run / "report").read_text(encoding="utf-8")
    assert "Not drawn: the device&#39;s own peak" in page or "Not drawn: the device's own peak" in page


def test_a_rank_is_timed_on_its_own_part_of_the_windows() -> None:
    alone = record(Spec())
    both = alone.model_copy(update={"ranks": 2})
    for one, two in zip(work_rows(alone), work_rows(both), strict=True):
        assert two.time_s == pytest.approx(2.0 * one.time_s)
        assert two.flops_per_s == pytest.approx(one.flops_per_s / 2.0)
