"""The `fast` pipeline: every image decoded once and kept as 8-bit on the device, everything done in large batches.

Shapes: as in `harness.pipelines.parts`.
"""

from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from harness.images import read_image
from harness.pipelines.parts import Batch, Cut, Form, Loaded, PatchLoss, as_floats
from models.windows import Windows, covering_windows, cut_windows, to_patches, window_positions
from profiles.stages import stage
from profiles.timing.loader import part


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


class ResidentImages:
    """Images that `prepare` decodes and keeps on the device; without it, each is decoded when its turn comes."""

    def __init__(self, paths: Sequence[Path], form: Form, device: torch.device, workers: int) -> None:
        self.form = form
        self.device = device
        self._paths = paths
        self._workers = workers
        self._kept_irqcss: Tensor | None = None

    def __len__(self) -> int:
        return len(self._paths)

    def first(self, count: int | None) -> Self:
        """Keep the first *count* of them, or all."""
        chosen = type(self)(self._paths[:count], self.form, self.device, self._workers)
        chosen._kept_irqcss = None if self._kept_irqcss is None else self._kept_irqcss[:count]  # noqa: SLF001 - ours
        return chosen

    def prepare(self) -> None:
        """Decode all; see `Images.prepare`."""
        self._kept_irqcss = self._load(self._paths)

    def batches(self, windows: Windows, size: int) -> Generator[Loaded, None, None]:
        """Deliver all images with each batch's windows: they are on the device already; see `Images.batches`."""
        if self._kept_irqcss is None:
            self.prepare()
        assert self._kept_irqcss is not None  # noqa: S101 - kept now
        for start in range(0, len(windows.image_b), size):
            yield Loaded(self._kept_irqcss, windows.select(slice(start, start + size)), self.form.window_side)

    def each(self) -> Generator[Loaded, None, None]:
        """Deliver every image once; see `Images.each`."""
        with stage("patching"):
            covering = covering_windows(1, self.form.grid, self.form.window_side)
        for number in range(len(self)):
            yield Loaded(self._one(number), covering, self.form.window_side)

    def _one(self, number: int) -> Tensor:
        if self._kept_irqcss is None:
            return self._load(self._paths[number : number + 1])
        return self._kept_irqcss[number : number + 1]

    def _load(self, paths: Sequence[Path]) -> Tensor:
        """Decode images (I, R, Q, C, S, S), contiguous."""
        side, patch_side, _ = self.form
        patches_inp = load_patches(paths, side, patch_side, self.device)
        return patches_inp.view(len(paths), *self.form.grid, -1, patch_side, patch_side)


def cut_at_once(loaded: Loaded) -> Batch:
    """Cut all windows in a few operations."""
    with stage("transfer"):
        windows = loaded.windows.to(loaded.images_irqcss.device)
    with stage("patching"):
        return _cut(loaded, windows)  # a function of its own, so that its memory is given back within the stage


def _cut(loaded: Loaded, windows: Windows) -> Batch:
    positions_bt = window_positions(windows, loaded.images_irqcss.shape[2], loaded.window_side)
    patches_inp = loaded.images_irqcss.flatten(3).flatten(1, 2)  # a view of images that are contiguous
    target_bp, context_bkp = cut_windows(patches_inp, windows.image_b, positions_bt)
    return Batch(as_floats(context_bkp), positions_bt, as_floats(target_bp))


def paint_in_batches(loaded: Loaded, model: nn.Module, cut: Cut, loss: PatchLoss, batch_size: int) -> Tensor:  # noqa: ARG001 - no loss is needed to paint
    """Paint a batch of patches at a time."""
    painted = []
    for start in range(0, len(loaded.windows.image_b), batch_size):
        batch = cut(loaded._replace(windows=loaded.windows.select(slice(start, start + batch_size))))
        painted.append(model(batch.context_bkp, batch.positions_bt))
        with stage("patching"):
            del batch  # its memory is given back in the stage that took it
    with stage("anomaly_map"):
        return torch.cat(painted)


def adam(parameters: Iterable[nn.Parameter], learning_rate: float) -> torch.optim.Optimizer:
    """Return Adam that updates all parameters in one operation, on a CPU as on a GPU."""
    return torch.optim.Adam(parameters, lr=learning_rate, fused=True)
