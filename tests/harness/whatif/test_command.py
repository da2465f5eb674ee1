"""The command: every stage has its row, the waterfall sums to the whole, wrong use is one line and exit code 2."""

import copy
import csv
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import bench
from harness.cells import Cell
from harness.config import build
from harness.launch import start
from harness.pipelines.table import PIPELINES
from harness.whatif import measure, subject
from harness.whatif.command import once_each
from harness.whatif.epochs import Steps
from harness.whatif.measure import PARTS, SHARES, Bench, Found, exchanged_parts
from harness.whatif.removals import REMOVALS
from models.transformer import InpaintingTransformer
from profiles.errors import BenchError, ConfigError
from profiles.ratio import paired_ratio
from profiles.record import CellRecord, read_model
from profiles.turns import Extent
from profiles.whatif import EffectRow, EpochRow, FallRow, StepRow, WhatIfRecord
from tests.harness.conftest import tiny_table
from tests.harness.whatif.test_removals import same

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


ROUNDS = 2
"""In the place of more, which would take longer."""


@pytest.fixture(scope="module")
def written(generated: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    out = tmp_path_factory.mktemp("whatif") / "out"
    sizes = [f"model.{key}={value}" for key, value in tiny_table(generated)["model"].items()]
    changes = ["training.batch_size=8", "data.image_side=32", "data.workers=1", *sizes]
    settings = [word for change in changes for word in ("--set", change)]
    chosen = ["--category", "weave", "--model", "mlsa", "--pipeline", "thesis", "--data-root", str(generated)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "REMOVALS", {name: REMOVALS[name] for name in ("data_loading", "attention")})
        patch.setattr(measure, "LEAST_ROUNDS", ROUNDS)
        shown = whatif(*chosen, *settings, "--out", str(out), "--budget", "0")
    return shown, out


def test_rounds_are_at_least_as_many_as_an_interval_needs() -> None:
    assert paired_ratio([1.0] * measure.LEAST_ROUNDS, [1.0] * measure.LEAST_ROUNDS).ends == (1.0, 1.0)


def state_of(model: InpaintingTransformer) -> dict[str, Any]:
    return {
        "weights": {name: tensor.clone() for name, tensor in model.state_dict().items()},
        "modules": [(name, id(module)) for name, module in model.named_modules()],
        "gather": model.gather,
        "gradients": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
    }


def test_models_optimizers_and_generators_are_after_a_command_what_they_were(
    generated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the command's own path: what it builds is watched from when it is built until the command is done."""
    built: list[tuple[InpaintingTransformer, torch.optim.Optimizer, dict[str, Any], dict[str, Any]]] = []

    class Watched(InpaintingTransformer):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            optimizer = torch.optim.Adam(self.parameters())
            for parameter in self.parameters():
                parameter.grad = torch.ones_like(parameter)
            optimizer.step()
            built.append((self, optimizer, state_of(self), copy.deepcopy(optimizer.state_dict())))

    monkeypatch.setattr(subject, "InpaintingTransformer", Watched)
    monkeypatch.setattr(measure, "LEAST_ROUNDS", 1)
    changes = [f"model.{key}={value}" for key, value in tiny_table(generated)["model"].items()]
    changes += ["training.batch_size=8", "data.image_side=32", "data.workers=1"]
    settings = [word for change in changes for word in ("--set", change)]
    chosen = ["--category", "weave", "--model", "mlsa", "--pipeline", "thesis", "--data-root", str(generated)]
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002 - the global one is watched
    whatif(*chosen, *settings, "--out", str(tmp_path), "--budget", "0")
    assert same(before, (torch.get_rng_state(), random.getstate(), np.random.get_state()))  # noqa: NPY002
    assert len(built) == 2  # one for each backend of the attention
    for model, optimizer, state, of_optimizer in built:
        assert same(state_of(model), state)
        assert same(optimizer.state_dict(), of_optimizer)
        assert same(one_more_step(model, optimizer), one_more_step(*untouched(model, state, of_optimizer)))


def untouched(
    model: InpaintingTransformer, state: dict[str, Any], of_optimizer: dict[str, Any]
) -> tuple[InpaintingTransformer, torch.optim.Optimizer]:
    """Return model and optimizer as they were before the command, in tensors of their own."""
    twin = copy.deepcopy(model)
    twin.load_state_dict(state["weights"])
    for parameter, gradient in zip(twin.parameters(), state["gradients"], strict=True):
        parameter.grad = gradient.clone()
    optimizer = torch.optim.Adam(twin.parameters())
    optimizer.load_state_dict(of_optimizer)
    return twin, optimizer


def one_more_step(model: InpaintingTransformer, optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """Return weights and the optimizer's moments after a training went on by a step."""
    optimizer.step()
    return [copy.deepcopy(model.state_dict()), copy.deepcopy(optimizer.state_dict())]


def test_every_stage_taken_away_and_every_part_exchanged_has_its_row(written: tuple[str, Path]) -> None:
    shown, out = written
    effects = rows(out / "whatif.csv")
    assert list(effects[0]) == list(EffectRow._fields)
    found = [(row["phase"], row["kind"], row["name"]) for row in effects]
    assert found == [
        ("train", "ceiling", "data_loading"),
        ("train", "ceiling", "attention"),
        ("evaluation", "ceiling", "anomaly_map"),
        ("evaluation", "ceiling", "scoring"),
        ("evaluation", "swap", "paint"),
        *(("train", "swap", part) for part in PARTS),
    ]
    assert all(float(row["gain"]) < 1 for row in effects)
    assert [bool(row["busy"]) for row in effects] == [True] + [False] * (len(effects) - 1)
    assert all((row["exposed"] != "") == (row["kind"] == "ceiling") for row in effects)
    swaps = [row for row in effects if row["kind"] == "swap" and row["phase"] == "train"]
    assert [int(row["rounds"]) for row in swaps] == [ROUNDS] * len(PARTS)
    assert all(int(row["rounds"]) == ROUNDS for row in effects)
    assert "too few rounds" in shown
    assert [row["unavailable"] != "" for row in effects] == [row["busy"] == "" for row in effects]
    assert "unavailable (images, cut, gather, attention, loss, optimizer, memory): a part of a pipeline is no" in shown


def test_the_record_holds_what_the_tables_hold_and_where_it_was_measured(written: tuple[str, Path]) -> None:
    _, out = written
    record = read_model(WhatIfRecord, out / "whatif.json")
    assert [str(row.gain) for row in record.effects] == [row["gain"] for row in rows(out / "whatif.csv")]
    assert [str(row.step) for row in record.waterfall] == [row["step"] for row in rows(out / "waterfall.csv")]
    assert [(row.phase, row.windows, row.image_side) for row in record.steps] == [
        ("train", 8, 32),
        ("evaluation", 8, 32),
    ]
    assert list(rows(out / "steps.csv")[0]) == list(StepRow._fields)
    assert record.environment.flops_per_s
    assert record.dtype == "float32"


def test_the_waterfall_exchanges_every_part_once_and_its_steps_sum_to_the_whole(written: tuple[str, Path]) -> None:
    _, out = written
    waterfall = rows(out / "waterfall.csv")
    assert list(waterfall[0]) == list(FallRow._fields)
    assert sorted(row["part"] for row in waterfall) == sorted(PARTS)
    assert [int(row["place"]) for row in waterfall] == list(range(1, len(PARTS) + 1))
    swaps = [row for row in rows(out / "whatif.csv") if row["kind"] == "swap" and row["phase"] == "train"]
    gains = {row["name"]: float(row["gain"]) for row in swaps}
    assert [row["part"] for row in waterfall] == sorted(PARTS, key=lambda part: -gains[part])
    assert sum(float(row["gain"]) for row in waterfall) == pytest.approx(1 - float(waterfall[-1]["step"]), abs=1e-12)
    assert all(int(row["rounds"]) == ROUNDS for row in waterfall)


def test_the_epoch_at_every_place_of_the_waterfall_has_its_row(written: tuple[str, Path]) -> None:
    shown, out = written
    found = rows(out / "epochs.csv")
    assert list(found[0]) == list(EpochRow._fields)
    assert [row["part"] for row in found[1:]] == [row["part"] for row in rows(out / "waterfall.csv")]
    assert sum(float(row["gain_s"]) for row in found) == pytest.approx(
        float(found[0]["epoch_s"]) - float(found[-1]["epoch_s"]), abs=1e-9
    )
    assert all(float(row["start_s"]) > 0 and float(row["validation_step_s"]) > 0 for row in found)
    assert [str(row.epoch_s) for row in read_model(WhatIfRecord, out / "whatif.json").epochs] == [
        row["epoch_s"] for row in found
    ]
    assert "the epoch, from the thesis's to the fast one's" in shown


def test_the_last_step_of_the_waterfall_is_the_fast_one_but_for_what_training_never_uses() -> None:
    slow, fast = PIPELINES["thesis"], PIPELINES["fast"]
    last = exchanged_parts(slow, fast, PARTS)
    assert last._replace(paint=fast.paint, reloads_every_window=False) == fast
    assert exchanged_parts(slow, fast, PARTS[:1])._replace(images=slow.images) == slow


def test_only_what_is_asked_for_is_measured_and_gets_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: dict[str, float] = {}

    def noted(name: str) -> Callable[[Bench], Found]:
        return lambda bench: limits.update({name: bench.limit_s}) or Found()

    for name in ("training", "inspecting", "exchanging"):
        monkeypatch.setattr(measure, name, noted(name))

    def measured(pipeline: str, *sections: measure.Section) -> dict[str, float]:
        limits.clear()
        subject = SimpleNamespace(cell=Cell("weave", "msa", pipeline, 0))
        measure.measure(Bench(subject, [], Extent(1, 1), 100.0, Steps(1, 1)), sections)  # type: ignore[arg-type]
        return dict(limits)

    assert measured("thesis", *SHARES) == pytest.approx({"training": 36.0, "inspecting": 20.0, "exchanging": 44.0})
    assert measured("thesis", "exchanges") == {"exchanging": 100.0}
    assert measured("fast", "exchanges", "ceilings") == {"training": 100.0}
    assert sum(measured("fast", *SHARES).values()) == pytest.approx(100.0)


def test_exchanges_alone_need_the_pipeline_whose_parts_they_are() -> None:
    with pytest.raises(ConfigError, match=r"--only: got no cell of the thesis pipeline"):
        whatif("--suite", "smoke", "--only", "exchanges")
    with pytest.raises(ConfigError, match=r"--only: got scores; expected one of ceilings, evaluation, exchanges"):
        whatif("--suite", "smoke", "--only", "ceilings", "--only", "scores")


def test_exchanges_alone_have_a_step_whose_table_shows_them(
    generated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "LEAST_ROUNDS", 1)
    changes = [f"model.{key}={value}" for key, value in tiny_table(generated)["model"].items()]
    changes += ["training.batch_size=8", "data.image_side=32", "data.workers=1"]
    words = [word for change in changes for word in ("--set", change)]
    words += ["--category", "weave", "--model", "mlsa", "--pipeline", "thesis", "--data-root", str(generated)]
    words += ["--only", "exchanges", "--out", str(tmp_path), "--budget", "0"]
    shown = whatif(*words)
    assert len(rows(tmp_path / "steps.csv")) == 1
    assert all(f"{part} exchanged" in shown for part in PARTS)
    with pytest.raises(BenchError, match="got what was measured before"):
        whatif(*words)
    (tmp_path / "projection.json").write_text("{}", encoding="utf-8")
    with pytest.raises(BenchError, match=r"projection\.json: got what was measured before"):
        whatif(*[word for word in words if word not in {"--only", "exchanges"}], "--project")


def test_a_second_seed_is_not_measured_again() -> None:
    cells = [Cell("weave", model, "thesis", seed) for seed in (3, 4) for model in ("msa", "mlsa")]
    assert once_each(cells) == cells[:2]


def test_what_is_no_run_is_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(BenchError) as raised:
        whatif(str(tmp_path / "none"))
    assert raised.value.exit_code == 2


def test_what_a_run_observed_of_each_stage_stands_beside_its_ceiling(
    generated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "LEAST_ROUNDS", 1)
    table = {**tiny_table(generated, max_epochs=2), "models": ["msa"]}
    table["data"] |= {"categories": ["weave"], "workers": 1}
    run = start(build(table, "tiny"), tmp_path / "run").directory
    whatif(str(run), "--budget", "0", "--only", "ceilings")
    record = read_model(CellRecord, run / "cells/weave/msa-fast/seed0/record.json")
    (closure,) = [each for each in record.closures if each.phase == "train"]
    effects = {row["name"]: row for row in rows(run / "whatif" / "whatif.csv")}
    for stage in ("attention", "feed_forward", "optimizer"):
        totals = [each for each in record.stage_totals if (each.phase, each.stage) == ("train", stage)]
        share = sum(each.busy_s or 0.0 for each in totals) / closure.wall_s
        assert float(effects[stage]["busy"]) == pytest.approx(share)
        assert effects[stage]["busy_tag"] == "estimated"
    assert effects["data_loading"]["busy"] == ""


def test_a_run_is_measured_as_it_is_and_not_changed(generated: Path, tmp_path: Path) -> None:
    table = {**tiny_table(generated, max_epochs=1), "models": ["msa"], "profiler": {"steps": 0}}
    table["data"] |= {"categories": ["weave"], "workers": 1}
    run = start(build(table, "tiny"), tmp_path / "run").directory
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    shown = whatif(str(run), "--budget", "0")
    assert f"in a report: bench report {run}" in shown.splitlines()
    after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.parent.name != "whatif"}
    assert after == before
    assert {row.name for row in read_model(WhatIfRecord, run / "whatif" / "whatif.json").effects} >= set(REMOVALS)
    with pytest.raises(ConfigError, match=r"got --suite, --model as well; expected a run as it is, or --suite"):
        whatif(str(run), "--suite", "smoke", "--model", "msa")


def test_the_command_that_it_names_brings_what_was_measured_of_a_suite_into_the_report_of_a_run(
    generated: Path, tmp_path: Path, written: tuple[str, Path]
) -> None:
    shown, out = written
    table = {**tiny_table(generated, max_epochs=1), "models": ["msa"], "profiler": {"steps": 0}}
    table["data"] |= {"categories": ["weave"], "workers": 1}
    run = start(build(table, "tiny"), tmp_path / "run").directory
    (line,) = (line for line in shown.splitlines() if line.startswith("in a report: "))
    command, _, _ = line.removeprefix("in a report: ").partition(", where ")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(["sh", "-ec", command.replace("RUN", str(run))], check=True, env={**os.environ, "PATH": path})
    page = (run / "report" / "index.html").read_text(encoding="utf-8")
    assert "Not measured: <code>bench whatif RUN</code>" not in page
    assert str(out) in command


def test_nothing_is_written_where_the_images_are_missing(tmp_path: Path) -> None:
    with pytest.raises(BenchError):
        whatif("--suite", "mvtec-epoch", "--data-root", str(tmp_path / "none"), "--out", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_suite_of_real_images_needs_their_folder() -> None:
    with pytest.raises(ConfigError, match=r"data\.root: got nothing"):
        whatif("--suite", "mvtec-epoch", "--category", "bottle", "--model", "msa")
