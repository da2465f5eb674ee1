"""Cells as jobs of a real SLURM: an array, one job requeued, one preempted, one cancelled; a local run's numbers."""

import json
import shlex
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import tomli_w

from harness.launchers.asked import as_typed, counted, gpus_asked, minutes, slurm_options
from profiles.errors import ConfigError
from tests.harness.commands import BENCH, bench, computed, fill, one_line, remount
from tests.harness.conftest import tiny_table

pytestmark = [pytest.mark.alone, pytest.mark.slurm, pytest.mark.timeout(900)]

JOBS = ("--launcher", "slurm", "--time", "10", "--slurm", "cpus-per-task=1")


def written(path: Path, generated: Path, **training: Any) -> Path:
    """Write the configuration of four cells."""
    path.write_text(tomli_w.dumps(tiny_table(generated, **training)))
    return path


@pytest.fixture(scope="module")
def config(generated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a configuration of four cells whose training leaves time to be stopped in."""
    return written(tmp_path_factory.mktemp("slurm-runs") / "tiny.toml", generated, max_epochs=40, patience=40)


@pytest.fixture(scope="module")
def local(config: Path) -> Path:
    """Return the same run without SLURM."""
    run = config.parent / "local"
    done = bench("run", "--config", str(config), "--out", str(run))
    assert done.returncode == 0, done.stderr
    return run


def submitted(config: Path, run: Path) -> subprocess.Popen[str]:
    words = [*BENCH, "run", "--config", str(config), "--out", str(run), *JOBS]
    return subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def wait_until(holds: Callable[[], bool], going: subprocess.Popen[str]) -> None:
    limit = time.monotonic() + 300
    while not holds():
        assert going.poll() is None, going.communicate()
        assert time.monotonic() < limit, squeue()
        time.sleep(0.02)


def squeue() -> list[str]:
    words = ["squeue", "--noheader", "--array", "--format=%i"]
    return sorted(subprocess.run(words, capture_output=True, text=True, check=True).stdout.split())


def trains(run: Path, cell: str) -> Callable[[], bool]:
    """Return whether a cell has trained an epoch, and has more to train."""
    epochs = run / "cells" / cell / "seed0" / "epochs.csv"
    return lambda: epochs.exists() and 2 <= epochs.read_bytes().count(b"\n") < 30


def events(run: Path, cell: str) -> list[str]:
    lines = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    return [line["status"] for line in lines if line["event"] == "cell_stop" and cell in line["cell"]]


def scontrol(*words: str) -> None:
    subprocess.run(words, check=True)


def test_an_array_whose_jobs_are_requeued_and_preempted_gives_the_numbers_of_a_local_run(
    slurm: None, config: Path, local: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    going = submitted(config, run)
    wait_until(trains(run, "weave/msa-fast"), going)
    first = squeue()[0]
    scontrol("scontrol", "requeue", first)  # as an administrator would: SIGTERM, and once more from the beginning
    wait_until(trains(run, "weave/mlsa-fast"), going)
    second = f"{first.replace('_0', '_1')}.0"
    ahead = ["scancel", "--signal=USR2", second]  # as SLURM would ahead of a limit
    at_once = [subprocess.Popen(words) for words in (ahead, ahead, ["scancel", "--signal=TERM", second])]
    assert [each.wait() for each in at_once] == [0, 0, 0]
    stdout, stderr = going.communicate(timeout=600)
    assert going.returncode == 0, stderr
    assert computed(run) == computed(local)
    assert events(run, "weave/msa-fast") == ["interrupted", "done"]
    assert events(run, "weave/mlsa-fast") == ["interrupted", "done"]
    assert "4 jobs" in stderr
    assert "weave/msa-fast/seed0: running" in stderr
    assert stdout.count("done") >= 4
    assert (run / "environment.json").exists()


def test_a_cancelled_job_saves_its_state_and_the_run_resumes(
    slurm: None, config: Path, local: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    going = submitted(config, run)
    wait_until(trains(run, "weave/msa-fast"), going)
    scontrol("scancel", squeue()[0])
    _, stderr = going.communicate(timeout=600)
    assert going.returncode == 130, stderr
    assert "jobs ended before their cells did, their state saved: weave/msa-fast/seed0" in stderr
    assert f"bench run --resume --out {run} --launcher slurm --time 10 --slurm cpus_per_task=1" in stderr
    done = bench("run", "--resume", "--out", str(run))
    assert done.returncode == 0, done.stderr
    assert computed(run) == computed(local)


def test_a_launcher_told_to_stop_cancels_its_jobs_and_leaves_a_run_that_resumes(
    slurm: None, config: Path, local: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    going = submitted(config, run)
    wait_until(trains(run, "weave/msa-fast"), going)
    going.send_signal(signal.SIGINT)
    _, stderr = going.communicate(timeout=600)
    assert going.returncode == 130, stderr
    assert not squeue()
    done = bench("run", "--resume", "--out", str(run), *JOBS)
    assert done.returncode == 0, done.stderr
    assert computed(run) == computed(local)


def test_a_disk_that_stays_full_under_a_job_stops_the_run_and_leaves_its_cells_to_go_on(
    slurm: None, config: Path, disk: Path
) -> None:
    remount(disk, "size=64m")
    run = disk / "run"
    going = submitted(config, run)
    wait_until(trains(run, "weave/msa-fast"), going)
    full = fill(disk, going)
    _, stderr = going.communicate(timeout=600)
    one_line(subprocess.CompletedProcess(going.args, going.returncode, "", stderr), 74, "mend that, then go on with")
    assert not squeue()
    full.unlink()
    done = bench("run", "--resume", "--out", str(run), "--budget", "10s")
    assert done.returncode == 4, done.stderr
    assert '"failed"' not in "".join(path.read_text() for path in run.glob("cells/*/*/*/status.json"))


def test_a_job_says_which_batch_its_memory_holds(slurm: None, config: Path, tmp_path: Path) -> None:
    words = (*JOBS, "--category", "weave", "--model", "msa", "--set", "training.batch_size=1000000000")
    done = bench("run", "--config", str(config), "--out", str(tmp_path / "run"), *words)
    assert done.returncode == 1, done.stderr
    said = next(line for line in done.stderr.splitlines() if line.startswith("weave/msa-fast/seed0 failed (job "))
    assert "memory of weave/msa-fast/seed0: got a need of about" in said
    assert "fix: --set training.batch_size=" in said


def test_the_ranks_of_a_job_share_its_processors_and_give_the_losses_of_one_process(
    slurm: None, config: Path, local: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    words = ("--launcher", "slurm", "--time", "10", "--slurm", "cpus-per-task=2", "--ranks", "2")
    one = ("--category", "weave", "--model", "mlsa", "--set", "training.max_epochs=2")
    done = bench("run", "--config", str(config), "--out", str(run), *words, *one)
    assert done.returncode == 0, done.stderr
    assert json.loads((run / "environment.json").read_text())["threads"] == 1
    cell = "cells/weave/mlsa-fast/seed0"
    assert json.loads((run / cell / "record.json").read_text())["ranks"] == 2
    found, expected = (pd.read_csv(each / cell / "epochs.csv").head(2)["train_loss"] for each in (run, local))
    assert found.tolist() == pytest.approx(expected.tolist(), rel=1e-5)


def test_what_slurm_refuses_is_one_line(slurm: None, config: Path, tmp_path: Path) -> None:
    done = bench("run", "--config", str(config), "--out", str(tmp_path / "run"), *JOBS, "--partition", "nowhere")
    assert done.returncode == 2, done.stderr
    assert "--launcher slurm" in done.stderr.splitlines()[-1]
    assert "invalid partition" in done.stderr.splitlines()[-1]


def test_options_of_slurm_need_its_launcher(config: Path) -> None:
    done = bench("run", "--config", str(config), "--partition", "all")
    assert done.returncode == 2
    assert "partition without --launcher slurm" in done.stderr


@pytest.mark.parametrize(("text", "expected"), [
    ("90", 90), ("1:30", 2), ("8:00:00", 480), ("1-12", 2160), ("1-00:30", 1470), ("2-03:04:05", 3065),
])  # fmt: skip
def test_times_are_read_as_sbatch_does(text: str, expected: int) -> None:
    assert minutes(text) == expected


def test_options_can_be_typed_again() -> None:
    options = slurm_options("a b", "1-12", "gpu:1", ["cpus-per-task=4", "account=lab"])
    words = (*as_typed(options), *counted(jobs=2, ranks=4))
    typed = "--partition 'a b' --gres gpu:1 --time 2160 --slurm cpus_per_task=4 --slurm account=lab --jobs 2 --ranks 4"
    assert shlex.join(words) == typed
    assert slurm_options("a b", "2160", "gpu:1", ["cpus_per_task=4", "account=lab"]) == options
    assert counted(jobs=None, ranks=1) == ()


@pytest.mark.parametrize(("gres", "expected"), [
    ("gpu", 1), ("gpu:2", 2), ("gpu:a100", 1), ("gpu:a100:3", 3), ("gpu:a:1,gpu:b:2", 3), ("shard:4", None), ("", None),
])  # fmt: skip
def test_the_gpus_of_a_job_are_counted(gres: str, expected: int | None) -> None:
    assert gpus_asked({"gres": gres}) == expected


def test_options_are_checked() -> None:
    assert slurm_options("a", "10", "gpu:1", ["cpus-per-task=4", "account=lab"]) == {
        "partition": "a", "gres": "gpu:1", "time": 10, "cpus_per_task": 4, "account": "lab",
    }  # fmt: skip
    with pytest.raises(ConfigError, match="--slurm: got 'account'; expected KEY=VALUE"):
        slurm_options(None, None, None, ["account"])
    with pytest.raises(ConfigError, match="--time: got 'soon'"):
        slurm_options(None, "soon", None, [])
