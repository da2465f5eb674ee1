import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from models.loss import (
    GMS_CONSTANT,
    SSIM_WINDOW,
    LossConfig,
    gms_maps,
    gradient_magnitude,
    inpainting_loss,
    msgms_loss,
    ssim_loss,
)
from tests.reference.images import gms, half
from tests.reference.images import gradient_magnitude as gradient_magnitude_by_loop


def test_gradient_magnitude_is_prewitts() -> None:
    image = torch.rand(1, 2, 6, 9, dtype=torch.float64)
    for channel in range(2):
        expected = gradient_magnitude_by_loop(image[0, channel].numpy())
        np.testing.assert_allclose(gradient_magnitude(image)[0, channel], expected, atol=1e-6)


def test_gms_agrees_with_a_loop_at_three_scales() -> None:
    x, y = torch.rand(2, 1, 1, 16, 12, dtype=torch.float64)
    a, b = x[0, 0].numpy(), y[0, 0].numpy()
    means = []
    for scale, found in enumerate(gms_maps(x, y)):
        if scale:
            a, b = half(a), half(b)
        expected = gms(a, b, GMS_CONSTANT)
        np.testing.assert_allclose(found[0, 0], expected, atol=1e-6)
        means.append(1 - expected.mean())
    assert msgms_loss(x, y).item() == pytest.approx(np.mean(means), abs=1e-6)


REACH = SSIM_WINDOW // 2


@pytest.mark.parametrize("size", [(16, 16), (24, 30)])
@pytest.mark.parametrize("noise", [0.01, 0.3, 1.0])
def test_ssim_is_scikit_images_border_included(noise: float, size: tuple[int, int]) -> None:
    """scikit-image doubles the border's pixels where we do not, so it is given images that are mirrored already."""
    x = torch.rand(4, 3, *size, dtype=torch.float64)
    y = (1 - noise) * x + noise * torch.rand_like(x)
    mirrored = [np.pad(each.numpy(), ((0, 0), (0, 0), (REACH, REACH), (REACH, REACH)), "reflect") for each in (x, y)]
    maps = [
        structural_similarity(
            one, other, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
            channel_axis=0, full=True,
        )[1][:, REACH:-REACH, REACH:-REACH]
        for one, other in zip(*mirrored, strict=True)
    ]  # fmt: skip
    assert ssim_loss(x, y).item() == pytest.approx(1 - np.mean(maps), abs=1e-7)  # kornia's Gaussian is of 32 bits
    single = [ssim_loss(x[i : i + 1], y[i : i + 1]).item() for i in range(4)]
    assert single == pytest.approx([1 - each.mean() for each in maps], abs=1e-7)


@pytest.mark.parametrize("fill", ["random", 0.0, 0.5, 1.0])
def test_equal_images_have_no_loss_and_finite_gradients(fill: float | str) -> None:
    x = torch.rand(4, 3, 16, 16) if fill == "random" else torch.full((4, 3, 16, 16), float(fill))
    prediction = x.clone().requires_grad_()
    loss = inpainting_loss(prediction, x, LossConfig())
    assert loss.item() == pytest.approx(0, abs=1e-8)
    loss.backward()
    assert prediction.grad is not None
    assert prediction.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("prediction", [0.0, 0.3, 1.0, "random"])
@pytest.mark.parametrize("target", [0.0, 0.3, 1.0, "random"])
def test_gradients_are_finite_on_constant_patches(
    prediction: float | str, target: float | str, dtype: torch.dtype
) -> None:
    x, y = (
        torch.rand(2, 3, 16, 16, dtype=dtype) if fill == "random" else torch.full((2, 3, 16, 16), fill, dtype=dtype)
        for fill in (prediction, target)
    )
    inpainting_loss(x.requires_grad_(), y.requires_grad_(), LossConfig()).backward()
    for value in (x, y):
        assert value.grad is not None
        assert value.grad.isfinite().all()


def test_a_gradient_is_finite_where_rounding_makes_the_images_all_but_equal() -> None:
    x = torch.rand(2, 3, 16, 16)
    prediction = (x + 1e-7 * torch.randn_like(x)).requires_grad_()
    inpainting_loss(prediction, x, LossConfig()).backward()
    assert prediction.grad is not None
    assert prediction.grad.isfinite().all()


def test_the_loss_is_differentiable() -> None:
    prediction = torch.rand(1, 2, 16, 16, dtype=torch.float64, requires_grad=True)
    target = torch.rand(1, 2, 16, 16, dtype=torch.float64, requires_grad=True)
    config = LossConfig(alpha=0.3, beta=0.7)
    assert torch.autograd.gradcheck(lambda x, y: inpainting_loss(x, y, config), (prediction, target))


def test_the_parts_are_weighted_by_alpha_and_beta() -> None:
    x, y = torch.rand(2, 2, 3, 16, 16)
    squared = (x - y).square().mean()
    expected = squared + 0.2 * msgms_loss(x, y) + 0.5 * ssim_loss(x, y)
    torch.testing.assert_close(inpainting_loss(x, y, LossConfig(alpha=0.2, beta=0.5)), expected)
    torch.testing.assert_close(inpainting_loss(x, y, LossConfig(alpha=0.0, beta=0.0)), squared)
