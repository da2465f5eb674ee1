"""Multi-head softmax attention: softmax(Q Kᵀ / √d) V (Vaswani et al. 2017; thesis section 2.2.1).

Shapes: B windows, T tokens, D width, H heads, E width of a head.
"""

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

from models.attention.sizes import Sizes


class SoftmaxAttention(nn.Module):
    """Mix tokens by softmax attention; 4·(D² + D) parameters."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        width, self.heads, _ = sizes
        self.query_projection = nn.Linear(width, width)
        self.key_projection = nn.Linear(width, width)
        self.value_projection = nn.Linear(width, width)
        self.out_projection = nn.Linear(width, width)

    def forward(self, x_btd: Tensor) -> Tensor:
        """Return the mixed tokens, in the shape of *x_btd*."""
        q_bhte = self.query_projection(x_btd).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k_bhte = self.key_projection(x_btd).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        v_bhte = self.value_projection(x_btd).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        mixed_bhte = _attend(q_bhte, k_bhte, v_bhte)
        mixed: Tensor = self.out_projection(mixed_bhte.transpose(1, 2).flatten(2))
        return mixed


def _attend(q_bhte: Tensor, k_bhte: Tensor, v_bhte: Tensor) -> Tensor:
    """Return softmax(Q Kᵀ / √E) V by whatever is fastest: `docs/decisions/fast-step.md`."""
    if q_bhte.device.type != "cpu" or q_bhte.dtype != torch.bfloat16:
        return F.scaled_dot_product_attention(q_bhte, k_bhte, v_bhte)
    scores_bhtt = q_bhte * q_bhte.shape[-1] ** -0.5 @ k_bhte.transpose(-1, -2)
    mixed_bhte: Tensor = scores_bhtt.softmax(dim=-1) @ v_bhte
    return mixed_bhte
