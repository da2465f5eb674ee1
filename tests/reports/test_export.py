"""What other tools read of a run."""

import json
import math
from pathlib import Path

import pytest
from report_runs import Build, Spec, pair, record

from harness.scores import Scores
from profiles.record import Metric
from reports.commands import write_report
from reports.export.benchmark import benchmarks
from reports.rows.metrics import ACCURACY
from reports.source.load import read_run


def rows(text: str) -> dict[str, dict[str, object]]:
    return {row["name"]: row for row in json.loads(text)}


def test_each_direction_has_its_file_and_no_metric_is_in_both() -> None:
    smaller, bigger = (rows(direction.text) for direction in benchmarks([record(Spec())]))
    name = "carpet/msa-fast/seed0"
    assert smaller[f"{name} time_per_epoch"] == {
        "name": f"{name} time_per_epoch",
        "value": 100.0,
        "unit": "s",
        "extra": "cpu, float32, torch 2.13.0, measured",
        "range": "IQR 1.3",
    }
    assert bigger[f"{name} segmentation_auroc"]["value"] == 80.0
    assert not set(smaller) & set(bigger)
    assert not any(metric in key for key in (*smaller, *bigger) for metric in ("best_epoch", "parameters"))


def test_a_count_of_what_was_done_is_in_neither_file_for_a_cache_would_look_like_a_regression() -> None:
    counts = {
        name: Metric(name=name, value=33.0, unit="count", n=1, tag="measured")
        for name in ("images_decoded", "images_from_cache")
    }
    for direction in benchmarks([record(Spec(values=counts))]):
        assert not any("images" in name for name in rows(direction.text))


def test_every_score_that_a_run_writes_is_an_accuracy() -> None:
    assert {*Scores._fields, "detection_auroc_rescaled"} <= {*ACCURACY}


def test_an_accuracy_is_in_the_file_of_what_should_be_large() -> None:
    scores = {name: Metric(name=name, value=90.0, unit="%", n=1, tag="measured") for name in ACCURACY}
    smaller, bigger = (rows(direction.text) for direction in benchmarks([record(Spec(values=scores))]))
    assert {name.split()[1] for name in bigger} == {*ACCURACY, "windows_per_second"}
    assert not any(row["unit"] == "%" for row in smaller.values())


def test_what_is_unavailable_is_left_out_and_never_zero() -> None:
    gone = Metric(name="time_per_epoch", value=None, unit="s", tag="unavailable", reason="no epoch")
    smaller, _ = benchmarks([record(Spec(values={gone.name: gone}))])
    assert not any("time_per_epoch" in name or "energy" in name for name in rows(smaller.text))


@pytest.mark.parametrize("number", [math.inf, math.nan])
def test_what_is_no_finite_number_is_left_out_for_json_has_no_word_for_it(number: float) -> None:
    usual = {metric.name: metric for metric in record(Spec()).metrics}
    values = {
        "time_per_epoch": usual["time_per_epoch"].model_copy(update={"value": number}),
        "windows_per_second": usual["windows_per_second"].model_copy(update={"spread": number}),
    }
    smaller, bigger = benchmarks([record(Spec(values=values))])
    assert not any("time_per_epoch" in name for name in rows(smaller.text))
    assert "range" not in rows(bigger.text)["carpet/msa-fast/seed0 windows_per_second"]


def summary_of(run: Path) -> str:
    write_report(read_run(run), run / "report")
    return (run / "report" / "summary.md").read_text(encoding="utf-8")


def test_the_summary_tells_the_answer_the_cells_and_the_claims(build: Build) -> None:
    text = summary_of(build(*pair("carpet", 100.0, 107.0), Spec(seed=1, status="failed", error="x")))
    assert "Linear attention (MLSA) took 7.0\u00a0% more time per epoch than softmax attention (MSA)" in text
    assert "| carpet, MLSA, fast, seed 0 | 107.0 s (IQR\u00a01.3, n\u00a05) |" in text
    assert "Cells: 2 done, 1 failed. Claims of the thesis: 0 supported, 0 contradicted, 34 undecided." in text
    assert "2 caveats are in the report." in text


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "a|b", "*bold* `code` @team #1", "\u202eevil"])
def test_a_hostile_name_stays_in_its_field(build: Build, name: str) -> None:
    text = summary_of(build(Spec(name.replace("/", "!"))))
    assert "<script" not in text
    assert "\u202e" not in text
    assert "`code`" not in text
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in table} == {6}
