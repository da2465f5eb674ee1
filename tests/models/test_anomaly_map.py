import numpy as np
import torch

from models.anomaly_map import MEAN_SIDE, anomaly_map, difference, smooth
from tests.reference.images import mean_of_neighbours


def test_an_image_that_equals_its_reconstruction_has_no_anomaly_anywhere() -> None:
    image = torch.rand(2, 3, 64, 48)
    found = anomaly_map(difference(image, image), torch.zeros(64, 48))
    assert not found.any()


def test_smoothing_averages_the_pixels_that_exist() -> None:
    map_ihw = torch.rand(1, 40, 33, dtype=torch.float64)
    np.testing.assert_allclose(smooth(map_ihw)[0], mean_of_neighbours(map_ihw[0].numpy(), MEAN_SIDE), atol=1e-12)


def test_a_constant_difference_stays_constant_at_the_border() -> None:
    torch.testing.assert_close(smooth(torch.full((1, 30, 30), 0.25)), torch.full((1, 30, 30), 0.25))


def test_shifting_a_defect_shifts_its_map() -> None:
    good = torch.zeros(1, 3, 128, 128)
    defective, shifted = good.clone(), good.clone()
    defective[:, :, 48:56, 40:56] = 1
    shifted[:, :, 64:72, 48:64] = 1
    one, other = difference(defective, good)[0], difference(shifted, good)[0]
    torch.testing.assert_close(one.roll((16, 8), dims=(0, 1))[40:, 40:], other[40:, 40:])
    assert one.max() > 0.1
    assert one[-10:].max() == 0  # far from the defect


def test_the_map_is_the_squared_deviation_from_the_training_images() -> None:
    difference_ihw, mean_hw = torch.rand(3, 8, 8), torch.rand(8, 8)
    torch.testing.assert_close(anomaly_map(difference_ihw, mean_hw), (difference_ihw - mean_hw) ** 2)


def test_a_difference_lies_between_0_and_1() -> None:
    found = difference(torch.rand(2, 3, 64, 64), torch.zeros(2, 3, 64, 64))
    assert found.min() >= 0
    assert found.max() <= 1
