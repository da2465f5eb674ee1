"""Calibration and evaluation (thesis sections 4.4 and 4.6): reconstruct, compare, score.

Differences go two ways at once, as they are and rescaled: the setting decides by which of them images are mapped, and
of the other way each map's largest value is kept, which tells what the setting does to detection.

Shapes: I images, N patches of an image, P values of a patch, C channels, H x W pixels, M = 2 ways.
"""

from collections.abc import Sequence
from contextlib import closing
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from harness.dataset import LabelledImage
from harness.images import read_mask
from harness.interrupt import Interrupt
from harness.pipelines.parts import Images, Loaded, PatchLoss, Pipeline, as_floats, joined
from harness.progress import Reporter
from harness.samples import Samples
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
    """Paints whole images with a model, by a pipeline; *batch_size* and *loss* are those of training."""

    model: nn.Module
    pipeline: Pipeline
    loss: PatchLoss
    batch_size: int
    rescale_maps: bool
    reporter: Reporter
    interrupt: Interrupt

    @torch.no_grad()
    def compare(self, loaded: Loaded) -> tuple[Tensor, Tensor]:
        """Return the reconstruction (1, C, H, W) of one image and its difference (M, H, W), as it is and rescaled.

        Args:
            loaded: the image with the windows that cover it.

        Raises:
            InterruptedRunError: someone asked to stop.

        """
        painted_np = self.pipeline.paint(loaded, self.model, self.pipeline.cut, self.loss, self.batch_size)
        with stage("anomaly_map"):
            rows, patch_side = loaded.images_irqcss.shape[1], loaded.images_irqcss.shape[-1]
            original = as_floats(joined(loaded.images_irqcss))
            reconstruction = to_images(painted_np[None], patch_side, rows)
            as_it_is = difference(original, reconstruction)
            compared_mhw = torch.cat([as_it_is, rescale(as_it_is)])
            del painted_np, original, as_it_is
        self.reporter.advance(1)
        self.interrupt.check()
        return reconstruction, compared_mhw


def calibrate(reconstructor: Reconstructor, images: Images) -> Tensor:
    """Return the mean difference (M, H, W) over *images*: training images are the yardstick of test images, either way.

    Raises:
        InterruptedRunError: someone asked to stop.

    """
    with stage("anomaly_map"):
        total_mhw = torch.zeros(2, images.form.side, images.form.side, device=images.device)
    with closing(images.each()) as deliveries:
        for _ in range(len(images)):
            with stage("patching"):
                loaded = next(deliveries)
            reconstruction, compared_mhw = reconstructor.compare(loaded)
            with stage("anomaly_map"):
                total_mhw += compared_mhw
                del reconstruction, compared_mhw
            with stage("patching"):
                del loaded
    with stage("anomaly_map"):
        return total_mhw.div_(len(images))


class Evaluated(NamedTuple):
    """The test images with their anomaly maps, masks (true: anomalous), and pictures of some.

    Of the maps that the other setting of `rescale_maps` gives, each one's largest value.
    """

    images: tuple[LabelledImage, ...]
    maps_ihw: NDArray[np.float32]
    masks_ihw: NDArray[np.bool_]
    samples: Samples
    other_largest_i: NDArray[np.float32]

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
    reconstructor: Reconstructor, images: Images, labels: Sequence[LabelledImage], mean_mhw: Tensor, pictures: int = 0
) -> Evaluated:
    """Reconstruct test images one after the other and map their anomalies.

    Args:
        reconstructor: how.
        images: the test images.
        labels: what they are, in the same order.
        mean_mhw: the calibration's mean difference.
        pictures: how many will be shown.

    Raises:
        DataError: an image or a mask is damaged.
        InterruptedRunError: someone asked to stop.

    """
    own, other = (1, 0) if reconstructor.rescale_maps else (0, 1)
    side = images.form.side
    with stage("anomaly_map"):
        maps_ihw = torch.empty(len(labels), side, side)
        masks_ihw = torch.zeros(len(labels), side, side, dtype=torch.bool)
        other_largest_i = torch.empty(len(labels))
        samples = Samples(labels, pictures)
    with closing(images.each()) as deliveries:
        for number, label in zip(range(len(images)), labels, strict=True):
            with stage("patching"):
                loaded = next(deliveries)
            if label.mask is not None:
                with stage("data_loading"):
                    masks_ihw[number] = read_mask(label.mask, side)
            reconstruction, compared_mhw = reconstructor.compare(loaded)
            with stage("anomaly_map"):
                maps_mhw = anomaly_map(compared_mhw, mean_mhw)
                maps_ihw[number] = maps_mhw[own]
                other_largest_i[number] = maps_mhw[other].max()
            with stage("scoring"):
                samples.rate(number, maps_ihw[number].numpy(), masks_ihw[number].numpy())
            with stage("anomaly_map"):
                if samples.keeps(number):
                    samples.keep(number, joined(loaded.images_irqcss)[0], reconstruction[0])
                del reconstruction, compared_mhw, maps_mhw
            with stage("patching"):
                del loaded
    return Evaluated(tuple(labels), maps_ihw.numpy(), masks_ihw.numpy(), samples, other_largest_i.numpy())
