"""Additive attention with a global query and a global key (Wu et al. 2021, section 3), linear in the tokens.

For each head, with w_q and w_k of its width:

    α = softmax over tokens of w_q·q / √d,    global query = Σ α q
    p = global query ∗ k                      (element by element)
    β = softmax over tokens of w_k·p / √d,    global key = Σ β p
    u = global key ∗ v                        output = W u + q

As in the paper values are the queries (one transformation makes both), and queries are added to the output. W joins all
heads, as in the authors' program; that of w_q and w_k with a bias is not followed: softmax does not see it.
Shapes: B windows, T tokens, D width, H heads, E width of a head.
"""

import torch
from torch import Tensor, nn

from models.attention.sizes import Sizes


class AdditiveAttention(nn.Module):
    """Mix tokens by additive attention; 3·(D² + D) + 2·D parameters."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        width, self.heads, _ = sizes
        head_width = width // self.heads
        self.query_projection = nn.Linear(width, width)
        self.key_projection = nn.Linear(width, width)
        self.out_projection = nn.Linear(width, width)
        bound = head_width**-0.5  # as torch draws a linear layer of E inputs
        self.query_score_he = nn.Parameter(torch.empty(self.heads, head_width).uniform_(-bound, bound))
        self.key_score_he = nn.Parameter(torch.empty(self.heads, head_width).uniform_(-bound, bound))

    def forward(self, x_btd: Tensor) -> Tensor:
        """Return the mixed tokens, in the shape of *x_btd*."""
        q_bthe = self.query_projection(x_btd).unflatten(-1, (self.heads, -1))
        k_bthe = self.key_projection(x_btd).unflatten(-1, (self.heads, -1))
        p_bthe = _pooled(q_bthe, self.query_score_he) * k_bthe
        u_bthe = _pooled(p_bthe, self.key_score_he) * q_bthe
        mixed: Tensor = self.out_projection(u_bthe.flatten(2)) + q_bthe.flatten(2)
        return mixed


def _pooled(x_bthe: Tensor, score_he: Tensor) -> Tensor:
    """Return the average of the tokens, (B, 1, H, E), each weighed by the softmax of its score over all of them."""
    score_bth1 = (x_bthe * score_he).sum(dim=-1, keepdim=True) / x_bthe.shape[-1] ** 0.5
    pooled_b1he: Tensor = (score_bth1.softmax(dim=1) * x_bthe).sum(dim=1, keepdim=True)
    return pooled_b1he
