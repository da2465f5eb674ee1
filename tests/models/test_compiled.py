"""Linear attention in C is what the eager one is, on every instruction set of this processor, and is chosen."""

import os
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from models.attention import compiled, linear
from models.attention.compiled import compiled_linear_attention
from models.attention.linear import eager_linear_attention, linear_attention
from models.attention.sizes import Sizes
from models.attention.table import VARIANTS
from tests.reference import attention as reference

if compiled.missing and not os.environ.get("CI"):  # which has a compiler, and must not pass without
    pytest.skip(f"the C kernel was not built: {compiled.missing}", allow_module_level=True)
linear_kernel = import_module("models.attention.linear_kernel")

SETS = ("avx512", "avx2", "plain")
SHAPES = [(1, 2, 2, 16), (3, 9, 1, 32), (5, 49, 8, 64), (2, 64, 2, 64), (2, 65, 2, 80), (1, 200, 3, 128)]
"""Windows, tokens, heads and width; more tokens than the kernel has at hand, tiles that are not full."""


@pytest.fixture(params=[name for name in SETS if linear_kernel.use(name)], autouse=True)
def _instructions(request: pytest.FixtureRequest) -> Iterator[None]:
    linear_kernel.use(request.param)
    yield
    assert any(linear_kernel.use(name) for name in SETS)  # the best is first


def inputs(*shape: int) -> list[Tensor]:
    return [torch.randn(shape).mul(2).requires_grad_() for _ in range(3)]


def results(kernel: linear.Kernel, given: list[Tensor], gradient: Tensor) -> list[Tensor]:
    mixed = kernel(*given)
    return [mixed.detach(), *torch.autograd.grad(mixed, given, gradient.to(mixed.dtype))]


@pytest.mark.parametrize("dtype", compiled.DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_it_rounds_no_worse_than_the_eager_one(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    given = [x.detach().to(dtype).requires_grad_() for x in inputs(*shape)]
    gradient = torch.randn(shape, dtype=dtype)
    exact = results(eager_linear_attention, [x.detach().double().requires_grad_() for x in given], gradient)
    errors = [
        [(found.double() - right).norm() / right.norm() for found, right in zip(each, exact, strict=True)]
        for each in (results(kernel, given, gradient) for kernel in (compiled_linear_attention, eager_linear_attention))
    ]
    for ours, eager in zip(*errors, strict=True):
        assert ours <= 2 * (eager + torch.finfo(dtype).eps)


def test_it_is_the_published_attention() -> None:
    attention = VARIANTS["mlsa"].attention["native"](Sizes(32, 2, 9))
    x_btd = torch.randn(2, 9, 32).mul(3)
    state = {name: parameter.tolist() for name, parameter in attention.state_dict().items()}
    expected = [reference.mlsa(state, x_td.tolist(), 2) for x_td in x_btd]
    torch.testing.assert_close(attention(x_btd), torch.tensor(expected), rtol=1e-5, atol=1e-5)


def test_bfloat16_is_rounded_once_to_the_nearest_as_torch_rounds() -> None:
    given, gradient = [x.detach().bfloat16() for x in inputs(3, 70, 2, 32)], torch.randn(3, 70, 2, 32).bfloat16()
    ours = results(compiled_linear_attention, [x.clone().requires_grad_() for x in given], gradient)
    wide = results(compiled_linear_attention, [x.float().requires_grad_() for x in given], gradient)
    for rounded, exact in zip(ours, wide, strict=True):
        assert torch.equal(rounded, exact.bfloat16())


@pytest.mark.parametrize("value", [-1e4, -100.0, -87.0, -30.0, -1e-8, 0.0, 1e-8, 30.0, 1e4])
def test_extreme_queries_and_keys_stay_numbers(value: float) -> None:
    given = [torch.full((1, 4, 1, 16), value), torch.full((1, 4, 1, 16), value), torch.rand(1, 4, 1, 16)]
    leaves = [x.requires_grad_() for x in given]
    ours, eager = (
        results(kernel, leaves, torch.ones(1, 4, 1, 16))
        for kernel in (compiled_linear_attention, eager_linear_attention)
    )
    for found, expected in zip(ours, eager, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", compiled.DTYPES)
@pytest.mark.parametrize("which", [0, 1, 2])
def test_what_is_no_number_makes_none(which: int, dtype: torch.dtype) -> None:
    given: list[Tensor] = [x.detach().to(dtype) for x in inputs(2, 9, 2, 16)]
    with torch.no_grad():
        given[which][1, 3, 1, 5] = torch.nan
    mixed = compiled_linear_attention(*given)
    assert mixed[1, 3, 1].isnan().any()
    assert mixed[0].isfinite().all()
    assert mixed[1, :, 0].isfinite().all()


def test_strides_change_nothing() -> None:
    given, gradient = inputs(3, 9, 2, 16), torch.randn(3, 9, 2, 16)
    strided = [x.detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_() for x in given]
    whole = results(compiled_linear_attention, given, gradient)
    assert all(map(torch.equal, whole, results(compiled_linear_attention, strided, gradient.mT.contiguous().mT)))
    summed = torch.autograd.grad(compiled_linear_attention(*given).sum(), given)  # a gradient without strides
    assert all(map(torch.equal, summed, results(compiled_linear_attention, given, torch.ones(3, 9, 2, 16))[1:]))


def test_the_number_of_threads_changes_nothing() -> None:
    given, gradient = inputs(5, 9, 3, 16), torch.randn(5, 9, 3, 16)
    before = torch.get_num_threads()
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(results(compiled_linear_attention, given, gradient))
    torch.set_num_threads(before)
    assert all(torch.equal(*pair) for other in found[1:] for pair in zip(found[0], other, strict=True))


def test_it_was_built_to_share_heads_among_threads() -> None:
    """Its results are the same without, and who times it on one thread, as the gate does, sees no loss."""
    built = Path(linear_kernel.__file__ or "").read_bytes()
    assert b"GOMP_parallel" in built or b"__kmpc_fork_call" in built  # of GCC, of Clang


def test_no_windows_are_no_output() -> None:
    given = inputs(0, 9, 2, 16)
    assert [x.shape for x in results(compiled_linear_attention, given, given[0].detach())] == [(0, 9, 2, 16)] * 4


def test_a_gradient_of_its_gradient_is_refused() -> None:
    given = inputs(1, 9, 2, 16)
    with pytest.raises(NotImplementedError, match="the backend 'eager' has"):
        torch.autograd.grad(compiled_linear_attention(*given).sum(), given, create_graph=True)


@pytest.mark.parametrize("dtype", compiled.DTYPES)
def test_it_keeps_nothing_but_its_arguments(dtype: torch.dtype) -> None:
    given: list[Tensor] = [x.detach().to(dtype).requires_grad_() for x in inputs(1, 9, 2, 16)]
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        compiled_linear_attention(*given)
    assert {x.data_ptr() for x in kept} == {x.data_ptr() for x in given}


def test_its_operations_are_counted() -> None:
    given = inputs(3, 49, 2, 64)
    with FlopCounterMode(display=False) as counter:
        mixed = compiled_linear_attention(*given)
    with FlopCounterMode(display=False) as eager, torch.no_grad():
        eager_linear_attention(*given)
    assert counter.get_total_flops() == eager.get_total_flops()
    with FlopCounterMode(display=False) as back:
        mixed.sum().backward()
    assert back.get_total_flops() == 2 * 3 * 2 * 49 * (5 * 64 * 64 + 3 * 64)


def served(**of: torch.dtype | str) -> bool:
    return compiled.serves(torch.empty(1, 49, 8, 64, **of))  # type: ignore[call-overload]


def test_it_is_chosen_where_it_can_run(monkeypatch: pytest.MonkeyPatch) -> None:
    assert served()
    assert "Compiled" in type(linear_attention(*inputs(1, 9, 2, 16)).grad_fn).__name__
    assert not served(device="meta")
    assert served(dtype=torch.bfloat16)
    assert not served(dtype=torch.float64)
    assert not compiled.serves(torch.empty(1, 49, 8, 63))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not served()


def test_what_it_does_not_serve_is_refused() -> None:
    with pytest.raises(ValueError, match=r"heads of a multiple of 16; got \(1, 9, 2, 8\)"):
        compiled_linear_attention(*inputs(1, 9, 2, 8))


def test_where_it_was_not_built_torch_does_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "missing", "no compiler")
    assert "Fused" in type(linear_attention(*inputs(1, 9, 2, 16)).grad_fn).__name__


def test_shapes_are_known_without_contents() -> None:
    """Who estimates memory runs a model on tensors that hold nothing."""
    real = [torch.randn(2, 5, 3, 16, requires_grad=True) for _ in range(3)]
    compiled_linear_attention(*real).sum().backward()
    with FakeTensorMode():
        fake = [torch.randn(2, 5, 3, 16, requires_grad=True) for _ in range(3)]
        mixed = compiled_linear_attention(*fake)
        mixed.sum().backward()
    assert mixed.shape == real[0].shape
    assert [each.grad.shape for each in fake if each.grad is not None] == [each.shape for each in real]


@pytest.mark.parametrize("shape", [(2, 4, 2, 16), (1, 5, 2, 16), (2, 5, 2, 32)])
def test_keys_and_values_of_another_shape_are_refused_and_not_read_past_their_end(shape: tuple[int, ...]) -> None:
    q_bthe, other = torch.randn(2, 5, 2, 16), torch.randn(shape)
    with pytest.raises(ValueError, match="one shape"):
        compiled_linear_attention(q_bthe, other, other)
    with pytest.raises(ValueError, match="one shape"):
        torch.ops.inpainting.linear_attention(q_bthe, other, other)
    with pytest.raises(ValueError, match="one shape"):
        torch.ops.inpainting.linear_attention(*[q_bthe.double()] * 3)
    with pytest.raises(ValueError, match="bfloat16, "):
        compiled_linear_attention(q_bthe.bfloat16(), q_bthe, q_bthe)


@pytest.mark.parametrize(("tokens", "width", "node"), [
    (49, 64, "Compiled"), (49, 256, "Compiled"), (49, 512, "Fused"), (9, 64, "Compiled"), (9, 128, "Fused")
])  # fmt: skip
def test_few_wide_heads_and_few_tokens_are_left_to_torch(tokens: int, width: int, node: str) -> None:
    assert node in type(linear_attention(*inputs(1, tokens, 1, width)).grad_fn).__name__


@pytest.mark.parametrize(("tokens", "width", "node"), [
    (49, 64, "Compiled"), (49, 128, "Compiled"), (256, 128, "Compiled"), (16, 64, "Compiled"),
    (49, 256, "Fused"), (256, 256, "Fused"), (25, 128, "Fused"), (9, 64, "Fused"),
])  # fmt: skip
def test_in_bfloat16_so_are_heads_of_half_the_width_and_twice_the_tokens(tokens: int, width: int, node: str) -> None:
    given = [x.detach().bfloat16().requires_grad_() for x in inputs(1, tokens, 1, width)]
    assert node in type(linear_attention(*given).grad_fn).__name__
