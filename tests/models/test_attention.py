from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from models.attention.table import ATTENTION
from tests.reference.attention import linear_attention, softmax_attention

REFERENCES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "msa": softmax_attention,
    "mlsa": linear_attention,
}


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("tokens", [1, 2, 49])
@torch.no_grad()
def test_attention_is_the_published_one(name: str, tokens: int) -> None:
    width, heads = 12, 3
    attention = ATTENTION[name](width, heads).double()
    x_btd = torch.randn(2, tokens, width, dtype=torch.float64)
    expected = []
    for x_td in x_btd:
        q, k, v = (
            projection(x_td).split(width // heads, dim=-1)
            for projection in (attention.query_projection, attention.key_projection, attention.value_projection)
        )
        mixed = [REFERENCES[name](q[h], k[h], v[h]) for h in range(heads)]
        expected.append(attention.out_projection(torch.cat(mixed, dim=-1)))
    # the linear normalizer carries a stabilizer of 1e-6, which the equation lacks
    torch.testing.assert_close(attention(x_btd), torch.stack(expected), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ATTENTION)
def test_attention_does_not_know_the_order_of_tokens(name: str) -> None:
    attention = ATTENTION[name](8, 2).double()
    x_btd = torch.randn(3, 7, 8, dtype=torch.float64)
    order = torch.randperm(7)
    torch.testing.assert_close(attention(x_btd)[:, order], attention(x_btd[:, order]))


@pytest.mark.parametrize("name", ATTENTION)
def test_attention_is_differentiable(name: str) -> None:
    attention = ATTENTION[name](6, 2).double()
    x_btd = torch.randn(2, 4, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(attention, (x_btd,))


@pytest.mark.parametrize("name", ATTENTION)
def test_attention_holds_four_projections(name: str) -> None:
    assert sum(p.numel() for p in ATTENTION[name](512, 8).parameters()) == 4 * (512**2 + 512)
