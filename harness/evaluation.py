"""Calibration and evaluation (thesis sections 4.4 and 4.6): reconstruct, compare, score.

Shapes: I images, N patches of an image, P values of a patch, C channels, H x W pixels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from harness.dataset import LabelledImage
from harness.images import read_mask
from harness.interrupt import Interrupt
from harness.pipeline import WindowSource, load_patches
from harness.progress import Reporter
from models.anomaly_map import anomaly_map, difference, rescale
from models.windows import to_images
from profiles.record import ImageScore
from profiles.stages import stage


class EvaluationConfig(BaseModel):
    """What is evaluated and kept."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    images: int | None = Field(
        default=None,
        gt=0,
        description="calibrate and evaluate on so many images only, unscored; absent: on all",
    )
    samples: int = Field(default=6, ge=0, description="test images kept as pictures, spread over the defects")
    save_maps: bool = Field(default=False, description="keep every anomaly map as a TIFF of 32-bit floats")
    rescale_maps: bool = Field(
        default=False,
        description="rescale each image's difference to [0, 1] before calibration and comparison, as the author did",
    )


class Reconstructor(NamedTuple):
    """Paints whole images with a model, in batches of *batch_size* windows."""

    model: nn.Module
    batch_size: int
    patch_side: int
    rescale_maps: bool
    reporter: Reporter
    interrupt: Interrupt

    @torch.no_grad()
    def compare(self, source: WindowSource, image: int) -> tuple[Tensor, Tensor]:
        """Return the reconstruction (1, C, H, W) of one of the source's images, and its difference (1, H, W).

        The difference is rescaled if so asked, whatever it is for: training images are the yardstick of test images.

        Raises:
            InterruptedRunError: someone asked to stop.

        """
        windows = source.covering(image)
        painted = []
        for start in range(0, len(windows.image_b), self.batch_size):
            batch = source.cut(windows.select(slice(start, start + self.batch_size)))
            painted.append(self.model(batch.context_bkp, batch.positions_bt))
            with stage("patching"):
                del batch  # its memory is given back in the stage that took it
        with stage("anomaly_map"):
            rows = source.grid[0]
            original = to_images(source.patches_inp[image : image + 1], self.patch_side, rows) / 255
            reconstruction = to_images(torch.cat(painted)[None], self.patch_side, rows)
            compared = difference(original, reconstruction)
            compared = rescale(compared) if self.rescale_maps else compared
            del painted, original
        self.reporter.advance(1)
        self.interrupt.check()
        return reconstruction, compared


def calibrate(reconstructor: Reconstructor, source: WindowSource) -> Tensor:
    """Return the mean difference (H, W) over the source's images.

    Raises:
        InterruptedRunError: someone asked to stop.

    """
    images = len(source.patches_inp)
    reconstructor.reporter.begin("calibration", images, "images")
    differences_ihw = (reconstructor.compare(source, image)[1] for image in range(images))
    total_hw = next(differences_ihw)[0]
    for difference_hw in differences_ihw:
        with stage("anomaly_map"):
            total_hw = total_hw + difference_hw[0]
    return total_hw / images


class Evaluated(NamedTuple):
    """The test images with their anomaly maps, masks (true: anomalous) and 8-bit reconstructions."""

    images: tuple[LabelledImage, ...]
    maps_ihw: NDArray[np.float32]
    masks_ihw: NDArray[np.bool_]
    reconstructions_ichw: NDArray[np.uint8]

    @property
    def defective_i(self) -> NDArray[np.bool_]:
        """Which images are defective, by their folder: a mask may lose its marks in resizing."""
        return np.array([image.mask is not None for image in self.images])

    def image_scores(self) -> list[ImageScore]:
        """Return each image's detection score, the largest value of its map."""
        return [
            ImageScore(image=f"{image.defect}/{image.path.name}", defect=image.defect, score=float(map_hw.max()))
            for image, map_hw in zip(self.images, self.maps_ihw, strict=True)
        ]


def evaluate(
    reconstructor: Reconstructor, like: WindowSource, images: Sequence[LabelledImage], side: int, mean_hw: Tensor
) -> Evaluated:
    """Reconstruct test images one after the other and map their anomalies.

    Args:
        reconstructor: how.
        like: a source with the grid and window of these images.
        images: the test images; each is decoded when its turn comes.
        side: H = W.
        mean_hw: the calibration's mean difference.

    Raises:
        DataError: an image or a mask is damaged.
        InterruptedRunError: someone asked to stop.

    """
    reconstructor.reporter.begin("evaluation", len(images), "images")
    maps, masks, reconstructions = [], [], []
    for image in images:
        patches = load_patches([image.path], side, reconstructor.patch_side, mean_hw.device)
        with stage("data_loading"):
            masks.append(
                torch.zeros(side, side, dtype=torch.bool) if image.mask is None else read_mask(image.mask, side)
            )
        reconstruction, compared = reconstructor.compare(like._replace(patches_inp=patches), 0)
        with stage("anomaly_map"):
            maps.append(anomaly_map(compared, mean_hw)[0].cpu())
            reconstructions.append((reconstruction[0].clamp(0, 1) * 255).round().to(torch.uint8).cpu())
    return Evaluated(
        tuple(images),
        torch.stack(maps).numpy(),
        torch.stack(masks).numpy(),
        torch.stack(reconstructions).numpy(),
    )


def spread_over_defects(images: Sequence[LabelledImage], count: int) -> list[int]:
    """Choose *count* indices, taking the kinds of defect in turn."""
    by_defect: dict[str, list[int]] = {}
    for index, image in enumerate(images):
        by_defect.setdefault(image.defect, []).append(index)
    queues = list(by_defect.values())
    turns = max((len(queue) for queue in queues), default=0)
    return [queue[turn] for turn in range(turns) for queue in queues if turn < len(queue)][:count]
