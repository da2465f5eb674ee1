"""`bench whatif --project`: what it writes and shows, what it refuses before anything is measured."""

import csv
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import bench
from harness.cells import Cell
from harness.config import RunConfig, build
from harness.machine import described
from harness.whatif import command, subject
from harness.whatif.loads import Machine, Setting
from harness.whatif.project_command import machine_of
from harness.whatif.projecting import asked_of, levels_of
from models.transformer import InpaintingTransformer
from profiles.errors import BenchError, ConfigError, NothingMeasuredError
from profiles.record import read_model
from profiles.whatif import AskedRow, CostRow, ProjectionRecord, SettingRow
from tests.harness.conftest import tiny_table

HERE = Machine(2, 1e11, 2e10, 1e8, apart=False)
FAST = Cell("weave", "msa", "fast", 0)
runner = CliRunner()


def whatif(*arguments: str) -> str:
    result = runner.invoke(bench.app, ["whatif", *arguments], terminal_width=200)
    if isinstance(result.exception, BenchError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def words(root: Path) -> list[str]:
    sizes = [f"model.{key}={value}" for key, value in tiny_table(root)["model"].items()]
    changes = [
        "training.batch_size=8",
        "training.windows_per_image=64",
        "data.image_side=32",
        "model.attention_backend=native",
        *sizes,
    ]
    settings = [word for change in changes for word in ("--set", change)]
    return ["--category", "weave", "--model", "msa", "--data-root", str(root), *settings]


VARIED = ["--vary", "workers=1,2", "--vary", "batch_size=2,4", "--vary", "image_side=32"]
ASKED = ["--at", "workers=8", "--at", "apart=true,flops_per_s=13.4e12,bytes_per_s=616e9"]


@pytest.fixture(scope="module")
def written(generated: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    out = tmp_path_factory.mktemp("project") / "out"
    chosen = [*words(generated), "--pipeline", "thesis", "--out", str(out), "--budget", "0"]
    return whatif("--project", *chosen, *VARIED, *ASKED), out


def test_the_record_and_its_tables_hold_the_grid_its_costs_and_what_was_asked(written: tuple[str, Path]) -> None:
    shown, out = written
    record = read_model(ProjectionRecord, out / "projection.json")
    assert [row[3:7] for row in record.settings] == [
        (1, 2, 32, False),
        (1, 4, 32, True),
        (2, 2, 32, True),
        (2, 4, 32, False),
    ]
    for name, kind, found in (
        ("projection", SettingRow, record.settings),
        ("costs", CostRow, record.costs),
        ("asked", AskedRow, record.asked),
    ):
        table = rows(out / f"{name}.csv")
        assert list(table[0]) == list(kind._fields)
        assert len(table) == len(found)
    assert all(row.cost_s >= 0 for row in record.costs)
    assert record.assumptions
    assert "the 2 settings held out" in shown


def test_errors_are_those_of_the_settings_that_nothing_was_fitted_to(written: tuple[str, Path]) -> None:
    record = read_model(ProjectionRecord, written[1] / "projection.json")
    (fit,) = record.fits
    errors = [abs(row.predicted_s / row.measured_s - 1) for row in record.settings if row.held_out]
    assert fit.held_out_error == pytest.approx(median(errors))
    assert fit.largest_error == pytest.approx(max(errors))
    assert (fit.fitted, fit.held_out) == (2, 2)


def test_answers_say_what_was_asked_and_what_was_never_measured(written: tuple[str, Path]) -> None:
    record = read_model(ProjectionRecord, written[1] / "projection.json")
    usual, many, board = record.asked
    assert (usual.asked, usual.batch_size, usual.image_side) == ("as configured", 8, 32)
    assert usual.beyond == "workers, batch_size"
    assert (many.workers, many.beyond) == (8, "workers, batch_size")
    assert board.beyond == "workers, batch_size, flops_per_s, bytes_per_s, apart"
    assert (board.flops_per_s, board.bytes_per_s, board.apart) == (13.4e12, 616e9, True)
    assert board.device_s < usual.device_s
    steps = -(-5 * 64 // 8)  # 64 windows of each image; of the six images one is for validation
    assert usual.epoch_s == pytest.approx(steps * usual.step_s)


def test_settings_of_one_image_side_are_measured_by_one_model(
    generated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[int] = []

    class Counted(InpaintingTransformer):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            built.append(self.positions.weight.shape[0])

    monkeypatch.setattr(subject, "InpaintingTransformer", Counted)
    varied = ["--vary", "batch_size=2,4", "--vary", "image_side=32,48"]
    whatif("--project", *words(generated), "--pipeline", "fast", "--out", str(tmp_path), "--budget", "0", *varied)
    assert len(built) == len(set(built)) == 2


def test_a_device_whose_best_rates_are_not_known_is_not_taken_to_have_none() -> None:
    here = described(torch.device("cpu"))
    with pytest.raises(NothingMeasuredError, match="its best rates were not measured"):
        machine_of(here, apart=False)
    known = here.model_copy(update={"flops_per_s": 2e11, "bytes_per_s": 1e10})
    assert machine_of(known, apart=True)[1:3] == (2e11, 1e10)


def test_a_pipeline_that_does_not_load_per_window_is_not_varied_in_workers(generated: Path, tmp_path: Path) -> None:
    varied = ["--vary", "workers=1,2", "--vary", "batch_size=2,4", "--vary", "image_side=32,48"]
    whatif("--project", *words(generated), "--pipeline", "fast", "--out", str(tmp_path), "--budget", "0", *varied)
    record = read_model(ProjectionRecord, tmp_path / "projection.json")
    assert {row.workers for row in record.settings} == {4}
    assert {row.held_up_by for row in record.settings} == {"the step itself"}
    assert record.fits[0].decoded_per_s is None
    assert {row.resource for row in record.costs} == {"host", "device"}


def config_of(root: Path | None = None, batch_size: int = 256, side: int = 256) -> RunConfig:
    table = tiny_table(root)
    table["training"] |= {"batch_size": batch_size}
    table["data"] |= {"image_side": side}
    table["model"] |= {"patch_side": 16, "window_side": 7}
    return build(table, "tiny")


def test_levels_lie_at_and_below_what_is_configured_and_fit_the_windows() -> None:
    cell = Cell("weave", "msa", "thesis", 0)
    usual = {"workers": (1, 2, 4), "batch_size": (64, 128, 256), "image_side": (128, 192, 256)}
    assert levels_of(cell, config_of(), []) == usual
    assert levels_of(cell, config_of(batch_size=2, side=128), [])["batch_size"] == (1, 2)
    assert levels_of(cell, config_of(side=128), [])["image_side"] == (112, 128)
    assert levels_of(cell, config_of(), ["workers=3,1"])["workers"] == (1, 3)
    assert levels_of(FAST, config_of(), ["workers=3,1"])["workers"] == (4,)


@pytest.mark.parametrize("text", ["depth=1,2", "batch_size=", "batch_size=0,1", "batch_size=1.5", "batch_size"])
def test_what_cannot_be_varied_is_refused(text: str) -> None:
    with pytest.raises(
        ConfigError, match=r"--vary: got '.*'; expected one of workers, batch_size, image_side, and whole"
    ):
        levels_of(FAST, config_of(), [text])


def test_too_few_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"--vary: got workers=4, batch_size=8, image_side=.*; expected 4 settings"):
        levels_of(FAST, config_of(), ["batch_size=8", "image_side=128,256"])


@pytest.mark.parametrize(
    "text", ["depth=1", "rates=1", "workers=0", "workers=1.5", "flops_per_s=fast", "apart=1", "decoded_per_s=inf", "x"]
)
def test_what_cannot_be_asked_is_refused(text: str) -> None:
    with pytest.raises(
        ConfigError, match=r"--at: got '.*'; expected one of workers, batch_size, image_side, processors"
    ):
        asked_of(text, Setting(1, 8, 256), HERE)


def test_what_is_asked_changes_what_it_names_and_nothing_else() -> None:
    asked = asked_of("workers=8,processors=16,decoded_per_s=2e8,apart=true", Setting(1, 8, 256), HERE)
    assert asked.setting == Setting(8, 8, 256)
    assert asked.machine == Machine(16, 1e11, 2e10, 2e8, apart=True)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--vary", "image_side=100,256"], "--vary: .*100"),
        (["--at", "image_side=100"], "--at: .*100"),
        (["--at", "depth=1"], "--at: got 'depth=1'"),
    ],
)
def test_wrong_use_is_refused_before_anything_is_measured(
    generated: Path, monkeypatch: pytest.MonkeyPatch, wrong: list[str], message: str
) -> None:
    monkeypatch.setattr(command, "measured", None)
    with pytest.raises(ConfigError, match=message):
        whatif("--project", *words(generated), "--pipeline", "thesis", *wrong)


def test_what_belongs_to_a_projection_is_refused_without_one() -> None:
    with pytest.raises(ConfigError, match="--project: got --vary or --at without it"):
        whatif("--at", "workers=8")
