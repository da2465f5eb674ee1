import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.anomaly_map import MEAN_SIDE, anomaly_map, difference, rescale, smooth
from tests.reference.images import mean_of_neighbours


@pytest.mark.parametrize("image", ["random", 0.0, 0.3, 1.0])
@pytest.mark.parametrize("size", [(112, 112), (256, 256), (64, 48)])
def test_an_image_that_equals_its_reconstruction_has_no_anomaly_anywhere(
    image: float | str, size: tuple[int, int]
) -> None:
    image_ichw = torch.rand(2, 3, *size) if image == "random" else torch.full((2, 3, *size), float(image))
    found = anomaly_map(difference(image_ichw, image_ichw.clone()), torch.zeros(size))
    assert found.shape == (2, *size)
    assert not found.any()


def test_smoothing_averages_the_pixels_that_exist() -> None:
    map_ihw = torch.rand(1, 40, 33, dtype=torch.float64)
    np.testing.assert_allclose(smooth(map_ihw)[0], mean_of_neighbours(map_ihw[0].numpy(), MEAN_SIDE), atol=1e-12)


def test_a_constant_difference_stays_constant_at_the_border() -> None:
    torch.testing.assert_close(smooth(torch.full((1, 30, 30), 0.25)), torch.full((1, 30, 30), 0.25))


REACH = MEAN_SIDE // 2 + 3 * 4 + 2
"""How far, in pixels, a defect is felt: half the mean, then the coarsest scale's gradient and interpolation."""


@given(
    seed=st.integers(0, 2**32),
    background=st.sampled_from([0.0, 0.4, 1.0]),
    start=st.tuples(st.integers(7, 17), st.integers(7, 17)),
    end=st.tuples(st.integers(7, 17), st.integers(7, 17)),
)
@settings(max_examples=30)
def test_shifting_a_defect_shifts_its_map(
    seed: int, background: float, start: tuple[int, int], end: tuple[int, int]
) -> None:
    """By whole pixels of the coarsest scale, which are 4 x 4, and where no border is near."""
    side = 128
    defect_chw = torch.rand(3, 12, 8, generator=torch.Generator().manual_seed(seed))
    good = torch.full((1, 3, side, side), background)
    maps = []
    for row, column in (start, end):
        defective = good.clone()
        defective[0, :, 4 * row : 4 * row + 12, 4 * column : 4 * column + 8] = defect_chw
        maps.append(anomaly_map(difference(defective, good), torch.zeros(side, side))[0])
    shift = (4 * (end[0] - start[0]), 4 * (end[1] - start[1]))
    torch.testing.assert_close(maps[0].roll(shift, dims=(0, 1)), maps[1])
    row, column = 4 * start[0], 4 * start[1]
    assert maps[0][row : row + 12, column : column + 8].min() > 0
    far = torch.ones(side, side, dtype=torch.bool)
    far[row - REACH : row + 12 + REACH, column - REACH : column + 8 + REACH] = False
    assert not maps[0][far].any()


def test_the_map_is_the_squared_deviation_from_the_training_images() -> None:
    difference_ihw, mean_hw = torch.rand(3, 8, 8), torch.rand(8, 8)
    torch.testing.assert_close(anomaly_map(difference_ihw, mean_hw), (difference_ihw - mean_hw) ** 2)


def test_a_difference_lies_between_0_and_1() -> None:
    found = difference(torch.rand(2, 3, 64, 64), torch.zeros(2, 3, 64, 64))
    assert found.min() >= 0
    assert found.max() <= 1


def test_rescaling_stretches_each_map_to_0_to_1_and_keeps_its_order() -> None:
    map_ihw = torch.rand(3, 8, 9) * torch.tensor([0.01, 1.0, 5.0])[:, None, None] + 0.2
    rescaled = rescale(map_ihw)
    assert torch.equal(rescaled.amin(dim=(1, 2)), torch.zeros(3))
    assert torch.equal(rescaled.amax(dim=(1, 2)), torch.ones(3))
    assert torch.equal(rescaled.flatten(1).argsort(dim=1), map_ihw.flatten(1).argsort(dim=1))
    torch.testing.assert_close(rescaled[1], (map_ihw[1] - map_ihw[1].min()) / (map_ihw[1].max() - map_ihw[1].min()))


@pytest.mark.parametrize("value", [0.0, 0.7])
def test_rescaling_makes_nothing_of_a_map_that_tells_nothing(value: float) -> None:
    assert torch.equal(rescale(torch.full((2, 8, 8), value)), torch.zeros(2, 8, 8))
