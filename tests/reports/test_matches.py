"""The verdict per category, and the numbers behind the curves."""

import csv
import math
from dataclasses import replace
from statistics import fmean

import pytest
from report_runs import Build, Spec, pair, write_telemetry

from profiles.record import EpochRow
from reports.claims.samples import samples, widened_ratio
from reports.page.losses import losses_table
from reports.page.matches import matches_table
from reports.page.powers import powers_table
from reports.page.tables import Entry, Identity, Table, identity
from reports.source.load import Cell, Run, read_run


def who(run: Run) -> Identity:
    return identity(run.records, None)


def steps(cell: Cell, seconds: list[float]) -> Cell:
    """Return *cell* with measured steps of these times."""
    assert cell.record is not None
    return replace(cell, record=cell.record.model_copy(update={"step_s": tuple(seconds)}))


def fields(table: Table | None, row: int = 0) -> dict[str, Entry]:
    assert table is not None
    return {column.label: entry for column, entry in zip(table.columns, table.rows[row], strict=True)}


@pytest.mark.parametrize(
    ("times", "faster"),
    [
        ([1.5 + 0.001 * n for n in range(8)], "MSA"),
        ([0.5 + 0.001 * n for n in range(8)], "MLSA"),
        ([1.0 + 0.001 * (n % 3) for n in range(8)], "undecided"),
        ([1.5], "untested"),
        ([1.5, 1.5], "untested"),
    ],
)
def test_a_category_is_won_where_the_interval_leaves_no_doubt(build: Build, times: list[float], faster: str) -> None:
    run = read_run(build(*pair("carpet", 100.0, 107.0)))
    base, other = run.cells
    cells = (steps(base, [1.0 + 0.001 * (n % 3) for n in range(8)]), steps(other, times))
    assert fields(matches_table(cells, who(run)))["Faster"].text == faster


def test_a_category_tells_both_times_their_ratio_the_published_and_the_scores(build: Build) -> None:
    msa, mlsa = pair("carpet", 100.0, 107.0)
    run = read_run(build(msa, replace(mlsa, segmentation=82.5)))
    found = fields(matches_table(run.cells, who(run)))
    names = ("MSA", "MLSA", "MLSA / MSA", "published", "Segmentation", "Detection")
    assert [found[name].text for name in names] == ["100.0", "107.0", "1.07", "1.16", "+2.50", "0.00"]
    assert found["MSA"].note == "IQR\u00a01.3, n\u00a05"
    assert found["Segmentation"].note == "published +1.08"


def test_the_first_of_the_measured_steps_is_in_neither_the_ratio_nor_its_interval(build: Build) -> None:
    base, other = read_run(build(*pair("carpet", 100.0, 90.0))).cells
    seconds = [1.0 + 0.001 * (n % 3) for n in range(8)]
    cells = (steps(base, [40.0, *seconds]), steps(other, [2.0, *(2.0 * each for each in seconds)]))
    assert samples(cells[0], "time_per_epoch") == seconds
    found = fields(matches_table(cells, Identity((), "")))
    assert found["MLSA / MSA"].text == "2.00"  # and not 0.90, of the times per epoch
    assert found["MLSA / MSA"].note.endswith("n\u00a064 pairs")
    assert samples(steps(base, [40.0]), "time_per_epoch") == []  # no epoch stands in for steps


def test_a_model_alone_or_on_another_device_is_in_no_match(build: Build) -> None:
    msa, mlsa = pair("carpet", 100.0, 107.0)
    run = read_run(build(msa, replace(mlsa, device="cuda:0")))
    assert matches_table(run.cells, who(run)) is None


def test_losses_are_told_first_lowest_and_last_of_cells_that_are_not_finished_too(build: Build) -> None:
    run = read_run(build(Spec(), Spec(seed=1, status="failed", error="x")))
    rows = [
        EpochRow(n, 0.5 / n, loss, 1.0, 8, is_best=False, profiled=False) for n, loss in ((1, 0.4), (2, 0.2), (3, 0.3))
    ]
    cells = tuple(replace(cell, epochs=tuple(rows)) for cell in run.cells)
    table = losses_table(cells, who(run))
    assert table is not None
    assert [entry.text for entry in table.rows[1][5:]] == ["0.5000", "0.1667", "0.4000", "0.2000", "0.3000"]
    assert table.rows[0][8].note == "epoch 2"


def test_a_cell_that_never_had_a_finite_loss_has_no_lowest(build: Build) -> None:
    run = read_run(build(Spec()))
    endless = EpochRow(1, float("nan"), float("inf"), 1.0, 8, is_best=False, profiled=False)
    table = losses_table((replace(run.cells[0], epochs=(endless,)),), who(run))
    assert table is not None
    assert [entry.text for entry in table.rows[0][7:]] == ["not a finite number", "\u2013", "not a finite number"]
    assert losses_table((replace(run.cells[0], epochs=()),), who(run)) is None


def test_power_is_told_for_each_device_and_phase(build: Build) -> None:
    spec = Spec()
    folder = build(spec)
    write_telemetry(folder, spec)
    run = read_run(folder)
    table = powers_table(run.cells, who(run))
    assert table is not None
    phases = {row[5].text for row in table.rows}
    assert phases <= {"training", "calibration", "evaluation"}
    assert "training" in phases
    assert all(row[7].note.startswith("IQR") for row in table.rows if not row[7].missing)


def test_the_most_and_the_mean_of_a_phase_are_of_its_samples_and_not_of_the_pictures_points(build: Build) -> None:
    spec = Spec()
    folder = build(spec)
    path = write_telemetry(folder, spec, rows=6000) / "telemetry.csv"
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    start_s = min(float(row["time_s"]) for row in rows)
    told = [
        float(row["utilization_pct"])
        for row in rows
        if row["device"] == "cpu" and 60.0 - 1e-6 <= float(row["time_s"]) - start_s <= 360.0 + 1e-6
    ]  # of the 600 s of telemetry, which training and validation are of
    assert max(told) == 99.0
    run = read_run(folder)
    table = powers_table(run.cells, who(run))
    assert table is not None
    columns = [f"{column.label}, {column.unit}" for column in table.columns]
    found = next(row for row in table.rows if [entry.text for entry in row[4:6]] == ["cpu", "training"])
    mean, most = (found[columns.index(name)] for name in ("Used, %, mean", "Used, %, most"))
    assert most.sort == 99.0
    assert mean.sort == pytest.approx(fmean(told), abs=0.02)
    assert "n\u00a03,00" in mean.note


def test_without_a_sample_there_is_no_table_of_power(build: Build) -> None:
    run = read_run(build(Spec()))
    assert powers_table(run.cells, who(run)) is None


def test_energy_of_one_rank_s_device_is_no_sample_of_all_ranks_energy(build: Build) -> None:
    run = build(Spec())
    write_telemetry(run, Spec())
    (cell,) = read_run(run).cells
    assert cell.record is not None
    metered = replace(cell, record=cell.record.model_copy(update={"device": "cuda:0"}))
    assert samples(metered, "energy_per_epoch") == [180.0]
    assert metered.record is not None
    several = replace(metered, record=metered.record.model_copy(update={"ranks": 2}))
    assert samples(several, "energy_per_epoch") == []


def test_times_that_no_float_can_widen_have_an_interval_without_an_end() -> None:
    ratio = widened_ratio([1e250, 1e20, 1e300, 1e300, 1e10, 1e-200], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 0.95)
    assert (ratio.low, ratio.high) == (0.0, math.inf)
