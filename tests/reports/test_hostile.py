"""A category whose name tries to act is shown as text, in whatever a report writes."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from report_runs import HOSTILE_CATEGORY, Build, metered, pair, renamed, write_telemetry
from test_page import Audit, audit

from reports.commands import write_report
from reports.compare.comparison import compare_runs
from reports.compare.words import Format, told
from reports.source.load import read_run
from reports.words.format import short, visible

SHOWN = visible(HOSTILE_CATEGORY)


def reported(build: Build, category: str, name: str = "run") -> Path:
    """Return the folder of a report on a run whose records say *category*, with everything that a page shows."""
    specs = [metered(spec) for spec in pair("c0", 100.0, 107.0)]
    run = build(*specs, name=name)
    for spec in specs:
        write_telemetry(run, spec)
        renamed(run, spec, category)
    return write_report(read_run(run), run / "report").parent


def page(folder: Path) -> str:
    return (folder / "index.html").read_text(encoding="utf-8")


def test_the_name_is_as_long_and_as_hostile_as_it_claims() -> None:
    assert len(HOSTILE_CATEGORY) == 300
    assert {"\n", "\r", "\u202e", "\u2066", "<", ">", '"', "'", "&", "|", "`"} <= set(HOSTILE_CATEGORY)


def test_the_page_has_the_tags_and_ids_of_one_with_a_harmless_name(build: Build) -> None:
    hostile, plain = (audit(page(reported(build, category, category[:1]))) for category in (HOSTILE_CATEGORY, "plain"))
    assert hostile.handlers == []
    assert hostile.tags == plain.tags
    made = re.compile(r"-[a-z][0-9a-f]{10}$")  # matplotlib's own, of what is drawn
    assert [one for one in hostile.ids if not made.search(one)] == [one for one in plain.ids if not made.search(one)]
    assert all(reference.startswith(("#", "data:")) for reference in hostile.references)


def test_nothing_of_the_name_that_acts_is_in_the_page(build: Build) -> None:
    text = page(reported(build, HOSTILE_CATEGORY))
    assert not set("\u202e\u2066\u200f\r") & set(text)
    assert "<img src=x" not in text
    assert "<script>document" not in text


def test_the_name_is_shown_in_every_section_that_names_a_category(build: Build) -> None:
    text = page(reported(build, HOSTILE_CATEGORY))
    sections = dict(re.findall(r'<section id="([^"]+)"(.*?)</section>', text, re.DOTALL))
    whole = {"answer", "overview", "accuracy", "time", "stage-shares", "instruments", "energies", "over-time", "losses",
             "cost-of-accuracy", "maps"}  # fmt: skip
    for section in whole:
        found: Audit = audit(sections[section])
        assert SHOWN in "".join(found.text), section


@pytest.mark.parametrize("chart", ["loss0", "power0", "ratio0", "stages-chart", "tradeoff-time"])
def test_a_chart_holds_the_name_as_text_alone(build: Build, chart: str) -> None:
    text = page(reported(build, HOSTILE_CATEGORY))
    svg = next(svg for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL) if f"{chart}-title" in svg)
    found = audit(svg)
    assert {"script", "img", "foreignobject"} & set(found.tags) == set()
    pieces = [SHOWN, short(f"{HOSTILE_CATEGORY}/msa-fast/seed0"), *(short(HOSTILE_CATEGORY, n) for n in (16, 32, 40))]
    assert any(piece in "".join(found.text) for piece in pieces)


@pytest.mark.parametrize("file", ["auroc", "timing", "energy", "stages", "work", "stage_energy"])
def test_csv_gives_the_name_back_as_it_is(build: Build, file: str) -> None:
    rows = pd.read_csv(reported(build, HOSTILE_CATEGORY) / f"{file}.csv", keep_default_na=False, lineterminator=None)
    assert set(rows["category"]) - {""} == {HOSTILE_CATEGORY}


def test_markdown_keeps_the_name_in_its_field(build: Build) -> None:
    text = (reported(build, HOSTILE_CATEGORY) / "summary.md").read_text(encoding="utf-8")
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 4
    assert {line.replace("\\|", "").count("|") for line in table} == {6}
    assert not set("\u202e\u2066\u200f\r<") & set(text)


@pytest.mark.parametrize("file", ["benchmark-smaller.json", "benchmark-bigger.json"])
def test_the_benchmark_files_name_the_cell_in_one_line_that_shows(build: Build, file: str) -> None:
    rows = json.loads((reported(build, HOSTILE_CATEGORY) / file).read_text(encoding="utf-8"))
    assert rows
    for row in rows:
        assert row["name"].startswith(f"{SHOWN}/m")
        assert row["name"].isprintable()


@pytest.mark.parametrize("form", ["text", "markdown", "json"])
def test_a_comparison_shows_the_name_as_text(build: Build, form: Format) -> None:
    runs = [reported(build, HOSTILE_CATEGORY, name).parent for name in ("base", "head")]
    text = told(compare_runs(*runs, 0.05), form)
    assert not set("\u202e\u2066\u200f\r") & set(text)
    if form == "markdown":
        assert "<" not in text.replace("&lt;", "")
