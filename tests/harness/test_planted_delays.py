"""A known delay put into a stage comes back in that stage and direction, and in no other."""

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import process_time_ns
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from harness import evaluation, launch, run, training
from harness.config import build
from harness.decoding import Decoder
from harness.launch import start
from harness.pipelines import fast
from harness.pipelines.table import PIPELINES
from models.loss import LossConfig, inpainting_loss
from models.transformer import InpaintingTransformer, ModelConfig
from models.windows import Windows, cut_windows, draw_windows, window_positions
from profiles.stages import STAGES, backpropagate, stage
from profiles.timing.clock import StageClock
from profiles.timing.times import BACKWARD, FORWARD, Cell
from tests.harness.conftest import tiny_table
from tests.profiles.timing.fake_clock import FakeClock

LAYERS = {"embedding": "embedding", "attention": "attention", "feed_forward": "feed_forward", "head": "head"}
"""The stages that are a layer of the model, by the name of that layer."""

Spend = Callable[[Cell], None]
"""Takes the time that was planted in a cell."""


class Planted(torch.autograd.Function):
    """The identity, spending a cell's time forward and another's backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, spend: Spend, name: str) -> Tensor:
        ctx.passes = lambda: spend(BACKWARD[name])
        spend(FORWARD[name])
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        ctx.passes()
        return gradients[0], None, None


def plant_in_layers(model: nn.Module, spend: Spend) -> None:
    """Delay the output of every layer that is a stage, and its gradient."""
    for path, layer in model.named_modules():
        name = LAYERS.get(path.rsplit(".", 1)[-1])
        if name is not None:
            layer.register_forward_hook(lambda _layer, _x, output, name=name: Planted.apply(output, spend, name))


def before(function: Callable[..., Any], spend: Spend, name: str) -> Callable[..., Any]:
    """Return *function* with a stage's delay before it."""

    def delayed(*args: Any, **kwargs: Any) -> Any:
        spend(FORWARD[name])
        return function(*args, **kwargs)

    return delayed


def plant_everywhere(patch: pytest.MonkeyPatch, spend: Spend) -> None:
    """Delay every stage of a run."""

    def planted_model(*args: Any) -> nn.Module:
        model = InpaintingTransformer(*args)
        plant_in_layers(model, spend)
        return model

    def planted_loss(prediction: Tensor, *args: Any) -> Tensor:
        return inpainting_loss(Planted.apply(prediction, spend, "loss"), *args)

    patch.setattr(run, "InpaintingTransformer", planted_model)
    patch.setitem(PIPELINES, "fast", PIPELINES["fast"]._replace(loss=planted_loss))
    for owner, attribute, name in (
        (Decoder, "decode", "data_loading"),
        (fast, "cut_windows", "patching"),
        (Windows, "to", "transfer"),
        (torch.optim.Adam, "zero_grad", "optimizer"),
        (training.checkpoint, "save", "checkpoint"),
        (evaluation, "difference", "anomaly_map"),
        (run, "score", "scoring"),
    ):
        patch.setattr(owner, attribute, before(getattr(owner, attribute), spend, name))


def test_delays_planted_in_every_stage_of_a_run_come_back_exactly(
    generated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, planted_ns = FakeClock(), defaultdict[Cell, int](int)
    sizes_ns = {cell: 1000 + 7 * number for number, cell in enumerate([*FORWARD.values(), *BACKWARD.values()])}

    def spend(cell: Cell) -> None:
        clock.pass_ns(sizes_ns[cell])
        planted_ns[cell] += sizes_ns[cell]

    plant_everywhere(monkeypatch, spend)
    monkeypatch.setattr(run, "StageClock", lambda **_: StageClock(clock))
    monkeypatch.setattr(launch, "refuse_too_large", lambda *_: None)  # tries the loss, outside of any phase
    table = {**tiny_table(generated), "models": ["msa"], "profiler": {"steps": 0}}
    table["data"]["categories"] = ["weave"]
    outcome = start(build(table, "tiny"), tmp_path / "run")
    stages = pd.read_csv(next(outcome.directory.glob("cells/*/*/*/stages.csv")))
    found_ns = (stages.groupby(["stage", "direction"])["exposed_s"].sum() * 1e9).round().astype(int)
    assert {Cell(*key): value for key, value in found_ns.items() if value} == planted_ns
    assert {cell.stage for cell in planted_ns} == set(STAGES)


# --- the same on one training step whose work takes time of its own: processor time, which no other process disturbs


SPUN_NS = 100_000_000
PAIRS = 6
TRAINED = ("patching", "embedding", "attention", "feed_forward", "head", "loss", "optimizer")


class Spinner:
    """Spends processor time, once a step, in the cell chosen; counts what it really took."""

    def __init__(self) -> None:
        self.cell: Cell | None = None
        self.spun_ns = 0

    def __call__(self, cell: Cell) -> None:
        if cell != self.cell:
            return
        self.cell = None
        started_ns = process_time_ns()
        while process_time_ns() - started_ns < SPUN_NS:
            pass
        self.spun_ns = process_time_ns() - started_ns


SMALL = ModelConfig(width=64, depth=2, heads=4, feed_forward=128)


def real_step(spend: Spend, config: ModelConfig = SMALL, windows: int = 16) -> Callable[[], None]:
    """Return a training step of so many windows, with delays that *spend* decides on."""
    torch.manual_seed(0)
    model = InpaintingTransformer("msa", config, 64)
    plant_in_layers(model, spend)
    optimizer = torch.optim.Adam(model.parameters())
    patches_inp = torch.randint(0, 256, (1, 64, 768), dtype=torch.uint8)
    drawn = draw_windows(1, windows, (8, 8), 7, torch.Generator().manual_seed(0))

    def step() -> None:
        with stage("patching"):
            spend(FORWARD["patching"])
            positions_bt = window_positions(drawn, 8, 7)
            target_bp, context_bkp = (each / 255 for each in cut_windows(patches_inp, drawn.image_b, positions_bt))
        prediction_bp = model(context_bkp, positions_bt)
        with stage("loss") as mark:
            planted = Planted.apply(mark.input(prediction_bp), spend, "loss").view(-1, 3, 16, 16)
            loss = mark.output(inpainting_loss(planted, target_bp.view(-1, 3, 16, 16), LossConfig()))
        backpropagate(loss)
        with stage("loss"):
            del loss, planted, prediction_bp
        with stage("optimizer"):
            spend(FORWARD["optimizer"])
            optimizer.step()
            optimizer.zero_grad()
        with stage("patching"):
            del target_bp, context_bkp, positions_bt

    return step


def allowance_ns(plain_ns: list[int]) -> float:
    """Return what a delay may leave in a cell that is not its own: what two of a hundred parts are, and its noise.

    However noisy the cell is, its noise counts for three more at most.
    """
    return 0.02 * SPUN_NS + min(max(plain_ns) - min(plain_ns), 0.03 * SPUN_NS)


CELLS = [FORWARD[name] for name in TRAINED] + [
    BACKWARD[name] for name in TRAINED if FORWARD[name].direction == "forward"
]


@pytest.mark.alone
@pytest.mark.parametrize("cell", CELLS, ids="-".join)
def test_a_real_delay_comes_back_in_its_own_cell_within_two_percent(cell: Cell) -> None:
    spinner, clock = Spinner(), StageClock(process_time_ns)
    step = real_step(spinner)
    found: dict[Cell, list[tuple[int, int]]] = defaultdict(list)
    spun_ns: list[int] = []
    with clock.phase("train", 1):
        step()
        for pair in range(PAIRS):
            took_ns: dict[bool, dict[Cell, int]] = {}
            for delayed in (False, True) if pair % 2 else (True, False):
                spinner.cell, before_ns = cell if delayed else None, clock.read()
                step()
                took_ns[delayed] = {each: now_ns - before_ns.get(each, 0) for each, now_ns in clock.read().items()}
            spun_ns.append(spinner.spun_ns)
            for each in took_ns[True] | took_ns[False]:
                found[each].append((took_ns[False].get(each, 0), took_ns[True].get(each, 0)))
    more_ns = {each: median(with_ns - plain_ns for plain_ns, with_ns in pairs) for each, pairs in found.items()}
    found_ns, others_ns = more_ns.pop(cell), max(more_ns.values(), key=abs)
    print(f"{'-'.join(cell)}: {median(spun_ns) / 1e6:.3f} ms planted, {found_ns / 1e6:.3f} ms found, "
          f"{others_ns / 1e6:.3f} ms at most elsewhere")  # fmt: skip
    assert found_ns == pytest.approx(median(spun_ns), rel=0.02)
    for each, other_ns in more_ns.items():
        assert abs(other_ns) < allowance_ns([plain_ns for plain_ns, _ in found[each]]), each


def test_noise_excuses_little() -> None:
    assert allowance_ns([0, 0]) == pytest.approx(0.02 * SPUN_NS)
    assert allowance_ns([0, SPUN_NS // 100]) == pytest.approx(0.03 * SPUN_NS)
    assert allowance_ns([0, SPUN_NS]) == pytest.approx(0.05 * SPUN_NS)
