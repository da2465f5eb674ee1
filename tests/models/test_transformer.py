import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional

from models.attention.table import VARIANTS
from models.loss import LossConfig, inpainting_loss
from models.transformer import InpaintingTransformer, ModelConfig
from models.windows import covering_windows, cut_windows, to_patches, window_positions
from profiles.stages import backpropagate
from profiles.timing.clock import Cell, StageClock

SMALL = ModelConfig(width=16, depth=2, heads=2, feed_forward=32, patch_side=4, window_side=3)


BLOCKS = {
    "msa": 40_980_992,
    "mlsa": 40_980_992,
    "intra": 54_632_448,
    "linformer": 41_103_296,
    "fastformer": 37_579_776,
}
HEAD = 393_984
BEFORE = {256: 525_312, 320: 599_040, 512: 918_528}


def test_the_thesis_models_have_the_published_number_of_parameters() -> None:
    assert BLOCKS["msa"] + HEAD == BLOCKS["mlsa"] + HEAD == 41_374_976
    everything = {side: BLOCKS["msa"] + HEAD + before for side, before in BEFORE.items()}
    assert everything == {256: 41_900_288, 320: 41_974_016, 512: 42_293_504}


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("side", BEFORE)
def test_a_model_holds_as_many_parameters_as_its_docstring_says(name: str, side: int) -> None:
    config = ModelConfig()
    with torch.device("meta"):
        model = InpaintingTransformer(name, config, (side // config.patch_side) ** 2)
    assert sum(p.numel() for p in model.blocks.parameters()) == BLOCKS[name]
    assert sum(p.numel() for p in model.head.parameters()) == HEAD
    assert sum(p.numel() for p in model.parameters()) == BLOCKS[name] + HEAD + BEFORE[side]
    documented = f"{BLOCKS[name]:,}  {BLOCKS[name] + HEAD:,}  {BLOCKS[name] + HEAD + BEFORE[256]:,}"
    assert documented in (InpaintingTransformer.__doc__ or "")


@pytest.mark.parametrize("name", VARIANTS)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    model = InpaintingTransformer(name, SMALL, 25)
    prediction_bp = model(torch.rand(5, 8, 48), torch.randint(25, (5, 9)))
    assert prediction_bp.shape == (5, 48)
    prediction_bp.square().sum().backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.any(), parameter_name


@pytest.mark.parametrize("name", VARIANTS)
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


class Affine(nn.Module):
    """A block that tells every order and sum of blocks from every other."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def forward(self, x: Tensor) -> Tensor:
        return x / 3 + self.number


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("depth", [1, 2, 3, 4, 13])
def test_intra_alone_adds_the_output_of_each_block_to_that_of_its_mirror_image(name: str, depth: int) -> None:
    model = InpaintingTransformer(name, SMALL, 9).double()
    model.blocks = nn.ModuleList(Affine(number) for number in range(1, depth + 1))
    outputs = [1.0]
    for number in range(1, depth + 1):
        earlier = depth - number
        from_earlier = outputs[earlier] if name == "intra" and 1 <= earlier < number else 0
        outputs.append(outputs[-1] / 3 + number + from_earlier)
    assert model._through_blocks(torch.ones(())).item() == pytest.approx(outputs[-1])


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_a_model_learns_eight_images_to_a_tenth_of_its_first_loss(name: str) -> None:
    side, grid, window = 8, (4, 4), 3
    config = ModelConfig(width=64, depth=3, heads=4, feed_forward=128, patch_side=side, window_side=window)
    images_ichw = functional.interpolate(torch.rand(8, 3, 8, 8), scale_factor=4, mode="bilinear")
    patches_inp = to_patches(images_ichw, side)
    windows = covering_windows(8, grid, window)
    positions_bt = window_positions(windows, grid[1], window)
    target_bp, context_bkp = cut_windows(patches_inp, windows.image_b, positions_bt)
    target_bchw = target_bp.reshape(-1, 3, side, side)
    model = InpaintingTransformer(name, config, grid[0] * grid[1])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses: list[float] = []
    while len(losses) < 600 and (not losses or losses[-1] > losses[0] / 10):
        prediction_bp = model(context_bkp, positions_bt)
        loss = inpainting_loss(prediction_bp.reshape(target_bchw.shape), target_bchw, LossConfig())
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] <= losses[0] / 10, f"{losses[0]} to {losses[-1]} in {len(losses)} steps"


@pytest.mark.parametrize("name", VARIANTS)
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
