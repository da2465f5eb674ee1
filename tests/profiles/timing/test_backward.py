"""Backward work goes to the stage that caused it, however a training computes its gradients."""

from collections.abc import Callable
from unittest.mock import Mock, patch

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from profiles.stages import backpropagate, stage
from profiles.timing.clock import StageClock
from profiles.timing.times import Cell
from tests.profiles.timing.fake_clock import FakeClock, delay


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


def test_a_nested_stage_ends_backward_where_the_one_around_it_names_no_output() -> None:
    clock = FakeClock()
    with StageClock(clock).phase("train", 1) as times:
        x = delay(torch.ones(3, requires_grad=True), clock, 1, 7)
        with stage("attention"), stage("feed_forward") as inner:
            x = inner.output(delay(inner.input(x), clock, 2, 20).sum())
        backpropagate(x)
    assert times.exposed_ns[Cell("feed_forward", "backward")] == 20
    assert times.exposed_ns[Cell("unattributed", "backward")] == 7


def test_a_pass_begins_in_the_stage_of_its_loss() -> None:
    clock = FakeClock()
    loss = torch.ones(3, requires_grad=True).sum()
    begin = Mock(side_effect=lambda: clock.pass_ns(7))
    with StageClock(clock).phase("train", 1) as times:
        for marked in (True, False):
            with stage("loss") as mark:
                total = mark.output(loss) if marked else loss * 1
            with patch.object(Tensor, "backward", lambda loss: (begin(), torch.autograd.backward(loss))):
                backpropagate(total)
            loss = loss.detach().requires_grad_()
    assert times.exposed_ns[Cell("loss", "backward")] == 7
    assert times.exposed_ns[Cell("unattributed", "backward")] == 7
    assert times.calls[Cell("loss", "backward")] == 1


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


def test_gradients_of_several_passes_add_up_in_time_as_in_value() -> None:
    clock, kept = FakeClock(), []
    weight = torch.ones(3, requires_grad=True)
    weight.register_post_accumulate_grad_hook(lambda _: clock.pass_ns(5))
    with StageClock(clock).phase("train", 1) as times:
        for _ in range(3):
            two_stage_step(clock, lambda x: x * weight)
            assert weight.grad is not None
            kept.append((weight.grad.data_ptr(), weight.grad.tolist()))
    assert [value for _, value in kept] == [[n] * 3 for n in (1, 2, 3)]
    assert len({where for where, _ in kept}) == 1  # added in place
    assert times.exposed_ns[Cell("attention", "forward")] == 3 * 10
    assert times.exposed_ns[Cell("attention", "backward")] == 3 * (100 + 5)
    assert times.exposed_ns[Cell("loss", "backward")] == 3 * 200
    assert times.calls[Cell("attention", "backward")] == 3


def test_autocast_changes_what_is_computed_and_not_whose_work_it_is() -> None:
    clock = FakeClock()
    weight = torch.ones(3, 3, requires_grad=True)

    def product(x: Tensor) -> Tensor:
        product = x @ weight
        assert product.dtype == torch.bfloat16
        return product

    with StageClock(clock).phase("train", 1) as times, torch.autocast("cpu", torch.bfloat16):
        two_stage_step(clock, product)
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32
    assert times.exposed_ns[Cell("attention", "backward")] == 100
    assert times.exposed_ns[Cell("loss", "backward")] == 200


@pytest.mark.parametrize("reentrant", [False, True])
def test_what_is_computed_again_for_a_gradient_is_backward_work(*, reentrant: bool) -> None:
    clock = FakeClock()

    def block(x: Tensor) -> Tensor:
        with stage("attention") as mark:
            x = mark.output(delay(mark.input(x), clock, 10, 100).tanh())
        with stage("feed_forward") as mark:
            return mark.output(delay(mark.input(x), clock, 3, 30).tanh())

    with StageClock(clock).phase("train", 1) as times:
        x: Tensor = torch.ones(3, requires_grad=True) * 1
        for _ in range(2):
            x = checkpoint(block, x, use_reentrant=reentrant)
        with stage("loss") as mark:
            loss = mark.output(delay(mark.input(x), clock, 20, 200).sum())
        backpropagate(loss)
    assert times.exposed_ns[Cell("attention", "forward")] == 2 * 10
    assert times.exposed_ns[Cell("attention", "backward")] == 2 * (10 + 100)
    assert times.exposed_ns[Cell("feed_forward", "backward")] == 2 * (3 + 30)
    assert times.exposed_ns[Cell("loss", "backward")] == 200
    assert times.wall_ns == 2 * (2 * 13 + 130) + 220


def test_an_exception_in_the_backward_pass_leaves_the_clock_whole() -> None:
    clock = FakeClock()

    def fail(_: Tensor) -> None:
        message = "oops"
        raise ValueError(message)

    with StageClock(clock).phase("train", 1) as times:
        x = torch.ones(3, requires_grad=True) * 1
        x.register_hook(fail)
        with stage("attention") as mark:
            y = mark.output(delay(mark.input(x), clock, 10, 100))
        with pytest.raises(ValueError, match="oops"):
            backpropagate(y.sum())
        clock.pass_ns(1000)
        two_stage_step(clock)
    assert times.exposed_ns[Cell("attention", "forward")] == 20
    assert times.exposed_ns[Cell("attention", "backward")] == 200
    assert times.exposed_ns[Cell("unattributed", "none")] == 1000 + 1


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch's own, which it means to hide
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_under_compile_the_borders_that_survive_keep_their_work(backend: str) -> None:
    clock = FakeClock()

    @torch.compile(backend=backend, fullgraph=True)
    def compiled(x: Tensor) -> Tensor:
        with stage("attention") as mark:
            return mark.output(mark.input(x).tanh())

    with StageClock(clock).phase("train", 1) as times:
        x = torch.ones(3, requires_grad=True)
        with stage("embedding") as mark:
            x = mark.output(delay(mark.input(x * 1), clock, 10, 100))
        x = compiled(delay(x, clock, 1, 2))
        with stage("loss") as mark:
            loss = mark.output(delay(mark.input(x), clock, 20, 200).sum())
        backpropagate(loss)
    assert {cell: value for cell, value in times.exposed_ns.items() if value} == {
        Cell("embedding", "forward"): 10, Cell("unattributed", "none"): 1, Cell("loss", "forward"): 20,
        Cell("loss", "backward"): 200, Cell("unattributed", "backward"): 2, Cell("embedding", "backward"): 100,
    }  # fmt: skip
