"""Attention to a projected sequence: softmax(Q (E K)ᵀ / √d) F V, E and F from T tokens to fewer (Wang et al. 2020, 7).

Equation 7 is followed literally: every head has an E and an F of its own (the paper also tries to share them, between
heads, between keys and values, between layers), without a bias. They are drawn from N(0, 1/K), as in its theorem 2. The
paper ties K to T in its experiments (512 to 128, 1024 to 256): a quarter, so 12 of the 49 tokens here.

E and F tell the tokens of a window apart by their place in the sequence, which the other attentions do not.
Shapes: B windows, T tokens, K projected tokens, D width, H heads, E width of a head.
"""

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

from models.attention.sizes import Sizes


class ProjectedAttention(nn.Module):
    """Mix tokens by attention to K projected ones; 4·(D² + D) + 2·H·K·T parameters.

    K is T / 4, rounded down, at least 1.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        width, self.heads, tokens = sizes
        projected = max(1, tokens // 4)
        self.query_projection = nn.Linear(width, width)
        self.key_projection = nn.Linear(width, width)
        self.value_projection = nn.Linear(width, width)
        self.out_projection = nn.Linear(width, width)
        self.key_reduction_hkt = nn.Parameter(torch.randn(self.heads, projected, tokens) / projected**0.5)
        self.value_reduction_hkt = nn.Parameter(torch.randn(self.heads, projected, tokens) / projected**0.5)

    def forward(self, x_btd: Tensor) -> Tensor:
        """Return the mixed tokens, in the shape of *x_btd*."""
        q_bhte = self.query_projection(x_btd).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k_bhte = self.key_projection(x_btd).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        v_bhte = self.value_projection(x_btd).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k_bhke, v_bhke = self.key_reduction_hkt @ k_bhte, self.value_reduction_hkt @ v_bhte
        mixed_bhte = F.scaled_dot_product_attention(q_bhte, k_bhke, v_bhke)
        mixed: Tensor = self.out_projection(mixed_bhte.transpose(1, 2).flatten(2))
        return mixed
