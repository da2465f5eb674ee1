"""The loss in a few products is the loss of `models.loss`, whose own tests say that it is the published one."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from models.loss import LossConfig, inpainting_loss
from models.patch_loss import operators, patch_inpainting_loss

LOUD = LossConfig(alpha=0.3, beta=0.7)
"""Weights that hide no part."""


def patches(kind: str, count: int, side: int, dtype: torch.dtype) -> Tensor:
    if kind == "random":
        return torch.rand(count, 3, side, side, dtype=dtype)
    return torch.full((count, 3, side, side), float(kind), dtype=dtype)


@given(
    count=st.integers(1, 8),
    side=st.sampled_from([8, 12, 16, 20, 32]),
    noise=st.sampled_from([1e-3, 0.1, 1.0]),
    seed=st.integers(0, 2**32),
)
def test_value_and_gradients_are_those_of_the_eager_loss(count: int, side: int, noise: float, seed: int) -> None:
    torch.manual_seed(seed)
    y = torch.rand(count, 3, side, side, dtype=torch.float64)
    x = (y + noise * torch.randn_like(y)).requires_grad_()
    y.requires_grad_()
    expected, found = inpainting_loss(x, y, LOUD), patch_inpainting_loss(x, y, LOUD)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-14)
    wanted, gradients = torch.autograd.grad(expected, [x, y]), torch.autograd.grad(found, [x, y])
    for ours, theirs in zip(gradients, wanted, strict=True):
        assert (ours - theirs).abs().max() <= 1e-8 * theirs.abs().max()


def test_in_float32_the_loss_of_a_batch_is_the_same_to_a_millionth() -> None:
    x, y = torch.rand(2, 64, 3, 16, 16)
    x.requires_grad_()
    losses = [loss(x, y, LossConfig()) for loss in (inpainting_loss, patch_inpainting_loss)]
    assert abs(losses[0] - losses[1]).item() < 1e-6
    theirs, ours = (torch.autograd.grad(loss, x)[0] for loss in losses)
    assert (ours - theirs).abs().max() < 1e-5 * theirs.abs().max()


def test_the_gradient_is_the_derivative() -> None:
    x, y = torch.rand(2, 1, 2, 8, 8, dtype=torch.float64).requires_grad_().unbind()
    assert torch.autograd.gradcheck(lambda x, y: patch_inpainting_loss(x, y, LOUD), (x, y))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("prediction", ["0.0", "0.3", "1.0", "random"])
@pytest.mark.parametrize("target", ["0.0", "0.3", "1.0", "random"])
def test_value_and_gradient_are_finite_on_constant_patches(prediction: str, target: str, dtype: torch.dtype) -> None:
    x = patches(prediction, 2, 16, dtype).requires_grad_()
    y = patches(target, 2, 16, dtype)
    loss = patch_inpainting_loss(x, y, LossConfig())
    loss.backward()
    assert loss.isfinite()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("fill", ["random", "0.0", "0.5", "1.0"])
def test_equal_patches_have_no_loss(fill: str) -> None:
    x = patches(fill, 4, 16, torch.float32)
    assert patch_inpainting_loss(x, x, LossConfig()).item() == pytest.approx(0, abs=1e-8)


def test_matrices_made_where_autograd_is_off_serve_where_it_is_on() -> None:
    operators.cache_clear()
    x, y = torch.rand(2, 2, 3, 16, 16)
    with torch.inference_mode():
        patch_inpainting_loss(x, y, LossConfig())
    patch_inpainting_loss(x.requires_grad_(), y, LossConfig()).backward()
