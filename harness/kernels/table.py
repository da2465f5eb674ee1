"""The kernels by name: every attention of the models on every backend, between its projections.

A kernel is the module itself whose projections hand on what they are given, so that what is timed is what is trained.
Shapes: B windows, T tokens, H heads, E width of a head.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from harness.kernels import formulas
from models.attention import compiled, library
from models.attention.sizes import Sizes
from models.attention.table import VARIANTS, Backend

Mix = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Mixes values by queries and keys, (B, T, H, E) each but for queries and keys of feature attention, half as wide."""


class Kernel(NamedTuple):
    """What runs, what it has to compute, and what that costs.

    `multiplications` are those of the formula's matrix products, forward, of one head of one window, absent where it
    has none; `weights` are the numbers that a head has between the projections, by tokens and width; `pairs` tells how
    many T x T matrices of every head the kernel keeps at least, with gradients, which decides whether it fits.
    """

    family: str
    build: Callable[[Sizes], tuple[Mix, nn.Module]]
    formula: Callable[..., Tensor]
    multiplications: Callable[[int, int], int] | None
    pairs: float = 0.0
    weights: Callable[[int, int], int] = lambda _tokens, _width: 0
    narrow: bool = False
    reads_values: bool = True
    unavailable: Callable[[torch.device, torch.dtype], str | None] = lambda _device, _dtype: None


class _Given(nn.Module):
    """A projection's place, taken by what a caller gives."""

    given_btd: Tensor

    def forward(self, _: Tensor) -> Tensor:
        return self.given_btd


def _between_projections(name: str, backend: Backend) -> Callable[[Sizes], tuple[Mix, nn.Module]]:
    def build(sizes: Sizes) -> tuple[Mix, nn.Module]:
        module = VARIANTS[name].attention[backend](sizes)
        places = [_Given() for _ in range(3)]
        for place, part in zip(places, ("query", "key", "value"), strict=True):
            for kind in ("projection", "mlp"):
                if hasattr(module, f"{part}_{kind}"):
                    setattr(module, f"{part}_{kind}", place)
        module.out_projection = nn.Identity()

        def mix(q_bthe: Tensor, k_bthe: Tensor, v_bthe: Tensor) -> Tensor:
            for place, given_bthe in zip(places, (q_bthe, k_bthe, v_bthe), strict=True):
                place.given_btd = given_bthe.flatten(2)
            mixed_btd: Tensor = module(places[2].given_btd)
            return mixed_btd.view_as(v_bthe)

        return mix, module

    return build


def _compiled(_: Sizes) -> tuple[Mix, nn.Module]:
    return compiled.compiled_linear_attention, nn.Module()


def _eager_softmax(_: Sizes) -> tuple[Mix, nn.Module]:
    """Build softmax attention of plain operations."""

    def mix(q_bthe: Tensor, k_bthe: Tensor, v_bthe: Tensor) -> Tensor:
        q_bhte, k_bhte, v_bhte = (x.transpose(1, 2) for x in (q_bthe, k_bthe, v_bthe))
        weights_bhtt = (q_bhte @ k_bhte.transpose(-1, -2) / q_bthe.shape[-1] ** 0.5).softmax(dim=-1)
        mixed_bthe: Tensor = (weights_bhtt @ v_bhte).transpose(1, 2).contiguous()
        return mixed_bthe

    return mix, nn.Module()


def _sdpa(*backends: SDPBackend) -> Callable[[Sizes], tuple[Mix, nn.Module]]:
    """Build torch's fused attention, by these of its programs or by the one that it chooses."""

    def mix(q_bthe: Tensor, k_bthe: Tensor, v_bthe: Tensor) -> Tensor:
        q_bhte, k_bhte, v_bhte = (x.transpose(1, 2) for x in (q_bthe, k_bthe, v_bthe))
        with sdpa_kernel(list(backends)) if backends else nullcontext():
            mixed_bhte = F.scaled_dot_product_attention(q_bhte, k_bhte, v_bhte)
        mixed_bthe: Tensor = mixed_bhte.transpose(1, 2).contiguous()
        return mixed_bthe

    return lambda _: (mix, nn.Module())


def _only_cuda(device: torch.device, _: torch.dtype) -> str | None:
    return None if device.type == "cuda" else "torch has it for CUDA devices only"


def _no_float32_on_cuda(device: torch.device, dtype: torch.dtype) -> str | None:
    if device.type != "cuda" or dtype != torch.float32:
        return None
    return "on CUDA torch has it in half precision only; --dtype bfloat16 times it"


def _needs_library(_device: torch.device, _dtype: torch.dtype) -> str | None:
    return library.unusable()


def _needs_library_and_float32(device: torch.device, dtype: torch.dtype) -> str | None:
    """Say why not: the library's linear attention multiplies by a mask of float32, whatever it is given."""
    why = None if dtype == torch.float32 else "the library's mask is of float32, and it mixes it with nothing else"
    return _needs_library(device, dtype) or why


def _needs_compiled(device: torch.device, dtype: torch.dtype) -> str | None:
    if device.type != "cpu" or dtype not in compiled.DTYPES:
        return "the C kernel is for CPUs"
    return f"the C kernel was not built: {compiled.missing}" if compiled.missing else None


def _quadratic(tokens: int, width: int) -> int:
    return 2 * tokens * tokens * width


def _linear(tokens: int, width: int) -> int:
    return 2 * tokens * width * width + tokens * width


def _smaller(tokens: int, width: int) -> int:
    """Count what the fused kernel does: with T x T matrices the normalizer is a sum."""
    return _quadratic(tokens, width) if tokens <= width else _linear(tokens, width)


def _linformer(tokens: int, width: int) -> int:
    return 2 * _reductions(tokens, width) * width


def _reductions(tokens: int, _: int) -> int:
    """Count the weights of keys and of values, K x T each."""
    return 2 * max(1, tokens // 4) * tokens


def _scores(_: int, width: int) -> int:
    """Count the weights by which queries and keys are scored."""
    return 2 * width


def _feature(tokens: int, width: int) -> int:
    return tokens * tokens * (max(1, width // 2) + width)


def _softmax_kernel(build: Callable[[Sizes], tuple[Mix, nn.Module]], pairs: float = 0.0) -> Kernel:
    return Kernel("softmax", build, formulas.softmax, _quadratic, pairs)


KERNELS: dict[str, Kernel] = {
    "softmax eager": _softmax_kernel(_eager_softmax, 4),
    "softmax native": _softmax_kernel(_between_projections("msa", "native")),
    "softmax sdpa": _softmax_kernel(_sdpa()),
    "softmax sdpa-math": _softmax_kernel(_sdpa(SDPBackend.MATH), 4),
    "softmax sdpa-flash": _softmax_kernel(_sdpa(SDPBackend.FLASH_ATTENTION))._replace(unavailable=_no_float32_on_cuda),
    "softmax sdpa-efficient": _softmax_kernel(_sdpa(SDPBackend.EFFICIENT_ATTENTION))._replace(unavailable=_only_cuda),
    "softmax fast-transformers": _softmax_kernel(_between_projections("msa", "fast-transformers"), 4)._replace(
        unavailable=_needs_library
    ),
    "linear native": Kernel("linear", _between_projections("mlsa", "native"), formulas.linear, _linear),
    "linear compiled": Kernel("linear", _compiled, formulas.linear, _linear, unavailable=_needs_compiled),
    "linear eager": Kernel("linear", _between_projections("mlsa", "eager"), formulas.linear, _linear),
    "linear fused": Kernel("linear", _between_projections("mlsa", "fused"), formulas.linear, _smaller),
    "linear fast-transformers": Kernel(
        "linear",
        _between_projections("mlsa", "fast-transformers"),
        formulas.linear,
        _linear,
        unavailable=_needs_library_and_float32,
    ),
    "linformer native": Kernel(
        "linformer", _between_projections("linformer", "native"), formulas.linformer, _linformer, 0.5, _reductions
    ),
    "fastformer native": Kernel(
        "fastformer",
        _between_projections("fastformer", "native"),
        formulas.fastformer,
        multiplications=None,
        weights=_scores,
        reads_values=False,
    ),
    "feature native": Kernel(
        "feature", _between_projections("intra", "native"), formulas.softmax, _feature, narrow=True
    ),
}
