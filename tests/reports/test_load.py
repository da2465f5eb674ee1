"""Runs that are finished, partial, going on or damaged."""

import json
from dataclasses import replace
from functools import reduce
from operator import getitem
from pathlib import Path

import pytest
from report_runs import Build, Spec, manifest, pair, record

from profiles.errors import RunDirectoryError
from profiles.record import Metric
from reports.commands import write_report
from reports.compare.comparison import compare_runs
from reports.compare.words import told
from reports.source.load import is_within, read_run


def test_a_run_is_read_as_it_was_written(build: Build) -> None:
    spec = Spec()
    run = read_run(build(spec))
    assert run.records == [record(spec)]
    assert len(run.cells[0].epochs) == 6
    assert run.notes == ()
    assert run.cells[0].notes == ()


def test_states_are_counted(build: Build) -> None:
    run = read_run(build(Spec(), Spec(seed=1, status="failed", error="out of memory"), Spec(seed=2, status="pending")))
    assert run.states == {"done": 1, "failed": 1, "pending": 1}
    assert run.cells[1].why == "out of memory"
    assert run.cells[2].why == "Not started: it has no folder yet."


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match=r"got a folder without manifest.json; expected a run's directory"):
        read_run(tmp_path)
    with pytest.raises(RunDirectoryError, match="got no folder"):
        read_run(tmp_path / "absent")


def test_a_damaged_manifest_is_refused(build: Build) -> None:
    run = build(Spec())
    (run / "manifest.json").write_text("{", encoding="utf-8")
    with pytest.raises(RunDirectoryError, match="expected a Manifest of schema version 1"):
        read_run(run)


def test_a_damaged_record_costs_only_its_own_cell(build: Build) -> None:
    run = build(Spec(), Spec(seed=1))
    (run / "cells" / Spec(seed=1).name / "record.json").write_text('{"run": 1}', encoding="utf-8")
    found = read_run(run)
    assert [cell.state for cell in found.cells] == ["done", "damaged"]
    assert "record.json cannot be used" in found.cells[1].why


@pytest.mark.parametrize(
    "place",
    [
        "image_side",
        "batch_size",
        "steps_per_epoch",
        "windows_per_epoch",
        "ranks",
        "stage_totals.0.epochs",
        "closures.0.wall_s",
        "closures.0.epochs",
        "observations.0.steps.0.median_s",
        "work.0.least_bytes",
    ],
)
def test_a_record_with_a_0_to_divide_by_is_damaged_and_says_where(build: Build, place: str) -> None:
    run = build(Spec(), Spec(seed=1))
    path = run / "cells" / Spec(seed=1).name / "record.json"
    whole = json.loads(path.read_text(encoding="utf-8"))
    *way, last = [int(step) if step.isdecimal() else step for step in place.split(".")]
    reduce(getitem, way, whole)[last] = 0
    path.write_text(json.dumps(whole), encoding="utf-8")
    found = read_run(run)
    assert [cell.state for cell in found.cells] == ["done", "damaged"]
    assert f"Input should be greater than 0 at {place}" in found.cells[1].why


@pytest.mark.parametrize("metric", [metric.name for metric in record(Spec()).metrics])
def test_a_metric_of_0_is_reported_and_compared(build: Build, metric: str) -> None:
    usual = {found.name: found for found in record(Spec()).metrics}
    nothing = Metric(name=metric, value=0.0, unit=usual[metric].unit, tag="measured")
    specs = [replace(spec, values={metric: nothing}) for spec in pair("carpet", 100.0, 107.0)]
    run, whole = build(*specs, name="zero"), build(*pair("carpet", 100.0, 107.0), name="whole")
    write_report(read_run(run), run / "report")
    for sides in ((run, whole), (whole, run)):
        assert json.loads(told(compare_runs(*sides, 0.05), "json"))["metrics"]


def test_a_done_cell_without_its_record_is_damaged(build: Build) -> None:
    run = build(Spec())
    (run / "cells" / Spec().name / "record.json").unlink()
    assert read_run(run).cells[0].state == "damaged"


def test_a_torn_last_line_is_left_out_and_said(build: Build) -> None:
    run = build(Spec(status="running"))
    path = run / "cells" / Spec().name / "epochs.csv"
    path.write_text(path.read_text(encoding="utf-8") + "4,0.0", encoding="utf-8")
    cell = read_run(run).cells[0]
    assert [row.epoch for row in cell.epochs] == [1, 2, 3]
    assert cell.notes == ("epochs.csv: its last line is not whole and was left out.",)


def test_a_torn_number_that_still_reads_as_one_is_left_out(build: Build) -> None:
    run = build(Spec(status="running"))
    path = run / "cells" / Spec().name / "epochs.csv"
    path.write_text(path.read_text(encoding="utf-8").removesuffix("\n"), encoding="utf-8")
    assert [row.epoch for row in read_run(run).cells[0].epochs] == [1, 2]


def test_a_damaged_row_ends_what_is_read(build: Build) -> None:
    run = build(Spec())
    path = run / "cells" / Spec().name / "epochs.csv"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join([*lines[:3], "3,x,y\n", *lines[4:]]), encoding="utf-8")
    cell = read_run(run).cells[0]
    assert [row.epoch for row in cell.epochs] == [1, 2]
    assert cell.notes == ("epochs.csv: row 3 is damaged; it and what follows were left out.",)


@pytest.mark.parametrize("content", ["", "epoch,train_loss\n1,2\n"])
def test_a_table_without_its_columns_is_not_used(build: Build, content: str) -> None:
    run = build(Spec())
    (run / "cells" / Spec().name / "epochs.csv").write_text(content, encoding="utf-8")
    cell = read_run(run).cells[0]
    assert cell.epochs == ()
    assert cell.notes == ("epochs.csv lacks columns that it should have; none of it is used.",)


def test_further_columns_do_no_harm(build: Build) -> None:
    run = build(Spec())
    path = run / "cells" / Spec().name / "epochs.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("".join(f"x{i},{line}\n" for i, line in enumerate(lines)), encoding="utf-8")
    assert len(read_run(run).cells[0].epochs) == 6


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("../../victim", "damaged"),
        ("/etc/passwd", "damaged"),
        ("a/b", "damaged"),
        ("a/b/c/d", "damaged"),
        ("", "damaged"),
        ("x" * 300 + "/b/c", "pending"),
        ("a/\0/c", "pending"),
    ],
)
def test_a_cell_name_that_is_no_cell_leads_nowhere(build: Build, name: str, state: str) -> None:
    run = build(Spec())
    (run / "cells" / Spec().name).rename(run.parent / "victim")
    whole = manifest([]).model_copy(update={"cells": (name,)})
    (run / "manifest.json").write_text(whole.model_dump_json(), encoding="utf-8")
    (cell,) = read_run(run).cells
    assert (cell.state, cell.record, cell.epochs) == (state, None, ())


@pytest.mark.parametrize(
    ("name", "within"),
    [("a.png", True), ("../a", False), ("/a", False), ("a/b", False), ("..", False), ("/", False), ("", False)],
)
def test_only_a_plain_name_stays_within_its_folder(name: str, within: bool) -> None:  # noqa: FBT001 - a table
    assert is_within(name, 1) == within


def test_what_is_missing_beside_the_cells_is_said(build: Build) -> None:
    run = build(*pair("carpet", 1.0, 1.0))
    (run / "environment.json").unlink()
    (run / "config.toml").unlink()
    whole = manifest([Spec()])
    (run / "manifest.json").write_text(whole.model_dump_json(), encoding="utf-8")
    environment, config, strays = read_run(run).notes
    assert environment.startswith("environment.json cannot be used")
    assert config.startswith("config.toml is missing")
    assert strays == "On disk but not in the manifest, so not shown: carpet/mlsa-fast/seed0."
