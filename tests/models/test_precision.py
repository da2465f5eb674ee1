"""What bfloat16 products change, and what they leave as it is."""

import copy

import pytest
import torch
from torch import Tensor

from models.attention import softmax
from models.attention.table import VARIANTS
from models.transformer import InpaintingTransformer, ModelConfig

SIZES = {"width": 64, "depth": 3, "heads": 4, "feed_forward": 128, "patch_side": 8, "window_side": 5}
ROUNDING = 2.0**-8
"""Of a bfloat16, relative."""


def both(name: str) -> tuple[InpaintingTransformer, InpaintingTransformer]:
    """Return a model in float32 and one of the same weights in bfloat16."""
    exact = InpaintingTransformer(name, ModelConfig(**SIZES), 49)
    rounded = InpaintingTransformer(name, ModelConfig(**SIZES, precision="bfloat16"), 49)
    rounded.load_state_dict(exact.state_dict())
    return exact, rounded


def windows() -> tuple[Tensor, Tensor]:
    return torch.rand(8, 24, 192), torch.randint(49, (8, 25))


def distance(found: Tensor, expected: Tensor) -> float:
    """Return the length of the difference, relative to that of *expected*."""
    return ((found - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("name", VARIANTS)
def test_predictions_differ_by_a_few_roundings_and_gradients_by_little_more(name: str) -> None:
    """Bounds: four roundings of a prediction, sixteen of a gradient, most of which cancel."""
    inputs, target = windows(), torch.rand(8, 192)
    predictions, gradients = [], []
    for model in both(name):
        predictions.append(model(*inputs))
        (predictions[-1] - target).square().mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert 0 < distance(predictions[1], predictions[0]) < 4 * ROUNDING
    assert 0 < distance(gradients[1], gradients[0]) < 16 * ROUNDING


@pytest.mark.parametrize("name", VARIANTS)
def test_predictions_weights_and_gradients_stay_float32(name: str) -> None:
    _, rounded = both(name)
    prediction_bp = rounded(*windows())
    prediction_bp.sum().backward()
    assert prediction_bp.dtype == torch.float32
    for parameter in rounded.parameters():
        assert parameter.dtype == torch.float32
        assert parameter.grad is not None
        assert parameter.grad.dtype == torch.float32


def test_a_checkpoint_of_either_precision_loads_into_the_other() -> None:
    exact, rounded = both("mlsa")
    assert exact.state_dict().keys() == rounded.state_dict().keys()


def test_float32_is_the_default() -> None:
    assert ModelConfig().precision == "float32"


def test_softmax_attention_written_out_is_torchs_own() -> None:
    """On a CPU it is what bfloat16 takes: equal to torch's to the rounding of its scores and of its output."""
    q, k, v = torch.randn(3, 4, 2, 25, 16, dtype=torch.bfloat16)
    exact = torch.nn.functional.scaled_dot_product_attention(q.double(), k.double(), v.double())
    assert distance(softmax._attend(q, k, v).double(), exact) < 2 * ROUNDING
    q, k, v = (x.requires_grad_() for x in torch.randn(3, 4, 2, 25, 16))
    gradient = torch.randn_like(v)
    expected = torch.autograd.grad(softmax._attend(q, k, v), [q, k, v], gradient)
    low = [copy.deepcopy(x.detach()).bfloat16().requires_grad_() for x in (q, k, v)]
    found = torch.autograd.grad(softmax._attend(*low), low, gradient.bfloat16())
    for ours, theirs in zip(found, expected, strict=True):
        assert distance(ours.float(), theirs) < 4 * ROUNDING
