"""What a machine can do to a run: a full or read-only disk, no more files, a clock set back, a process killed.

Each is one line on stderr and no traceback; what was saved is whole, and a run resumed ends in the same numbers.
"""

import errno
import json
import subprocess
import time
from datetime import datetime, timedelta, tzinfo
from itertools import count
from pathlib import Path

import psutil
import pytest
import tomli_w

import harness.directory
import harness.launch
import harness.run
from harness.cells import Cell, plan
from harness.config import RunConfig
from harness.context import Context
from harness.directory import CellDirectory, RunDirectory
from harness.interrupt import listening
from harness.launch import start
from harness.launchers.blame import stopped_by_machine
from harness.launchers.here import Here
from harness.mending import mend
from profiles.errors import MachineError
from tests.harness.commands import BENCH, bench, computed, fill, kill, one_line, remount, started, workers
from tests.harness.conftest import tiny_table


@pytest.fixture(scope="module")
def config(generated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of a run of two cells."""
    path = tmp_path_factory.mktemp("faults") / "tiny.toml"
    table = tiny_table(generated)
    path.write_text(tomli_w.dumps({**table, "data": {**table["data"], "categories": ["weave"]}}))
    return path


@pytest.fixture(scope="module")
def whole(config: Path) -> Path:
    """Return an undisturbed run, not to be changed."""
    run = config.parent / "whole"
    assert bench("run", "--config", str(config), "--out", str(run)).returncode == 0
    return run


def resumed(run: Path, *words: str) -> None:
    done = bench("run", "--resume", "--out", str(run), *words)
    assert done.returncode == 0, done.stderr


def test_a_full_disk_stops_a_run_that_goes_on_when_there_is_space(config: Path, whole: Path, disk: Path) -> None:
    run = disk / "run"
    one_line(bench("run", "--config", str(config), "--out", str(run)), 74, "No space left on device", "--resume --out")
    remount(disk, "size=64m")
    resumed(run)
    assert computed(run) == computed(whole)
    assert not list(run.rglob("*.part"))


def test_a_run_whose_end_cannot_be_written_tells_what_ended_it(
    tiny: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    class Full(Here):
        def __call__(self, cells: list[Cell], context: Context) -> None:
            monkeypatch.setattr(harness.launch, "write_model", broken)
            if set(context.cells) == set(cells):
                raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(MachineError, match=r"No space left on device; what was saved is kept; mend that, then go on"):
        start(tiny, tmp_path / "run", Full())
    assert "how the run ended could not be written ([Errno 30] Read-only file system)" in capsys.readouterr().err


@pytest.mark.parametrize("call", ["set_status", "log"])
def test_a_cell_whose_status_cannot_be_written_tells_what_stopped_it(
    tiny: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    kind = CellDirectory if call == "set_status" else RunDirectory
    original = getattr(kind, call)

    def broken(self: object, word: str, *arguments: object, **fields: object) -> None:
        if word in {"pending", "cell_stop"} and stopped:
            raise OSError(errno.EROFS, "Read-only file system")
        original(self, word, *arguments, **fields)

    def full(*_: object) -> None:
        stopped.append(call)
        raise OSError(errno.ENOSPC, "No space left on device")

    stopped: list[str] = []
    monkeypatch.setattr(kind, call, broken)
    monkeypatch.setattr(harness.run, "run_cell", full)
    with pytest.raises(MachineError, match="No space left on device"):
        start(tiny, tmp_path / "run")


@pytest.mark.parametrize("ranks", ["1", "2"])
def test_a_disk_that_stays_full_stops_a_run_with_the_first_error_and_leaves_its_cells_to_go_on(
    config: Path, disk: Path, ranks: str
) -> None:
    remount(disk, "size=64m")
    run = disk / "run"
    words = ["run", "--config", str(config), "--out", str(run), "--ranks", ranks, "--set", "training.max_epochs=200"]
    going = subprocess.Popen(
        [*BENCH, *words, "--set", "training.patience=200"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not list(run.glob("cells/*/*/*/checkpoints/previous.pt")):
        assert going.poll() is None
        time.sleep(0.001)
    full = fill(disk, going)
    _, said = going.communicate(timeout=120)
    done = subprocess.CompletedProcess(going.args, going.returncode, "", said)
    one_line(done, 74, "No space left on device", "mend that, then go on with: bench run --resume")
    assert '"failed"' not in "".join(path.read_text() for path in run.glob("cells/*/*/*/status.json"))
    full.unlink()
    assert bench("run", "--resume", "--out", str(run), "--ranks", ranks, "--budget", "10s").returncode == 4
    assert '"failed"' not in "".join(path.read_text() for path in run.glob("cells/*/*/*/status.json"))


def test_a_read_only_disk_is_refused_and_left_alone(config: Path, whole: Path, disk: Path) -> None:
    remount(disk, "size=64m")
    run = disk / "run"
    assert bench("run", "--config", str(config), "--out", str(run), "--budget", "1s").returncode == 4
    remount(disk, "ro")
    one_line(bench("run", "--resume", "--out", str(run)), 2, "Read-only file system")
    one_line(bench("run", "--config", str(config), "--out", str(disk / "other")), 2, "expected a writable folder")
    remount(disk, "rw")
    resumed(run)
    assert computed(run) == computed(whole)


def test_a_run_without_files_to_open_stops_and_goes_on(config: Path, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    going = subprocess.Popen(
        [*BENCH, "run", "--config", str(config), "--out", str(run)], stderr=subprocess.PIPE, text=True
    )
    while not list(run.glob("cells/*/*/*/checkpoints/last.pt")):
        assert going.poll() is None
        time.sleep(0.001)
    (worker,) = workers(going)
    worker.rlimit(psutil.RLIMIT_NOFILE, (3, 3))
    _, words = going.communicate(timeout=120)
    one_line(
        subprocess.CompletedProcess(going.args, going.returncode, "", words), 74, "Too many open files", "mend that"
    )
    resumed(run)
    assert computed(run) == computed(whole)


class Backwards(datetime):
    """A wall clock that is set back an hour at every look."""

    looks = 0

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:
        cls.looks += 1
        return datetime.now(tz) - timedelta(hours=cls.looks)


def test_a_clock_set_back_changes_no_number(
    tiny: RunConfig, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness.directory, "datetime", Backwards)
    now_s, looks = time.time(), count()
    monkeypatch.setattr(time, "time", lambda: now_s - 3600 * next(looks))
    data = tiny.data.model_copy(update={"categories": ("weave",)})
    start(tiny.model_copy(update={"data": data}), tmp_path / "run")
    assert Backwards.looks > 50
    assert computed(tmp_path / "run") == computed(whole)
    assert bench("report", str(tmp_path / "run")).returncode == 0


def test_a_killed_process_fails_its_cell_alone_and_the_cell_goes_on_when_tried_again(
    config: Path, whole: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    going = started("run", "--config", str(config), "--out", str(run))
    while not list(run.glob("cells/weave/msa-fast/seed0/checkpoints/last.pt")):
        assert going.poll() is None
        time.sleep(0.001)
    kill(workers(going))
    assert going.wait() == 1
    status = (run / "cells/weave/msa-fast/seed0/status.json").read_text()
    assert "its process was killed by signal 9" in status
    assert '"done"' in (run / "cells/weave/mlsa-fast/seed0/status.json").read_text()
    resumed(run, "--retry-failed")
    assert computed(run) == computed(whole)


def test_a_worker_whose_launcher_was_killed_saves_its_state_and_ends(config: Path, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    going = started("run", "--config", str(config), "--out", str(run))
    while not list(run.glob("cells/*/*/*/checkpoints/last.pt")):
        assert going.poll() is None
        time.sleep(0.001)
    orphans = workers(going)
    kill([psutil.Process(going.pid)])
    going.wait()
    _, alive = psutil.wait_procs(orphans, timeout=60)
    assert not alive
    resumed(run)
    assert computed(run) == computed(whole)


def test_two_cells_at_once_give_the_numbers_of_one_after_the_other(config: Path, whole: Path, tmp_path: Path) -> None:
    done = bench("run", "--config", str(config), "--out", str(tmp_path / "run"), "--jobs", "2")
    assert done.returncode == 0, done.stderr
    assert computed(tmp_path / "run") == computed(whole)
    record = (tmp_path / "run/cells/weave/msa-fast/seed0/record.json").read_text()
    assert "up to 2 cells ran at once on this machine (--jobs)" in record
    assert json.loads(record)["cells_at_once"] == 2


def test_a_spent_budget_leaves_a_report_and_a_run_that_resumes(config: Path, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = bench("run", "--config", str(config), "--out", str(run), "--set", "training.max_epochs=100000",
                 "--set", "training.patience=100000", "--budget", "8s")  # fmt: skip
    one_line(done, 4, "the budget is spent; the state is saved; go on with: bench run --resume --out")
    assert '"interrupted"' in (run / "manifest.json").read_text()
    one_line(bench("run", "--budget", "soon"), 2, "--budget: got 'soon'; expected a time such as 8h")


def test_what_the_machine_did_to_a_cell_is_forgotten_when_the_run_goes_on(tiny: RunConfig, tmp_path: Path) -> None:
    directory, cells = RunDirectory(tmp_path), plan(tiny)
    for cell in cells:
        directory.cell(cell.name).create()
    stopped = directory.cell(cells[0].name)
    stopped.set_status("pending", "No space left on device")
    assert stopped_by_machine(stopped) == "No space left on device"
    with listening() as interrupt:
        mend(directory, cells, interrupt, retry_failed=False)
    assert stopped.status() == "pending"
    assert stopped_by_machine(stopped) is None
