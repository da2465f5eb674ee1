"""The models by name: all in which one differs from another."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal, NamedTuple

from torch import nn

from models.attention import library
from models.attention.additive import AdditiveAttention
from models.attention.feature import FeatureAttention
from models.attention.fused import fused_linear_attention
from models.attention.linear import LinearAttention, eager_linear_attention
from models.attention.projected import ProjectedAttention
from models.attention.sizes import Sizes
from models.attention.softmax import SoftmaxAttention

Backend = Literal["native", "fast-transformers", "eager", "fused"]
"""Whose attention is run: ours, or that of the library which the thesis used.

Ours is, where there are two, the one that wins on the device; `eager` and `fused` ask for one of them.
"""


class Variant(NamedTuple):
    """A model's attention on each backend that has it, a module that maps (B, T, D) to (B, T, D); what else differs.

    `long_residuals` adds the output of block ℓ to that of block n - ℓ, for every ℓ < n - ℓ (Pirnay & Chai 2021).
    """

    attention: Mapping[Backend, Callable[[Sizes], nn.Module]]
    long_residuals: bool = False


VARIANTS: dict[str, Variant] = {
    "msa": Variant({"native": SoftmaxAttention, "fast-transformers": library.softmax_attention}),
    "mlsa": Variant(
        {
            "native": LinearAttention,
            "fast-transformers": library.linear_attention,
            "eager": partial(LinearAttention, kernel=eager_linear_attention),
            "fused": partial(LinearAttention, kernel=fused_linear_attention),
        }
    ),
    "intra": Variant({"native": FeatureAttention}, long_residuals=True),
    "linformer": Variant({"native": ProjectedAttention}),
    "fastformer": Variant({"native": AdditiveAttention}),
}
