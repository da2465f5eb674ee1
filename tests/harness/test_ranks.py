"""Several processes train one cell as one does: two gloo ranks on a CPU."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
import tomli_w
import torch
from hypothesis import given
from hypothesis import strategies as st

import harness.worker
from harness.cells import Cell
from harness.config import build, file_table
from harness.context import Context
from harness.launch import start
from harness.launchers.here import Here
from harness.ranks import Ranks, refuse_ranks
from models.windows import Windows
from profiles.errors import ConfigError
from tests.harness.commands import bench, kill, started, workers
from tests.harness.conftest import tiny_table

TO_ROUNDING = 1e-5


@pytest.fixture(scope="module")
def config(generated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of a run of one cell, whose epochs of 25 windows leave one for the last batch of 8."""
    path = tmp_path_factory.mktemp("ranks") / "tiny.toml"
    table = tiny_table(generated, windows_per_image=5)
    path.write_text(tomli_w.dumps({**table, "models": ["mlsa"], "data": {**table["data"], "categories": ["weave"]}}))
    return path


@pytest.fixture(scope="module")
def by_two(config: Path) -> Path:
    """Return a run by two ranks, not to be changed."""
    run = config.parent / "two"
    done = bench("run", "--config", str(config), "--out", str(run), "--ranks", "2")
    assert done.returncode == 0, done.stderr
    return run


def record(run: Path) -> dict[str, object]:
    return json.loads((run / "cells/weave/mlsa-fast/seed0/record.json").read_text())


def losses(run: Path) -> pd.DataFrame:
    return pd.read_csv(run / "cells/weave/mlsa-fast/seed0/epochs.csv")[["train_loss", "validation_loss"]]


def test_two_ranks_give_the_losses_of_one_process(config: Path, by_two: Path) -> None:
    done = bench("run", "--config", str(config), "--out", str(config.parent / "one"), "--no-profiler")
    assert done.returncode == 0, done.stderr
    pd.testing.assert_frame_equal(losses(by_two), losses(config.parent / "one"), rtol=TO_ROUNDING, atol=0)
    scores = [float(value) for value in _scores(by_two)]
    assert scores == pytest.approx([float(value) for value in _scores(config.parent / "one")], rel=1e-3)


def _scores(run: Path) -> list[object]:
    results = pd.read_csv(run / "results.csv")
    return results.loc[results["unit"] == "%", "value"].tolist()


def test_stages_of_all_ranks_are_summed_and_the_slowest_is_named(by_two: Path) -> None:
    cell = "cells/weave/mlsa-fast/seed0/stages.csv"
    tables = [pd.read_csv(by_two / cell), pd.read_csv(by_two / "ranks/1" / cell)]
    for table in tables:
        assert table.groupby(["phase", "epoch"])["share"].sum().sub(1).abs().max() < 1e-9
    found = record(by_two)
    assert found["ranks"] == 2
    totals = {(row["phase"], row["stage"], row["direction"]): row for row in found["rank_totals"]}  # type: ignore[index]
    key = ("train", "attention", "backward")
    taken = [
        table[(table["phase"] == "train") & (table["stage"] == "attention") & (table["direction"] == "backward")]
        for table in tables
    ]
    each = [rows.loc[rows["epoch"] > 0, "exposed_s"].sum() for rows in taken]
    assert min(each) > 0
    assert totals[key]["summed_s"] == pytest.approx(sum(each))
    assert totals[key]["slowest_s"] == pytest.approx(max(each))
    assert totals[key]["slowest_rank"] == each.index(max(each))
    assert any("2 processes trained the cell" in caveat for caveat in found["caveats"])  # type: ignore[attr-defined]


def test_what_a_rank_draws_while_rank_0_calibrates_and_evaluates_is_measured(by_two: Path) -> None:
    cell = "cells/weave/mlsa-fast/seed0/energy.csv"
    phases = [set(pd.read_csv(run / cell)["phase"]) for run in (by_two, by_two / "ranks/1")]
    assert phases == [{"train", "validation", "calibration", "evaluation"}] * 2


def test_ranks_told_to_stop_save_one_state_and_go_on_to_the_same_losses(
    config: Path, by_two: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    going = started("run", "--config", str(config), "--out", str(run), "--ranks", "2")
    while not list(run.glob("cells/*/*/*/checkpoints/last.pt")):
        assert going.poll() is None
        time.sleep(0.001)
    going.send_signal(signal.SIGTERM)
    assert going.wait(timeout=120) == 130
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["ranks"] == 2
    assert manifest["resume"] == f"bench run --resume --out {run} --ranks 2"
    other = bench("run", "--resume", "--out", str(run), "--ranks", "1")
    assert other.returncode == 2
    assert "--ranks: got 1; expected 2, with which the run began; fix: --ranks 2, or a new run" in other.stderr
    (launched,) = run.glob("cells/*/*/*/status.json")
    assert '"pending"' in launched.read_text()
    by_hand = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = [*by_hand, "-m", "harness.worker", str(run), "weave/mlsa-fast/seed0"]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert bench("run", "--resume", "--out", str(run)).returncode == 0
    pd.testing.assert_frame_equal(losses(run), losses(by_two), rtol=1e-6, atol=0)
    assert _scores(run) == pytest.approx(_scores(by_two), rel=1e-3)


def test_a_killed_rank_fails_the_cell_and_hangs_nobody(config: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ("--set", "training.max_epochs=100000", "--set", "training.patience=100000")
    going = started("run", "--config", str(config), "--out", str(run), "--ranks", "2", *words)
    while not list(run.glob("ranks/1/events.jsonl")) or not list(run.glob("cells/*/*/*/checkpoints/last.pt")):
        assert going.poll() is None
        time.sleep(0.001)
    (torchrun,) = workers(going)
    ranks = [child for child in torchrun.children() if "harness.worker" in child.cmdline()]
    kill([child for child in ranks if child.environ()["RANK"] == "1"])
    assert going.wait(timeout=120) == 1
    assert '"failed"' in next(run.glob("cells/*/*/*/status.json")).read_text()
    _, alive = psutil.wait_procs([torchrun, *ranks], timeout=60)
    assert not alive


@pytest.mark.parametrize(("device", "gpus", "jobs", "message"), [
    ("cuda", 1, 1, "--ranks: got 2; expected at most 1, the GPUs of a cell; fix: --ranks 1"),
    ("cuda", 8, 2, "--jobs: got 2 beside --ranks 2; expected one cell at a time, whose ranks take a GPU each; fix"),
    ("cuda:1", 8, 1, "--device: got cuda:1 for 2 ranks; expected cuda: each rank takes a GPU; fix: --device cuda"),
])  # fmt: skip
def test_ranks_without_a_gpu_each_are_refused(device: str, gpus: int, jobs: int, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        refuse_ranks(2, torch.device(device), 8, gpus=gpus, jobs=jobs)
    refuse_ranks(2, torch.device("cpu"), 8, gpus=None, jobs=2)
    refuse_ranks(1, torch.device(device), 8, gpus=gpus, jobs=jobs)
    refuse_ranks(2, torch.device("cuda"), 8, gpus=2)


def test_a_rank_of_a_job_without_a_gpu_for_it_fails_the_cell_with_the_reason(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OneGpu(Here):
        elsewhere, ranks = True, 2

        def __call__(self, cells: list[Cell], context: Context) -> None:
            with monkeypatch.context() as patch:
                patch.setattr(harness.worker, "resolve_device", lambda _: torch.device("cuda"))
                patch.setattr(torch.cuda, "device_count", lambda: 1)
                patch.setenv("WORLD_SIZE", "2")
                for rank in ("1", "0"):
                    patch.setenv("RANK", rank)
                    assert harness.worker.main([str(context.directory.root), cells[0].name]) == 0

    start(build(file_table(config), "tiny"), tmp_path / "run", OneGpu())
    status = json.loads(next((tmp_path / "run").glob("cells/*/*/*/status.json")).read_text())
    assert status["status"] == "failed"
    assert status["error"].startswith("--ranks: got 2; expected at most 1, the GPUs of a cell")


def test_ranks_that_cannot_share_a_batch_are_refused(config: Path) -> None:
    with pytest.raises(ConfigError, match=r"--ranks: got 3; expected a divisor of training\.batch_size, 8"):
        refuse_ranks(3, torch.device("cpu"), 8)
    done = bench("run", "--config", str(config), "--ranks", "5")
    assert done.returncode == 2


@given(st.integers(1, 60), st.integers(1, 4), st.integers(1, 5))
def test_ranks_share_every_window_once_and_weigh_it_alike(count: int, size: int, per_rank: int) -> None:
    batch_size = size * per_rank
    number = torch.arange(count)
    windows = Windows(number, number, number)
    shares = [Ranks(rank, size).share(windows, batch_size).image_b.split(per_rank) for rank in range(size)]
    assert len({len(share) for share in shares}) == 1  # as many steps on every rank
    for step, first in enumerate(range(0, count, batch_size)):
        here = min(batch_size, count - first)
        parts = [shares[rank][step][: Ranks(rank, size).part(here)] for rank in range(size)]
        assert sorted(torch.cat(parts).tolist()) == list(range(first, first + here))
        weights = [Ranks(rank, size).weight(here) for rank in range(size)]
        assert sum(weights) == pytest.approx(size)
        assert weights == pytest.approx([len(part) * size / here for part in parts])


WITH_RANKS = """
import subprocess, sys
code = "import time; print('ready', flush=True); time.sleep(60)"
ranks = [subprocess.Popen([sys.executable, "-c", code, "harness.worker"], stdout=subprocess.PIPE) for _ in range(2)]
for rank in ranks:
    rank.stdout.readline()
print("ready", flush=True)
print(*(rank.wait() for rank in ranks), flush=True)
"""
"""Stands for torchrun: it waits for its ranks, and does not pass a signal on."""


def test_each_rank_is_told_to_stop_and_not_who_started_them() -> None:
    with subprocess.Popen([sys.executable, "-c", WITH_RANKS], stdout=subprocess.PIPE, text=True) as torchrun:
        assert torchrun.stdout is not None
        assert torchrun.stdout.readline() == "ready\n"
        harness.worker.tell_to_stop(torchrun.pid)
        assert torchrun.stdout.read() == f"{-signal.SIGTERM} {-signal.SIGTERM}\n"
    assert torchrun.returncode == 0
