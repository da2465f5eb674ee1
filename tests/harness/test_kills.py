"""A run killed at random moments, by SIGKILL, and resumed each time, ends in the numbers of an undisturbed one.

`BENCH_KILLS` says how many times; `make kills` kills fifty times and prints what was hit.
"""

import json
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
import tomli_w

from profiles.record import Manifest, read_model
from tests.harness.commands import bench, computed, files, is_dead, kill, started
from tests.harness.conftest import tiny_table

KILLS = int(os.environ.get("BENCH_KILLS", "5"))
WRITE, BETWEEN, REPORT = "checkpoint written", "between cells", "report"
TO_HIT = {WRITE, BETWEEN, "train", "calibration", "evaluation", REPORT}
"""What fifty kills must have reached."""

Come = Callable[[], bool]


def is_logged(run: Path, *words: str) -> Come:
    """Return whether the run's log has gained a line with *words* since now."""
    log = run / "events.jsonl"
    before = log.stat().st_size if log.exists() else 0

    def gained() -> bool:
        lines = log.read_bytes()[before:].splitlines() if log.exists() else []
        return any(all(word.encode() in line for word in words) for line in lines)

    return gained


def is_written(run: Path, pattern: str) -> Come:
    return lambda: next(run.glob(pattern), None) is not None


class Moment(NamedTuple):
    """When to kill: so many seconds at most after something has come."""

    come: Callable[[Path], Come]
    latest_s: float


MOMENTS = [
    Moment(lambda _: lambda: True, 15.0),
    Moment(lambda run: is_written(run, "cells/*/*/*/checkpoints/*.part"), 0.0),
    Moment(lambda run: is_logged(run, "cell_stop"), 0.5),
    Moment(lambda run: is_logged(run, "epoch_start"), 0.2),
    Moment(lambda run: is_logged(run, "phase_start", "calibration"), 0.02),
    Moment(lambda run: is_logged(run, "phase_start", "evaluation"), 0.02),
    Moment(lambda run: is_written(run, "*.part"), 0.0),
]


def children(pid: int) -> list[int]:
    """Return the processes that a process has started, in microseconds: a checkpoint is written in milliseconds."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def killed(words: tuple[str, ...], run: Path, moment: Moment, draw: random.Random) -> str | None:
    """Start a command and kill it, its worker or both when the moment has come; return what that hit, if anything."""
    come = moment.come(run)
    going, limit = started(*words), time.monotonic() + 60
    while going.poll() is None and time.monotonic() < limit and not come():
        time.sleep(0.0002)
    delay_s = draw.uniform(0, moment.latest_s)
    if delay_s:
        time.sleep(delay_s)
    if going.poll() is not None:
        return None
    both = [psutil.Process(pid) for pid in (going.pid, *children(going.pid))]
    victims = draw.choice([both, both, both[:1], both[-1:]])
    kill(victims)
    while not all(map(is_dead, victims)):
        time.sleep(0.001)
    found = REPORT if words[0] == "report" else hit(run, by_worker=both[-1] in victims)
    going.wait(timeout=120)  # a launcher whose worker was killed says so, and goes on with the next cell
    return found


def hit(run: Path, *, by_worker: bool) -> str:
    """Return what a run was doing when it was killed: by the files left half-written, else by its log.

    What a worker that lives on has half-written is not *by_worker*: it will be whole.
    """
    if by_worker and any(run.glob("cells/*/*/*/checkpoints/*.part")):
        return WRITE
    if any(run.rglob("*.part") if by_worker else run.glob("*.part")):
        return "another file written"
    log, doing = run / "events.jsonl", "start"
    for line in log.read_text().splitlines() if log.exists() else []:
        event = json.loads(line)
        doing = {
            "cell_start": "a cell's beginning",
            "phase_start": event.get("phase"),
            "phase_stop": "between phases",
            "cell_stop": BETWEEN,
            "run_stop": "end",
        }.get(event["event"], doing)
    return doing


def is_done(run: Path) -> bool:
    manifest = run / "manifest.json"
    return manifest.exists() and read_model(Manifest, manifest).status == "done"


def reported(run: Path) -> float:
    """Report a run to the end; return the seconds that took."""
    started_s = time.monotonic()
    done = bench("report", str(run))
    assert done.returncode == 0, done.stderr
    return time.monotonic() - started_s


def moments(draw: random.Random) -> Iterator[Moment]:
    """Yield every moment as often as any other, in random order."""
    return chain.from_iterable(draw.sample(MOMENTS, len(MOMENTS)) for _ in repeat(None))


def note(hits: Counter[str], found: str | None) -> None:
    """Count what was hit, if anything was."""
    if found is not None:
        hits[found] += 1
        print(f"{hits.total()}: {found}", flush=True)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_run_killed_at_random_moments_ends_in_the_same_numbers(tmp_path: Path) -> None:
    table = tiny_table(None, save_every_s=0.02)  # its data are made in the run; it saves within its epochs
    (tmp_path / "tiny.toml").write_text(tomli_w.dumps(table))
    config = ("--config", str(tmp_path / "tiny.toml"))
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert bench("run", *config, "--out", str(whole)).returncode == 0
    report_s = reported(whole)
    draw, hits, ended = random.Random(KILLS), Counter[str](), 0
    planned = moments(draw)
    while hits.total() < KILLS or not is_done(run):
        if is_done(run):
            shutil.rmtree(run)
        begun = (run / "manifest.json").exists()
        if not begun and run.exists():
            shutil.rmtree(run)  # killed before it was a run: nothing to resume, and the command says so
        words = ("run", "--out", str(run), *(("--resume", "--retry-failed") if begun else config))
        if hits.total() < KILLS:
            note(hits, killed(words, run, next(planned), draw))
        else:
            assert started(*words).wait() == 0
        if is_done(run):
            at_once = Moment(lambda _: lambda: True, report_s)
            note(hits, killed(("report", str(run)), run, at_once, draw))
            reported(run)  # over whatever the killed one left
            assert computed(run) == computed(whole)
            assert files(run) == files(whole)
            ended += 1
    print(f"{hits.total()} kills, {ended} runs ended: {dict(hits.most_common())}")
    assert hits.keys() >= TO_HIT or hits.total() < 50
