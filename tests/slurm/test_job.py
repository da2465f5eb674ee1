"""What a job does when it is told to stop, by whom and however often; SLURM is not needed for that."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("submitit")

from harness.directory import CellDirectory
from harness.launchers import job as subject
from harness.launchers.blame import UNTOLD, stopped_by_machine
from harness.launchers.job import CellJob
from harness.worker import tell_to_stop
from profiles.errors import MachineError

SAVES = """
import pathlib, signal, sys, time

def save(*_):
    time.sleep(0.2)
    pathlib.Path(sys.argv[1]).write_text("saved")
    sys.exit()

signal.signal(signal.SIGTERM, save)
pathlib.Path(sys.argv[1] + ".ready").touch()
time.sleep(60)
"""


class Requeued(Exception):  # noqa: N818 - what submitit does in its place is to exit
    """The job is queued again."""


@pytest.fixture
def job(tmp_path: Path) -> Iterator[CellJob]:
    """Return a job whose worker saves when it is told to stop, and which submitit's signal has come again."""
    job = CellJob([sys.executable, "-c", SAVES, str(tmp_path / "state")], tmp_path)

    def preempted(*_: object) -> None:
        job.checkpoint()
        raise Requeued

    before = signal.signal(signal.SIGUSR2, preempted)
    yield job
    signal.signal(signal.SIGUSR2, before)


def signalled(job: CellJob, ready: Path) -> None:
    """Run a job, which SLURM signals as soon as its worker listens."""
    me = os.getpid()
    words = f"while [ ! -e {ready} ]; do sleep 0.05; done; kill -USR2 {me}"
    with subprocess.Popen(["sh", "-c", words]), pytest.raises(Requeued):
        job()


@pytest.mark.timeout(30)
def test_a_job_signalled_again_before_it_has_told_its_worker_tells_it_once(
    job: CellJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []

    def telling(pid: int) -> None:
        told.append(pid)
        signal.raise_signal(signal.SIGUSR2)  # srun's, on top of SLURM's
        tell_to_stop(pid)

    monkeypatch.setattr(subject, "tell_to_stop", telling)
    signalled(job, tmp_path / "state.ready")
    assert told == [job.pid]
    assert (tmp_path / "state").read_text() == "saved"


@pytest.mark.timeout(30)
def test_a_signal_that_comes_while_the_worker_starts_is_not_lost(
    job: CellJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starting = os.posix_spawnp

    def signalled_meanwhile(*words: Any, **options: Any) -> int:
        signal.raise_signal(signal.SIGUSR2)
        return starting(*words, **options)

    monkeypatch.setattr(os, "posix_spawnp", signalled_meanwhile)
    with pytest.raises(Requeued):
        job()
    assert job.pid is not None
    with pytest.raises(ChildProcessError):  # it was waited for
        os.waitpid(job.pid, os.WNOHANG)


LISTENS = """
import signal, sys, time
from harness.interrupt import listening
from harness.worker import heed_once

if sys.argv[1:] == ["--in-job"]:
    heed_once()
with listening() as interrupt:
    print("ready", flush=True)
    while not interrupt.is_requested():
        time.sleep(0.01)
    print("told", flush=True)
    time.sleep(1)
print("saved", flush=True)
"""


@pytest.mark.parametrize(("words", "end", "code"), [([], "", -signal.SIGTERM), (["--in-job"], "saved\n", 0)])
def test_the_second_signal_ends_a_worker_at_once_unless_slurm_gives_it_time(
    words: list[str], end: str, code: int
) -> None:
    with subprocess.Popen([sys.executable, "-c", LISTENS, *words], stdout=subprocess.PIPE, text=True) as going:
        assert going.stdout is not None
        for expected in ("ready\n", "told\n"):
            assert going.stdout.readline() == expected
            going.send_signal(signal.SIGTERM)
        assert going.stdout.read() == end
    assert going.returncode == code


@pytest.mark.parametrize(("ranks", "threads"), [(1, "6"), (2, "3"), (4, "1"), (8, "1")])
def test_the_ranks_of_a_job_share_its_processors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ranks: int, threads: str
) -> None:
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "6")
    told = tmp_path / "told"
    words = ["sh", "-c", f"echo $OMP_NUM_THREADS > {told}"]
    assert CellJob(words, tmp_path, ranks)() == 0
    assert told.read_text().strip() == threads


def test_a_job_that_the_machine_stopped_has_its_cell_go_on_and_say_why(tmp_path: Path) -> None:
    folder = CellDirectory(tmp_path)
    folder.set_status("running")
    with pytest.raises(MachineError, match="it could not write or open what it needs"):
        CellJob(["sh", "-c", "exit 74"], tmp_path)()
    assert folder.status() == "pending"
    assert stopped_by_machine(folder) == UNTOLD
