"""Multi-head feature self-attention: softmax(Q Kᵀ / √d) V, Q and K made by an MLP each (Pirnay & Chai 2021, section 3).

The paper's q = MLP_q(z) and k = MLP_k(z) have one hidden layer and GELU; v is linear in z, as in softmax attention. No
program of the authors was found. The widths, 2·D for the hidden layer and D / 2 for Q and K (d = E / 2, rounded down),
are those of the public reimplementation jhy12/inpainting-transformer.

Shapes: B windows, T tokens, D width, H heads, E width of a head, R width of a head's query, E / 2.
"""

import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

from models.attention.sizes import Sizes


class FeatureAttention(nn.Module):
    """Mix tokens by feature self-attention; 8·D² + 7·D parameters where E is even.

    Each MLP holds D·2D + 2D, then 2D·D/2 + D/2, that is 3·D² + 5/2·D; values and output another 2·(D² + D).
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        width, self.heads, _ = sizes
        reduced = self.heads * max(1, width // self.heads // 2)
        self.query_mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, reduced))
        self.key_mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, reduced))
        self.value_projection = nn.Linear(width, width)
        self.out_projection = nn.Linear(width, width)

    def forward(self, x_btd: Tensor) -> Tensor:
        """Return the mixed tokens, in the shape of *x_btd*."""
        q_bhtr = self.query_mlp(x_btd).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k_bhtr = self.key_mlp(x_btd).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        v_bhte = self.value_projection(x_btd).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        mixed_bhte = F.scaled_dot_product_attention(q_bhtr, k_bhtr, v_bhte)
        mixed: Tensor = self.out_projection(mixed_bhte.transpose(1, 2).flatten(2))
        return mixed
