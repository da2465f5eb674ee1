"""The command as typed, in processes of its own, and what a run computes whatever became of it on the way."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import psutil

BENCH = [sys.executable, "-m", "bench"]
TIMELESS = {"segmentation_auroc", "detection_auroc", "aupro_30", "average_precision", "best_epoch", "parameters"}
CELL = ["category", "model", "pipeline", "seed", "metric"]


def bench(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run([*BENCH, *words], capture_output=True, text=True, check=False, **options)


def started(*words: str) -> subprocess.Popen[bytes]:
    """Start the command, its words thrown away."""
    return subprocess.Popen([*BENCH, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def workers(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Return the processes that run cells for a command."""
    with suppress(psutil.NoSuchProcess):
        return [child for child in psutil.Process(process.pid).children() if "harness.worker" in command_line(child)]
    return []


def command_line(process: psutil.Process) -> list[str]:
    with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        return process.cmdline()
    return []


def kill(processes: list[psutil.Process]) -> None:
    """Kill processes at once, as a loss of power would."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            os.kill(process.pid, signal.SIGKILL)


def one_line(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """Check that a command ended as it should: its last line says why, and nothing is a traceback."""
    assert done.returncode == code, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("bench: ")
    for word in words:
        assert word in done.stderr
    assert not any(line.startswith("Traceback") for line in done.stderr.splitlines())


def remount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", disk], check=True)


def fill(disk: Path, going: subprocess.Popen[str]) -> Path:
    """Leave no room on a disk, nor what others give up there, until a command ends; return the file that takes it."""
    file = disk / "full"
    while going.poll() is None:
        with suppress(OSError), file.open("ab", buffering=0) as writing:
            while True:
                writing.write(bytes(4096))
        time.sleep(0.005)
    return file


def is_dead(process: psutil.Process) -> bool:
    """Whether a process has ended, though nobody may have asked yet how."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def computed(run: Path) -> dict[str, Any]:
    """Return every number of a run that no clock or memory gauge had a part in."""
    results = pd.read_csv(run / "results.csv").set_index(CELL)
    scores = results.loc[results.index.isin(TIMELESS, level="metric"), "value"].to_dict()
    losses = {
        str(path.relative_to(run)): pd.read_csv(path)[["epoch", "train_loss", "validation_loss", "is_best"]].to_dict()
        for path in sorted(run.glob("cells/*/*/*/epochs.csv"))
    }
    return {**scores, **losses}


def files(run: Path, keep: Callable[[Path], bool] = lambda _: True) -> set[str]:
    """Return every file of a run, by its place in it."""
    return {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file() and keep(path)}
