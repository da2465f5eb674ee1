"""The grid: which half is held out, what a turn has, and that what is measured is what was planted."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from harness import images
from harness.cells import Cell
from harness.config import build
from harness.dataset import read_category
from harness.decoding import Decoder
from harness.images import stored_size
from harness.interrupt import Interrupt
from harness.pipelines import thesis
from harness.pipelines.parts import Batch, Loaded
from harness.pipelines.table import PIPELINES
from harness.progress import Reporter
from harness.whatif import grid
from harness.whatif.grid import extent_of, held_out, observe, settings_of, shape_of
from harness.whatif.loads import Machine, Setting
from harness.whatif.projecting import at_setting
from harness.whatif.projection import fit, project
from harness.whatif.subject import Models, Subject
from profiles.timing import loader
from profiles.turns import Extent
from tests.harness.conftest import tiny_table

CPU = torch.device("cpu")
LEVELS = {"workers": (1, 2, 4), "batch_size": (2, 4, 8), "image_side": (32, 64)}


def making(root: Path, pipeline: str = "thesis") -> Callable[..., Subject]:
    table = tiny_table(root)
    table["model"] |= {"attention_backend": "native"}
    config, paths = build(table, "tiny"), read_category(root, "weave").train
    cell, decoder = Cell("weave", "mlsa", pipeline, 0), Decoder(None, Reporter(), Interrupt(), threads=1)

    def made(setting: Setting, extent: Extent, models: Models | None = None) -> Subject:
        return Subject(cell, at_setting(config, setting), paths, CPU, decoder, extent, models)

    return made


def test_half_of_the_grid_is_held_out_and_every_level_is_in_both_halves() -> None:
    settings = settings_of(LEVELS)
    halves = [[s for s in settings if held_out(s, LEVELS) == half] for half in (False, True)]
    assert [len(half) for half in halves] == [9, 9]
    for half in halves:
        for place, levels in enumerate(LEVELS.values()):
            assert {setting[place] for setting in half} == set(levels)


@pytest.mark.parametrize(("workers", "timed"), [(1, 4), (2, 4), (3, 6), (4, 4), (5, 5)])
def test_a_turn_times_whole_bursts_of_batches(workers: int, timed: int) -> None:
    extent = extent_of(Setting(workers, 8, 64))
    assert extent.timed == timed


def test_every_setting_is_observed_with_and_without_loading(generated: Path) -> None:
    settings = [Setting(1, 2, 32), Setting(2, 4, 64)]
    told: list[int] = []
    observed = observe(making(generated), settings, 0.0, lambda: told.append(1))
    assert [each.setting for each in observed] == settings
    assert len(told) == 2
    for each in observed:
        assert each.rounds == 1
        assert set(each.loader_s) == {"decode", "resize", "copy"}
        assert {"attention", "embedding", "patching", "optimizer"} <= set(each.stages_s)
        assert "data_loading" not in each.stages_s
        assert each.alone_s > 0


def test_settings_of_one_image_side_share_a_model_and_others_do_not(generated: Path) -> None:
    """As many models as settings would not fit into memory at the thesis's size."""
    made, models = making(generated), dict[Any, Any]()
    subjects = [made(Setting(1, batch, side), Extent(1, 1), models) for batch in (2, 4) for side in (32, 64)]
    small, large, again, again_large = (subject.model("native") for subject in subjects)
    assert small is again
    assert large is again_large
    assert len(models) == 2
    assert [model.positions.weight.shape[0] for model in (small, large)] == [
        (side // subjects[0].config.model.patch_side) ** 2 for side in (32, 64)
    ]
    with subjects[2].way(PIPELINES["thesis"]._replace(attention="native"))() as step:
        step()


def test_rounds_go_on_until_time_is_up_and_no_longer(generated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(0, 10**12, 10**9))
    (seen,) = observe(making(generated, "fast"), [Setting(1, 2, 32)], 2.5, clock_ns=lambda: next(now))
    assert seen.rounds == 3
    monkeypatch.setattr(grid, "ROUNDS", 2)
    (seen,) = observe(making(generated, "fast"), [Setting(1, 2, 32)], 1e6)
    assert seen.rounds == 2
    assert seen.loader_s == {}


def test_a_shape_counts_every_parameter_once_but_those_of_positions(generated: Path) -> None:
    setting = Setting(1, 2, 32)
    subject = making(generated)(setting, extent_of(setting))
    model = subject.model("native")
    shape = shape_of(subject, PIPELINES["thesis"])
    total = sum(parameter.numel() for parameter in model.parameters())
    assert shape.attention_parameters + shape.other_parameters == total - model.positions.weight.numel()
    attention = model.blocks[0].attention  # the only block
    assert shape.attention_parameters == sum(parameter.numel() for parameter in attention.parameters())
    assert (shape.stored_pixels, shape.stored_values) == stored_size(subject.paths[0])


DECODE_S, RESIZE_S, WINDOW_S, STEP_S = 12e-3, 12e-3, 9e-3, 30e-3
"""Of a window, of a window at a side of 64, of a window in the step, of a step."""


def plant(patch: pytest.MonkeyPatch) -> None:
    """Let loading and the step sleep, and let the meter of loading count sleep as work."""
    read, cut, loss = images.read_image, thesis.cut_one_by_one, thesis.loss_with_map

    def read_slowly(path: Path, side: int) -> Tensor:
        with loader.part("decode"):
            time.sleep(DECODE_S)
        with loader.part("resize"):
            time.sleep(RESIZE_S * (side / 64) ** 2)
        return read(path, side)

    def cut_slowly(loaded: Loaded) -> Batch:
        with thesis.stage("patching"):
            time.sleep(WINDOW_S * len(loaded.windows.image_b))
        return cut(loaded)

    def lose_slowly(*arguments: Any) -> Tensor:
        time.sleep(STEP_S)
        return loss(*arguments)

    patch.setattr(loader, "thread_time_ns", time.perf_counter_ns)
    patch.setattr(thesis, "read_image", read_slowly)
    slow = PIPELINES["thesis"]._replace(cut=cut_slowly, loss=lose_slowly, attention="native")
    patch.setitem(PIPELINES, "thesis", slow)
    patch.setattr(thesis, "cut_one_by_one", cut_slowly)


@pytest.mark.alone
@pytest.mark.slow
def test_sleeping_workers_and_steps_are_predicted_from_half_of_a_grid(
    generated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    levels = {**LEVELS, "workers": (1, 4)}
    made, settings = making(generated), settings_of(levels)
    observed = observe(made, settings, 25.0)
    shape = shape_of(made(settings[0], extent_of(settings[0])), PIPELINES["thesis"])
    machine = Machine(64, 100e9, 20e9, 1e8, apart=False)  # who sleeps needs no processor
    costs = fit(shape, [each for each in observed if not held_out(each.setting, levels)], machine, 1)
    projected = partial(project, costs, shape)
    errors = [
        abs(projected(each.setting).step_s / each.step_s - 1) for each in observed if held_out(each.setting, levels)
    ]
    assert sorted(errors)[len(errors) // 2] < 0.1
    assert {projected(setting).held_up_by for setting in settings} == {"the step itself", "the workers"}
