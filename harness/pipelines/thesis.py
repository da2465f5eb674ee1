"""The `thesis` pipeline: as the published program worked, slow on purpose, so that it can be measured.

Every window decodes its image anew, in a worker process, and takes the whole of it to the device; windows are cut and
positions gathered entry by entry; images are painted one patch at a time. What each of that costs is the question.

Shapes: as in `harness.pipelines.parts`; H x W pixels of an image.
"""

import os
import signal
import warnings
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from copy import copy
from itertools import repeat
from pathlib import Path
from threading import Thread
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, default_collate

from harness.decoding import Decoder
from harness.images import read_image
from harness.pipelines.parts import Batch, Cut, Form, Loaded, PatchLoss, as_floats
from models.anomaly_map import difference
from models.loss import LossConfig, inpainting_loss
from models.windows import Windows, covering_windows, window_positions
from profiles.errors import DataError, LoaderError
from profiles.stages import stage
from profiles.timing.loader import Delivery, Metered, delivered, part, take
from profiles.turns import AHEAD


class Sample(NamedTuple):
    """A window's whole image, values in [0, 1], with a mask that is 1 in the missing patch and 0 elsewhere."""

    image_chw: Tensor
    mask_1hw: Tensor


class Samples(Dataset[Sample | DataError]):
    """The windows of an epoch, each with an image of its own; a damaged image is handed on as the error it is.

    Args:
        paths: the image files.
        form: what they are brought to.
        windows: which.

    """

    def __init__(self, paths: Sequence[Path], form: Form, windows: Windows) -> None:
        self._paths = paths
        self._form = form
        self._windows = windows

    def __len__(self) -> int:
        return len(self._windows.image_b)

    def __getitem__(self, index: int) -> Sample | DataError:
        """Decode, resize and convert the image of one window."""
        image, corner, missing = (int(part_b[index]) for part_b in self._windows)
        side, patch_side, window_side = self._form
        try:
            pixels_chw = read_image(self._paths[image], side)
        except DataError as error:
            return error
        with part("copy"):
            columns = self._form.grid[1]
            top = (corner // columns + missing // window_side) * patch_side
            left = (corner % columns + missing % window_side) * patch_side
            mask_1hw = torch.zeros(1, side, side)
            mask_1hw[:, top : top + patch_side, left : left + patch_side] = 1
            return Sample(pixels_chw / 255, mask_1hw)


def stack(samples: list[Sample | DataError]) -> Sample | DataError:
    """Make one batch of samples, in a worker in memory that is shared; or hand on the first error among them."""
    damaged = next((sample for sample in samples if isinstance(sample, DataError)), None)
    if damaged is not None:
        return damaged
    batch: Sample = default_collate(samples)
    return batch


class ReloadedImages:
    """Images that are decoded by worker processes whenever a window needs them, and never kept."""

    def __init__(self, paths: Sequence[Path], form: Form, device: torch.device, workers: int, decoder: Decoder) -> None:
        self.form = form
        self.device = device
        self.fetched_ahead = AHEAD * workers
        self._paths = paths
        self._workers = workers
        self._decoder = decoder

    def __len__(self) -> int:
        return len(self._paths)

    def first(self, count: int | None) -> Self:
        """Keep the first *count* of them, or all."""
        chosen = copy(self)
        chosen._paths = self._paths[:count]  # noqa: SLF001 - ours
        return chosen

    def prepare(self) -> None:
        """Do nothing: every window loads for itself; see `Images.prepare`."""

    def batches(self, windows: Windows, size: int) -> Generator[Loaded, None, None]:
        """Deliver each window's own image; see `Images.batches`.

        Raises:
            DataError: an image is damaged.
            LoaderError: a worker process died.

        """
        own = (part._replace(image_b=torch.arange(len(part.image_b))) for part in windows.split(size))
        with closing(self._samples(windows, size)) as samples:
            yield from iter(lambda: self._next(samples, own), None)  # which keeps nothing that was handed on

    def each(self) -> Generator[Loaded, None, None]:
        """Deliver every image once; see `Images.each`."""
        with stage("patching"):
            covering = repeat(covering_windows(1, self.form.grid, self.form.window_side))
            nowhere_b = torch.zeros(len(self), dtype=torch.long)
            whole = Windows(torch.arange(len(self)), nowhere_b, nowhere_b)
        with closing(self._samples(whole, 1)) as samples:
            yield from iter(lambda: self._next(samples, covering), None)

    def _next(self, samples: Iterator[Sample], windows: Iterator[Windows]) -> Loaded | None:
        """Bring the next samples to the device, if there are any, with the next of *windows* to cut out of them."""
        sample = next(samples, None)
        if sample is None:
            return None
        with stage("transfer"):
            loaded = self._on_device(sample, next(windows))
            del sample
            return loaded

    def _samples(self, windows: Windows, size: int) -> Generator[Sample, None, None]:
        """Load *size* windows at a time, in their order; the workers end however this ends."""
        deliveries = self._deliveries(windows, size)
        try:
            yield from map(self._counted, delivered(deliveries))
        except (RuntimeError, OSError, EOFError) as error:  # the latter where a dead worker's batch is fetched
            if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
                raise
            message = f"a process that loads images died: {error}; with --set data.workers=1 less memory is shared"
            raise LoaderError(message) from error
        finally:
            with stage("data_loading"):
                del deliveries

    def _counted(self, batch: Sample | DataError) -> Sample:
        """Count the images of a batch, unless one of them was damaged."""
        if isinstance(batch, DataError):
            raise batch
        self._decoder.decoded += len(batch.image_chw)
        return batch

    def _deliveries(self, windows: Windows, size: int) -> Iterator[Delivery[Sample | DataError]]:
        """Start the workers."""
        with stage("data_loading"), warnings.catch_warnings(action="ignore"):
            # torch warns of more workers than processors, which a caveat of the record says, Python of what a fork does
            # to threads: those of this process read devices, and hold no lock that a worker takes
            loader: DataLoader[Sample | DataError] = DataLoader(
                Samples(self._paths, self.form, windows),
                batch_size=size,
                num_workers=self._workers,
                prefetch_factor=AHEAD,
                collate_fn=Metered(stack),
                multiprocessing_context="fork",  # as then: to start four takes milliseconds, once an epoch
                worker_init_fn=begin_worker,
            )
            return iter(loader)

    def _on_device(self, sample: Sample, windows: Windows) -> Loaded:
        image_bchw, mask_b1hw = (tensor.to(self.device) for tensor in sample)
        return Loaded(self._by_patch(image_bchw), windows, self.form.window_side, self._by_patch(mask_b1hw))

    def _by_patch(self, image_bchw: Tensor) -> Tensor:
        """View images (B, C, H, W) by their patches (B, R, Q, C, S, S)."""
        (rows, columns), side = self.form.grid, self.form.patch_side
        return image_bchw.view(*image_bchw.shape[:2], rows, side, columns, side).permute(0, 2, 4, 1, 3, 5)


def begin_worker(worker: int) -> None:  # noqa: ARG001 - the loader's signature
    """Leave signals, which reach every process of a job, to the training, and forget what it has metered."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    Thread(target=end_with_training, daemon=True).start()
    take()


def end_with_training() -> None:
    """Wait for the SIGTERM of the training itself, which it sends when it ends and a loader is left; then end."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


def cut_one_by_one(loaded: Loaded) -> Batch:
    """Cut the windows patch by patch."""
    with stage("patching"):
        return _cut(loaded)  # a function of its own, so that its memory is given back within the stage


def _cut(loaded: Loaded) -> Batch:
    images_irqcss, columns = loaded.images_irqcss, loaded.images_irqcss.shape[2]
    positions_bt = window_positions(loaded.windows, columns, loaded.window_side)
    count, tokens = positions_bt.shape
    values = images_irqcss[0, 0, 0].numel()
    target_bp = images_irqcss.new_empty(count, values)
    context_bkp = images_irqcss.new_empty(count, tokens - 1, values)
    for window, (image, positions) in enumerate(
        zip(loaded.windows.image_b.tolist(), positions_bt.tolist(), strict=True)
    ):
        for token, position in enumerate(positions):
            patch_p = images_irqcss[image, position // columns, position % columns].flatten()
            if token == 0:
                target_bp[window] = patch_p
            else:
                context_bkp[window, token - 1] = patch_p
    return Batch(as_floats(context_bkp), positions_bt.to(images_irqcss.device), as_floats(target_bp))


def gather_one_by_one(embeddings_nd: Tensor, positions_bt: Tensor) -> Tensor:
    """Gather positions entry by entry, (B, T, D).

    Each assignment into what needs a gradient becomes a node whose backward copies the whole of it (spec 1.4).
    """
    gathered_btd = embeddings_nd.new_zeros(*positions_bt.shape, embeddings_nd.shape[1])
    for window, positions in enumerate(positions_bt.tolist()):
        for token, position in enumerate(positions):
            gathered_btd[window, token] = embeddings_nd[position]
    return gathered_btd


def loss_with_map(prediction_bchw: Tensor, target_bchw: Tensor, config: LossConfig) -> Tensor:
    """Return the loss, each part of it by operations of its own, and make the smoothed map that training ignores."""
    difference(target_bchw, prediction_bchw)
    return inpainting_loss(prediction_bchw, target_bchw, config)


def adam_one_by_one(parameters: Iterable[nn.Parameter], learning_rate: float) -> torch.optim.Optimizer:
    """Return Adam that goes through the parameters in a loop, as torch did in 2022."""
    return torch.optim.Adam(parameters, lr=learning_rate, foreach=False)


def paint_one_by_one(loaded: Loaded, model: nn.Module, cut: Cut, loss: PatchLoss, batch_size: int) -> Tensor:  # noqa: ARG001 - a batch is one window
    """Paint one patch at a time, with a loss for each that nobody reads."""
    painted = []
    for number in range(len(loaded.windows.image_b)):
        with stage("patching"):
            batch = cut(loaded._replace(windows=loaded.windows.select(slice(number, number + 1))))
        painted_1p = model(batch.context_bkp, batch.positions_bt)
        with stage("loss"):
            loss(painted_1p, batch.target_bp)
        painted.append(painted_1p)
        with stage("patching"):
            del batch
    with stage("anomaly_map"):
        painted_np = torch.cat(painted)
        del painted, painted_1p  # the windows' own
        return painted_np
