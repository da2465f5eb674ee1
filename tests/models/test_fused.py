"""The fused linear attention computes what the eager one does, in both bracketings; it stands in for the one in C."""

import pytest
import torch
from torch import Tensor

from models.attention import compiled, fused, linear
from models.attention.fused import fused_linear_attention
from models.attention.linear import LinearAttention, eager_linear_attention, fused_wins
from models.attention.sizes import Sizes
from models.attention.table import VARIANTS
from tests.reference import attention as reference

BRACKETINGS = [(5, 8), (8, 8), (13, 8)]
"""Tokens fewer than, as many as and more than the width of a head."""


def inputs(tokens: int, width: int, windows: int = 5, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return [torch.randn(windows, tokens, 2, width, dtype=dtype).mul(2).requires_grad_() for _ in range(3)]


@pytest.fixture
def _two_windows_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "windows_at_hand", lambda _: 2)


@pytest.mark.usefixtures("_two_windows_at_hand")
@pytest.mark.parametrize(("tokens", "width"), [(2, 3), (3, 3), (4, 3)])
def test_its_gradients_are_those_of_its_output(tokens: int, width: int) -> None:
    assert torch.autograd.gradcheck(fused_linear_attention, inputs(tokens, width, windows=3))


@pytest.mark.usefixtures("_two_windows_at_hand")
@pytest.mark.parametrize(("tokens", "width"), BRACKETINGS)
def test_it_is_the_published_attention(tokens: int, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "STABILIZER", 0.0)  # which the equation lacks
    attention = VARIANTS["mlsa"].attention["fused"](Sizes(2 * width, 2, tokens)).double()
    x_btd = torch.randn(3, tokens, 2 * width, dtype=torch.float64).mul(3)
    state = {name: parameter.tolist() for name, parameter in attention.state_dict().items()}
    expected = [reference.mlsa(state, x_td.tolist(), 2) for x_td in x_btd]
    torch.testing.assert_close(attention(x_btd), torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-10)


def results(kernel: linear.Kernel, given: list[Tensor], gradient: Tensor) -> list[Tensor]:
    leaves = [x.detach().clone().requires_grad_() for x in given]
    mixed = kernel(*leaves)
    mixed.backward(gradient.to(mixed.dtype))
    return [mixed.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("tokens", "width"), [(49, 64), (64, 64), (100, 64), (16, 128), (150, 128)])
def test_it_rounds_no_worse_than_the_eager_one(dtype: torch.dtype, tokens: int, width: int) -> None:
    given = inputs(tokens, width, dtype=dtype)
    gradient = torch.randn(given[0].shape, dtype=dtype)
    exact = results(eager_linear_attention, [x.double() for x in given], gradient)
    errors = [
        [(found.double() - right).norm() / right.norm() for found, right in zip(each, exact, strict=True)]
        for each in (results(kernel, given, gradient) for kernel in (fused_linear_attention, eager_linear_attention))
    ]
    for ours, eager in zip(*errors, strict=True):
        assert ours <= 2 * eager + torch.finfo(dtype).eps / 8


@pytest.mark.parametrize("value", [-1e4, -100.0, -30.0, 0.0, 30.0, 1e4])
def test_extreme_queries_and_keys_stay_numbers(value: float) -> None:
    given = [torch.full((1, 4, 1, 8), value), torch.full((1, 4, 1, 8), value), torch.rand(1, 4, 1, 8)]
    ours, eager = (
        results(kernel, given, torch.ones(1, 4, 1, 8)) for kernel in (fused_linear_attention, eager_linear_attention)
    )
    for found, expected in zip(ours, eager, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("tokens", "width"), BRACKETINGS)
def test_strides_and_the_number_at_hand_change_nothing(
    tokens: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = inputs(tokens, width)
    gradient = torch.randn(given[0].shape, dtype=torch.float64)
    whole = results(fused_linear_attention, given, gradient)
    monkeypatch.setattr(fused, "windows_at_hand", lambda _: 2)
    strided = [x.detach().transpose(1, 2).contiguous().transpose(1, 2) for x in given]
    parts = results(fused_linear_attention, strided, gradient.transpose(1, 3).contiguous().transpose(1, 3))
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_no_windows_are_no_output() -> None:
    given = inputs(4, 8, windows=0)
    assert [x.shape for x in results(fused_linear_attention, given, given[0].detach())] == [(0, 4, 2, 8)] * 4


def test_going_back_twice_gives_the_same_gradients() -> None:
    given = inputs(4, 8)
    mixed = fused_linear_attention(*given)
    first = torch.autograd.grad(mixed.sum(), given, retain_graph=True)
    assert all(map(torch.equal, first, torch.autograd.grad(mixed.sum(), given)))


def test_a_gradient_of_its_gradient_is_refused() -> None:
    given = inputs(4, 8)
    with pytest.raises(NotImplementedError, match="the backend 'eager' has"):
        torch.autograd.grad(fused_linear_attention(*given).sum(), given, create_graph=True)


@pytest.mark.parametrize(("tokens", "width"), BRACKETINGS)
def test_it_keeps_nothing_but_its_arguments(tokens: int, width: int) -> None:
    given, kept = inputs(tokens, width), []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        fused_linear_attention(*given)
    assert {x.data_ptr() for x in kept} == {x.data_ptr() for x in given}


def test_ours_is_the_fused_one_where_it_was_measured_to_win(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fused_wins(torch.empty(1, 49, 8, 64))
    assert not fused_wins(torch.empty(1, 49, 8, 64, device="meta"))
    assert not fused_wins(torch.empty(1, 49, 8, 64, dtype=torch.float64))
    in_bfloat16 = {(49, 64): False, (256, 64): False, (25, 64): True, (49, 128): True, (256, 128): True}
    for (tokens, width), wins in in_bfloat16.items():
        assert fused_wins(torch.empty(1, tokens, 8, width, dtype=torch.bfloat16)) == wins
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not fused_wins(torch.empty(1, 49, 8, 64))


@pytest.mark.parametrize("wins", [True, False])
def test_ours_runs_what_wins(wins: bool, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: FBT001 - a case
    monkeypatch.setattr(compiled, "serves", lambda _: False)
    monkeypatch.setattr(linear, "fused_wins", lambda _: wins)
    x_btd = torch.randn(2, 9, 16)
    node = linear.linear_attention(*inputs(9, 8)).grad_fn
    assert ("Fused" in type(node).__name__) == wins
    assert LinearAttention(Sizes(16, 2, 9))(x_btd).shape == x_btd.shape
