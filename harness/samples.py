"""Pictures of a few test images: which of them, and no more than those in memory.

Shapes: C channels, H x W pixels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from harness.dataset import LabelledImage
from harness.pipelines.parts import as_floats
from harness.scores import auroc, stand


class Picture(NamedTuple):
    """A test image and its reconstruction, 8 bits."""

    image_hwc: NDArray[np.uint8]
    reconstruction_hwc: NDArray[np.uint8]


class Samples:
    """Pictures for a choice of *count*: the worst and the best defective image, then others, spread over the defects.

    The others are known beforehand; of the defective ones, only the worst and the best so far are kept.
    """

    def __init__(self, labels: Sequence[LabelledImage], count: int) -> None:
        self.pictures: dict[int, Picture] = {}
        self.aurocs: dict[int, float] = {}
        """In percent, how well each map tells its own image's marked pixels from the others."""
        self._others = set(spread_over_defects(labels, count))

    def rate(self, index: int, map_hw: NDArray[np.float32], mask_hw: NDArray[np.bool_]) -> None:
        """Score an image's own map, unless nobody asks or its mask does not mark a part of it."""
        if self._others and mask_hw.any() and not mask_hw.all():
            self.aurocs[index] = 100.0 * auroc(stand(map_hw, mask_hw))

    def keeps(self, index: int) -> bool:
        """Whether an image that is rated is to be kept."""
        return index in self._others or index in extremes(self.aurocs)

    def keep(self, index: int, image_chw: Tensor, reconstruction_chw: Tensor) -> None:
        """Keep an image, and forget who will not be chosen any longer."""
        self.pictures[index] = Picture(_as_bytes(image_chw), _as_bytes(reconstruction_chw))
        for other in self.pictures.keys() - self._others - set(extremes(self.aurocs)):
            del self.pictures[other]


def extremes(aurocs: dict[int, float]) -> tuple[int, ...]:
    """Return the worst and the best image, of equal ones the first, or none."""
    return (min(aurocs, key=aurocs.__getitem__), max(aurocs, key=aurocs.__getitem__)) if aurocs else ()


def _as_bytes(pixels_chw: Tensor) -> NDArray[np.uint8]:
    values_hwc = (as_floats(pixels_chw).clamp(0, 1) * 255).round().permute(1, 2, 0)
    return values_hwc.byte().cpu().numpy()


def spread_over_defects(images: Sequence[LabelledImage], count: int) -> list[int]:
    """Choose *count* indices, taking the kinds of defect in turn."""
    by_defect: dict[str, list[int]] = {}
    for index, image in enumerate(images):
        by_defect.setdefault(image.defect, []).append(index)
    queues = list(by_defect.values())
    turns = max((len(queue) for queue in queues), default=0)
    return [queue[turn] for turn in range(turns) for queue in queues if turn < len(queue)][:count]
