"""The attention variants by name."""

from collections.abc import Callable

from torch import nn

from models.attention.linear import LinearAttention
from models.attention.softmax import SoftmaxAttention

ATTENTION: dict[str, Callable[[int, int], nn.Module]] = {
    "msa": SoftmaxAttention,
    "mlsa": LinearAttention,
}
"""Model name to a module of (width, heads) that maps (B, T, D) to (B, T, D)."""
