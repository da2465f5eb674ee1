"""Energy of phases and stages: on the page, in the CSV files, and where it is not known."""

import re
from pathlib import Path

import pandas as pd
import pytest
from report_runs import (
    EVALUATION,
    EVALUATION_J,
    NO_ENERGY,
    NO_RAPL,
    SHARES,
    SQUARES,
    TOO_FAST,
    TOO_FEW,
    TRAIN_J,
    Build,
    Spec,
    made_old,
    metered,
    pair,
    record,
    unmetered,
)

from profiles.record import CellRecord
from reports.commands import write_report
from reports.page.energies import not_known, of_run, phases_table, stages_table, tables, why_none
from reports.page.tables import Entry, Table, identity
from reports.rows.metrics import energy_rows
from reports.source.load import read_run

METERED = record(metered(Spec()))
HOW = "How it is known"


def rows(found: Table | None) -> list[dict[str, Entry]]:
    """Return a table's rows, an entry per heading."""
    assert found is not None
    return [{c.label: e for c, e in zip(found.columns, row, strict=True)} for row in found.rows]


def phases(*records: CellRecord) -> list[dict[str, Entry]]:
    return rows(phases_table(list(records), identity(list(records), None)))


def stages(phase: str, *records: CellRecord) -> list[dict[str, Entry]]:
    return rows(stages_table(phase, list(records), identity(list(records), None)))


def changed(update: dict[str, object]) -> CellRecord:
    """Return the metered record with every energy of a phase and stage *update*d."""
    return METERED.model_copy(
        update={
            "energy_totals": tuple(total.model_copy(update=update) for total in METERED.energy_totals),
            "stage_energies": tuple(part.model_copy(update=update) for part in METERED.stage_energies),
        }
    )


@pytest.fixture
def written(build: Build, tmp_path: Path) -> Path:
    specs = [metered(spec) for spec in pair("carpet", 100.0, 110.0)]
    return write_report(read_run(build(*specs)), tmp_path / "report").parent


def test_a_phase_tells_what_each_device_drew_within_how_much_and_by_which_method() -> None:
    gpu, cpu, evaluation, _ = phases(METERED)
    assert [row["Drawn by"].text for row in (gpu, cpu, evaluation)] == ["cuda:0", "cpu", "cuda:0"]
    assert (gpu["Energy"].text, gpu["Energy"].note) == ("98,765", "\u00b1\u00a012, n\u00a05")
    assert (cpu["Energy"].text, cpu["Energy"].note) == ("31,400", "\u00b1\u00a0300, n\u00a05")
    assert (evaluation["Energy"].text, evaluation["Energy"].note) == ("5,124", "\u00b1\u00a08, n\u00a01")
    assert (gpu["Idle power"].text, gpu[HOW].text, cpu[HOW].text) == ("60.00", "counter", "trapezoid")


def test_phases_stand_in_the_order_of_a_training() -> None:
    backwards = METERED.model_copy(update={"energy_totals": METERED.energy_totals[::-1]})
    assert [row["Phase"].text for row in phases(backwards)] == ["train", "train", "evaluation", "evaluation"]


def test_a_phase_without_energy_has_its_reason_and_no_number() -> None:
    lost = phases(METERED)[3]
    assert (lost["Energy"].text, lost["Energy"].sort, lost["Energy"].missing) == ("unavailable", None, True)
    assert (lost[HOW].text, lost[HOW].note) == ("unavailable", NO_RAPL)
    assert (lost["Idle power"].text, lost["Idle power"].missing) == ("unavailable", True)


def test_a_stage_tells_its_estimate_within_how_much_and_by_which_method() -> None:
    found = stages("train", METERED)
    (loading,) = (row for row in found if row["Stage"].text == "data loading")
    assert (loading["Energy"].text, loading["Energy"].note) == ("37.5", "\u00b1\u00a01.1")  # kJ
    assert (loading["Above idle"].text, loading["Exposed"].text) == ("27.3", "171.0")
    assert loading["Share of phase"].text == "38.0\u00a0%"
    assert (loading[HOW].text, loading[HOW].note) == ("estimated", SQUARES)


def test_a_stage_that_cannot_be_told_apart_has_its_reason_and_unresolved_stands_last_with_what_is_left() -> None:
    found = stages("train", METERED)
    heads = [row for row in found if row["Stage"].text == "head"]
    assert [row["Direction"].text for row in heads] == ["forward", "backward"]
    for row in heads:
        assert [row[name].text for name in ("Energy", "Above idle", "Share of phase")] == ["unavailable"] * 3
        assert (row[HOW].text, row[HOW].note) == ("unavailable", TOO_FAST)
    assert [row["Stage"].text for row in found[-2:]] == ["unattributed", "unresolved"]
    assert found[-1]["Share of phase"].text == "2.0\u00a0%"
    assert found[-1]["Stage"].mark == "stage stage-unresolved"


def test_the_captions_explain_unresolved_and_count_what_was_told_apart() -> None:
    _, train, evaluation = tables([METERED], identity([METERED], None))
    assert "unresolved is what all such stages of a cell cost together" in train.detail
    assert train.gist == f"{len(SHARES) - 2} of {len(SHARES)} told apart"
    assert evaluation.gist == f"0 of {len(EVALUATION)} told apart"


def test_the_parts_of_a_phase_sum_to_its_energy(written: Path) -> None:
    parts = pd.read_csv(written / "stage_energy.csv").groupby(["model", "phase"])
    sums = parts[["energy_j", "share"]].sum()
    assert sums["energy_j"].tolist() == pytest.approx([EVALUATION_J, TRAIN_J] * 2)
    assert sums["share"].tolist() == pytest.approx([1.0] * 4)


def test_the_files_hold_every_number_of_the_record_unrounded(written: Path) -> None:
    for file, held in (("phase_energy", METERED.energy_totals), ("stage_energy", METERED.stage_energies)):
        table = pd.read_csv(written / f"{file}.csv", dtype=str, keep_default_na=False)
        ours = table[table["model"] == "msa"].rename(columns={"device": "ran_on", "drawn_by": "device", "n": "epochs"})
        for name in type(held[0]).model_fields:
            values = [getattr(row, name) for row in held]
            assert ours[name].tolist() == ["" if value is None else str(value) for value in values], name


def test_nothing_unavailable_is_zero_in_the_files(written: Path) -> None:
    phase, stage = (pd.read_csv(written / f"{name}_energy.csv") for name in ("phase", "stage"))
    lost = phase[phase["reason"].notna()]
    assert lost["reason"].tolist() == [NO_RAPL] * 2
    assert lost[["energy_j", "error_j", "method", "idle_w"]].isna().all(axis=None)
    unknown = stage[stage["tag"] == "unavailable"]
    assert set(unknown["reason"]) == {TOO_FAST, TOO_FEW}
    assert unknown[["energy_j", "error_j", "above_idle_j", "share"]].isna().all(axis=None)


def test_the_device_of_stages_is_in_the_caption_and_where_it_is_not_the_cells_own_in_a_column() -> None:
    table = stages_table("train", [METERED], identity([METERED], None))
    assert table is not None
    assert "Estimates of what cuda:0 drew" in table.detail
    assert "Drawn by" not in {column.label for column in table.columns}
    own = record(unmetered(Spec(seed=1)))
    assert "Drawn by" not in stages("train", METERED, own)[0]
    another = own.model_copy(update={"device": "cuda:1"})
    both = stages("train", METERED, another)
    assert {(row["Seed"].text, row["Drawn by"].text) for row in both} == {("0", "cuda:0"), ("1", "cpu")}


def test_without_idle_power_nothing_is_taken_off_and_it_is_said() -> None:
    loading = stages("train", changed({"above_idle_j": None}))[0]
    assert (loading["Energy"].text, loading["Above idle"].text) == ("37.5", "unavailable")
    assert loading["Above idle"].note == "idle power unknown"


def test_an_error_that_is_not_known_is_not_left_out() -> None:
    assert phases(changed({"error_j": None}))[0]["Energy"].note == "\u00b1\u00a0unknown, n\u00a05"


def test_one_record_with_an_energy_keeps_the_tables_and_the_others_reasons() -> None:
    found = phases(record(unmetered(Spec(seed=1))), METERED)
    assert [row["Energy"].missing for row in found] == [True, True, False, False, False, True]
    assert found[0][HOW].note == "5 of 5 stretches are unknown: no RAPL"


def test_a_phase_of_whose_stages_none_has_an_energy_makes_no_table() -> None:
    lone = record(unmetered(Spec())).model_copy(update={"energy_totals": METERED.energy_totals})
    assert [table.ident for table in tables([lone], identity([lone], None))] == ["energy-phases"]


def test_without_any_energy_one_line_says_so_with_each_reason_once(build: Build, tmp_path: Path) -> None:
    specs = [unmetered(spec) for spec in pair("carpet", 100.0, 110.0)]
    page = write_report(read_run(build(*specs)), tmp_path / "report").read_text(encoding="utf-8")
    (section,) = re.findall(r'<section id="energies".*?</section>', page, re.DOTALL)
    reasons = [NO_ENERGY, "5 of 5 stretches are unknown: no RAPL"]
    assert why_none([record(spec) for spec in specs], energy_rows([record(spec) for spec in specs])) == reasons
    assert f"No record holds an energy; why: {'; '.join(f'<bdi>{reason}</bdi>' for reason in reasons)}." in section
    assert "<table" not in section


def test_an_energy_of_a_phase_alone_is_an_energy() -> None:
    bare = METERED.model_copy(update={"stage_energies": ()})
    assert why_none([bare], []) is None
    assert why_none([record(Spec())], energy_rows([METERED])) is None


def test_what_the_cells_drew_together_is_their_sum_and_unknown_where_one_is() -> None:
    another = METERED.model_copy(update={"seed": 1})
    assert of_run([METERED, another]) == "All that 2 finished cells ran drew 260.0 kJ."
    unknown = "What all cells drew together is unknown: "
    assert of_run([METERED, record(Spec(seed=2))]) == f"{unknown}known of 1 of 2 finished cells."
    older = METERED.model_copy(update={"metrics": METERED.metrics[:-1]})
    assert of_run([older]) == f"{unknown}known of 0 of 1 finished cell."
    company = METERED.model_copy(update={"cells_at_once": 2})
    assert of_run([company]) == "All that 1 finished cell ran drew 130.0 kJ."  # each on a GPU of its own
    shared = company.model_copy(update={"device": "cpu"})
    assert of_run([shared]) == f"{unknown}several ran at once (--jobs) on one CPU, whose meter is shared."


def test_what_is_not_known_is_told_of_how_many_and_those_alike_once(build: Build, tmp_path: Path) -> None:
    page = write_report(read_run(build(metered(Spec()))), tmp_path / "report").read_text(encoding="utf-8")
    told = [
        f"Energy that cpu drew in 1 of 2 phases: {NO_RAPL}.",
        f"Energy that cuda:0 drew in 2 of 18 stages: {TOO_FAST}.",
        f"Energy that cuda:0 drew in 3 of 18 stages: {TOO_FEW}.",
    ]
    assert not_known([METERED]) == told
    for gap in told:
        assert gap.replace("'", "&#39;") in page
    both = [record(unmetered(Spec(seed=seed))) for seed in (0, 1)]
    assert not_known(both)[0] == "Energy that cpu drew in 4 of 4 phases: 5 of 5 stretches are unknown: no RAPL."


def test_the_page_names_the_files_and_shows_the_tables(written: Path) -> None:
    page = (written / "index.html").read_text(encoding="utf-8")
    assert "phase_energy.csv, stage_energy.csv" in page
    for ident in ("energy", "energy-phases", "energy-train", "energy-evaluation"):
        assert f'<table id="{ident}">' in page
    assert "Energy of all that the cell ran" in page
    assert "All that 2 finished cells ran drew 260.0 kJ." in page
    assert ".stage-unresolved {" in page


def test_a_record_without_the_fields_makes_a_page_that_says_so(build: Build, tmp_path: Path) -> None:
    run = build(metered(Spec()))
    made_old(run, metered(Spec()))
    page = write_report(read_run(run), tmp_path / "report").read_text(encoding="utf-8")
    assert '<table id="energy">' in page  # its metrics were there before
    assert '<table id="energy-phases">' not in page
    for kind in ("phase", "stage"):
        assert f"Energy of each {kind} (1 cell): the record does not hold it." in page
