"""The arithmetic of every stage, counted in closed form, against what torch counts."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from harness.cost import forward_flops as counted
from harness.work import ATTENTION, forward_flops, stage_work
from models.attention.table import VARIANTS
from models.transformer import InpaintingTransformer, ModelConfig

THESIS = ModelConfig()
SMALL = ModelConfig(width=48, depth=3, heads=4, feed_forward=80, patch_side=4, window_side=5)


@pytest.mark.parametrize("config", [THESIS, SMALL])
@pytest.mark.parametrize("model", list(VARIANTS))
def test_the_closed_form_counts_what_torch_counts(model: str, config: ModelConfig) -> None:
    assert sum(forward_flops(model, config).values()) == counted(model, config)


@pytest.mark.parametrize("model", ["mlsa", "intra", "fastformer"])  # torch does not count its fused CPU kernel
def test_backward_is_what_torch_counts_but_for_the_gradient_of_the_patches(model: str) -> None:
    tokens, batch = SMALL.attention_sizes.tokens, 2
    backend = "eager" if model == "mlsa" else "native"  # fused, some is done twice to keep less
    network = InpaintingTransformer(model, SMALL.model_copy(update={"attention_backend": backend}), positions=tokens)
    windows = torch.rand(batch, tokens - 1, SMALL.patch_values)
    with FlopCounterMode(display=False) as forward:
        painted = network(windows, torch.arange(tokens).expand(batch, -1))
    with FlopCounterMode(display=False) as backward:
        painted.sum().backward()
    work = stage_work(model, SMALL, batch, 1)
    ours = {way: batch * sum(row.flops for row in work if row.direction == way) for way in ("forward", "backward")}
    assert ours["forward"] == forward.get_total_flops()
    assert ours["backward"] == pytest.approx(backward.get_total_flops(), rel=0.001)


def test_every_variant_has_its_arithmetic() -> None:
    assert set(ATTENTION) == set(VARIANTS)


def test_at_the_thesis_window_linear_attention_is_more_arithmetic_than_softmax() -> None:
    msa, mlsa = (forward_flops(model, THESIS)["attention"] for model in ("msa", "mlsa"))
    assert mlsa > msa
    assert mlsa < 1.02 * msa


def test_larger_batches_share_the_reading_of_weights() -> None:
    one, many = (stage_work("msa", THESIS, batch, 13 * 4 * 512**2) for batch in (1, 256))
    assert all(few.least_bytes > lots.least_bytes for few, lots in zip(one, many, strict=True))
    assert [row.flops for row in one] == [row.flops for row in many]
