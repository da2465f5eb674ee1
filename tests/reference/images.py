"""Image similarity by loops. Shapes: H x W pixels of one channel."""

import math

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float64]


def gradient_magnitude(image_hw: Image) -> Image:
    """Prewitt/3 with a replicated border, one pixel at a time."""
    height, width = image_hw.shape
    magnitude = np.zeros_like(image_hw)

    def at(y: int, x: int) -> float:
        return float(image_hw[min(max(y, 0), height - 1), min(max(x, 0), width - 1)])

    for y in range(height):
        for x in range(width):
            across = sum(at(y + d, x + 1) - at(y + d, x - 1) for d in (-1, 0, 1)) / 3
            down = sum(at(y + 1, x + d) - at(y - 1, x + d) for d in (-1, 0, 1)) / 3
            magnitude[y, x] = math.hypot(across, down)
    return magnitude


def half(image_hw: Image) -> Image:
    """Average 2 x 2 pixels."""
    return (image_hw[0::2, 0::2] + image_hw[1::2, 0::2] + image_hw[0::2, 1::2] + image_hw[1::2, 1::2]) / 4


def gms(a_hw: Image, b_hw: Image, c: float) -> Image:
    """Compute thesis 2.26 with the erratum of spec section 8."""
    a, b = gradient_magnitude(a_hw), gradient_magnitude(b_hw)
    return (2 * a * b + c) / (a**2 + b**2 + c)


def mean_of_neighbours(map_hw: Image, side: int) -> Image:
    """Average those of side x side pixels that lie in the image."""
    height, width = map_hw.shape
    reach = side // 2
    out = np.zeros_like(map_hw)
    for y in range(height):
        for x in range(width):
            out[y, x] = map_hw[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1].mean()
    return out
