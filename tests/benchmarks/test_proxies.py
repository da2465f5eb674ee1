"""The attentions do exactly as much as they are recorded to do."""

import json

import pytest
import torch
from torch import Tensor, nn

from models.attention import compiled
from tests.benchmarks.proxies import ATTENTIONS, EXPECTED, build, proxies

RECORDED = json.loads(EXPECTED.read_text())


def released(version: str) -> str:
    """Return a version without what it was built for, which on a CPU is no matter."""
    return version.split("+", maxsplit=1)[0]


@pytest.mark.parametrize(("model", "backend"), ATTENTIONS)
def test_an_attention_does_what_it_did(model: str, backend: str) -> None:
    if released(torch.__version__) != released(RECORDED["torch"]):
        pytest.fail(
            f"recorded with torch {RECORDED['torch']}, this is {torch.__version__}: install that, or make proxies"
        )
    if (model, backend) == ("mlsa", "native") and compiled.missing:
        backend = "fused"  # which stands in
    assert proxies(build(model, backend)) == RECORDED["counts"][f"{model} {backend}"]


class Copying(nn.Module):
    """An attention with a copy that nobody needs."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, x_btd: Tensor) -> Tensor:
        copied: Tensor = self.attention(x_btd).clone()
        return copied


@pytest.mark.parametrize(("model", "backend"), ATTENTIONS)
def test_a_planted_copy_is_seen_every_time(model: str, backend: str) -> None:
    attention = build(model, backend)
    plain, copying = proxies(attention)["forward"], proxies(Copying(attention))["forward"]
    copied_bytes = 16 * 49 * 512 * 4
    more = {"flops": 0, "calls": 1, "allocations": 1, "bytes": copied_bytes}
    assert copying == {name: plain[name] + more[name] for name in plain}
