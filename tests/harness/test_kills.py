"""A run killed at random moments, by SIGKILL, and resumed each time, ends in the numbers of an undisturbed one.

`BENCH_KILLS` says how many times; `make kills` kills fifty times and prints at what.
"""

import os
import random
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import tomli_w

from profiles.record import Manifest, read_model
from tests.harness.commands import bench, computed, files, kill, started, workers
from tests.harness.conftest import tiny_table

KILLS = int(os.environ.get("BENCH_KILLS", "5"))


def is_logged(run: Path, word: str) -> Callable[[], bool]:
    """Return whether the run's log has gained a line with *word* since now."""
    log = run / "events.jsonl"
    before = log.stat().st_size if log.exists() else 0

    def gained() -> bool:
        return log.exists() and word.encode() in log.read_bytes()[before:]

    return gained


def is_being_written(run: Path, pattern: str) -> Callable[[], bool]:
    return lambda: next(run.glob(pattern), None) is not None


def never(_: Path) -> Callable[[], bool]:
    return lambda: False


MOMENTS: dict[str, Callable[[Path], Callable[[], bool]]] = {
    "at any time": never,
    "while a checkpoint is written": lambda run: is_being_written(run, "cells/*/*/*/checkpoints/*.part"),
    "between cells": lambda run: is_logged(run, "cell_stop"),
    "in training": lambda run: is_logged(run, "epoch_start"),
    "in calibration": lambda run: is_logged(run, '"phase": "calibration"'),
    "in evaluation": lambda run: is_logged(run, '"phase": "evaluation"'),
    "while results are written": lambda run: is_being_written(run, "*.part"),
}


def killed(process: subprocess.Popen[bytes], come: Callable[[], bool], latest_s: float, draw: random.Random) -> bool:
    """Kill a command, its worker or both when the moment has come; return whether it was still going on."""
    limit = time.monotonic() + latest_s
    while process.poll() is None and time.monotonic() < limit and not come():
        time.sleep(0.0005)
    time.sleep(draw.uniform(0, 0.03))
    if process.poll() is not None:
        return False
    both = [psutil.Process(process.pid), *workers(process)]
    kill(draw.choice([both, both, both[:1], both[-1:]]))
    process.wait(timeout=120)  # a launcher whose worker was killed says so, and goes on with the next cell
    return True


def is_done(run: Path) -> bool:
    manifest = run / "manifest.json"
    return manifest.exists() and read_model(Manifest, manifest).status == "done"


def same(run: Path, whole: Path) -> None:
    """Check that a run ended as the undisturbed one did: the numbers, the files, nothing beside them."""
    assert computed(run) == computed(whole)
    assert files(run) == files(whole)
    done = bench("report", str(run), "--out", str(run.parent / "report"))
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_run_killed_at_random_moments_ends_in_the_same_numbers(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(tomli_w.dumps(tiny_table(None)))  # its data are made in the run
    config = ("--config", str(tmp_path / "tiny.toml"))
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert bench("run", *config, "--out", str(whole)).returncode == 0
    draw, moments, ended = random.Random(KILLS), Counter[str](), 0
    while moments.total() < KILLS or not is_done(run):
        begun = (run / "manifest.json").exists()
        if not begun and run.exists():
            shutil.rmtree(run)  # killed before it was a run: nothing to resume, and the command says so
        words = ("--resume", "--retry-failed", "--out", str(run)) if begun else (*config, "--out", str(run))
        name = draw.choice(list(MOMENTS))
        come, latest_s = MOMENTS[name](run), draw.uniform(0, 15) if name == "at any time" else 60.0
        going = started("run", *words)
        if moments.total() < KILLS:
            moments[name] += killed(going, come, latest_s, draw)
        else:
            assert going.wait() == 0
        if is_done(run):
            same(run, whole)
            ended += 1
            moments["in the report"] += killed(started("report", str(run)), lambda: False, draw.uniform(1, 4), draw)
            shutil.rmtree(run / "report", ignore_errors=True)
            same(run, whole)
            if moments.total() < KILLS:
                shutil.rmtree(run)
    print(f"{moments.total()} kills, {ended} runs ended: {dict(moments)}")
