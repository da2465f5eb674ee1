"""A whole run's report: 30 cells of 500 epochs and 14 stages each, with as much telemetry as a cell keeps."""

import cProfile
import os
import pstats
import subprocess
import sys
from pathlib import Path

import pytest
from report_runs import Build, epoch_rows, look, metered, pair, record, stage_total, write_telemetry

from profiles.record import EnergyRow, EpochRow, StageRow, StageTotal, write_csv
from reports.commands import write_report
from reports.page.samples import PICTURE_BYTES
from reports.source.load import read_run
from reports.source.published import categories, facts
from reports.words.palette import STAGES

CELLS, EPOCHS, SAMPLES = 30, 500, 10_000
DIRECTIONS = {
    "train": ("forward", "backward"),
    "validation": ("forward",),
    "calibration": ("forward",),
    "evaluation": ("forward",),
}
COMMAND = """
import sys
from time import process_time
import bench
began_s = process_time()
sys.argv = ["bench", "report", sys.argv[1]]
try:
    bench.main()
finally:
    print(process_time() - began_s)
    status = open("/proc/self/status").read().splitlines()  # ru_maxrss would be of the process that started this one
    print(next(int(line.split()[1]) for line in status if line.startswith("VmHWM")))
"""
"""`bench report` with, in its last lines, the processor's seconds after all commands were loaded, which other programs
do not disturb as they do the clock on the wall, and the most memory it held, in KiB."""


def whole_run(build: Build, cells: int, epochs: int = EPOCHS, samples: int = SAMPLES, name: str = "run") -> Path:
    """Build a run as large as asked for, with all stages in all phases, their energy and nine close looks per cell."""
    names = categories()[: (cells + 1) // 2]
    specs = [metered(spec) for c in names for spec in pair(c, 1450.0, 1520.0, kind=facts()[c].kind)][:cells]
    run = build(*specs, name=name)
    for spec in specs:
        folder = write_telemetry(run, spec, samples)
        write_csv(folder / "epochs.csv", EpochRow._fields, epoch_rows(spec, epochs))
        write_csv(folder / "stages.csv", StageRow._fields, stage_rows(epochs))
        write_csv(folder / "energy.csv", EnergyRow._fields, energy_rows(epochs))
        whole = record(spec).model_copy(
            update={"observations": tuple(look(epoch) for epoch in range(1, 10)), "stage_totals": every_stage()}
        )
        (folder / "record.json").write_text(whole.model_dump_json(), encoding="utf-8")
    return run


def every_stage() -> tuple[StageTotal, ...]:
    """Return every stage of every phase, in training in both directions, in equal shares."""
    return tuple(
        stage_total(phase, stage, way, share, share * 6525.0)
        for phase, ways in DIRECTIONS.items()
        for share in [1.0 / len(ways) / len(STAGES)]
        for stage in STAGES
        for way in ways
    )


def stage_rows(epochs: int) -> list[StageRow]:
    """Return the rows of every stage: training and validation in every epoch, what comes once in the last."""
    once = ("calibration", "evaluation")
    return [
        StageRow(phase, epoch, stage, way, 46.6, 41.9, 1.0 / len(ways) / len(STAGES), 591, "measured")  # type: ignore[arg-type]
        for epoch in range(1, epochs + 1)
        for phase, ways in DIRECTIONS.items()
        if epoch == epochs or phase not in once
        for stage in STAGES
        for way in ways
    ]


def energy_rows(epochs: int) -> list[EnergyRow]:
    """Return what both devices drew in training and validation of so many epochs, within the telemetry's time."""
    wall_s = 0.1 * SAMPLES / 2 / epochs
    return [
        EnergyRow(phase, epoch, device, 900.0 + (2 * epoch + place) * wall_s, wall_s, 9.0, 1.0, "counter", 60.0, "", "")  # type: ignore[arg-type]
        for epoch in range(epochs)
        for place, phase in enumerate(("train", "validation"))
        for device in ("cuda:0", "cpu")
    ]


@pytest.mark.alone
@pytest.mark.slow
def test_thirty_cells_are_reported_within_a_gigabyte_five_megabytes_and_ten_seconds(build: Build) -> None:
    run = whole_run(build, CELLS)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    told = subprocess.run(
        [sys.executable, "-c", COMMAND, str(run)], env=environment, capture_output=True, text=True, check=True
    ).stdout
    seconds, kib = map(float, told.splitlines()[-2:])
    memory = 1024 * kib
    size = (run / "report" / "index.html").stat().st_size
    print(f"{CELLS} cells: {seconds:.1f} s, {memory / 2**20:.0f} MiB, a page of {size / 1e6:.1f} MB")
    assert len(STAGES) == 14
    assert memory < 2**30
    assert (
        size + 4 / 3 * PICTURE_BYTES < 5e6
    )  # the pictures of this run are small; those of another may fill their share
    assert seconds < 10.0


def calls(run: Path) -> int:
    """Return how many calls a report takes: the same on every machine, however busy."""
    profile = cProfile.Profile()
    found = read_run(run)
    profile.runcall(write_report, found, run / "report")
    return int(pstats.Stats(profile).total_calls)  # type: ignore[attr-defined] - typeshed does not know it


def test_twice_the_cells_are_at_most_twice_the_work(build: Build) -> None:
    calls(whole_run(build, 2, 20, 200, "warm"))
    four, eight = (calls(whole_run(build, n, 20, 200, f"run{n}")) for n in (4, 8))
    assert eight < 2.1 * four


def test_more_epochs_and_samples_are_no_more_work_to_draw(build: Build) -> None:
    calls(whole_run(build, 2, 20, 200, "warm"))
    short, long = (calls(whole_run(build, 2, n, 4 * n, f"run{n}")) for n in (500, 2000))
    assert long < 2.0 * short
