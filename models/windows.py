"""Patches and windows (thesis section 4.2.1; spec section 3), in numbers that start at 0.

Patches of an image are numbered row by row over its grid. A window is L x L of them; one is missing.
Shapes: I images, N patches of an image, B windows, T = L·L patches of a window, K = T - 1, P = C·S·S values of a patch.
"""

from typing import NamedTuple

import torch
from torch import Tensor


def to_patches(images_ichw: Tensor, patch_side: int) -> Tensor:
    """Cut images (I, C, H, W) into patches (I, N, P), each flattened from C x S x S.

    H and W are multiples of *patch_side*.
    """
    i, c, h, w = images_ichw.shape
    rows, columns = h // patch_side, w // patch_side
    grid = images_ichw.reshape(i, c, rows, patch_side, columns, patch_side)
    return grid.permute(0, 2, 4, 1, 3, 5).reshape(i, rows * columns, c * patch_side**2)


def to_images(patches_inp: Tensor, patch_side: int, rows: int) -> Tensor:
    """Put patches (I, N, P) back together to images (I, C, H, W); the inverse of `to_patches`."""
    i, n, p = patches_inp.shape
    columns, c = n // rows, p // patch_side**2
    grid = patches_inp.reshape(i, rows, columns, c, patch_side, patch_side)
    return grid.permute(0, 3, 1, 4, 2, 5).reshape(i, c, rows * patch_side, columns * patch_side)


class Windows(NamedTuple):
    """Which windows: each one's image, its upper left patch, and the missing patch, counted within the window."""

    image_b: Tensor
    corner_b: Tensor
    missing_b: Tensor

    def select(self, index: slice | Tensor) -> "Windows":
        """Return some of the windows."""
        return Windows(*(part[index] for part in self))

    def followed_by(self, others: "Windows") -> "Windows":
        """Return these and then *others*."""
        return Windows(*(torch.cat(parts) for parts in zip(self, others, strict=True)))

    def split(self, size: int) -> "list[Windows]":
        """Return the windows *size* at a time, and what is left."""
        return [self.select(slice(start, start + size)) for start in range(0, len(self.image_b), size)]

    def to(self, device: torch.device) -> "Windows":
        """Return the windows on *device*."""
        return Windows(*(part.to(device, non_blocking=True) for part in self))


def window_positions(windows: Windows, columns: int, side: int) -> Tensor:
    """Return the numbers (B, T) of each window's patches, the missing one first, on the windows' device.

    Args:
        windows: B windows.
        columns: of the image's grid.
        side: L.

    """
    within_t = torch.arange(side * side, device=windows.corner_b.device)
    positions_bt = windows.corner_b[:, None] + within_t // side * columns + within_t % side
    missing_b1 = windows.missing_b[:, None]
    others_bk = within_t[:-1] + (within_t[:-1] >= missing_b1)  # 0 … T-1 without the missing one
    return positions_bt.gather(1, torch.cat([missing_b1, others_bk], dim=1))


def draw_windows(images: int, per_image: int, grid: tuple[int, int], side: int, generator: torch.Generator) -> Windows:
    """Draw *per_image* windows of every image, each uniform over the places in the grid and over the missing patch.

    Args:
        images: I; the windows' images are 0 … I - 1, in shuffled order.
        per_image: windows of each image.
        grid: rows and columns of patches, each at least *side*.
        side: L.
        generator: the randomness; a CPU generator.

    Returns:
        I · *per_image* windows, on the CPU.

    """
    rows, columns = grid
    count = images * per_image
    image_b = torch.randperm(count, generator=generator) % images
    top_b = torch.randint(rows - side + 1, (count,), generator=generator)
    left_b = torch.randint(columns - side + 1, (count,), generator=generator)
    missing_b = torch.randint(side * side, (count,), generator=generator)
    return Windows(image_b, top_b * columns + left_b, missing_b)


def covering_windows(images: int, grid: tuple[int, int], side: int) -> Windows:
    """Return for each image the N windows that reconstruct it: every patch missing once (thesis 4.9 to 4.11).

    The missing patch sits at the centre of its window wherever the border lets it. Windows are ordered by image, then
    by the missing patch's number, so that their predictions, reshaped to (I, N, P), are the image's patches.
    """
    rows, columns = grid
    number_n = torch.arange(rows * columns)
    row_n, column_n = number_n // columns, number_n % columns
    top_n = (row_n - side // 2).clamp(0, rows - side)
    left_n = (column_n - side // 2).clamp(0, columns - side)
    missing_n = (row_n - top_n) * side + column_n - left_n
    image_b = torch.arange(images).repeat_interleave(rows * columns)
    return Windows(image_b, (top_n * columns + left_n).repeat(images), missing_n.repeat(images))


def cut_windows(patches_inp: Tensor, image_b: Tensor, positions_bt: Tensor) -> tuple[Tensor, Tensor]:
    """Return the missing patches (B, P) and the others (B, K, P) of windows, in the dtype of *patches_inp*."""
    cut_btp = patches_inp[image_b[:, None], positions_bt]
    return cut_btp[:, 0], cut_btp[:, 1:]
