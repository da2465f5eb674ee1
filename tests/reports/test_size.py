"""A whole run's report: 30 cells of 500 epochs each, with as much telemetry as a cell keeps."""

import cProfile
import os
import pstats
import subprocess
import sys
from pathlib import Path

import pytest
from report_runs import Build, epoch_rows, look, metered, pair, record, write_telemetry

from profiles.record import EpochRow, write_csv
from reports.commands import write_report
from reports.page.samples import PICTURE_BYTES
from reports.source.load import read_run
from reports.source.published import categories, facts

CELLS, EPOCHS, SAMPLES = 30, 500, 10_000
MEASURE = """
import sys, time
from pathlib import Path
from reports.commands import write_report
from reports.source.load import read_run
started_s = time.process_time()
page = write_report(read_run(Path(sys.argv[1])), Path(sys.argv[1]) / "report")
took_s = time.process_time() - started_s
status = Path("/proc/self/status").read_text().splitlines()  # ru_maxrss would be of the process that started this one
peak_kib = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
print(took_s, peak_kib * 1024, page.stat().st_size)
"""


def whole_run(build: Build, cells: int, epochs: int = EPOCHS, samples: int = SAMPLES, name: str = "run") -> Path:
    """Build a run as large as asked for, with energy of every stage and nine close looks per cell."""
    names = categories()[: (cells + 1) // 2]
    specs = [metered(spec) for c in names for spec in pair(c, 1450.0, 1520.0, kind=facts()[c].kind)][:cells]
    run = build(*specs, name=name)
    for spec in specs:
        folder = write_telemetry(run, spec, samples)
        write_csv(folder / "epochs.csv", EpochRow._fields, epoch_rows(spec, epochs))
        whole = record(spec).model_copy(update={"observations": tuple(look(epoch) for epoch in range(1, 10))})
        (folder / "record.json").write_text(whole.model_dump_json(), encoding="utf-8")
    return run


@pytest.mark.slow
def test_thirty_cells_are_reported_within_a_gigabyte_five_megabytes_and_ten_seconds(build: Build) -> None:
    run = whole_run(build, CELLS)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    told = subprocess.run(
        [sys.executable, "-c", MEASURE, str(run)], env=environment, capture_output=True, text=True, check=True
    ).stdout
    seconds, memory, size = map(float, told.split())
    print(f"{CELLS} cells of {EPOCHS} epochs: {seconds:.1f} s, {memory / 2**20:.0f} MiB, a page of {size / 1e6:.1f} MB")
    assert memory < 2**30
    assert (
        size + 4 / 3 * PICTURE_BYTES < 5e6
    )  # the pictures of this run are small; those of another may fill their share
    assert seconds < 10.0  # of processor time, which a machine that does something else hardly changes


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
