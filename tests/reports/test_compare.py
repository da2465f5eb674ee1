"""Two runs set against each other: what is called different, what is refused, and how it is told.

`epoch_times.csv` holds the epochs of three runs of the smoke suite at one commit, on a machine of two cores that others
used at the same time: some epochs took twice as long as others.
"""

import csv
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from report_runs import Build, Spec, epoch_rows, pair, record
from typer.testing import CliRunner

from profiles.errors import ConfigError
from profiles.record import EpochRow, Metric
from reports.claims.samples import samples
from reports.commands import compare
from reports.compare.comparison import compare_runs, threshold_of
from reports.compare.metrics import EVERY_CELL, Compared, Verdict, compared
from reports.compare.words import told
from reports.source.load import Cell, Run, read_run

app = typer.Typer()
app.command("compare")(compare)

TIMES = Path(__file__).with_name("epoch_times.csv")
BLOCK, EPOCHS = 4, 12


def measured() -> dict[str, list[list[float]]]:
    """Return each cell's epochs in every run, seconds."""
    runs: dict[tuple[str, str], list[float]] = {}
    for row in csv.DictReader(TIMES.read_text(encoding="utf-8").splitlines()):
        runs.setdefault((row["cell"], row["run"]), []).append(float(row["wall_s"]))
    return {cell: [times for (name, _), times in runs.items() if name == cell] for cell, _ in runs}


def drawn(times: list[float], chance: random.Random) -> list[float]:
    """Return as many epochs in stretches, for what disturbs one epoch disturbs the next."""
    starts = [chance.randrange(len(times)) for _ in range(EPOCHS // BLOCK)]
    return [times[(start + step) % len(times)] for start in starts for step in range(BLOCK)]


def run_of(times: dict[str, list[float]], folder: Path) -> Run:
    """Return a run whose cells had epochs of these *times*."""
    cells = []
    for name, seconds in times.items():
        category, variant, _ = name.split("/")
        spec = Spec(category=category, model=variant.partition("-")[0])
        like = epoch_rows(spec, 1)[0]
        epochs = tuple(like._replace(epoch=n, wall_s=s) for n, s in enumerate(seconds, start=1))
        cells.append(cell_of(name, spec, epochs, folder))
    return replace(EMPTY, cells=tuple(cells))


def cell_of(name: str, spec: Spec, epochs: tuple[EpochRow, ...], folder: Path) -> Cell:
    return Cell(name, spec.category, spec.model, "fast", "0", folder, "done", "", record(spec), epochs, ())


EMPTY = Run(Path(), None, None, None, (), ())  # type: ignore[arg-type] - nothing here reads the manifest


def verdicts(slower: float, pairs: int, folder: Path) -> list[Verdict]:
    """Return what is said of the time per epoch of that many simulated pairs, of which one is so much slower."""
    chance = random.Random(7)
    cells, found = measured(), list[Verdict]()
    for _ in range(pairs):
        base = {name: drawn(chance.choice(runs), chance) for name, runs in cells.items()}
        head = {name: [slower * s for s in drawn(chance.choice(runs), chance)] for name, runs in cells.items()}
        rows = compared(run_of(base, folder), run_of(head, folder), 0.05)
        found.append(row_of(rows, "time_per_epoch").verdict)
    return found


def row_of(rows: list[Compared], metric: str, cell: str = EVERY_CELL) -> Compared:
    return next(row for row in rows if (row.metric, row.cell) == (metric, cell))


def test_two_runs_of_one_commit_are_called_different_in_five_of_a_hundred_at_most(tmp_path: Path) -> None:
    found = verdicts(1.0, 200, tmp_path)
    assert found.count("regression") + found.count("improvement") <= 10


def test_a_slowdown_of_a_tenth_is_found_in_nine_of_ten(tmp_path: Path) -> None:
    assert verdicts(1.1, 100, tmp_path).count("regression") >= 90


def test_a_speedup_of_a_fifth_is_an_improvement(tmp_path: Path) -> None:
    assert verdicts(0.8, 20, tmp_path).count("improvement") >= 18


def test_one_disturbed_cell_of_four_is_no_regression(tmp_path: Path) -> None:
    quiet = {name: [1.0 + 0.001 * n for n in range(EPOCHS)] for name in measured()}
    loud = quiet | {next(iter(quiet)): [1.3 + 0.001 * n for n in range(EPOCHS)]}
    rows = compared(run_of(quiet, tmp_path), run_of(loud, tmp_path), 0.05)
    assert row_of(rows, "time_per_epoch").verdict == "unclear"
    assert row_of(rows, "time_per_epoch", next(iter(quiet))).verdict in {"worse", "unclear"}


def specs(factor: float = 1.0, segmentation: float = 80.0, count: int = 2) -> list[Spec]:
    return [
        replace(spec, time=factor * spec.time, segmentation=segmentation)
        for place in range(count)
        for spec in pair(f"c{place}", 100.0 + place, 110.0 + place)
    ]


def test_a_score_is_judged_over_cells_and_higher_is_better(build: Build) -> None:
    base = read_run(build(*specs(count=6), name="base"))
    worse = read_run(build(*specs(segmentation=60.0, count=6), name="worse"))
    assert row_of(compared(base, worse, 0.05), "segmentation_auroc").verdict == "regression"
    assert row_of(compared(worse, base, 0.05), "segmentation_auroc").verdict == "improvement"
    assert row_of(compared(base, base, 0.05), "segmentation_auroc").verdict == "no change"


@pytest.mark.parametrize(("factor", "code", "outcome"), [(1.0, 0, "no regression"), (1.2, 3, "regression")])
def test_the_exit_code_says_what_was_found(build: Build, factor: float, code: int, outcome: str) -> None:
    base, head = build(*specs(), name="base"), build(*specs(factor), name="head")
    result = CliRunner().invoke(app, [str(base), str(head), "--format", "json"])
    assert result.exit_code == code
    assert json.loads(result.stdout)["outcome"] == outcome


def test_a_run_that_lacks_a_cell_is_incomplete(build: Build) -> None:
    base, head = build(*specs(), name="base"), build(*specs()[:3], name="head")
    result = CliRunner().invoke(app, [str(base), str(head)])
    assert result.exit_code == 4
    assert "Incomplete: c1/mlsa-fast/seed0 in one run only" in result.stdout


@pytest.mark.parametrize(
    ("file", "old", "new", "what"),
    [
        ("environment.json", "Example CPU @ 3.0 GHz", "Another CPU", "device_name"),
        ("config.toml", "[suite]", "[model]\nwidth = 64\n[suite]", "config model.width"),
        ("config.toml", "[suite]", "[suite", "config.toml"),
    ],
)
def test_runs_that_measured_something_else_are_refused_and_it_is_named(
    build: Build, file: str, old: str, new: str, what: str
) -> None:
    base, head = build(*specs(), name="base"), build(*specs(), name="head")
    path = head / file
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    result = CliRunner().invoke(app, [str(base), str(head)])
    assert result.exit_code == 4
    assert f"forbids comparing: {what}: " in result.stdout
    assert "Not comparable: they differ in" in result.stdout
    assert "ratio" not in result.stdout


def test_what_only_one_run_knows_is_told_and_not_tested(build: Build) -> None:
    known = Metric(name="energy_per_epoch", value=2500.0, unit="J", tag="measured")
    more = Metric(name="score_of_tomorrow", value=3.0, unit="count", tag="measured")
    head = build(Spec(values={known.name: known, more.name: more}), name="head")
    comparison = compare_runs(build(Spec(), name="base"), head, 0.05)
    row = row_of(list(comparison.rows), known.name, Spec().name)
    assert (row.base, row.head, row.verdict) == (None, 2500.0, "not tested")
    assert row_of(list(comparison.rows), more.name, Spec().name).head == 3.0
    assert "Energy per epoch" in told(comparison, "text")
    assert "2,500 J" in told(comparison, "markdown")


def test_another_number_type_is_refused(build: Build) -> None:
    base = build(*specs(), name="base")
    head = build(*(replace(spec, dtype="float64") for spec in specs()), name="head")
    assert [d.what for d in compare_runs(base, head, 0.05).differences if d.forbids] == ["dtype"]


def test_another_version_is_named_and_not_refused(build: Build) -> None:
    base, head = build(*specs(), name="base"), build(*specs(), name="head")
    path = head / "environment.json"
    path.write_text(path.read_text(encoding="utf-8").replace("2.4.6", "2.5.0"), encoding="utf-8")
    comparison = compare_runs(base, head, 0.05)
    assert comparison.exit_code == 0
    assert "beware: package numpy: 2.4.6 -> 2.5.0" in told(comparison, "text")


def test_the_three_forms_tell_the_same(build: Build) -> None:
    comparison = compare_runs(build(*specs(), name="base"), build(*specs(1.2), name="head"), 0.05)
    text, markdown, whole = (told(comparison, form) for form in ("text", "markdown", "json"))
    assert text.count("regression") == markdown.count("regression")
    assert json.loads(whole)["exit_code"] == 3
    assert [row["verdict"] for row in json.loads(whole)["metrics"]] == [row.verdict for row in comparison.rows]


def test_hostile_names_do_not_leave_their_field_in_markdown(build: Build) -> None:
    name = "a|b`<img src=x>\u202e@all*"
    comparison = compare_runs(build(Spec(name), name="base"), build(Spec(name), name="head"), 0.05)
    lines = told(comparison, "markdown").splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert rows
    assert {line.replace("\\|", "").count("|") for line in rows} == {9}
    assert "<img" not in "".join(lines)
    assert "\u202e" not in "".join(lines)


@pytest.mark.parametrize(("text", "share"), [("5%", 0.05), ("0.1", 0.1), ("0%", 0.0)])
def test_a_threshold_is_a_share(text: str, share: float) -> None:
    assert threshold_of(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["five", "-1%", "100%", "nan"])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="write --threshold 5%"):
        threshold_of(text)


def test_profiled_epochs_are_no_samples(build: Build) -> None:
    (cell,) = read_run(build(Spec())).cells
    assert [row.profiled for row in cell.epochs].count(True) == 1
    assert len(samples(cell, "time_per_epoch")) == len(cell.epochs) - 1


def test_the_measured_steps_are_the_samples_where_no_epoch_was_run(build: Build) -> None:
    base, head = read_run(build(*specs(), name="base")), read_run(build(*specs(), name="head"))
    stepped = [
        replace(c, record=c.record.model_copy(update={"step_s": tuple(1.5 + 0.01 * n for n in range(8))}))
        for c in head.cells
        if c.record
    ]
    rows = compared(base, replace(head, cells=tuple(stepped)), 0.05)
    assert row_of(rows, "time_per_epoch", stepped[0].name).head_n == 7  # all but the first
