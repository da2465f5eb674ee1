"""Softmax and linear attention by `pytorch-fast-transformers`, the library that the thesis used.

Its modules hold parameters of the same names as ours, so a state of either loads into the other. Both are plain torch
operations there: nothing compiled is called. It is not among the dependencies: it has to be built, `make
fast-transformers`. Shapes: B windows, T tokens, D width.
"""

import importlib
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from models.attention.sizes import Sizes

if TYPE_CHECKING:
    from fast_transformers.masking import FullMask, LengthMask


def unusable() -> str | None:
    """Say why the library cannot be used here: it is absent, or built for another torch. `None`: it can."""
    try:
        importlib.import_module("fast_transformers.attention")
    except ImportError as error:
        return str(error)
    return None


def softmax_attention(sizes: Sizes) -> nn.Module:
    """Build the library's softmax attention; its default dropout is left out."""
    from fast_transformers.attention import FullAttention  # noqa: PLC0415 - only where this backend is asked for

    return _self_attention(FullAttention(attention_dropout=0.0), sizes)


def linear_attention(sizes: Sizes) -> nn.Module:
    """Build the library's linear attention."""
    from fast_transformers.attention import LinearAttention  # noqa: PLC0415 - only where this backend is asked for

    return _self_attention(LinearAttention(sizes.width // sizes.heads), sizes)


def _self_attention(inner: nn.Module, sizes: Sizes) -> nn.Module:
    """Return the library's own layer around *inner*, called with x_btd instead of its six arguments."""
    from fast_transformers.attention import AttentionLayer  # noqa: PLC0415 - only where this backend is asked for

    layer: nn.Module = AttentionLayer(inner, sizes.width, sizes.heads)
    layer.register_forward_pre_hook(_six_arguments)
    return layer


def _six_arguments(_: nn.Module, arguments: tuple[Tensor]) -> tuple[Any, ...]:
    """Make queries, keys, values, the mask and both lengths of x_btd: every token attends to every token."""
    (x_btd,) = arguments
    mask, lengths = _masks(x_btd.shape[0], x_btd.shape[1], x_btd.device)
    return x_btd, x_btd, x_btd, mask, lengths, lengths


@lru_cache(maxsize=16)
def _masks(windows: int, tokens: int, device: torch.device) -> "tuple[FullMask, LengthMask]":
    """Return masks that hide nothing, made once for a shape; the library's encoder makes them once for all its layers.

    A length mask asks the device whether it hides something, and so waits for it.
    """
    from fast_transformers.masking import FullMask, LengthMask  # noqa: PLC0415 - only where this backend is asked for

    with torch.inference_mode(mode=False):  # they outlive the call, and autograd takes no tensor of that mode
        lengths = LengthMask(torch.full((windows,), tokens, device=device), max_len=tokens)
        _ = lengths.float_matrix  # which it makes when first asked for
        return FullMask(tokens, device=device), lengths
