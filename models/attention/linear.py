"""Multi-head linear attention: φ(Q)(φ(K)ᵀ V) / φ(Q) Σ φ(K), φ = elu + 1 (Katharopoulos et al. 2020, equation 6).

Not causal; thesis section 2.2.3. Which program computes it, docs/decisions/fused-linear-attention.md decides by
measurement. Shapes: B windows, T tokens, D width, H heads, E width of a head.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

from models.attention import compiled
from models.attention.fused import STABILIZER, fused_linear_attention
from models.attention.sizes import Sizes

Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Mixes values (B, T, H, E) by queries and keys of that shape."""


def eager_linear_attention(q_bthe: Tensor, k_bthe: Tensor, v_bthe: Tensor) -> Tensor:
    """Mix by one torch operation after another, whose gradients autograd finds."""
    q_bhte, k_bhte = F.elu(q_bthe.transpose(1, 2)) + 1, F.elu(k_bthe.transpose(1, 2)) + 1
    summary_bhee = k_bhte.transpose(-1, -2) @ v_bthe.transpose(1, 2)
    normalizer_bht1 = q_bhte @ k_bhte.sum(dim=2).unsqueeze(-1) + STABILIZER
    mixed_bhte = q_bhte @ summary_bhee / normalizer_bht1
    return mixed_bhte.transpose(1, 2)


def linear_attention(q_bthe: Tensor, k_bthe: Tensor, v_bthe: Tensor) -> Tensor:
    """Mix by what is fastest where this runs."""
    if compiled.serves(q_bthe) and compiled_wins(q_bthe):
        return compiled.compiled_linear_attention(q_bthe, k_bthe, v_bthe)
    return (fused_linear_attention if fused_wins(q_bthe) else eager_linear_attention)(q_bthe, k_bthe, v_bthe)


WIDEST = {torch.float32: (256, 8), torch.bfloat16: (128, 4)}
"""How wide a head may be for the program in C, and how many times as wide as it has tokens: in bfloat16 torch's own
products are faster than in float32, and the program's are not."""


def compiled_wins(q_bthe: Tensor) -> bool:
    """Say whether the program in C was measured to be faster than the others for such queries, both directions.

    It multiplies by summaries, E x E, and a head is one thread's: a few wide heads, and very few tokens, are faster by
    torch's own products, which are T x T where that is less.
    """
    tokens, width = q_bthe.shape[1], q_bthe.shape[-1]
    widest, width_of_tokens = WIDEST[q_bthe.dtype]
    return width <= min(widest, width_of_tokens * tokens)


def fused_wins(q_bthe: Tensor) -> bool:
    """Say whether the fused program was measured to be faster than the eager one for such queries, both directions.

    It was on CPUs, of bfloat16 for wide heads and few tokens alone; `torch.compile` fuses the other one itself.
    """
    if q_bthe.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    tokens, width = q_bthe.shape[1], q_bthe.shape[-1]
    return q_bthe.dtype == torch.float32 or (q_bthe.dtype == torch.bfloat16 and width > min(64, 2 * tokens))


class LinearAttention(nn.Module):
    """Mix tokens by linear attention; 4·(D² + D) parameters, the same ones as softmax attention."""

    def __init__(self, sizes: Sizes, kernel: Kernel = linear_attention) -> None:
        super().__init__()
        width, self.heads, _ = sizes
        self.kernel = kernel
        self.query_projection = nn.Linear(width, width)
        self.key_projection = nn.Linear(width, width)
        self.value_projection = nn.Linear(width, width)
        self.out_projection = nn.Linear(width, width)

    def forward(self, x_btd: Tensor) -> Tensor:
        """Return the mixed tokens, in the shape of *x_btd*."""
        q_bthe = self.query_projection(x_btd).unflatten(-1, (self.heads, -1))
        k_bthe = self.key_projection(x_btd).unflatten(-1, (self.heads, -1))
        v_bthe = self.value_projection(x_btd).unflatten(-1, (self.heads, -1))
        mixed: Tensor = self.out_projection(self.kernel(q_bthe, k_bthe, v_bthe).flatten(2))
        return mixed
