"""Behind every picture the numbers that it draws, as a table."""

import math
import re

import pytest
from report_runs import Build, Spec, epoch_rows, metered, pair, record, write_telemetry

from profiles.record import EpochRow, write_csv
from reports.charts import bars, curves, power, tradeoff
from reports.charts.svg import Chart, Drawn
from reports.claims.pairs import Setting
from reports.commands import write_report
from reports.source.load import read_run
from reports.source.telemetry import read_telemetry


def numbers(chart: Chart | None) -> Drawn:
    assert chart is not None
    assert chart.drawn is not None
    return chart.drawn


def test_every_picture_of_the_page_stands_beside_a_table_of_what_it_draws(build: Build) -> None:
    specs = [metered(spec) for spec in pair("carpet", 100.0, 107.0)]
    run = build(*specs)
    write_telemetry(run, specs[0])
    page = write_report(read_run(run), run / "report").read_text(encoding="utf-8")
    pictures = set(re.findall(r'aria-labelledby="(\S+)-title', page))
    tables = dict(re.findall(r'<table id="(\S+)-numbers">(.*?)</table>', page, re.DOTALL))
    assert pictures == {
        "ratio0",
        "stages-chart",
        "roofline-chart",
        "power0",
        "loss0",
        "tradeoff-time",
        "tradeoff-energy",
    }
    assert set(tables) == pictures - {"roofline-chart"}
    assert '<table id="roofline">' in page
    for table in tables.values():
        rows = [row.count("<td>") for row in table.split("<tr>")[2:]]
        assert set(rows) == {table.count('<th scope="col">')}


def test_the_table_of_losses_holds_the_epochs_that_are_drawn_of_each_cell(build: Build) -> None:
    specs = pair("carpet", 100.0, 107.0)
    run = build(*specs)
    first = epoch_rows(specs[0], 500)
    first[299] = best = first[299]._replace(validation_loss=0.001)
    assert best not in curves.thinned(first)
    for spec, rows in zip(specs, (first, epoch_rows(specs[1], 4)), strict=True):
        write_csv(run / "cells" / spec.name / "epochs.csv", EpochRow._fields, rows)
    (panel,) = curves.panels(read_run(run).cells)
    found = numbers(panel.chart)
    assert found.columns == (
        "Epoch",
        *(f"{model}, seed 0: {loss}" for model in ("MSA", "MLSA") for loss in ("training", "validation")),
    )
    drawn = {row.epoch for row in [*curves.thinned(first), best]}
    assert {int(row[0]) for row in found.rows} == drawn | {1, 2, 3, 4}
    by_epoch = {int(row[0]): row for row in found.rows}
    assert float(by_epoch[best.epoch][2]) == pytest.approx(best.validation_loss, rel=1e-3)
    assert float(by_epoch[3][3]) == pytest.approx(0.2 / 3 + 0.01, rel=1e-3)
    assert by_epoch[499][3:] == ("", "")


def test_the_table_of_power_holds_the_points_that_are_drawn_of_each_device(build: Build) -> None:
    spec = metered(Spec())
    run = build(spec)
    folder = write_telemetry(run, spec, rows=6000)
    (panel,) = power.power_panels(read_run(run).cells).panels
    found, series = numbers(panel.chart), read_telemetry(folder).series
    assert found.columns[:4] == ("cuda:0: time, s", "cuda:0: power, W", "cuda:0: used, %", "cpu: time, s")
    assert len(found.rows) == len(series[0].time_s) == len(series[1].time_s)
    assert [float(row[1]) for row in found.rows] == pytest.approx(series[0].power_w, rel=1e-3)
    assert {row[4] for row in found.rows} == {"\u2013"}
    assert [float(row[5]) for row in found.rows] == pytest.approx(series[1].utilization_pct, rel=1e-3)


def test_ratios_shares_and_costs_are_told_as_they_are_drawn() -> None:
    records = [record(spec) for spec in pair("carpet", 100.0, 107.0)]
    ratio = numbers(bars.ratio_chart("r", records, Setting("fast", "cpu", "float32"), "msa", "mlsa"))
    assert [row[:2] for row in ratio.rows] == [("carpet", "1.070")]
    assert float(ratio.rows[0][2]) > 0.5
    shares = numbers(bars.stage_chart("s", records))
    for cell in ("carpet/msa-fast/seed0", "carpet/mlsa-fast/seed0"):
        rows = {row[1:3]: row[3:] for row in shares.rows if row[0] == cell}
        assert sum(float(exposed) for exposed, _ in rows.values()) == pytest.approx(100.0, abs=0.1)
        assert rows["data loading", "none"] == ("38.00", "19.00")
        assert rows["attention", "backward"] == ("8.000", "7.200")
        assert rows["unattributed", "none"] == ("3.000", "unavailable")
    cost = numbers(tradeoff.tradeoff_chart("t", records, "training_time"))
    assert cost.rows == (
        ("carpet", "MSA", "fast", "0", "10.00", "80.00"),
        ("carpet", "MLSA", "fast", "0", "10.70", "80.00"),
    )


def test_busy_stands_below_exposed_also_where_it_passes_the_whole_phase_and_where_nothing_waited_for_it() -> None:
    whole = record(Spec())
    wall_s = sum(total.exposed_s for total in whole.stage_totals if total.phase == "train")
    hidden = {"exposed_s": 0.0, "share": 0.0, "busy_s": 3.0 * 0.62 * wall_s}
    totals = [t.model_copy(update=hidden) if t.stage == "data_loading" else t for t in whole.stage_totals]
    chart = bars.stage_chart("s", [whole.model_copy(update={"stage_totals": tuple(totals)})])
    rows = {row[1:3]: row[3:] for row in numbers(chart).rows}
    assert rows["data loading", "none"] == ("0", "300.0")
    assert chart is not None
    told = re.findall(r"<title>(.*?)</title>", chart.svg)
    assert [title for title in told if title.startswith("data loading")] == [
        f"data loading: busy 300.0\u00a0%, {3.0 * 0.62 * wall_s:.1f} s, measured"
    ]
    assert "attention, backward: 8.0\u00a0%, 36.00 s" in told
    assert any(title.startswith("attention, backward: busy ") for title in told)
    assert not any(title.startswith("unattributed: busy") for title in told)
    assert ">300%<" in chart.svg


@pytest.mark.parametrize("busy_s", [None, -1.0, math.inf, math.nan, 1e300])
def test_what_is_no_busy_time_is_left_out_of_the_picture_and_unavailable_in_its_table(busy_s: float | None) -> None:
    whole = record(Spec())
    totals = tuple(total.model_copy(update={"busy_s": busy_s}) for total in whole.stage_totals)
    chart = bars.stage_chart("s", [whole.model_copy(update={"stage_totals": totals})])
    assert {row[4] for row in numbers(chart).rows} == {"unavailable"}
    assert chart is not None
    assert "busy" not in "".join(re.findall(r"<title>(.*?)</title>", chart.svg)[1:])
