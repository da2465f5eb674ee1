"""The `fast` pipeline: every image decoded once and kept as 8-bit on the device, everything done in large batches.

Shapes: as in `harness.pipelines.parts`.
"""

from collections.abc import Generator, Iterable, Sequence
from copy import copy
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from harness.decoding import Decoder
from harness.pipelines.parts import Batch, Cut, Form, Loaded, PatchLoss, as_floats
from models.windows import Windows, covering_windows, cut_windows, to_patches, window_positions
from profiles.stages import stage

CHUNK = 32
"""Images that are decoded together where all are not kept: enough for every processor, and a few megabytes."""


class ResidentImages:
    """Images that `prepare` decodes and keeps on the device; without it, they are decoded some at a time.

    Nothing is decoded while the model computes: on a CPU that would slow down whatever stage is current.
    """

    def __init__(
        self, paths: Sequence[Path], form: Form, device: torch.device, _workers: int, decoder: Decoder
    ) -> None:
        self.form = form
        self.device = device
        self.fetched_ahead = 0
        self._paths = paths
        self._decoder = decoder
        self._kept_irqcss: Tensor | None = None

    def __len__(self) -> int:
        return len(self._paths)

    def first(self, count: int | None) -> Self:
        """Keep the first *count* of them, or all."""
        chosen = copy(self)
        chosen._paths = self._paths[:count]  # noqa: SLF001 - ours
        chosen._kept_irqcss = None if self._kept_irqcss is None else self._kept_irqcss[:count]  # noqa: SLF001 - ours
        return chosen

    def prepare(self) -> None:
        """Decode all; see `Images.prepare`."""
        self._kept_irqcss = self._load(self._paths, telling=True)

    def batches(self, windows: Windows, size: int) -> Generator[Loaded, None, None]:
        """Deliver all images with each batch's windows: they are on the device already; see `Images.batches`."""
        if self._kept_irqcss is None:
            self.prepare()
        assert self._kept_irqcss is not None  # noqa: S101 - kept now
        with stage("patching"):
            parts = windows.split(size)
        for part in parts:
            yield Loaded(self._kept_irqcss, part, self.form.window_side)

    def each(self) -> Generator[Loaded, None, None]:
        """Deliver every image once; see `Images.each`."""
        with stage("patching"):
            covering = covering_windows(1, self.form.grid, self.form.window_side)
        for start in range(0, len(self), CHUNK):
            with stage("patching"):
                deliveries = [
                    Loaded(image_rqcss[None], covering, self.form.window_side)
                    for image_rqcss in self._some(slice(start, start + CHUNK))
                ]
            try:
                yield from deliveries
            finally:
                with stage("patching"):
                    del deliveries  # or the last ones would be given back in no stage

    def _some(self, which: slice) -> Tensor:
        return self._load(self._paths[which]) if self._kept_irqcss is None else self._kept_irqcss[which]

    def _load(self, paths: Sequence[Path], *, telling: bool = False) -> Tensor:
        """Decode images (I, R, Q, C, S, S), contiguous, *telling* how far it is or not."""
        side, patch_side, _ = self.form
        with stage("data_loading"):
            decoded_ichw = self._decoder.decode(paths, side, telling=telling)
        with stage("transfer"):
            images_ichw = decoded_ichw.to(self.device)
            del decoded_ichw
        with stage("patching"):
            patches_inp = to_patches(images_ichw, patch_side)
            del images_ichw
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
    with stage("patching"):
        parts = loaded.windows.split(batch_size)
    for part in parts:
        with stage("patching"):
            batch = cut(loaded._replace(windows=part))
        painted.append(model(batch.context_bkp, batch.positions_bt))
        with stage("patching"):
            del batch  # its memory is given back in the stage that took it
    with stage("anomaly_map"):
        painted_np = torch.cat(painted)
        del painted  # the batches' own
        return painted_np


def adam(parameters: Iterable[nn.Parameter], learning_rate: float) -> torch.optim.Optimizer:
    """Return Adam that updates all parameters in one operation, on a CPU as on a GPU."""
    return torch.optim.Adam(parameters, lr=learning_rate, fused=True)
