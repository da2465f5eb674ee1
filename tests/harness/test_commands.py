import importlib.util
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

import bench
import harness.commands
import harness.launch
from harness.config import build, file_table, suite_names
from harness.dataset import Category
from harness.launch import start
from harness.synthesize import GENERATED
from harness.training import Trainer
from profiles.errors import BenchError, BudgetSpentError
from tests.harness.conftest import tiny_table

runner = CliRunner()


def lines(*arguments: str) -> str:
    result = runner.invoke(bench.app, arguments, terminal_width=200)
    if isinstance(result.exception, BenchError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "bench", *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("arguments", [
    ["run"], ["report"], ["suites"], ["doctor"], ["data"], ["data", "synthesize"],
    ["data", "download"], ["data", "verify"], ["whatif"], ["surface"],
])  # fmt: skip
def test_every_command_has_help_with_an_example(arguments: list[str]) -> None:
    text = lines(*arguments, "--help")
    assert f"Example: bench {' '.join(arguments)}" in text


def test_the_examples_name_categories_that_there_are() -> None:
    words = lines("data", "synthesize", "--help").partition("Example:")[2].split()
    assert words[words.index("--category") + 1] in GENERATED


@pytest.mark.parametrize("arguments", [[], ["data"]])
def test_without_arguments_it_shows_help(arguments: list[str]) -> None:
    assert "Usage:" in lines(*arguments)
    assert lines(*arguments) == lines(*arguments, "--help")


def test_a_relative_data_root_is_kept_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = harness.commands.configuration("mvtec-full", None, {"data.root": None}, ["data.root=mvtec"])
    assert config.data.root == str(tmp_path / "mvtec")


def test_version_tells_number_and_commit() -> None:
    number, _, commit = lines("--version").removeprefix("bench ").partition(" (commit ")
    assert number.count(".") == 2
    assert commit


def test_suites_lists_them_all() -> None:
    text = lines("suites")
    for name in suite_names():
        assert name in text


@pytest.mark.parametrize("name", suite_names())
def test_a_suite_is_shown_resolved_with_the_cost_of_each_cell(name: str, tmp_path: Path) -> None:
    text = lines("suites", name)
    toml, _, cost = text.partition(f"{name}: estimated at")
    (tmp_path / "shown.toml").write_text(toml.rpartition("\n")[0])
    config = build(file_table(tmp_path / "shown.toml"), name)
    cells = len(config.data.categories) * len(config.models) * len(config.pipelines)
    assert cost.count("/seed0") == cells
    assert cost.count(" GiB") == cells
    assert f"{cells} cells, at least" in cost
    assert ("pipeline 'thesis' takes many times as long" in cost) == (name == "thesis-pipeline")
    assert lines("run", "--suite", name, "--dry-run").count("/seed0") == cells


def test_options_choose_among_the_cells() -> None:
    text = lines("run", "--suite", "mvtec-epoch", "--category", "tile", "--model", "mlsa", "--seed", "3", "--dry-run")
    assert text.count("/seed") == 1
    assert "tile/mlsa-fast/seed3" in text


@pytest.mark.parametrize("pipeline", ["thesis", "fast"])
@pytest.mark.parametrize("name", suite_names())
def test_every_suite_runs_on_either_pipeline(name: str, pipeline: str) -> None:
    text = lines("run", "--suite", name, "--pipeline", pipeline, "--dry-run")
    assert text.count(f"-{pipeline}/seed0") == text.count("/seed0") > 0


@pytest.mark.parametrize(("budget_s", "cells", "left_s"), [(28800.0, 30, 28770.0), (10.0, 30, 9.0), (100.0, 2, 98.0)])
def test_a_budget_leaves_time_for_the_report(budget_s: float, cells: int, left_s: float) -> None:
    assert harness.commands.without_report(budget_s, cells) == pytest.approx(left_s)


def test_a_budget_counts_while_the_data_set_is_looked_at(
    generated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at = []

    def slow(category: Category) -> None:
        looked_at.append(category)
        time.sleep(0.3)

    monkeypatch.setattr(harness.launch, "inspect_category", slow)
    with pytest.raises(BudgetSpentError, match="the budget is spent") as error:
        start(build(tiny_table(generated), "tiny"), tmp_path / "run", budget_s=0.2)
    assert len(looked_at) == 1
    assert error.value.run is None
    assert not (tmp_path / "run").exists()


def test_generated_data_lands_in_the_folder_named(tmp_path: Path) -> None:
    sizes = ["--side", "64", "--train", "2", "--test-good", "1", "--test-per-defect", "1"]
    text = lines("data", "synthesize", str(tmp_path), "--category", "weave", *sizes)
    assert text == f"{tmp_path}/weave: texture\n"
    assert len(list((tmp_path / "weave" / "train" / "good").iterdir())) == 2


def test_doctor_says_why_something_cannot_be_measured() -> None:
    text = lines("doctor")
    for name in ("CUDA device", "NVML", "CPU package energy", "torch.profiler", "SLURM", "undisturbed profiler"):
        assert name in text
    assert "device " in text
    assert re.search(r"host events +yes +\d+ of a small product", text)
    if importlib.util.find_spec("submitit") is None:
        assert "not installed: pip install 'inpainting-bench[slurm]'" in text


def test_doctor_names_the_target_that_installs_the_librarys_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "fast_transformers" else find(name))
    assert "not installed: make fast-transformers" in lines("doctor")


def test_brackets_in_an_error_are_shown_as_they_are(
    generated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(self: Trainer) -> None:
        message = "[/red] [bold]x"
        raise ValueError(message)

    monkeypatch.setattr(Trainer, "train", broken)
    config = build({**tiny_table(generated), "models": ["msa"]}, "tiny")
    harness.commands._show_outcome(start(config, tmp_path / "run"))
    shown = capsys.readouterr()
    assert shown.out.count("ValueError: [/red] [bold]x") == 2
    assert shown.err.count("ValueError: [/red] [bold]x") == 2


@pytest.mark.parametrize(("arguments", "code", "message"), [
    (["run", "--suite", "smok"], 2, "bench: --suite: got 'smok'; expected one of "),
    (["run", "--suite", "smoke", "--config", "x.toml"], 2, "bench: --suite: got --config as well; expected one of"),
    (["run", "--config", "none.toml"], 2, "bench: none.toml: got No such file or directory; expected a TOML file"),
    (["run", "--set", "training.batch=1"], 2, "bench: command line: training.batch: got an unknown key"),
    (["run", "--retry-failed"], 2, "bench: --retry-failed: got no --resume"),
    (["run", "--resume"], 2, "bench: --resume: got no --out"),
    (["run", "--suite", "mvtec-full"], 2, "bench: data.root: got nothing; expected the folder of MVTec AD"),
    (["run", "--suite", "mvtec-full", "--data-root", "nowhere"], 2, "nowhere: got No such file or directory"),
    (["run", "--category", "bottle"], 2, "category 'bottle' cannot be generated"),
    (["report", "nowhere"], 2, "nowhere"),
    (["frobnicate"], 2, "bench: command line: No such command 'frobnicate'; fix: see --help"),
    (["report"], 2, "bench: command line: Missing argument"),
    (["run", "--out", "/proc/none/run"], 2, "bench: /proc/none/run: got a path that cannot be used"),
    (["run", "--out", 300 * "a"], 2, "got a path that cannot be used (File name too long)"),
    (["run", "--out", "/" + 2000 * "a/"], 2, "got a path of 4,000 bytes; expected at most 3,000, for there are"),
    (["data", "synthesize", "x", "--side", "100000"], 2, "'--side': Input should be less than or equal to 4096"),
    (["run", "--device", "cuda:9999999999"], 2, "bench: command line: device: got 'cuda:9999999999'"),
    (["run", "--set", "data.generated.train=1"], 2, "data.generated.train: got 1; expected greater than or equal to 2"),
    (["data", "synthesize", ".", "--category", "weave", "--category", "x"], 2, "bench: category to generate: got x"),
    (["run", "--launcher", "slurm"], 2, "bench: --time: got nothing; expected a limit of jobs, ahead of which they"),
    (["run", "--launcher", "slurm", "--time", "10", "--ranks", "4", "--gres", "gpu:2", "--set", "device=cuda"], 2,
     "bench: --ranks: got 4; expected at most 2, the GPUs of a cell; fix: --ranks 2"),
    (["run", "--launcher", "slurm", "--time", "10", "--ranks", "5"], 2, "bench: --ranks: got 5; expected a divisor of"),
    (["run", "--seed", "many"], 2, "should be a valid integer"),
])  # fmt: skip
def test_wrong_use_is_one_line_on_stderr_and_exit_code_2(
    arguments: list[str], code: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = command(*arguments)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("bench: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []
