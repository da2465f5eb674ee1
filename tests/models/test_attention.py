"""Each attention is the published one. What the two backends share is in `test_backends.py`."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from models.attention import linear
from models.attention.sizes import Sizes
from models.attention.table import VARIANTS
from tests.reference import attention as reference

REFERENCES: dict[str, Callable[..., list[list[float]]]] = {
    "msa": reference.msa,
    "mlsa": reference.mlsa,
    "intra": reference.intra,
    "linformer": reference.linformer,
    "fastformer": reference.fastformer,
}
ORDERLESS = [name for name in VARIANTS if name != "linformer"]


def native(name: str, width: int, heads: int, tokens: int) -> nn.Module:
    return VARIANTS[name].attention["native"](Sizes(width, heads, tokens)).double()


def nested(module: nn.Module) -> dict[str, Any]:
    return {name: parameter.tolist() for name, parameter in module.state_dict().items()}


def test_every_variant_has_a_reference() -> None:
    assert REFERENCES.keys() == VARIANTS.keys()


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize(("tokens", "heads", "width"), [(1, 1, 4), (2, 3, 12), (9, 2, 10), (49, 3, 12)])
@torch.no_grad()
def test_attention_is_the_published_one(
    name: str, tokens: int, heads: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear, "STABILIZER", 0.0)  # which the equation lacks
    attention = native(name, width, heads, tokens)
    for parameter in attention.parameters():
        parameter.mul_(3)  # drawn weights are so small that softmax would be near its mean
    x_btd = torch.randn(2, tokens, width, dtype=torch.float64)
    expected = [REFERENCES[name](nested(attention), x_td.tolist(), heads) for x_td in x_btd]
    torch.testing.assert_close(attention(x_btd), torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-10)


def test_the_stabilizer_of_linear_attention_is_felt_by_nobody() -> None:
    attention = native("mlsa", 12, 3, 49)
    x_btd = torch.randn(2, 49, 12, dtype=torch.float64)
    expected = [reference.mlsa(nested(attention), x_td.tolist(), 3) for x_td in x_btd]
    torch.testing.assert_close(attention(x_btd), torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ORDERLESS)
def test_attention_does_not_know_the_order_of_tokens(name: str) -> None:
    attention = native(name, 8, 2, 7)
    x_btd = torch.randn(3, 7, 8, dtype=torch.float64)
    order = torch.randperm(7)
    torch.testing.assert_close(attention(x_btd)[:, order], attention(x_btd[:, order]))


@torch.no_grad()
def test_linformer_knows_the_order_of_tokens_by_its_projections_alone() -> None:
    attention = native("linformer", 8, 2, 9)
    x_btd = torch.randn(3, 9, 8, dtype=torch.float64)
    order = torch.randperm(9)
    mixed_btd = attention(x_btd)
    assert not torch.allclose(attention(x_btd[:, order]), mixed_btd[:, order])
    for name in ("key_reduction_hkt", "value_reduction_hkt"):
        parameter = attention.get_parameter(name)
        parameter.copy_(parameter[..., order])
    torch.testing.assert_close(attention(x_btd[:, order]), mixed_btd[:, order])


def test_linformer_projects_a_window_of_the_thesis_to_twelve_tokens() -> None:
    attention = native("linformer", 8, 2, 49)
    assert attention.get_parameter("key_reduction_hkt").shape == (2, 12, 49)


@pytest.mark.parametrize("name", VARIANTS)
def test_attention_is_differentiable(name: str) -> None:
    attention = native(name, 8, 2, 9)
    x_btd = torch.randn(2, 9, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(attention, (x_btd,))


@pytest.mark.parametrize("name", VARIANTS)
def test_every_parameter_of_an_attention_is_used(name: str) -> None:
    attention = native(name, 8, 2, 9)
    attention(torch.randn(2, 9, 8, dtype=torch.float64)).square().sum().backward()
    unused = [n for n, p in attention.named_parameters() if p.grad is None or not p.grad.any()]
    assert not unused


WIDTH, HEADS, TOKENS = 512, 8, 49


@pytest.mark.parametrize(("name", "expected"), [
    ("msa", 4 * (WIDTH**2 + WIDTH)),
    ("mlsa", 4 * (WIDTH**2 + WIDTH)),
    ("intra", 8 * WIDTH**2 + 7 * WIDTH),
    ("linformer", 4 * (WIDTH**2 + WIDTH) + 2 * HEADS * (TOKENS // 4) * TOKENS),
    ("fastformer", 3 * (WIDTH**2 + WIDTH) + 2 * WIDTH),
])  # fmt: skip
def test_an_attention_holds_as_many_parameters_as_its_docstring_says(name: str, expected: int) -> None:
    assert sum(p.numel() for p in native(name, WIDTH, HEADS, TOKENS).parameters()) == expected
