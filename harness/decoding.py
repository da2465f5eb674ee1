"""Image files to pixels, by every processor at once and past the cache.

Threads do it: Pillow lets others run while it decodes and resizes. Images and errors come in the order of the files,
whichever thread is done first.

Shapes: I images, C = 3 channels, H x W pixels.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from harness.cache import ImageCache, Pixels
from harness.images import read_content, read_image
from harness.interrupt import Interrupt
from harness.progress import Reporter
from profiles.environment import usable_processors
from profiles.timing.loader import part


class Decoder:
    """Decodes a cell's images; counts those it decoded and those that the cache had.

    Args:
        cache: where decoded images are kept between runs; absent: nowhere.
        reporter: whom it tells how far it is.
        interrupt: who may stop it, between two images.
        threads: how many decode at once; absent: one for each processor that this process may use.

    """

    def __init__(
        self, cache: ImageCache | None, reporter: Reporter, interrupt: Interrupt, threads: int | None = None
    ) -> None:
        self.decoded = self.from_cache = 0
        self._cache = cache
        self._reporter = reporter
        self._interrupt = interrupt
        self._threads = threads or usable_processors()

    def decode(self, paths: Sequence[Path], side: int, *, telling: bool) -> Tensor:
        """Decode image files to (I, C, H, W), uint8, H = W = *side*, *telling* how far it is or not.

        Raises:
            DataError: an image is damaged; of several, the first.
            ConfigError: the cache can no longer be used.
            InterruptedRunError: someone asked to stop.

        """
        images_ichw = np.empty((len(paths), 3, side, side), dtype=np.uint8)
        if telling:
            self._reporter.begin("decoding", len(paths), "images")
        pool = ThreadPoolExecutor(self._threads)
        try:
            for had in pool.map(self._fill, paths, images_ichw):
                self.from_cache += had
                self.decoded += not had
                if telling:
                    self._reporter.advance(1)
                self._interrupt.check()
        finally:
            pool.shutdown(cancel_futures=True)
            if telling:
                self._reporter.end()
        return torch.from_numpy(images_ichw)

    def _fill(self, path: Path, image_chw: Pixels) -> bool:
        """Bring an image file's pixels to *image_chw*; return whether the cache had them."""
        side = image_chw.shape[-1]
        with part("decode"):
            content = read_content(path)
        with part("copy"):
            key = ImageCache.key(content, side) if self._cache else ""
            kept_chw = self._cache.get(key, side) if self._cache else None
            if kept_chw is not None:
                image_chw[:] = kept_chw
                return True
        decoded_chw = read_image(path, side, content).numpy()
        with part("copy"):
            image_chw[:] = decoded_chw
            if self._cache:
                self._cache.put(key, image_chw)
        return False
