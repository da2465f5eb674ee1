"""What an attention does, counted: operations, operator calls, allocations. No clock, so no noise.

python -m tests.benchmarks.proxies      writes the expected counts anew, for a change that means to alter them
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from models.attention.sizes import Sizes
from models.attention.table import VARIANTS

EXPECTED = Path(__file__).with_name("proxies.json")
WINDOWS, TOKENS, HEADS, WIDTH = 16, 49, 8, 512
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
ATTENTIONS = [
    (model, backend, dtype)
    for model, variant in VARIANTS.items()
    for backend in variant.attention
    if backend != "fast-transformers"
    for dtype in DTYPES
]

_aten = torch.ops.aten
FLASH = {
    _aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda g, q, k, v, *_, **__: sdpa_backward_flop_count(
        g, q, k, v
    ),
}
"""Operators that torch's counter does not know."""


class Counter(TorchDispatchMode):
    """Counts operator calls, and storages that they make with their bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = self.allocations = self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        result = func(*args, **(kwargs or {}))
        self.calls += 1
        for made in tree_leaves(result):
            if isinstance(made, Tensor) and made.untyped_storage()._cdata not in given:
                self.allocations += 1
                self.bytes += made.untyped_storage().nbytes()
        return result


def counted(work: Callable[[], Tensor]) -> tuple[dict[str, int], Tensor]:
    """Return what a *work* does, and its result."""
    with Counter() as counter:
        result = work()
    with FlopCounterMode(display=False, custom_mapping=FLASH) as flops:
        result = work()
    counts = {"calls": counter.calls, "allocations": counter.allocations, "bytes": counter.bytes}
    return {"flops": flops.get_total_flops(), **counts}, result


def proxies(attention: nn.Module) -> dict[str, dict[str, int]]:
    """Count the forward and the backward pass of an attention."""
    weights = list(attention.parameters())
    x_btd = torch.randn(WINDOWS, TOKENS, WIDTH, dtype=weights[0].dtype, requires_grad=True)
    forward, mixed_btd = counted(lambda: attention(x_btd))
    gradient_btd = torch.randn_like(mixed_btd)
    backward, _ = counted(lambda: torch.autograd.grad(mixed_btd, [x_btd, *weights], gradient_btd, retain_graph=True)[0])
    return {"forward": forward, "backward": backward}


def build(model: str, backend: str, dtype: str) -> nn.Module:
    """Build an attention of the thesis's sizes."""
    return VARIANTS[model].attention[backend](Sizes(WIDTH, HEADS, TOKENS)).to(DTYPES[dtype])


if __name__ == "__main__":
    found = {" ".join(each): proxies(build(*each)) for each in ATTENTIONS}
    EXPECTED.write_text(json.dumps({"torch": torch.__version__, "counts": found}, indent=1) + "\n")
