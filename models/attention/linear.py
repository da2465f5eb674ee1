"""Multi-head linear attention: φ(Q)(φ(K)ᵀ V) / φ(Q) Σ φ(K), φ = elu + 1 (Katharopoulos et al. 2020, equation 6).

Not causal; thesis section 2.2.3. Shapes: B windows, T tokens, D width, H heads, E width of a head.
"""

import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

from models.attention.sizes import Sizes

STABILIZER = 1e-6
"""Added to the normalizer, as the authors' library does; φ > 0, so it only guards against underflow."""


class LinearAttention(nn.Module):
    """Mix tokens by linear attention; 4·(D² + D) parameters, the same ones as softmax attention."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        width, self.heads, _ = sizes
        self.query_projection = nn.Linear(width, width)
        self.key_projection = nn.Linear(width, width)
        self.value_projection = nn.Linear(width, width)
        self.out_projection = nn.Linear(width, width)

    def forward(self, x_btd: Tensor) -> Tensor:
        """Return the mixed tokens, in the shape of *x_btd*."""
        q_bhte = F.elu(self.query_projection(x_btd).unflatten(-1, (self.heads, -1)).transpose(1, 2)) + 1
        k_bhte = F.elu(self.key_projection(x_btd).unflatten(-1, (self.heads, -1)).transpose(1, 2)) + 1
        v_bhte = self.value_projection(x_btd).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        summary_bhee = k_bhte.transpose(-1, -2) @ v_bhte
        normalizer_bht1 = q_bhte @ k_bhte.sum(dim=2).unsqueeze(-1) + STABILIZER
        mixed_bhte = q_bhte @ summary_bhee / normalizer_bht1
        mixed: Tensor = self.out_projection(mixed_bhte.transpose(1, 2).flatten(2))
        return mixed
