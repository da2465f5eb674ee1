"""What is taken away is gone, what is left is not touched, and the model is afterwards what it was, to the bit."""

import copy
import time
from collections.abc import Callable, Generator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from harness.cells import Cell
from harness.config import build
from harness.dataset import read_category
from harness.decoding import Decoder
from harness.interrupt import Interrupt
from harness.pipelines import thesis
from harness.pipelines.fast import ResidentImages
from harness.pipelines.parts import Loaded, Pipeline
from harness.pipelines.table import PIPELINES
from harness.progress import Reporter
from harness.whatif.measure import PARTS, differing
from harness.whatif.removals import REMOVALS, frozen
from harness.whatif.subject import Subject, nothing_removed
from models.windows import Windows
from profiles.stages import Stage
from profiles.timing.clock import StageClock
from profiles.timing.times import PhaseTimes
from profiles.turns import SETTLED_BATCHES, Extent, bursts, compare, gain
from tests.harness.conftest import tiny_table

CPU = torch.device("cpu")
EXTENT = Extent(warm=1, timed=2)
BLOCKS = 2


def made(generated: Path, workers: int = 1, batch_size: int = 8, **sizes: Any) -> Subject:
    table = tiny_table(generated, batch_size=batch_size)
    table["model"] |= {"depth": BLOCKS, **sizes}
    table["data"] |= {"workers": workers}
    paths = read_category(generated, "weave").train
    decoder = Decoder(None, Reporter(), Interrupt(), threads=1)
    return Subject(Cell("weave", "mlsa", "fast", 0), build(table, "tiny"), paths, CPU, decoder, EXTENT)


@pytest.fixture(scope="module")
def subject(generated: Path) -> Subject:
    return made(generated)


def state_of(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    return {
        "weights": {name: tensor.clone() for name, tensor in model.state_dict().items()},
        "modules": [name for name, _ in model.named_modules()],
        "gradients": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "optimizer": copy.deepcopy(optimizer.state_dict()),
        "generator": torch.get_rng_state(),
    }


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, np.ndarray):
        return bool(np.array_equal(one, other))
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(*pair) for pair in zip(one, other, strict=True))
    return bool(one == other)


def test_model_optimizer_and_generators_are_afterwards_what_they_were_before(subject: Subject) -> None:
    model = subject.model("native")
    optimizer = torch.optim.Adam(model.parameters())
    for _ in range(2):
        sum(parameter.square().sum() for parameter in model.parameters()).backward()  # type: ignore[union-attr]
        optimizer.step()
    gather, before = model.gather, state_of(model, optimizer)
    fast, thesis = PIPELINES["fast"], PIPELINES["thesis"]._replace(attention="native")
    ways = {"full": subject.way(fast), "thesis": subject.way(thesis)}
    ways |= {name: subject.way(fast, removal) for name, (removal, _) in REMOVALS.items()}
    compare(ways, EXTENT, lambda: None, precision=1.0, limit_s=0.0)
    assert same(state_of(model, optimizer), before)
    assert model.gather is gather


def test_the_model_is_what_it_was_even_where_a_step_fails(subject: Subject) -> None:
    model = subject.model("native")
    optimizer = torch.optim.Adam(model.parameters())
    before = state_of(model, optimizer)

    def failing(*_: object) -> Tensor:
        message = "the loss failed"
        raise ValueError(message)

    with (
        pytest.raises(ValueError, match="the loss failed"),
        subject.way(PIPELINES["fast"]._replace(loss=failing), REMOVALS["attention"][0])() as step,
    ):
        step()
    assert same(state_of(model, optimizer), before)


def times(subject: Subject, pipeline: Pipeline, stage: Stage | None) -> PhaseTimes:
    clock, removal = StageClock(), REMOVALS[stage][0] if stage else nothing_removed
    with subject.way(pipeline, removal)() as step:
        step()
        with clock.phase("train", 1) as taken:
            step()
    return taken


def worked_on(times: PhaseTimes) -> set[str]:
    return {cell.stage for cell, calls in times.calls.items() if calls}


def test_who_replays_batches_neither_loads_nor_transfers_images(subject: Subject) -> None:
    whole, rest = (times(subject, PIPELINES["thesis"], stage) for stage in (None, "data_loading"))
    assert worked_on(whole) - worked_on(rest) == {"data_loading", "transfer"}
    assert whole.loader_ns
    assert not rest.loader_ns


SLEEPS_S = {"patching": 0.02, "loss": 0.03, "optimizer": 0.01}


def slowly(function: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    """Let a function sleep first."""

    def run(*arguments: Any) -> Any:
        time.sleep(seconds)
        return function(*arguments)

    return run


def planted(pipeline: Pipeline, loading_s: float) -> Pipeline:
    """Let parts sleep, and deliveries too: they are not ahead of the step."""

    class Slow(torch.optim.Adam):
        def step(self, *_: Any) -> None:
            time.sleep(SLEEPS_S["optimizer"])
            super().step()

    class Delayed(ResidentImages):
        def batches(self, windows: Windows, size: int) -> Generator[Loaded, None, None]:
            for loaded in super().batches(windows, size):
                time.sleep(loading_s)
                yield loaded

    cut, loss = (slowly(getattr(pipeline, name), SLEEPS_S[of]) for name, of in (("cut", "patching"), ("loss", "loss")))
    return pipeline._replace(cut=cut, loss=loss, optimizer=Slow, images=Delayed)


@pytest.mark.alone
@pytest.mark.slow
def test_ceilings_of_a_training_step_whose_parts_sleep_are_right_within_3_percent(subject: Subject) -> None:
    asleep = {"data_loading": 0.04, **SLEEPS_S}
    pipeline = planted(PIPELINES["fast"], asleep["data_loading"])
    ways = {"full": subject.way(pipeline)}
    ways |= {stage: subject.way(pipeline, removal) for stage, (removal, _) in REMOVALS.items() if stage in asleep}
    found = compare(ways, Extent(1, 2), lambda: None, precision=0.005, limit_s=15.0)
    step_s = median(found.times_ns["full"]) / 2 / 1e9
    for stage, slept_s in asleep.items():
        assert gain(found.ratios[stage]).value == pytest.approx(slept_s / step_s, abs=0.03)


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.parametrize("step_s", [0.12, 0.04], ids=["hidden", "holding up"])
def test_ceilings_beside_workers_that_load_ahead_are_right_within_3_percent(
    generated: Path, monkeypatch: pytest.MonkeyPatch, step_s: float
) -> None:
    """Two workers sleep as long for each window of a batch of two: so often comes a batch, while the step sleeps."""
    asleep_s, image = 0.06, torch.zeros(3, 32, 32, dtype=torch.uint8)

    monkeypatch.setattr(thesis, "read_image", slowly(lambda *_: image, asleep_s))
    subject, bare = made(generated, workers=2, batch_size=2), PIPELINES["fast"]._replace(images=thesis.ReloadedImages)
    slow = bare._replace(loss=slowly(bare.loss, step_s))
    replayed, squared = (REMOVALS[stage][0] for stage in ("data_loading", "loss"))
    ways = {"full": subject.way(slow), "data_loading": subject.way(slow, replayed), "loss": subject.way(slow, squared)}
    ways["rest"] = subject.way(bare, replayed)
    found = compare(ways, Extent(0, bursts(2, 2)), lambda: None, precision=0.01, limit_s=0.0, least=5)
    rest_s = median(found.times_ns["rest"]) / 2 / 1e9
    if max(found.times_ns["rest"]) / 2 / 1e9 > rest_s + 0.03 * step_s:
        pytest.skip("busy: other programs held up what does not sleep of a step")
    full_s = max(asleep_s, step_s + rest_s)
    assert gain(found.ratios["data_loading"]).value == pytest.approx(1 - (step_s + rest_s) / full_s, abs=0.03)
    assert gain(found.ratios["loss"]).value == pytest.approx(1 - max(asleep_s, rest_s) / full_s, abs=0.03)


class Counted:
    """Counts how often a function is called."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.calls = 0

    def __call__(self, *arguments: Any) -> Any:
        self.calls += 1
        return self.function(*arguments)


def test_steps_are_taken_until_loading_goes_evenly_and_one_where_nobody_loads(subject: Subject) -> None:
    called = Counted(PIPELINES["thesis"].cut)
    pipeline = PIPELINES["thesis"]._replace(cut=called, attention="native")
    with subject.way(pipeline)():
        assert 1 <= called.calls <= 1 + SETTLED_BATCHES
    before = called.calls
    with subject.way(pipeline, REMOVALS["data_loading"][0])():
        assert called.calls == before + 1


def test_an_attention_that_is_configured_is_not_exchanged_for_itself(subject: Subject, generated: Path) -> None:
    slow, fast = PIPELINES["thesis"], PIPELINES["fast"]
    assert differing(subject, slow, fast) == list(PARTS)
    configured = made(generated, attention_backend="native")
    assert differing(configured, slow, fast) == [part for part in PARTS if part != "attention"]
    assert differing(configured, slow._replace(cut=fast.cut), fast)[0:2] == ["images", "gather"]


@pytest.mark.parametrize(("stage", "part"), [("patching", "cut"), ("embedding", "gather"), ("loss", "loss")])
def test_the_part_of_a_stage_taken_away_is_not_called(subject: Subject, stage: Stage, part: str) -> None:
    fast = PIPELINES["fast"]
    called = Counted(getattr(fast, part))
    for removed in (None, stage):
        removal = REMOVALS[removed][0] if removed else nothing_removed
        with subject.way(fast._replace(**{part: called}), removal)() as step:
            before = called.calls
            step()
        assert called.calls == before + (removed is None)


@pytest.mark.parametrize("stage", ["attention", "feed_forward"])
def test_a_layer_of_the_block_taken_away_is_not_run_and_the_others_are(subject: Subject, stage: Stage) -> None:
    run: list[str] = []
    model = subject.model("native")
    handles = [
        module.register_forward_hook(lambda *_, name=name: run.append(name))
        for block in model.blocks
        for name, module in block.named_children()
    ]
    with subject.way(PIPELINES["fast"], REMOVALS[stage][0])() as step:
        run.clear()
        step()
    for handle in handles:
        handle.remove()
    other = "feed_forward" if stage == "attention" else "attention"
    assert run == [other, f"norm_{other}"] * BLOCKS


def test_the_optimizer_updates_as_many_parameters_as_ever_whatever_is_taken_away(subject: Subject) -> None:
    updated: list[int] = []

    class Counting(torch.optim.Adam):
        def step(self, *_: Any) -> None:
            updated.append(sum(parameter.grad is not None for parameter in self.param_groups[0]["params"]))
            super().step()

    counting = PIPELINES["fast"]._replace(optimizer=Counting)
    for removal in (nothing_removed, *(removal for removal, _ in REMOVALS.values() if removal is not frozen)):
        with subject.way(counting, removal)() as step:
            step()
            step()
    assert len(updated) == 3 * len(REMOVALS)  # one step is taken before
    assert set(updated) == {len(list(subject.model("native").parameters()))}


def test_skipping_the_optimizer_leaves_weights_and_no_gradients(subject: Subject) -> None:
    model = subject.model("native")
    before = [parameter.detach().clone() for parameter in model.parameters()]
    with subject.way(PIPELINES["fast"], frozen)() as step:
        step()
        assert same([p.detach() for p in model.parameters()], before)
        assert all(parameter.grad is None for parameter in model.parameters())
    with subject.way(PIPELINES["fast"])() as step:
        step()
        assert not same([p.detach() for p in model.parameters()], before)
