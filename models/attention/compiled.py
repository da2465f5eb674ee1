"""Linear attention by a kernel in C, `linear_kernel.c`: a head at a time, each tensor read once and written once.

It is built where the package is installed and a compiler found; where not, `missing` says why, and nothing else of the
models needs it. Both of its functions are torch operators, so that who counts operations or looks at a trace sees them.
Shapes: B windows, T tokens, H heads, E width of a head.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function
from torch.utils.flop_counter import register_flop_formula

from models.attention.fused import STABILIZER

missing: str | None = None
try:
    from models.attention import linear_kernel
except ImportError as error:
    missing = str(error)

DTYPES = (torch.float32, torch.bfloat16)
LANES = 16
"""The width of a head is a multiple of these."""


def serves(q_bthe: Tensor) -> bool:
    """Say whether the kernel can mix by such queries; inside `torch.compile` it is left to the compiler."""
    return (
        missing is None
        and q_bthe.device.type == "cpu"
        and q_bthe.dtype in DTYPES
        and q_bthe.shape[-1] % LANES == 0
        and not torch.compiler.is_compiling()
    )


def compiled_linear_attention(q_bthe: Tensor, k_bthe: Tensor, v_bthe: Tensor) -> Tensor:
    """Return φ(Q)(φ(K)ᵀ V) / φ(Q) Σ φ(K), φ = elu + 1; its gradient has none of its own, and says so when asked.

    It is computed in float32, and rounded once where bfloat16 is given; what is given is all that is kept for backward.

    Raises:
        ValueError: the kernel does not serve such queries, or keys and values are of another shape or type.

    """
    if not serves(q_bthe):
        what = f"{tuple(q_bthe.shape)}, {q_bthe.dtype}, {q_bthe.device}"
        raise ValueError(f"compiled linear attention is for a CPU and heads of a multiple of {LANES}; got {what}")  # noqa: TRY003
    given = (x.contiguous() for x in (q_bthe, k_bthe, v_bthe))
    mixed_bthe: Tensor = _CompiledLinearAttention.apply(*given)  # type: ignore[no-untyped-call]
    return mixed_bthe


class _CompiledLinearAttention(Function):
    @staticmethod
    def forward(ctx: Any, q_bthe: Tensor, k_bthe: Tensor, v_bthe: Tensor) -> Tensor:  # noqa: ANN401 - torch types it so
        ctx.save_for_backward(q_bthe, k_bthe, v_bthe)
        mixed_bthe: Tensor = torch.ops.inpainting.linear_attention(q_bthe, k_bthe, v_bthe)
        return mixed_bthe

    @staticmethod
    def backward(ctx: Any, gradient_bthe: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ANN401
        if torch.is_grad_enabled():
            raise NotImplementedError("compiled linear attention has no second derivative; the backend 'eager' has")
        gradients: Tensor = torch.ops.inpainting.linear_attention_back(*ctx.saved_tensors, gradient_bthe.contiguous())
        dq_bthe, dk_bthe, dv_bthe = gradients.unbind()
        return dq_bthe, dk_bthe, dv_bthe


def _setting(x_bthe: Tensor) -> tuple[int, int, int, int, float, int, bool]:
    windows, tokens, heads, width = x_bthe.shape
    return windows, tokens, heads, width, STABILIZER, torch.get_num_threads(), x_bthe.dtype == torch.bfloat16


def _check(*given: Tensor) -> None:
    """Refuse what the kernel would read past the end of: it is told addresses and one shape."""
    for x in given:
        alike = x.shape == given[0].shape and x.dtype == given[0].dtype
        if not alike or x.dtype not in DTYPES or not x.is_contiguous():
            got = ", ".join(f"{tuple(x.shape)} {x.dtype}" for x in given)
            raise ValueError(f"the kernel reads contiguous float32 or bfloat16 of one shape (B, T, H, E); got {got}")  # noqa: TRY003


def _mix(q_bthe: Tensor, k_bthe: Tensor, v_bthe: Tensor) -> Tensor:
    _check(q_bthe, k_bthe, v_bthe)
    mixed_bthe = torch.empty_like(q_bthe)
    addresses = [x.data_ptr() for x in (q_bthe, k_bthe, v_bthe, mixed_bthe)]
    linear_kernel.mix(*_setting(q_bthe), *addresses)
    return mixed_bthe


def _back(q_bthe: Tensor, k_bthe: Tensor, v_bthe: Tensor, gradient_bthe: Tensor) -> Tensor:
    """Return the three gradients as one block of memory, which the C library keeps for the next time."""
    _check(q_bthe, k_bthe, v_bthe, gradient_bthe)
    gradients_gbthe = q_bthe.new_empty(3, *q_bthe.shape)
    addresses = [x.data_ptr() for x in (q_bthe, k_bthe, v_bthe, gradient_bthe, *gradients_gbthe)]
    linear_kernel.back(*_setting(q_bthe), *addresses)
    return gradients_gbthe


_OPERATORS = torch.library.Library("inpainting", "DEF")  # type: ignore[no-untyped-call]
_OPERATORS.define("linear_attention(Tensor q, Tensor k, Tensor v) -> Tensor")  # type: ignore[no-untyped-call]
_OPERATORS.define("linear_attention_back(Tensor q, Tensor k, Tensor v, Tensor gradient) -> Tensor")  # type: ignore[no-untyped-call]
_OPERATORS.impl("linear_attention", _mix, "CPU")  # type: ignore[no-untyped-call]
_OPERATORS.impl("linear_attention_back", _back, "CPU")  # type: ignore[no-untyped-call]


@torch.library.register_fake("inpainting::linear_attention", lib=_OPERATORS)  # type: ignore[untyped-decorator]
def _mix_shape(q_bthe: Tensor, *_: Tensor) -> Tensor:
    """Return what `_mix` would, without contents, for who only counts memory."""
    return torch.empty_like(q_bthe)


@torch.library.register_fake("inpainting::linear_attention_back", lib=_OPERATORS)  # type: ignore[untyped-decorator]
def _back_shape(q_bthe: Tensor, *_: Tensor) -> Tensor:
    return q_bthe.new_empty(3, *q_bthe.shape)


@register_flop_formula(torch.ops.inpainting.linear_attention)
def _mix_flops(q_shape: torch.Size, *_: object, **__: object) -> int:
    """Count two products with a summary, and the normalizer."""
    windows, tokens, heads, width = q_shape
    return 2 * windows * heads * tokens * (2 * width**2 + width)


@register_flop_formula(torch.ops.inpainting.linear_attention_back)
def _back_flops(q_shape: torch.Size, *_: object, **__: object) -> int:
    """Count five products with a summary, that of forward made anew, and three with a vector."""
    windows, tokens, heads, width = q_shape
    return 2 * windows * heads * tokens * (5 * width**2 + 3 * width)
