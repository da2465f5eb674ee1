"""What if a stage were free: the page says what the record holds, and where there is none, how to get one."""

from pathlib import Path

import pytest
from report_runs import Build, Spec, environment

from profiles.whatif import EffectRow, EpochRow, FallRow, StepRow, SurfaceRecord, SurfaceRow, WhatIfRecord
from reports.commands import write_report
from reports.page.surface import surface_tables
from reports.page.whatif import whatif_tables
from reports.source.load import read_run

CELL = ("carpet", "mlsa", "thesis")
SEEN = "only a profiler sees"
READING = "what it hid takes its place: without it data_loading +12.0% of the step"
RECORD = WhatIfRecord(
    commit="a" * 40,
    suite="demo",
    dtype="float32",
    environment=environment(),
    order="the largest first",
    steps=(StepRow(*CELL, "train", 1.25, 9, 256, 512, 4, "precision"),),
    effects=(
        EffectRow(*CELL, "train", "ceiling", "attention", "identity", 0.12, 0.1, 0.14, 9, 0.24, None, READING, SEEN),
        EffectRow(*CELL, "train", "ceiling", "loss", "squared error", 0.5, None, None, 3, 0.5, None, "too few", SEEN),
        EffectRow(*CELL, "train", "swap", "cut", "the fast one's", 0.3, 0.29, 0.31, 9, None, None, "", "no stage"),
        EffectRow("grid", "mlsa", "thesis", "train", "swap", "cut", "", 0.3, 0.29, 0.31, 9, None, None, ""),
    ),
    waterfall=(
        FallRow("carpet", "mlsa", 1, "images", 0.7, 0.3, 0.7, 0.69, 0.71, 9),
        FallRow("carpet", "mlsa", 2, "cut", 0.6, 0.1, 0.857, None, None, 3, reading="order not resolved"),
    ),
    epochs=(
        EpochRow("carpet", "mlsa", 0, "the whole step", 1.0, 10, 4.0, 2, 1.0, 44.0, 0.0, 3),
        EpochRow("carpet", "mlsa", 1, "images", 0.1, 10, 2.0, 2, 0.5, 21.2, 22.8, 3),
    ),
    not_measured=("The head is not taken away.",),
)


def page_of(run: Path) -> str:
    return write_report(read_run(run), run / "report").read_text(encoding="utf-8")


def test_a_step_has_a_table_of_its_own_stages_beside_what_the_clock_says() -> None:
    ceilings, *_ = whatif_tables(RECORD)
    attention, loss, cut = ceilings.rows
    assert [entry.text for entry in attention[1:]] == ["identity", "12.0\u00a0%", "24.0\u00a0%", "unavailable", READING]
    assert attention[2].note == "10.0\u00a0% to 14.0\u00a0%, n\u00a09"
    busy = attention[4]
    assert loss[2].note == "too few rounds, n\u00a03"
    assert (cut[0].text, cut[3].missing) == ("cut (exchanged)", True)
    assert "1.250 s" in ceilings.detail
    assert (busy.text, busy.note) == ("unavailable", "note 1")
    assert ceilings.footnotes == ("Note 1: only a profiler sees", "Note 2: no stage", *RECORD.not_measured)


def test_the_waterfall_says_what_is_taken_off_and_what_is_left_and_in_what_order() -> None:
    _, waterfall, _ = whatif_tables(RECORD)
    assert [[entry.text for entry in row[1:4]] for row in waterfall.rows] == [
        ["images", "30.0\u00a0%", "70.0\u00a0%"],
        ["cut", "10.0\u00a0%", "60.0\u00a0%"],
    ]
    assert waterfall.rows[0][4].note == "0.690 to 0.710, n\u00a09"
    assert waterfall.rows[1][4].note == "too few rounds, n\u00a03"
    assert [row[5].text for row in waterfall.rows] == ["", "order not resolved"]
    assert RECORD.order in waterfall.detail


def test_an_epoch_is_shown_by_its_parts_at_every_place() -> None:
    *_, epochs = whatif_tables(RECORD)
    assert [[entry.text for entry in row[1:]] for row in epochs.rows] == [
        ["the whole step", "2.000", "40.00", "2.000", "44.00", "0"],
        ["images", "0.2000", "20.00", "1.000", "21.20", "22.80"],
    ]
    assert epochs.rows[0][3].note == "10 steps"


def test_a_busy_share_by_profiler_windows_is_called_estimated() -> None:
    seen = RECORD.effects[0]._replace(busy=0.23, unavailable="", busy_tag="estimated")
    ceilings, *_ = whatif_tables(RECORD.model_copy(update={"effects": (seen,)}))
    assert (ceilings.rows[0][4].text, ceilings.rows[0][4].note) == ("23.0\u00a0%", "estimated")


SURFACE = SurfaceRecord(
    commit="b" * 40,
    dtype="float32",
    environment=environment(),
    softmax="msa",
    linear="mlsa",
    backend="fast-transformers",
    rows=(
        SurfaceRow(3, 9, 128, 2, 455, 0.1, 0.19, 1.9, 1.8, 2.0, 9),
        SurfaceRow(16, 256, 128, 2, 16, 0.1, 0.07, 0.7, None, None, 3),
        SurfaceRow(3, 9, 512, 8, 455, 0.1, 0.15, 1.5, 1.4, 1.6, 9),
    ),
)


def test_a_surface_is_shown_by_side_and_width_and_says_what_was_not_measured(build: Build) -> None:
    (table,) = surface_tables((SURFACE,))
    assert [[(entry.text, entry.note) for entry in row[2:]] for row in table.rows] == [
        [("1.900", "1.80 to 2.00, n\u00a09"), ("1.500", "1.40 to 1.60, n\u00a09")],
        [("0.7000", "too few rounds, n\u00a03"), ("not measured", "")],
    ]
    run = build(Spec())
    (run / "whatif").mkdir()
    (run / "whatif" / "surface-library.json").write_text(SURFACE.model_dump_json(), encoding="utf-8")
    (run / "whatif" / "surface-torn.json").write_text("{", encoding="utf-8")
    page = page_of(run)
    assert "attention alone, by the window and the width: fast-transformers" in page
    assert "surface-torn.json cannot be used" in page


def test_the_page_shows_what_was_measured_of_the_run(build: Build) -> None:
    run = build(Spec())
    assert "Not measured: <code>bench whatif RUN</code>" in page_of(run)
    (run / "whatif").mkdir()
    (run / "whatif" / "whatif.json").write_text(RECORD.model_dump_json(), encoding="utf-8")
    page = page_of(run)
    assert "Not measured: <code>bench whatif RUN</code>" not in page
    assert READING.replace("+", "&#43;") in page or READING in page


@pytest.mark.parametrize("content", ["{", '{"schema_version": 1}'])
def test_a_damaged_record_costs_its_section_and_is_said(build: Build, content: str) -> None:
    run = build(Spec())
    (run / "whatif").mkdir()
    (run / "whatif" / "whatif.json").write_text(content, encoding="utf-8")
    page = page_of(run)
    assert "whatif.json cannot be used" in page
    assert "Not measured: <code>bench whatif RUN</code>" in page
