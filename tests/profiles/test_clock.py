from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from profiles.clock import StageClock
from profiles.stages import STAGES, Stage, backpropagate, recording, stage
from profiles.times import Cell, PhaseTimes


@dataclass
class FakeClock:
    """A clock that moves only when told."""

    now_ns: int = 0

    def __call__(self) -> int:
        return self.now_ns

    def pass_ns(self, duration_ns: int) -> None:
        self.now_ns += duration_ns


class Delay(torch.autograd.Function):
    """The identity, taking time forward and backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, clock: FakeClock, forward_ns: int, backward_ns: int) -> Tensor:
        ctx.passes = lambda: clock.pass_ns(backward_ns)
        clock.pass_ns(forward_ns)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        ctx.passes()
        return gradients[0], None, None, None


def delay(x: Tensor, clock: FakeClock, forward_ns: int, backward_ns: int) -> Tensor:
    return Delay.apply(x, clock, forward_ns, backward_ns)


programs = st.recursive(
    st.integers(0, 1000).map(lambda duration_ns: ("work", duration_ns)),
    lambda inner: st.tuples(st.sampled_from(STAGES), st.lists(inner, max_size=4)),
    max_leaves=20,
)


def play(program: Any, clock: FakeClock, current: str, expected: dict[str, int]) -> None:
    name, content = program
    if name == "work":
        clock.pass_ns(content)
        expected[current] = expected.get(current, 0) + content
        return
    with stage(name):
        for part in content:
            play(part, clock, name, expected)


@given(st.lists(programs, max_size=6))
def test_no_time_is_lost_or_counted_twice(parts: list[Any]) -> None:
    clock, expected = FakeClock(), {}
    with StageClock(clock).phase("train", 1) as times:
        for part in parts:
            play(part, clock, "unattributed", expected)
    charged: dict[str, int] = {}
    for cell, exposed_ns in times.exposed_ns.items():
        charged[cell.stage] = charged.get(cell.stage, 0) + exposed_ns
    assert {name: value for name, value in charged.items() if value} == {k: v for k, v in expected.items() if v}
    assert times.wall_ns == clock.now_ns == sum(times.exposed_ns.values())
    assert sum(row.share for row in times.rows()) == pytest.approx(1 if times.wall_ns else 0)


def test_a_nested_stage_is_subtracted_from_its_parent() -> None:
    clock = FakeClock()
    with StageClock(clock).phase("train", 1) as times, stage("loss"):
        clock.pass_ns(5)
        with stage("transfer"):
            clock.pass_ns(7)
        clock.pass_ns(1)
    assert times.exposed_ns[Cell("loss", "forward")] == 6
    assert times.exposed_ns[Cell("transfer", "none")] == 7


def two_stage_step(clock: FakeClock, wrap: Callable[[Tensor], Tensor] = lambda x: x) -> None:
    """Attention (forward 10, backward 100), something between (1, 2), loss (20, 200)."""
    x = torch.ones(3, requires_grad=True)
    with stage("attention") as mark:
        x = mark.output(wrap(delay(mark.input(x * 1), clock, 10, 100)))
    x = delay(x, clock, 1, 2)
    with stage("loss") as mark:
        loss = mark.output(delay(mark.input(x), clock, 20, 200).sum())
    backpropagate(loss)


def test_backward_work_belongs_to_the_stage_whose_forward_work_caused_it() -> None:
    clock = FakeClock()
    with StageClock(clock).phase("train", 1) as times:
        two_stage_step(clock)
    assert times.exposed_ns == {
        Cell("unattributed", "none"): 1,
        Cell("attention", "forward"): 10,
        Cell("loss", "forward"): 20,
        Cell("unattributed", "backward"): 2,
        Cell("loss", "backward"): 200,
        Cell("attention", "backward"): 100,
    }


def test_a_nested_stage_keeps_its_place_backward() -> None:
    clock = FakeClock()
    with StageClock(clock).phase("train", 1) as times:
        x = torch.ones(3, requires_grad=True) * 1
        with stage("attention") as outer:
            x = delay(outer.input(x), clock, 1, 10)
            with stage("feed_forward") as inner:
                x = inner.output(delay(inner.input(x), clock, 2, 20))
            x = outer.output(delay(x, clock, 4, 40))
        backpropagate(x.sum())
    assert times.exposed_ns[Cell("attention", "forward")] == 5
    assert times.exposed_ns[Cell("feed_forward", "forward")] == 2
    assert times.exposed_ns[Cell("feed_forward", "backward")] == 20
    # the outer stage's first half runs after the inner one has ended, inside the outer one
    assert times.exposed_ns[Cell("attention", "backward")] == 50


def test_a_stage_whose_inputs_need_no_gradient_ends_with_the_pass() -> None:
    clock = FakeClock()
    weight = torch.ones(3, requires_grad=True)
    with StageClock(clock).phase("train", 1) as times:
        with stage("embedding") as mark:
            x = mark.output(delay(mark.input(torch.ones(3)) * weight, clock, 1, 10))
        backpropagate(x.sum())
        clock.pass_ns(1000)
    assert times.exposed_ns[Cell("embedding", "backward")] == 10
    assert times.exposed_ns[Cell("unattributed", "none")] == 1000


def test_gradients_are_those_without_a_clock() -> None:
    def gradient() -> Tensor:
        torch.manual_seed(1)
        x = torch.randn(4, 5, requires_grad=True)
        with stage("attention") as mark:
            y = mark.input(x * 2)
            y = mark.output(torch.tanh(y) + y)
        backpropagate(y.square().sum())
        assert x.grad is not None
        return x.grad

    plain = gradient()
    with StageClock().phase("train", 1):
        assert torch.equal(gradient(), plain)


def test_an_exception_inside_a_stage_leaves_the_clock_whole() -> None:
    clock = FakeClock()
    stage_clock = StageClock(clock)
    with pytest.raises(ValueError, match="oops"), stage_clock.phase("train", 1) as times, stage("loss"):
        clock.pass_ns(3)
        message = "oops"
        raise ValueError(message)
    assert times.exposed_ns[Cell("loss", "forward")] == 3
    with stage_clock.phase("train", 2) as again:
        clock.pass_ns(4)
    assert again.exposed_ns == {Cell("unattributed", "none"): 4}


def test_a_phase_adds_to_what_ran_before_an_interruption() -> None:
    clock = FakeClock()
    with StageClock(clock).phase("train", 3) as first, stage("loss"):
        clock.pass_ns(3)
    carried = PhaseTimes.from_state(first.to_state())
    with StageClock(clock).phase("train", 3, carried) as times, stage("loss"):
        clock.pass_ns(5)
    assert times.exposed_ns[Cell("loss", "forward")] == 8
    assert times.calls[Cell("loss", "forward")] == 2
    assert times.wall_ns == 8


def test_lost_time_is_an_error_and_not_a_row() -> None:
    with pytest.raises(AssertionError, match="stages sum to 3 ns, wall time is 4 ns"):
        PhaseTimes("train", 1, wall_ns=4, exposed_ns={Cell("loss", "forward"): 3}).rows()


def test_every_table_leads_with_the_same_five_stages_and_ends_with_the_remainder() -> None:
    clock = FakeClock()
    with StageClock(clock).phase("train", 1) as times:
        two_stage_step(clock)
        with stage("optimizer"):
            clock.pass_ns(1)
    assert [(row.stage, row.direction) for row in times.rows()] == [
        ("data_loading", "none"), ("patching", "none"), ("attention", "forward"), ("attention", "backward"),
        ("loss", "forward"), ("loss", "backward"), ("anomaly_map", "none"), ("optimizer", "none"),
        ("unattributed", "none"), ("unattributed", "backward"),
    ]  # fmt: skip
    unused = [row for row in times.rows() if row.calls == 0 and row.stage != "unattributed"]
    assert {(row.stage, row.exposed_s) for row in unused} == {("data_loading", 0), ("patching", 0), ("anomaly_map", 0)}


def test_the_device_is_drained_at_both_ends_of_a_phase() -> None:
    clock = FakeClock()
    with StageClock(clock, drain=lambda: clock.pass_ns(10)).phase("train", 1) as times:
        clock.pass_ns(1)
    assert times.wall_ns == 11  # the drain before the phase is not the phase's


def test_phases_do_not_nest() -> None:
    clock = StageClock(FakeClock())
    with clock.phase("train", 1), pytest.raises(RuntimeError, match="already installed"), clock.phase("train", 2):
        pass


@pytest.mark.parametrize("name", STAGES)
def test_a_mark_without_recorder_does_nothing(name: Stage) -> None:
    x = torch.ones(2, requires_grad=True)
    with stage(name) as mark:
        assert mark.input(x) is x
        assert mark.output(x) is x


def test_a_mark_disappears_under_compile() -> None:
    graphs = 0

    def count(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        nonlocal graphs
        graphs += 1
        return graph.forward

    @torch.compile(backend=count, fullgraph=True)
    def marked(x: Tensor) -> Tensor:
        with stage("attention") as mark:
            return mark.output(mark.input(x) + 1)

    x = torch.ones(2)
    assert torch.equal(marked(x), x + 1)
    with StageClock().phase("train", 1) as times:
        assert torch.equal(marked(x), x + 1)
    assert graphs == 1  # installing a recorder does not recompile
    assert Cell("attention", "forward") not in times.exposed_ns


def test_recordings_do_not_nest() -> None:
    clock = StageClock(FakeClock())
    with recording(clock), pytest.raises(RuntimeError, match="already installed"), recording(clock):
        pass
