"""Calibration and evaluation (thesis sections 4.4 and 4.6): reconstruct, compare, score.

Shapes: I images, N patches of an image, P values of a patch, C channels, H x W pixels.
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
        """Return the reconstruction (1, C, H, W) of one image and its difference (1, H, W).

        The difference is rescaled if so asked, whatever it is for: training images are the yardstick of test images.

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
            compared = difference(original, reconstruction)
            compared = rescale(compared) if self.rescale_maps else compared
            del painted_np, original
        self.reporter.advance(1)
        self.interrupt.check()
        return reconstruction, compared


def calibrate(reconstructor: Reconstructor, images: Images) -> Tensor:
    """Return the mean difference (H, W) over *images*.

    Raises:
        InterruptedRunError: someone asked to stop.

    """
    reconstructor.reporter.begin("calibration", len(images), "images")
    with closing(images.each()) as deliveries:
        side = images.form.side
        total_hw = torch.zeros(side, side, device=images.device)
        for loaded in deliveries:
            reconstruction, compared = reconstructor.compare(loaded)
            with stage("anomaly_map"):
                total_hw += compared[0]
                del reconstruction, compared
    return total_hw / len(images)


class Evaluated(NamedTuple):
    """The test images with their anomaly maps, masks (true: anomalous), and pictures of some."""

    images: tuple[LabelledImage, ...]
    maps_ihw: NDArray[np.float32]
    masks_ihw: NDArray[np.bool_]
    samples: Samples

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
    reconstructor: Reconstructor, images: Images, labels: Sequence[LabelledImage], mean_hw: Tensor, pictures: int = 0
) -> Evaluated:
    """Reconstruct test images one after the other and map their anomalies.

    Args:
        reconstructor: how.
        images: the test images.
        labels: what they are, in the same order.
        mean_hw: the calibration's mean difference.
        pictures: how many will be shown.

    Raises:
        DataError: an image or a mask is damaged.
        InterruptedRunError: someone asked to stop.

    """
    reconstructor.reporter.begin("evaluation", len(images), "images")
    side = images.form.side
    maps_ihw = torch.empty(len(labels), side, side)
    masks_ihw = torch.zeros(len(labels), side, side, dtype=torch.bool)
    samples = Samples(labels, pictures)
    with closing(images.each()) as deliveries:
        for number, (label, loaded) in enumerate(zip(labels, deliveries, strict=True)):
            if label.mask is not None:
                with stage("data_loading"):
                    masks_ihw[number] = read_mask(label.mask, side)
            reconstruction, compared = reconstructor.compare(loaded)
            with stage("anomaly_map"):
                maps_ihw[number] = anomaly_map(compared, mean_hw)[0]
            samples.rate(number, maps_ihw[number].numpy(), masks_ihw[number].numpy())
            with stage("anomaly_map"):
                samples.keep(number, joined(loaded.images_irqcss)[0], reconstruction[0])
                del reconstruction, compared
    return Evaluated(tuple(labels), maps_ihw.numpy(), masks_ihw.numpy(), samples)
