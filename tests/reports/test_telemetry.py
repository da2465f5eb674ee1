"""A cell over time, as the page draws it."""

from pathlib import Path

import pytest
from report_runs import Build, Spec, write_telemetry

from reports.source.telemetry import POINTS, read_telemetry


def test_long_series_are_thinned_to_means_and_lose_no_sample(build: Build) -> None:
    folder = write_telemetry(build(Spec()), Spec(), rows=6000)
    gpu, cpu = read_telemetry(folder).series
    assert (gpu.device, cpu.device) == ("cuda:0", "cpu")
    assert len(gpu.time_s) == POINTS
    assert sum(gpu.utilization_pct) / POINTS == pytest.approx(49.5, abs=0.1)
    assert gpu.time_s == sorted(gpu.time_s)
    assert all(power != power for power in cpu.power_w)  # noqa: PLR0124 - not a number is what is unknown


def test_training_and_validation_are_one_band_and_a_gap_ends_it(build: Build) -> None:
    bands = read_telemetry(write_telemetry(build(Spec()), Spec())).bands
    assert [band.phase for band in bands] == ["training", "evaluation"]
    assert (bands[0].start_s, bands[0].stop_s) == (pytest.approx(6.0), pytest.approx(36.0))
    assert (bands[1].start_s, bands[1].stop_s) == (pytest.approx(42.0), pytest.approx(54.0))


def test_a_phase_of_which_nobody_knows_when_it_was_has_no_band(build: Build) -> None:
    folder = write_telemetry(build(Spec()), Spec())
    bands = read_telemetry(folder).bands
    path = folder / "energy.csv"
    columns = path.read_text().splitlines()[0].split(",")
    lost = {"phase": "train", "epoch": "9", "device": "cuda:0", "wall_s": "3.0", "reason": "lost in a kill"}
    with path.open("a") as file:
        file.write(",".join(lost.get(column, "") for column in columns) + "\n")
    assert read_telemetry(folder).bands == bands


def test_a_cell_without_samples_says_why(tmp_path: Path) -> None:
    assert read_telemetry(tmp_path).why == "telemetry.csv is missing"
