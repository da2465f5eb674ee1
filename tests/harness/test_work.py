"""The arithmetic of every stage, counted in closed form, against what torch counts."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from harness.cost import forward_flops as counted
from harness.work import ATTENTION, forward_flops, loss_flops, stage_work, work_around
from models.attention.table import VARIANTS
from models.loss import LossConfig, inpainting_loss
from models.transformer import InpaintingTransformer, ModelConfig

THESIS = ModelConfig()
SMALL = ModelConfig(width=48, depth=3, heads=4, feed_forward=80, patch_side=4, window_side=5)


@pytest.mark.parametrize("config", [THESIS, SMALL])
@pytest.mark.parametrize("model", list(VARIANTS))
def test_the_closed_form_counts_what_torch_counts(model: str, config: ModelConfig) -> None:
    assert sum(forward_flops(model, config).values()) == counted(model, config)


class PlainAttention(TorchFunctionMode):
    """Does softmax attention by two products, because torch does not count the backward of its fused CPU kernel."""

    def __torch_function__(
        self, func: Callable[..., object], types: object, args: tuple[Tensor, ...] = (), kwargs: object = None
    ) -> object:
        """Stand in for one function alone."""
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))  # type: ignore[arg-type]
        query, key, value = args
        weights = torch.softmax(query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5, dim=-1)
        return weights @ value


def test_plain_attention_is_what_it_stands_in_for() -> None:
    parts = [torch.randn(2, 3, 5, 4) for _ in range(3)]
    with PlainAttention():
        plain = F.scaled_dot_product_attention(*parts)
    torch.testing.assert_close(plain, F.scaled_dot_product_attention(*parts))


@pytest.mark.parametrize("model", list(VARIANTS))
def test_backward_is_what_torch_counts_but_for_the_gradient_of_the_patches(model: str) -> None:
    tokens, batch = SMALL.attention_sizes.tokens, 2
    backend = "eager" if model == "mlsa" else "native"  # fused, some is done twice to keep less
    network = InpaintingTransformer(model, SMALL.model_copy(update={"attention_backend": backend}), positions=tokens)
    windows = torch.rand(batch, tokens - 1, SMALL.patch_values)
    with PlainAttention(), FlopCounterMode(display=False) as forward:
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


@pytest.mark.parametrize(("side", "channels"), [(16, 3), (8, 1)])
def test_the_loss_counts_as_torch_counts_its_definition(side: int, channels: int) -> None:
    batch = 2
    prediction, target = (torch.rand(batch, channels, side, side) for _ in range(2))
    prediction.requires_grad_()
    with FlopCounterMode(display=False) as forward:
        loss = inpainting_loss(prediction, target, LossConfig())
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    ours = [batch * flops for flops in loss_flops(side, channels * side**2)]
    assert ours == [forward.get_total_flops(), backward.get_total_flops()]


def test_an_update_multiplies_no_matrices_and_moves_seven_values_a_parameter() -> None:
    weights = [torch.nn.Parameter(torch.rand(3, 5))]
    optimizer = torch.optim.Adam(weights)
    weights[0].grad = torch.rand(3, 5)
    with FlopCounterMode(display=False) as counter:
        optimizer.step()
    update = next(row for row in work_around(THESIS, 256, 15) if row.stage == "optimizer")
    assert update.flops == counter.get_total_flops() == 0
    state = optimizer.state[weights[0]]
    moments = [value for value in state.values() if value.shape == weights[0].shape]
    read, written = [weights[0], weights[0].grad, *moments], [weights[0], *moments]
    assert update.least_bytes == sum(value.nbytes for value in (*read, *written)) / 256
