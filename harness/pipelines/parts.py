"""The seam between what is computed and how: the parts of a pipeline, and what they hand on to each other.

Parts of one kind give the same numbers for the same windows, to float rounding, so each can be exchanged alone:

    PIPELINES["thesis"]._replace(loss=PIPELINES["fast"].loss)

Shapes: I images, R x Q patches of an image, N = R·Q, B windows, T patches of a window, K = T - 1, C channels, S x S
pixels of a patch, P = C·S·S, D width.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import NamedTuple, Protocol, Self

import torch
from torch import Tensor, nn

from harness.decoding import Decoder
from models.attention.table import Backend
from models.loss import LossConfig
from models.transformer import Gather
from models.windows import Windows


class Form(NamedTuple):
    """What a cell's images are brought to: their side, their patches' (pixels), and their windows' (patches)."""

    side: int
    patch_side: int
    window_side: int

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.side // self.patch_side, self.side // self.patch_side


class Loaded(NamedTuple):
    """Whole images on the device, and windows to be cut out of them.

    Images are of any strides, either 8-bit or floats in [0, 1]. The mask, where there is one, is 1 in each image's
    missing patch and 0 elsewhere.
    """

    images_irqcss: Tensor
    windows: Windows
    window_side: int
    mask_irq1ss: Tensor | None = None


class Batch(NamedTuple):
    """What one step needs, on the device, values in [0, 1]."""

    context_bkp: Tensor
    positions_bt: Tensor
    target_bp: Tensor


class Images(Protocol):
    """The images of some files on their way to the device: the stages `data_loading` and `transfer`.

    Whoever does not exhaust a generator of these closes it.
    """

    form: Form
    device: torch.device
    fetched_ahead: int
    """Batches that are loaded before they are asked for: of so many the first, a queue is not yet as full as later."""

    def __len__(self) -> int:
        """Return how many there are."""

    def first(self, count: int | None) -> Self:
        """Keep the first *count* of them, or all."""

    def prepare(self) -> None:
        """Do what is done once, before training.

        Raises:
            DataError: an image is damaged.
            InterruptedRunError: someone asked to stop.

        """

    def batches(self, windows: Windows, size: int) -> Generator[Loaded, None, None]:
        """Deliver what is needed to cut *windows*, *size* of them at a time and in their order.

        Raises:
            DataError: an image is damaged.

        """

    def each(self) -> Generator[Loaded, None, None]:
        """Deliver every image once, in order, with the windows that reconstruct it.

        Raises:
            DataError: an image is damaged.

        """


Cut = Callable[[Loaded], Batch]
"""Cuts the windows out: the stage `patching`."""

Loss = Callable[[Tensor, Tensor, LossConfig], Tensor]
"""From predictions and targets (B, C, S, S) to a scalar: the stage `loss`."""

PatchLoss = Callable[[Tensor, Tensor], Tensor]
"""A loss of predictions and targets (B, P)."""

Paint = Callable[[Loaded, nn.Module, Cut, PatchLoss, int], Tensor]
"""Paints every patch of one image, given with the windows that cover it, by a model: (N, P).

Its other arguments are how to cut, the training's loss, and how many windows a batch has.
"""


class Pipeline(NamedTuple):
    """How the work is executed, part by part.

    *images* takes files, what to bring them to, the device, how many processes may load, and what decodes in this one;
    a pipeline uses the one or the other. *gather* belongs to the stage `embedding`. *attention* is whose attention is
    run where the configuration does not say. *optimizer* takes parameters and the learning rate. *memory* is what a
    cell's work takes place in. A pipeline that *reloads_every_window* has worker processes load an image for each of
    its windows; the published program's calibration did so too, of which once for each image is run, and the rest
    reckoned.
    """

    images: Callable[[Sequence[Path], Form, torch.device, int, Decoder], Images]
    cut: Cut
    gather: Gather
    attention: Backend
    loss: Loss
    optimizer: Callable[[Iterable[nn.Parameter], float], torch.optim.Optimizer]
    paint: Paint
    memory: Callable[[], AbstractContextManager[None]] = nullcontext
    reloads_every_window: bool = False


def as_images(patches_bp: Tensor, patch_side: int) -> Tensor:
    """View flat patches (B, P) as images (B, C, S, S)."""
    return patches_bp.reshape(len(patches_bp), -1, patch_side, patch_side)


def as_floats(pixels: Tensor) -> Tensor:
    """Bring 8-bit values to [0, 1]; floats are there already."""
    return pixels / 255 if pixels.dtype == torch.uint8 else pixels


def joined(images_irqcss: Tensor) -> Tensor:
    """Put images together from their patches: (I, C, H, W)."""
    i, r, q, c, s, _ = images_irqcss.shape
    return images_irqcss.permute(0, 3, 1, 4, 2, 5).reshape(i, c, r * s, q * s)
