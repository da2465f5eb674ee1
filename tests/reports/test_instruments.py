"""What a record says of stages and of its own instruments: on the page, in the CSV files, and where it is missing."""

import re
from pathlib import Path

import pandas as pd
import pytest
from report_runs import NO_RESOURCE, NO_WINDOW, SHARES, Build, Spec, look, made_old, pair, record

from profiles.record import CellRecord, ProfilerWindow, RankTotal, StepTime
from reports.claims.verdicts import claim_rows
from reports.commands import write_report
from reports.page import breakdown, instruments
from reports.page.answer import answers
from reports.page.listings import caveats, cells_table
from reports.page.ranks import ranks_table
from reports.page.tables import Entry, Table, identity
from reports.rows import details
from reports.source.load import read_run


def table(make: object, records: list[CellRecord]) -> list[dict[str, Entry]]:
    """Return a table's rows, an entry per heading."""
    found: Table = make(records, identity(records, None))  # type: ignore[operator]
    return [{c.label: e for c, e in zip(found.columns, row, strict=True)} for row in found.rows]


def csv(out: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(out / f"{name}.csv")


@pytest.fixture
def written(build: Build, tmp_path: Path) -> Path:
    return write_report(read_run(build(*pair("carpet", 100.0, 110.0))), tmp_path / "report").parent


def test_stages_carry_the_spread_and_busy_time_of_the_record(written: Path) -> None:
    totals = record(Spec()).stage_totals
    stages = csv(written, "stages")
    ours = stages[stages["model"] == "msa"].reset_index()
    for column in ("exposed_s", "share", "spread_s", "share_spread", "busy_s"):
        expected = pd.Series([getattr(total, column) for total in totals], dtype=float, name=column)
        pd.testing.assert_series_equal(ours[column], expected)
    assert ours["busy_tag"].tolist() == [total.busy_tag for total in totals]
    assert set(ours["busy_reason"].dropna()) == {NO_RESOURCE, NO_WINDOW}


def test_a_stages_exposed_and_busy_time_stand_in_columns_that_say_which() -> None:
    records = [record(Spec())]
    found = breakdown.stage_table("train", records, identity(records, None))
    assert found is not None
    units = {column.label: column.unit for column in found.columns}
    assert {units[name] for name in ("Forward", "Backward", "Whole")} == {"s, exposed"}
    assert units["Busy"] == "s, busy"
    rows = {row[4].text: row for row in found.rows}
    assert (rows["attention"][8].text, rows["attention"][8].note) == ("52.65", "estimated")
    assert (rows["data loading"][8].text, rows["data loading"][8].note) == ("85.50", "")
    assert rows["unattributed"][8].missing
    assert found.footnotes == (f"Note 1: busy time: {NO_RESOURCE}",)


def test_the_spread_of_a_stage_is_over_epochs_and_one_epoch_has_none() -> None:
    records = [record(Spec())]
    train, evaluation = (breakdown.stage_table(p, records, identity(records, None)) for p in ("train", "evaluation"))
    assert train is not None
    assert evaluation is not None
    notes = {row[4].text: row[9].note for row in train.rows}
    assert notes["attention"] == "n\u00a05, IQR\u00a0forward\u00a01.2\u00a0%, IQR\u00a0backward\u00a01.2\u00a0%"
    assert {row[9].note for row in evaluation.rows} == {"n\u00a01"}


def test_parts_of_loading_stand_beside_the_wait_for_it() -> None:
    (row,) = table(breakdown.loader_table, [record(Spec())])
    assert (row["Phase"].text, row["Decode"].text, row["Copy"].text) == ("train", "301.5", "4.250")
    assert row["Resize"].missing
    assert row["Loading waited for"].text == "171.0"
    found = breakdown.loader_table([record(Spec())], identity([record(Spec())], None))
    assert found is not None
    assert {c.unit for c in found.columns if c.numeric and c.label != "Seed"} == {"CPU s, busy", "s, exposed"}


def test_stages_and_unattributed_are_the_wall_time(written: Path) -> None:
    closure = csv(written, "closure")
    assert (closure["stages_s"] + closure["unattributed_s"]).tolist() == pytest.approx(closure["wall_s"].tolist())
    assert (closure["unattributed_share"] * closure["wall_s"]).tolist() == pytest.approx(
        closure["unattributed_s"].tolist()
    )


def test_what_lies_beyond_its_bound_is_marked() -> None:
    train, evaluation = table(instruments.closure_table, [record(Spec())])
    assert [row["Unattributed share"].note for row in (train, evaluation)] == ["beyond the bound"] * 2
    assert train["Residual"].note == ""
    changed = {"unattributed_s": 0.1, "residual_s": 0.1}
    closures = tuple(closure.model_copy(update=changed) for closure in record(Spec()).closures)
    train, evaluation = table(instruments.closure_table, [record(Spec()).model_copy(update={"closures": closures})])
    assert [row["Unattributed share"].note for row in (train, evaluation)] == ["", ""]
    assert [row["Residual"].note for row in (train, evaluation)] == ["beyond the bound"] * 2  # of 90 and 30 ms


def test_one_clock_has_no_residual_rather_than_one_of_zero(written: Path) -> None:
    two_clocks, one_clock = table(instruments.closure_table, [record(Spec())])
    assert two_clocks["Residual"].text == "4.000"
    assert (one_clock["Residual"].missing, one_clock["Residual"].text) == (True, "\u2013")
    assert csv(written, "closure")["residual_s"].isna().tolist() == [False, True] * 2


def test_a_step_under_an_instrument_names_the_baseline_of_its_ratio(written: Path) -> None:
    (row,) = table(instruments.steps_table, [record(Spec())])
    assert (row["Bare"].text, row["Bare"].note) == ("0.150", "IQR\u00a00.002, n\u00a016")
    assert row["Clock"].note == "IQR\u00a00.002, n\u00a016, 1.020\u00a0\u00d7\u00a0bare"
    assert row["In window"].note == "n\u00a01, 1.31\u00a0\u00d7\u00a0clock"
    assert (row["After"].text, row["After"].missing) == ("unavailable", True)
    steps = csv(written, "steps")
    assert steps["baseline"].fillna("").tolist() == ["", "bare", "clock"] * 2
    assert steps.loc[steps["state"] == "bare", "ratio"].isna().all()


def test_a_step_after_the_window_is_compared_to_one_before_it_under_the_same_clock() -> None:
    seen = look(2)
    after = StepTime(state="after", n=16, median_s=0.306, spread_s=0.002)
    later = record(Spec()).model_copy(
        update={"observations": (seen.model_copy(update={"steps": (*seen.steps, after)}),)}
    )
    (row,) = table(instruments.steps_table, [later])
    assert row["After"].note.endswith("2.000\u00a0\u00d7\u00a0clock")


def test_clock_and_profiler_stand_side_by_side_with_their_difference() -> None:
    rows = table(instruments.routes_table, [record(Spec())])
    assert len(rows) == len(SHARES)
    loss = next(row for row in rows if (row["Stage"].text, row["Direction"].text) == ("loss", "backward"))
    assert (loss["Clock"].text, loss["Profiler"].text, loss["Difference"].text) == (
        "3.1\u00a0%",
        "3.0\u00a0%",
        "+0.10",
    )
    assert loss["Difference"].note == ""


def test_of_several_windows_the_page_shows_where_the_routes_differ_most_and_the_file_all(
    build: Build, tmp_path: Path
) -> None:
    worse = look(4)
    assert worse.window is not None
    cells = tuple(
        cell.model_copy(update={"clock_share": cell.clock_share - 0.03}) if cell.stage == "head" else cell
        for cell in worse.window.cells
    )
    worse = worse.model_copy(update={"window": worse.window.model_copy(update={"cells": cells})})
    both = record(Spec()).model_copy(update={"observations": (look(2), worse)})
    head = next(row for row in table(instruments.routes_table, [both]) if row["Stage"].text == "head")
    assert (head["Epoch"].text, head["Epoch"].note) == ("4", "of n\u00a02")
    assert (head["Difference"].text, head["Difference"].note) == ("\u22123.00", "beyond the bound")
    assert len(details.route_rows(both)) == 2 * len(SHARES)


def test_a_window_tells_what_it_took_and_where_its_trace_lies(written: Path) -> None:
    seen, unseen = table(instruments.windows_table, [record(Spec())])
    assert (seen["Steps"].text, seen["Events"].text, seen["File"].text) == ("3", "12,369", "0.2236")
    assert seen["Trace"].text == "cells/carpet/msa-fast/seed0/traces/epoch0002.pt.trace.json.gz"
    assert seen["Memory"].missing
    assert all(unseen[name].text == "unavailable" for name in ("Steps", "Events", "Wall", "Memory", "File", "Trace"))
    windows = csv(written, "windows")
    assert windows["reason"].fillna("").tolist() == ["", "4 steps are too few to look at"] * 2
    assert windows["events"].isna().tolist() == [False, True] * 2


def test_a_trace_that_was_thinned_out_is_not_looked_for() -> None:
    thinned = record(Spec()).model_copy(update={"observations": (look(2, trace=None),)})
    (row,) = table(instruments.windows_table, [thinned])
    assert (row["Trace"].text, row["Trace"].missing) == ("not kept", True)
    (window,) = details.window_rows(thinned)
    assert window.trace is None


def test_a_window_without_cells_still_makes_a_row() -> None:
    window = ProfilerWindow(
        epoch=2, steps=1, events=1, resident_bytes=1, trace=None, trace_bytes=1, wall_s=1.0, busy_s=1.0, cells=()
    )
    bare = record(Spec()).model_copy(update={"observations": (look(2).model_copy(update={"window": window}),)})
    assert [row.largest_difference for row in details.window_rows(bare)] == [None]


def test_the_cells_say_what_bounds_their_training_and_by_which_numbers(build: Build) -> None:
    run = read_run(build(Spec(), Spec(seed=1, status="pending")))
    found = cells_table(run, identity(run.records, None))
    done, pending = ({c.label: e for c, e in zip(found.columns, row, strict=True)} for row in found.rows)
    names = ("Training is", "Input", "Compute", "Host")
    assert [done[name].text for name in names] == ["mixed", "38.0\u00a0%", "45.0\u00a0%", "17.0\u00a0%"]
    assert [pending[name].text for name in names] == ["\u2013"] * 4


def test_the_answer_tells_what_bounds_the_training() -> None:
    msa, mlsa = (record(spec) for spec in pair("carpet", 100.0, 110.0))
    told = answers([msa, mlsa], claim_rows([msa, mlsa]))[0].sentences[1]
    assert told.text.endswith("; what sets the pace is no single thing in all 2 cells.")
    assert msa.verdict is not None
    waits = msa.model_copy(update={"verdict": msa.verdict.model_copy(update={"bound": "input-bound"})})
    told = answers([waits, mlsa], claim_rows([waits, mlsa]))[0].sentences[1]
    assert told.text.endswith(
        "; what sets the pace is waiting for input in 1 of 1 cell with MSA, "
        "and no single thing in 1 of 1 cell with MLSA."
    )
    assert "MSA: input 38.0\u00a0%, compute 45.0\u00a0%, host 17.0\u00a0%, n\u00a01" in told.evidence
    unknown = [found.model_copy(update={"verdict": None}) for found in (msa, mlsa)]
    assert "what sets the pace is unknown" in answers(unknown, claim_rows(unknown))[0].sentences[1].text


def test_every_caveat_of_every_record_is_on_the_page(build: Build, tmp_path: Path) -> None:
    specs = [
        Spec(seed=seed, caveats=(f"{seed}.5% of train is unattributed; the bound is 2%", "the clock was <not> locked"))
        for seed in range(5)
    ]
    page = write_report(read_run(build(*specs)), tmp_path / "report").read_text(encoding="utf-8")
    for caveat in {caveat for spec in specs for caveat in spec.caveats}:
        shown = caveat.replace("<", "&lt;").replace(">", "&gt;")
        assert re.search(rf"<li><bdi>{re.escape(shown)}</bdi>", page)
    unlike, alike = sorted(caveats([record(spec) for spec in specs]), key=lambda group: len(group.found))
    assert (len(unlike.found), unlike.folded) == (1, False)
    assert (len(alike.found), alike.folded) == (5, True)


def test_a_record_of_an_older_version_makes_a_page_that_says_what_it_lacks(build: Build, tmp_path: Path) -> None:
    run = build(Spec())
    made_old(run, Spec())
    out = write_report(read_run(run), tmp_path / "report").parent
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "No record holds closures or close looks at steps." in page
    for told in (
        "Whether times add up",
        "What bounds the training",
        "Profiler windows",
        "CPU time of loading",
        "Energy of each stage",
    ):
        assert f"{told} (1 cell): the record does not hold it." in page
    assert "Busy time of stages: the record does not hold it." in page
    assert "IQR\u00a0unavailable" in page


def test_nothing_that_an_older_record_lacks_is_shown_as_zero(build: Build, tmp_path: Path) -> None:
    run = build(Spec())
    made_old(run, Spec())
    found = read_run(run)
    out = write_report(found, tmp_path / "report").parent
    stages, verdicts = csv(out, "stages"), csv(out, "verdicts")
    assert stages[["busy_s", "spread_s", "share_spread"]].isna().all(axis=None)
    assert set(stages["busy_tag"]) == {"unavailable"}
    assert verdicts[["bound", "input_share", "compute_share", "host_share"]].isna().all(axis=None)
    for name in ("loader", "closure", "steps", "windows", "routes", "phase_energy", "stage_energy"):
        assert csv(out, name).empty
    (row,) = cells_table(found, identity(found.records, None)).rows
    assert [entry.text for entry in row[6:10]] == ["unavailable"] * 4
    train = breakdown.stage_table("train", found.records, identity(found.records, None))
    assert train is not None
    assert {row[8].text for row in train.rows} == {"unavailable"}


def test_ranks_are_summed_and_the_slowest_is_named() -> None:
    totals = (
        RankTotal(
            phase="train", stage="attention", direction="backward", summed_s=30.0, slowest_s=20.0, slowest_rank=1
        ),
        RankTotal(phase="train", stage="transfer", direction="none", summed_s=0.0, slowest_s=0.0, slowest_rank=0),
    )
    several = record(Spec()).model_copy(update={"ranks": 2, "rank_totals": totals})
    rows = table(ranks_table, [record(Spec()), several])
    assert [row["Stage"].text for row in rows] == ["attention", "transfer"]
    assert (rows[0]["All ranks"].text, rows[0]["All ranks"].note) == ("30.00", "n\u00a02")
    assert (rows[0]["Slowest rank"].text, rows[0]["Slowest rank"].note) == ("20.00", "rank 1")
    assert rows[0]["Slowest / mean"].text == "1.33"
    assert rows[1]["Slowest / mean"].missing
    assert "ranks" not in [
        each.ident for each in instruments.tables([record(Spec())], identity([record(Spec())], None))
    ]
