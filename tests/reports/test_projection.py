"""What a projection says on the page: how far off it is before what it says, and what lies beyond the measured."""

from pathlib import Path
from typing import Any

import pytest
from report_runs import Build, Spec, environment

from profiles.whatif import AskedRow, CostRow, FitRow, ProjectionRecord, SettingRow
from reports.commands import write_report
from reports.page.projection import projection_tables
from reports.source.load import read_run

CELL = ("carpet", "mlsa", "thesis")
BY_BOARD = {"apart": True, "step_s": 0.5, "epoch_s": 30.0, "held_up_by": "the step itself", "beyond": "apart"}


def setting(
    *varied: int, held_out: bool, predicted_s: float, measured_s: float, category: str = "carpet"
) -> SettingRow:
    error = predicted_s / measured_s - 1
    return SettingRow(category, *CELL[1:], *varied, held_out, measured_s, predicted_s, error, "the workers", 3)


def asked(words: str, **changed: Any) -> AskedRow:
    needed = {"loader_s": 2.0, "host_s": 0.1, "device_s": 0.2}
    machine = {"processors": 2, "flops_per_s": 1e11, "bytes_per_s": 2e10, "decoded_per_s": 1.5e8, "apart": False}
    step = {"step_s": 1.0, "epoch_s": 7200.0, "held_up_by": "the workers", "beyond": ""}
    return AskedRow(*CELL, words, 4, 16, 256, **{**machine, **needed, **step, **changed})


RECORD = ProjectionRecord(
    commit="a" * 40,
    suite="demo",
    dtype="float32",
    environment=environment(),
    fits=(FitRow(*CELL, 14, 13, 0.02, 0.045, 0.11, 1.2, 1.0, 1.5e8, 2.4e6),),
    settings=(
        setting(2, 16, 256, held_out=False, predicted_s=1.53, measured_s=1.5),
        setting(4, 16, 256, held_out=True, predicted_s=0.9, measured_s=1.0),
        setting(1, 8, 64, held_out=True, predicted_s=1.0, measured_s=1.0, category="grid"),
    ),
    costs=(CostRow(*CELL, "decode", "loader", "stored value", 7e-9),),
    asked=(asked("as configured"), asked("apart=true", **BY_BOARD)),
    assumptions=("In the long run.",),
)


def page_of(run: Path) -> str:
    return write_report(read_run(run), run / "report").read_text(encoding="utf-8")


def texts(row: tuple[object, ...]) -> list[str]:
    return [str(entry.text) for entry in row]  # type: ignore[attr-defined]


def test_what_was_asked_is_answered_with_what_holds_a_step_up_and_what_was_never_measured() -> None:
    answers, _ = projection_tables(RECORD)
    usual, apart = answers.rows
    assert texts(usual)[0:7] == ["as configured", "4", "16", "256", "1.000", "120.0\u00a0min", "the workers"]
    assert texts(usual)[7:] == ["2.000", "0.1000", "0.2000", "nothing"]
    assert texts(apart)[-1] == "apart"
    assert answers.footnotes == RECORD.assumptions


def test_every_table_says_how_far_off_the_model_is_where_it_was_not_fitted() -> None:
    for table in projection_tables(RECORD):
        assert "On 13 settings that nothing was fitted to, predictions are off by 4.5\u00a0%" in table.detail
        assert "11.0\u00a0% at most" in table.detail


def test_the_grid_shows_which_half_a_setting_is_of_and_how_far_off_it_is() -> None:
    _, grid = projection_tables(RECORD)
    assert [texts(row)[3:7] for row in grid.rows] == [
        ["fitted", "1.500", "1.530", "2.0\u00a0%"],
        ["held out", "1.000", "0.9000", "\u221210.0\u00a0%"],
    ]
    assert grid.rows[0][4].note == "n\u00a03"
    assert "decodes 150.0 million stored values a second" in grid.detail


def test_who_loads_nothing_has_no_rate_of_decoding() -> None:
    fit = RECORD.fits[0]._replace(decoded_per_s=None)
    _, grid = projection_tables(RECORD.model_copy(update={"fits": (fit,)}))
    assert "decodes" not in grid.detail


def test_the_page_shows_a_projection_of_the_run_or_how_to_get_one(build: Build) -> None:
    run = build(Spec())
    assert "<code>bench whatif RUN --project</code>" in page_of(run)
    (run / "whatif").mkdir()
    (run / "whatif" / "projection.json").write_text(RECORD.model_dump_json(), encoding="utf-8")
    page = page_of(run)
    assert "<code>bench whatif RUN --project</code>" not in page
    assert "In the long run." in page


@pytest.mark.parametrize("content", ["{", '{"schema_version": 1}'])
def test_a_damaged_projection_costs_its_tables_and_is_said(build: Build, content: str) -> None:
    run = build(Spec())
    (run / "whatif").mkdir()
    (run / "whatif" / "projection.json").write_text(content, encoding="utf-8")
    assert "projection.json cannot be used" in page_of(run)
