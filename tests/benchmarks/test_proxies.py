"""The attentions do exactly as much as they are recorded to do."""

import json

import pytest
import torch
from torch import Tensor, nn

from models.attention import compiled
from tests.benchmarks.proxies import ATTENTIONS, DTYPES, EXPECTED, Counter, build, proxies

RECORDED = json.loads(EXPECTED.read_text())


def released(version: str) -> str:
    """Return a version without what it was built for, which on a CPU is no matter."""
    return version.split("+", maxsplit=1)[0]


@pytest.mark.parametrize(("model", "backend", "dtype"), ATTENTIONS)
def test_an_attention_does_what_it_did(model: str, backend: str, dtype: str) -> None:
    if released(torch.__version__) != released(RECORDED["torch"]):
        pytest.fail(
            f"recorded with torch {RECORDED['torch']}, this is {torch.__version__}: install that, or make proxies"
        )
    if (model, backend) == ("mlsa", "native") and compiled.missing:
        backend = "fused" if dtype == "float32" else "eager"  # which stands in
    assert proxies(build(model, backend, dtype)) == RECORDED["counts"][f"{model} {backend} {dtype}"]


class Copying(nn.Module):
    """An attention with a copy that nobody needs, of its output or of that one's gradient."""

    def __init__(self, attention: nn.Module, direction: str) -> None:
        super().__init__()
        self.attention, self.direction = attention, direction

    def forward(self, x_btd: Tensor) -> Tensor:
        mixed_btd: Tensor = self.attention(x_btd)
        if self.direction == "forward":
            return mixed_btd.clone()
        mixed_btd.register_hook(torch.clone)
        return mixed_btd


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize(("model", "backend", "dtype"), ATTENTIONS)
def test_a_planted_copy_is_seen_every_time(model: str, backend: str, dtype: str, direction: str) -> None:
    attention = build(model, backend, dtype)
    plain, copying = proxies(attention), proxies(Copying(attention, direction))
    copied_bytes = 16 * 49 * 512 * DTYPES[dtype].itemsize
    more = {"flops": 0, "calls": 1, "allocations": 1, "bytes": copied_bytes}
    plain[direction] = {name: count + more[name] for name, count in plain[direction].items()}
    assert copying == plain


@pytest.mark.skipif(bool(compiled.missing), reason=f"the C kernel was not built: {compiled.missing}")
@pytest.mark.parametrize("dtype", DTYPES.values())
def test_inside_its_operators_the_kernel_in_c_makes_its_results_and_nothing_else(dtype: torch.dtype) -> None:
    """Who counts operators sees each as one, so what they call is counted here; memory that C takes is not seen."""
    q_bthe, k_bthe, v_bthe, gradient_bthe = torch.randn(4, 16, 49, 8, 64, dtype=dtype).unbind()
    with Counter() as forward:
        compiled._mix(q_bthe, k_bthe, v_bthe)
    with Counter() as backward:
        compiled._back(q_bthe, k_bthe, v_bthe, gradient_bthe)
    assert (forward.allocations, forward.bytes) == (1, q_bthe.nbytes)
    assert (backward.allocations, backward.bytes) == (1, 3 * q_bthe.nbytes)
