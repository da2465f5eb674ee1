import pytest
import torch
from pydantic import ValidationError

from models.attention.table import ATTENTION
from models.transformer import InpaintingTransformer, ModelConfig
from profiles.clock import Cell, StageClock
from profiles.stages import backpropagate

SMALL = ModelConfig(width=16, depth=2, heads=2, feed_forward=32, patch_side=4, window_side=3)


@pytest.mark.parametrize("name", ATTENTION)
@pytest.mark.parametrize(("side", "everything"), [(256, 41_900_288), (320, 41_974_016), (512, 42_293_504)])
def test_the_thesis_model_has_the_published_number_of_parameters(name: str, side: int, everything: int) -> None:
    config = ModelConfig()
    with torch.device("meta"):
        model = InpaintingTransformer(name, config, (side // config.patch_side) ** 2)
    blocks = sum(p.numel() for p in model.blocks.parameters())
    head = sum(p.numel() for p in model.head.parameters())
    assert blocks == 40_980_992
    assert blocks + head == 41_374_976
    assert sum(p.numel() for p in model.parameters()) == everything


@pytest.mark.parametrize("name", ATTENTION)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    model = InpaintingTransformer(name, SMALL, 25)
    prediction_bp = model(torch.rand(5, 8, 48), torch.randint(25, (5, 9)))
    assert prediction_bp.shape == (5, 48)
    prediction_bp.square().sum().backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.any(), parameter_name


@pytest.mark.parametrize("name", ATTENTION)
def test_a_window_does_not_depend_on_its_neighbours_in_the_batch(name: str) -> None:
    model = InpaintingTransformer(name, SMALL, 25).double()
    context_bkp, positions_bt = torch.rand(4, 8, 48).double(), torch.randint(25, (4, 9))
    together = model(context_bkp, positions_bt)
    alone = torch.cat([model(context_bkp[i : i + 1], positions_bt[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(together, alone)


def test_the_position_of_a_patch_matters() -> None:
    model = InpaintingTransformer("msa", SMALL, 25)
    context_bkp, positions_bt = torch.rand(1, 8, 48), torch.arange(9)[None]
    assert not torch.allclose(model(context_bkp, positions_bt), model(context_bkp, positions_bt + 1))


@pytest.mark.parametrize("name", ATTENTION)
def test_a_model_learns(name: str) -> None:
    model = InpaintingTransformer(name, SMALL, 9)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    context_bkp, positions_bt = torch.rand(8, 8, 48), torch.arange(9).expand(8, 9)
    target_bp = torch.rand(8, 48)
    losses = []
    for _ in range(400):
        loss = torch.nn.functional.mse_loss(model(context_bkp, positions_bt), target_bp)
        losses.append(loss.item())
        if loss.item() < losses[0] / 10:
            break
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0] / 10


@pytest.mark.parametrize("name", ATTENTION)
def test_every_stage_of_the_model_is_marked_forward_and_backward(name: str) -> None:
    model = InpaintingTransformer(name, SMALL, 25)
    with StageClock().phase("train", 1) as times:
        backpropagate(model(torch.rand(5, 8, 48), torch.randint(25, (5, 9))).sum())
    calls = {cell: count for cell, count in times.calls.items() if cell.stage != "unattributed"}
    assert calls == {
        Cell(name, direction): count
        for name, count in (("embedding", 1), ("attention", 2), ("feed_forward", 2), ("head", 1))
        for direction in ("forward", "backward")
    }


def test_heads_must_share_the_width() -> None:
    with pytest.raises(ValidationError, match="width 10 is not a multiple of heads 4"):
        ModelConfig(width=10, heads=4)
