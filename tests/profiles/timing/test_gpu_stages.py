"""The stage clock on a real device: it waits for nothing, and delays planted as kernels come back in their cell."""

from pathlib import Path
from statistics import median
from time import sleep
from typing import Any

import pytest
import torch
from torch import Tensor

from profiles.bounds import BUSY_BOUND
from profiles.stages import backpropagate, stage
from profiles.timing.device_clock import CudaTimer, DeviceClock
from profiles.timing.times import Cell
from profiles.tracing.window import profile_steps
from tests.profiles.tracing.test_attribution import network

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="gpu: no CUDA device")]

CELLS = [Cell(name, direction) for name in ("attention", "loss") for direction in ("forward", "backward")]
CYCLES = 40_000_000
PAIRS = 8


class Spinning(torch.autograd.Function):
    """The identity, keeping the device busy for a while forward or backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, forward_cycles: int, backward_cycles: int) -> Tensor:
        ctx.cycles = backward_cycles
        if forward_cycles:
            torch.cuda._sleep(forward_cycles)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        if ctx.cycles:
            torch.cuda._sleep(ctx.cycles)
        return gradients[0], None, None


def two_stages(delayed: Cell | None) -> None:
    """Run a step of two stages, one cell of which spins."""

    def spin(x: Tensor, name: str) -> Tensor:
        cycles = [CYCLES if delayed == Cell(name, way) else 0 for way in ("forward", "backward")]
        return Spinning.apply(x, *cycles)

    weight = torch.ones(512, 512, requires_grad=True, device="cuda")
    x = torch.ones(512, 512, requires_grad=True, device="cuda")
    with stage("attention") as mark:
        x = mark.output(spin(mark.input(x * 1) @ weight, "attention"))
    with stage("loss") as mark:
        loss = mark.output(spin(mark.input(x) @ weight, "loss").mean())
    backpropagate(loss)


def device_clock() -> DeviceClock[torch.cuda.Event]:
    return DeviceClock(CudaTimer(torch.device("cuda")))


def spin_ns() -> float:
    """Return how long the planted kernel takes by events of its own."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    torch.cuda._sleep(CYCLES)
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) * 1e6


@pytest.mark.parametrize("cell", CELLS, ids="-".join)
def test_a_kernel_planted_in_a_cell_comes_back_in_it_within_two_percent(cell: Cell) -> None:
    clock, more_ns = device_clock(), dict[Cell, list[int]]()
    two_stages(None)
    with clock.phase("train", 1):
        for _ in range(PAIRS):
            read = [clock.read()]
            for delayed in (None, cell):
                two_stages(delayed)
                read.append(clock.read())
            for each in CELLS:
                before, plain, with_delay = (moment.get(each, 0) for moment in read)
                more_ns.setdefault(each, []).append((with_delay - plain) - (plain - before))
    expected_ns = median(spin_ns() for _ in range(PAIRS))
    found_ns = {each: median(values) for each, values in more_ns.items()}
    assert found_ns.pop(cell) == pytest.approx(expected_ns, rel=0.02)
    assert max(map(abs, found_ns.values())) < 0.02 * expected_ns


def test_nothing_inside_a_phase_waits_for_the_device() -> None:
    clock, step = device_clock(), network(5, 5, device="cuda")
    step()
    with clock.phase("train", 1) as times:
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(200):
                step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    times.check()
    assert abs(times.residual_ns) < 0.01 * times.wall_ns


@pytest.mark.parametrize("side", [256, 4096], ids=["host-bound", "compute-bound"])
def test_both_routes_agree_on_the_device(side: int, tmp_path: Path) -> None:
    clock, step = device_clock(), network(30, 10, side, "cuda")
    with clock.phase("train", 1):
        for _ in range(3):
            step()
        window = profile_steps(step, 3, clock, tmp_path / "a.pt.trace.json.gz", 1, on_device=True)
    print({(cell.stage, cell.direction): (cell.clock_share, cell.profiler_share) for cell in window.cells})
    assert window.busy_s > 0
    assert window.difference < 0.02
    assert window.busy_residual_s is not None
    assert window.busy_residual_s <= BUSY_BOUND * window.busy_s


def test_a_starved_device_is_charged_to_the_stage_that_starved_it() -> None:
    clock = device_clock()
    with clock.phase("train", 1) as times:
        two_stages(None)
        torch.cuda.synchronize()
        with stage("data_loading"):
            sleep(0.2)
        two_stages(None)
    assert times.exposed_ns[Cell("data_loading", "none")] == pytest.approx(0.2e9, rel=0.02)
