"""Two runs set against each other: what is called different, what is refused, and how it is told.

`epoch_times.csv` holds the epochs of runs of the smoke suite at one commit. Machine 1, of two cores, had other users:
some epochs took twice as long as others. Machine 2 changed its speed by a quarter for minutes at a time, so that the
first of its two runs was slower in three cells of four; of two runs there is one pair, however often it is drawn.
"""

import csv
import json
import random
import re
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest
import typer
from report_runs import Build, Spec, epoch_rows, pair, record
from typer.testing import CliRunner

from profiles.errors import ConfigError, NothingMeasuredError
from profiles.record import EpochRow, Metric
from reports.claims.samples import samples
from reports.commands import compare
from reports.compare.comparison import compare_runs, threshold_of
from reports.compare.differences import Difference
from reports.compare.metrics import EVERY_CELL, Compared, Verdict, compared
from reports.compare.words import Comparison, headline, told
from reports.source.load import Cell, Run, read_run
from reports.words.format import metric_name

app = typer.Typer()
app.command("compare")(compare)

TIMES = Path(__file__).with_name("epoch_times.csv")
BLOCK, EPOCHS = 4, 12


def measured(machine: str = "1") -> dict[str, list[list[float]]]:
    """Return each cell's epochs in every run of a machine, seconds."""
    runs: dict[tuple[str, str], list[float]] = {}
    for row in csv.DictReader(TIMES.read_text(encoding="utf-8").splitlines()):
        if row["machine"] == machine:
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
        spec = Spec(category=category, model=variant.partition("-")[0], values=metrics_of(seconds))
        like = epoch_rows(spec, 1)[0]
        epochs = tuple(like._replace(epoch=n, wall_s=s) for n, s in enumerate(seconds, start=1))
        cells.append(cell_of(name, spec, epochs, folder))
    return replace(EMPTY, cells=tuple(cells))


def metrics_of(seconds: list[float]) -> dict[str, Metric]:
    """Return what a record would hold of epochs that took so many *seconds*."""
    known = [
        Metric(name="time_per_epoch", value=median(seconds), unit="s", n=len(seconds), tag="measured"),
        Metric(name="training_time", value=sum(seconds), unit="s", n=1, tag="measured"),
        Metric(name="windows_per_second", value=1920 / median(seconds), unit="1/s", n=len(seconds), tag="measured"),
    ]
    return {metric.name: metric for metric in known}


def cell_of(name: str, spec: Spec, epochs: tuple[EpochRow, ...], folder: Path) -> Cell:
    return Cell(name, spec.category, spec.model, "fast", "0", folder, "done", "", record(spec), epochs, ())


EMPTY = Run(Path(), None, None, None, (), ())  # type: ignore[arg-type] - nothing here reads the manifest


def simulated(slower: float, pairs: int, folder: Path, cells: int = 4, machine: str = "1") -> list[Comparison]:
    """Return that many pairs of runs of so many cells, of which one is so much slower.

    Of the two, each was measured in another run, and all its cells in the same, for what slows a machine down slows all
    that it does meanwhile.
    """
    chance = random.Random(7)
    times, found = measured(machine), list[Comparison]()
    for _ in range(pairs):
        chosen = chance.sample(sorted(times), cells)
        before, after = chance.sample(range(len(times[chosen[0]])), 2)
        base = {name: drawn(times[name][before], chance) for name in chosen}
        head = {name: [slower * s for s in drawn(times[name][after], chance)] for name in chosen}
        rows = compared(run_of(base, folder), run_of(head, folder), 0.05)
        found.append(Comparison("base", "head", 0.05, (), (), tuple(rows)))
    return found


def verdicts(found: list[Comparison]) -> list[Verdict]:
    return [row_of(list(one.rows), "time_per_epoch").verdict for one in found]


def codes(found: list[Comparison]) -> list[int]:
    return [one.exit_code for one in found]


def row_of(rows: list[Compared], metric: str, cell: str = EVERY_CELL) -> Compared:
    return next(row for row in rows if (row.metric, row.cell) == (metric, cell))


@pytest.mark.parametrize("machine", ["1", "2"])
def test_two_runs_of_one_commit_are_called_different_in_five_of_a_hundred_at_most(tmp_path: Path, machine: str) -> None:
    found = simulated(1.0, 200, tmp_path, machine=machine)
    assert codes(found).count(3) + verdicts(found).count("improvement") <= 10


@pytest.mark.parametrize(("order", "verdict"), [((0, 1), "unclear"), ((1, 0), "suspected")])
def test_two_runs_of_one_commit_on_a_machine_that_changed_its_speed_are_not_called_different(
    tmp_path: Path, order: tuple[int, int], verdict: Verdict
) -> None:
    base, head = (run_of({name: runs[n] for name, runs in measured("2").items()}, tmp_path) for n in order)
    rows = compared(base, head, 0.05)
    ratios = [row.ratio for row in rows if row.metric == "time_per_epoch" and row.cell != EVERY_CELL]
    assert min(ratios) < 0.95  # type: ignore[type-var] - all of them are known
    assert max(ratios) > 1.05  # type: ignore[type-var] - all of them are known
    assert row_of(rows, "time_per_epoch").verdict == verdict
    assert not {"regression", "improvement"} & {row.verdict for row in rows}


@pytest.mark.parametrize(
    ("factor", "last", "verdict"),
    [
        (1.3, 1.3, "regression"),
        (1.3, 1.0, "regression"),
        (1.3, 0.98, "regression"),
        (1.3, 0.9, "suspected"),
        (0.7, 1.0, "improvement"),
        (0.7, 1.1, "unclear"),
    ],
)
def test_cells_of_which_one_is_worse_and_one_better_beyond_the_threshold_decide_nothing(
    tmp_path: Path, factor: float, last: float, verdict: Verdict
) -> None:
    factors = dict(zip(measured(), (factor, factor, factor, last), strict=True))
    steady = [1.0 + 0.001 * n for n in range(EPOCHS)]
    base = run_of(dict.fromkeys(factors, steady), tmp_path)
    head = run_of({name: [of * s for s in steady] for name, of in factors.items()}, tmp_path)
    assert row_of(compared(base, head, 0.05), "time_per_epoch").verdict == verdict


def test_an_interval_without_end_is_none(tmp_path: Path) -> None:
    jumped = [1.0] * 7 + [1e100] * 5
    base, head = (run_of(dict.fromkeys(measured(), times), tmp_path) for times in ([1.0] * EPOCHS, jumped))
    rows = tuple(compared(base, head, 0.05))
    assert {row.verdict for row in rows if row.metric == "time_per_epoch" and row.cell != EVERY_CELL} == {"not tested"}
    assert json.loads(told(Comparison("base", "head", 0.05, (), (), rows), "json"))["exit_code"] == 4


def test_two_runs_of_one_commit_are_undecided_in_five_of_a_hundred_at_most(tmp_path: Path) -> None:
    assert codes(simulated(1.0, 200, tmp_path)).count(4) <= 10


def test_a_slowdown_of_a_tenth_is_passed_over_in_one_of_ten_at_most(tmp_path: Path) -> None:
    found = codes(simulated(1.1, 100, tmp_path))
    assert found.count(0) <= 10


@pytest.mark.parametrize(("within", "code"), [(1.0, 3), (1.05, 3), (1.15, 4)])
def test_a_slowdown_is_a_regression_where_it_exceeds_what_the_machine_did_within_a_cell(
    tmp_path: Path, within: float, code: int
) -> None:
    steady = [1.0 + 0.001 * n for n in range(EPOCHS)]
    changed = [s * (within if n < EPOCHS // 3 else 1.0) for n, s in enumerate(steady)]
    base = dict.fromkeys(measured(), steady) | {next(iter(measured())): changed}
    head = {name: [1.1 * s for s in times] for name, times in base.items()}
    rows = tuple(compared(run_of(base, tmp_path), run_of(head, tmp_path), 0.05))
    assert Comparison("base", "head", 0.05, (), (), rows).exit_code == code


@pytest.mark.parametrize("cells", [1, 2])
def test_few_cells_that_take_twice_the_time_are_neither_a_regression_nor_none(tmp_path: Path, cells: int) -> None:
    found = simulated(2.0, 50, tmp_path, cells)
    assert set(codes(found)) == {4}
    assert {one.outcome for one in found} == {"undecided"}
    assert "suspected: Time per epoch" in headline(found[0])


def test_a_speedup_of_a_fifth_is_an_improvement(tmp_path: Path) -> None:
    assert set(verdicts(simulated(0.8, 50, tmp_path))) == {"improvement", "unclear"}


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


@pytest.mark.parametrize(
    ("metric", "value", "verdict"),
    [
        ("training_time", 700.0, "suspected"),
        ("training_time", 500.0, "unclear"),
        ("windows_per_second", 1200.0, "suspected"),
        ("peak_memory", 6.4e9, "regression"),
    ],
)
def test_what_a_slower_machine_moves_in_every_cell_is_no_more_than_suspected(
    build: Build, metric: str, value: float, verdict: Verdict
) -> None:
    usual = specs(count=6)
    base, head = build(*usual, name="base"), build(*(changed(s, **{metric: value}) for s in usual), name="head")
    assert row_of(compared(read_run(base), read_run(head), 0.05), metric).verdict == verdict


def changed(spec: Spec, **values: float | None) -> Spec:
    """Return *spec* with other values of some metrics; None makes one unavailable."""
    usual = {metric.name: metric for metric in record(spec).metrics}
    gone = {"tag": "unavailable", "reason": "gone"}
    new = {
        name: usual[name].model_copy(update={"value": value} | (gone if value is None else {}))
        for name, value in values.items()
    }
    return replace(spec, values=spec.values | new)


def against(build: Build, head: list[Spec]) -> Comparison:
    """Return the comparison of the usual four cells with *head*."""
    return compare_runs(build(*specs(), name="base"), build(*head, name="head"), 0.05)


@pytest.mark.parametrize(
    ("metric", "value"),
    [("segmentation_auroc", 50.0), ("detection_auroc", 0.0), ("peak_memory", 6.4e9), ("training_time", 700.0)],
)
def test_what_is_worse_in_every_cell_of_too_few_is_suspected_and_named(build: Build, metric: str, value: float) -> None:
    comparison = against(build, [changed(spec, **{metric: value}) for spec in specs()])
    assert (comparison.outcome, comparison.exit_code) == ("undecided", 4)
    assert headline(comparison).startswith("Undecided whether there is a regression beyond 5.0")
    assert f"suspected: {metric_name(metric)}" in headline(comparison)
    assert row_of(list(comparison.rows), metric).verdict == "suspected"
    assert any(line.endswith("  suspected") for line in told(comparison, "text").splitlines())


@pytest.mark.parametrize(
    ("metric", "value", "verdict"),
    [("segmentation_auroc", 50.0, "suspected"), ("training_time", 700.0, "not tested")],
)
def test_half_of_the_cells_suffice_where_no_busy_machine_explains_it(
    build: Build, metric: str, value: float, verdict: str
) -> None:
    head = [changed(spec, **{metric: value}) if spec.model == "msa" else spec for spec in specs()]
    assert row_of(list(against(build, head).rows), metric).verdict == verdict


def test_what_is_not_tested_is_named_and_claims_nothing(build: Build) -> None:
    comparison = against(build, [changed(spec, peak_memory=3.21e9) for spec in specs()])
    assert comparison.exit_code == 0
    assert headline(comparison).startswith("No regression beyond")
    assert "in what was tested" in headline(comparison)
    assert "1 not tested: Peak memory" in headline(comparison)


def test_nothing_tested_is_undecided(build: Build) -> None:
    names = {metric.name for metric in record(Spec()).metrics} - {"parameters", "best_epoch", "peak_memory"}
    lost = [changed(spec, peak_memory=3.21e9, **dict.fromkeys(names)) for spec in specs()]
    for run in (base := build(*lost, name="base"), head := build(*specs(), name="head")):
        for path in run.glob("cells/*/*/*/epochs.csv"):
            path.unlink()
    comparison = compare_runs(base, head, 0.05)
    assert (comparison.outcome, comparison.exit_code) == ("undecided", 4)
    assert "suspected" not in headline(comparison)


def test_a_slowdown_of_runs_of_three_epochs_is_not_passed_over(tmp_path: Path) -> None:
    base, head = (run_of({name: [s, s + 0.01, s] for name in measured()}, tmp_path) for s in (1.0, 2.0))
    comparison = Comparison("base", "head", 0.05, (), (), tuple(compared(base, head, 0.05)))
    assert (row_of(list(comparison.rows), "time_per_epoch").verdict, comparison.exit_code) == ("suspected", 4)


def test_a_cache_that_has_the_images_makes_nothing_worse(build: Build) -> None:
    def images(decoded: float, cached: float) -> dict[str, Metric]:
        counts = {"images_decoded": decoded, "images_from_cache": cached}
        return {
            name: Metric(name=name, value=value, unit="count", n=1, tag="measured") for name, value in counts.items()
        }

    base = build(*(replace(spec, values=images(33, 0)) for spec in specs()), name="base")
    head = build(*(replace(spec, values=images(0, 33)) for spec in specs()), name="head")
    assert compare_runs(base, head, 0.05).exit_code == 0


def test_a_run_without_a_finished_cell_measured_nothing(build: Build) -> None:
    failed = build(*(replace(spec, status="failed", error="x") for spec in specs()), name="failed")
    whole = build(*specs(), name="whole")
    for base, head in ((failed, whole), (whole, failed)):
        with pytest.raises(NothingMeasuredError, match="failed: no finished record among 4 cells") as caught:
            compare_runs(base, head, 0.05)
        assert caught.value.exit_code == 5


def test_a_cell_that_failed_in_both_is_not_said_to_be_in_one(build: Build) -> None:
    cells = [*specs()[:3], replace(specs()[3], status="failed", error="x")]
    comparison = compare_runs(build(*cells, name="base"), build(*cells, name="head"), 0.05)
    assert comparison.exit_code == 4
    assert "Incomplete: c1/mlsa-fast/seed0 not finished in both" in headline(comparison)


def rewritten(run: Path, name: str, **values: object) -> None:
    """Change *values* in every file of that name."""
    for path in run.rglob(name):
        path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("device", "cuda:0"),
        ("image_side", 256),
        ("train_images", 64),
        ("validation_images", 3),
        ("test_images", 83),
        ("batch_size", 64),
        ("steps_per_epoch", 544),
        ("ranks", 2),
        ("cells_at_once", 4),
    ],
)
def test_cells_that_measured_something_else_are_refused(build: Build, field: str, value: object) -> None:
    base, head = build(*specs(), name="base"), build(*specs(), name="head")
    rewritten(base, "record.json", cells_at_once=1)
    rewritten(head, "record.json", **({"cells_at_once": 1} | {field: value}))
    comparison = compare_runs(base, head, 0.05)
    assert [(d.what, d.head) for d in comparison.differences if d.forbids] == [(field, str(value))]
    assert comparison.exit_code == 4


@pytest.mark.parametrize(
    ("field", "value"),
    [("torch", "2.14.0"), ("commit", "fedcba"), ("attention_backend", "fused"), ("cells_at_once", 1)],
)
def test_what_may_be_the_point_or_only_one_run_knows_is_named(build: Build, field: str, value: object) -> None:
    base, head = build(*specs(), name="base"), build(*specs(), name="head")
    rewritten(head, "record.json", **{field: value})
    comparison = compare_runs(base, head, 0.05)
    assert [(d.what, d.head, d.forbids) for d in comparison.differences] == [(field, str(value), False)]
    assert comparison.exit_code == 0


@pytest.mark.parametrize(("commit", "forbids"), [("fedcba", False), ("0123456789abcdef0123", True)])
def test_a_key_of_one_configuration_forbids_only_between_runs_of_one_commit_which_know_the_same(
    build: Build,
    commit: str,
    forbids: bool,  # noqa: FBT001
) -> None:
    base, head = build(*specs(), name="base"), build(*specs(), name="head")
    rewritten(head, "manifest.json", commit=commit)
    (head / "config.toml").write_text('[suite]\nname = "mvtec-epoch"\n[model]\nnew = 1\n', encoding="utf-8")
    comparison = compare_runs(base, head, 0.05)
    assert Difference("config model.new", "absent", "1", forbids=forbids) in comparison.differences
    assert comparison.exit_code == (4 if forbids else 0)


def test_a_few_steps_and_whole_epochs_are_not_compared(build: Build) -> None:
    base, head = build(*specs(), name="base"), build(*specs(), name="head")
    rewritten(head, "record.json", step_s=[1.5, 1.5, 1.6])
    found = [difference for difference in compare_runs(base, head, 0.05).differences if difference.forbids]
    assert found == [Difference("what was timed", "whole epochs", "measured steps", forbids=True)]


def test_only_cells_of_both_runs_are_asked_in_what_they_differ(build: Build) -> None:
    base = build(*specs(), name="base")
    head = build(*specs(), Spec("alone", dtype="bfloat16"), name="head")
    assert compare_runs(base, head, 0.05).differences == ()


def test_another_driver_is_named(build: Build) -> None:
    base, head = build(*specs(), name="base"), build(*specs(), name="head")
    rewritten(head, "environment.json", driver="580.1")
    assert compare_runs(base, head, 0.05).differences == (Difference("driver", "absent", "580.1", forbids=False),)


def test_a_kernel_that_one_build_lacks_is_named(build: Build) -> None:
    base, head = build(*specs(), name="base"), build(*specs(), name="head")
    for run, available in ((base, True), (head, False)):
        kernel = {"name": "linear attention in C", "available": available, "detail": "no compiler"}
        rewritten(run, "environment.json", capabilities=[kernel])
    assert "beware: capability linear attention in C: available -> not available" in told(
        compare_runs(base, head, 0.05), "text"
    )


@pytest.mark.parametrize(("base", "head", "words"), [(False, True, "none -> some"), (True, True, "some -> some")])
def test_uncommitted_changes_are_named(build: Build, base: bool, head: bool, words: str) -> None:  # noqa: FBT001
    runs = build(*specs(), name="base"), build(*specs(), name="head")
    for run, dirty in zip(runs, (base, head), strict=True):
        rewritten(run, "manifest.json", dirty=dirty)
    assert f"beware: uncommitted changes: {words}" in told(compare_runs(*runs, 0.05), "text")


def test_a_caveat_of_one_run_is_named_unless_only_its_numbers_differ(build: Build) -> None:
    base = build(*(replace(spec, caveats=("0.37 GiB were in use",)) for spec in specs()), name="base")
    head = build(*(replace(s, caveats=("0.52 GiB were in use", "throttled")) for s in specs()), name="head")
    found = compare_runs(base, head, 0.05).differences
    assert found == (Difference("caveat: throttled", "0 cells", "4 cells", forbids=False),)


@pytest.mark.parametrize(("factor", "code", "outcome"), [(1.0, 0, "no regression"), (1.2, 3, "regression")])
def test_the_exit_code_says_what_was_found(build: Build, factor: float, code: int, outcome: str) -> None:
    base, head = build(*specs(), name="base"), build(*specs(factor), name="head")
    result = CliRunner().invoke(app, [str(base), str(head), "--format", "json"])
    assert result.exit_code == code
    assert json.loads(result.stdout)["outcome"] == outcome


def test_help_says_what_every_exit_code_means() -> None:
    text = " ".join(CliRunner().invoke(app, ["--help"]).stdout.replace("\u2502", " ").split())
    exits = text[text.index("Exits with") : text.index(" Example")]
    assert re.findall(r"\b(\d) where ([^,:;]*)", exits) == [
        ("0", "nothing that was tested got worse"),
        ("3", "something did"),
        ("4", "neither can be said"),
        ("5", "one of them has finished no cell"),
        ("2", "a folder or the threshold is wrong."),
    ]
    assert "not comparable, one of them lacks a cell, or it is undecided" in exits


@pytest.mark.parametrize(
    ("head", "outcome", "code"),
    [
        (specs(), "no regression", 0),
        (specs(1.2), "regression", 3),
        (specs()[:3], "incomplete", 4),
        ([replace(spec, dtype="float64") for spec in specs()], "not comparable", 4),
        ([changed(spec, peak_memory=6.4e9) for spec in specs()], "undecided", 4),
    ],
)
def test_every_outcome_has_the_exit_code_of_the_contract(
    build: Build, head: list[Spec], outcome: str, code: int
) -> None:
    base, after = build(*specs(), name="base"), build(*head, name="head")
    result = CliRunner().invoke(app, [str(base), str(after), "--format", "json"])
    assert (json.loads(result.stdout)["outcome"], result.exit_code) == (outcome, code)


def test_a_regression_is_told_though_a_cell_is_missing(tmp_path: Path) -> None:
    base, head = (run_of({name: [s, s + 0.01] * 4 for name in measured()}, tmp_path) for s in (1.0, 2.0))
    comparison = Comparison("base", "head", 0.05, (), ("a/msa-fast/seed0",), tuple(compared(base, head, 0.05)))
    assert (comparison.outcome, comparison.exit_code) == ("regression", 3)
    assert "Incomplete: a/msa-fast/seed0 not finished in both" in headline(comparison)


def test_a_run_that_lacks_a_cell_is_incomplete(build: Build) -> None:
    base, head = build(*specs(), name="base"), build(*specs()[:3], name="head")
    result = CliRunner().invoke(app, [str(base), str(head)])
    assert result.exit_code == 4
    assert "Incomplete: c1/mlsa-fast/seed0 not finished in both" in result.stdout


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
