"""The `fast` pipeline: every image decoded once, its patches kept as 8-bit on the device, windows cut in batches.

Shapes: I images, N patches of an image, B windows, T patches of a window, K = T - 1, P values, C x S x S of a patch.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from harness.images import read_image
from models.windows import Windows, covering_windows, cut_windows, draw_windows, to_patches, window_positions
from profiles.stages import stage
from profiles.timing.loader import part


class Batch(NamedTuple):
    """What one step needs, on the device, values in [0, 1]."""

    context_bkp: Tensor
    positions_bt: Tensor
    target_bp: Tensor


def load_patches(paths: Sequence[Path], side: int, patch_side: int, device: torch.device) -> Tensor:
    """Decode images to patches (I, N, P), uint8, on *device*.

    Raises:
        DataError: an image is damaged.

    """
    with stage("data_loading"):
        images = [read_image(path, side) for path in paths]
        with part("copy"):
            patches_inp = to_patches(torch.stack(images), patch_side)
    with stage("transfer"):
        return patches_inp.to(device)


def as_images(patches_bp: Tensor, patch_side: int) -> Tensor:
    """View flat patches (B, P) as images (B, C, S, S)."""
    return patches_bp.reshape(len(patches_bp), -1, patch_side, patch_side)


class WindowSource(NamedTuple):
    """Images to draw windows from: their patches (I, N, P), uint8, on the device; their grid; the window's side."""

    patches_inp: Tensor
    grid: tuple[int, int]
    window_side: int

    def draw(self, per_image: int, generator: torch.Generator) -> Windows:
        """Draw *per_image* windows of each image, in shuffled order; see `models.windows.draw_windows`."""
        with stage("patching"):
            return draw_windows(len(self.patches_inp), per_image, self.grid, self.window_side, generator)

    def cut(self, windows: Windows) -> Batch:
        """Cut *windows* (on the CPU) out of the images, on their device."""
        with stage("transfer"):
            windows = windows.to(self.patches_inp.device)
        with stage("patching"):
            return self._cut(windows)  # a function of its own, so that its memory is given back within the stage

    def _cut(self, windows: Windows) -> Batch:
        positions_bt = window_positions(windows, self.grid[1], self.window_side)
        target_bp, context_bkp = cut_windows(self.patches_inp, windows.image_b, positions_bt)
        return Batch(context_bkp / 255, positions_bt, target_bp / 255)

    def covering(self, image: int) -> Windows:
        """Return the windows that reconstruct one image."""
        with stage("patching"):
            windows = covering_windows(1, self.grid, self.window_side)
            return windows._replace(image_b=windows.image_b + image)
