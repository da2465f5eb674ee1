"""Does it matter to the `thesis` pipeline whether the windows of an epoch are shuffled? Loading both ways, in turns.

    python -m tests.benchmarks.order FOLDER_OF_PNG_FILES [--batches 2]

The published list held each image 600 times in a row, so that neighbouring windows decode the same file; here the
windows of an epoch are shuffled, so that they decode any. Files are in the system's memory, as after a first epoch.
"""

import argparse
import sys
from contextlib import closing
from functools import partial
from pathlib import Path
from statistics import median

import torch

from harness.pipelines.parts import Images
from models.windows import Windows, draw_windows
from profiles.ratio import interleave, timed
from tests.benchmarks.extent import WINDOWS_PER_IMAGE
from tests.benchmarks.work import WINDOW_SIDE, fresh_images

BATCH, SIDE = 64, 256
LIMIT_S = 300.0


def load(images: Images, windows: Windows) -> None:
    """Let the workers load the images of all *windows*."""
    with closing(images.batches(windows, BATCH)) as deliveries:
        for _ in deliveries:
            pass


def main() -> None:
    """Print how many times as long shuffled windows take."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--batches", type=int, default=2)
    given = parser.parse_args()
    images = fresh_images("thesis", tuple(sorted(given.folder.glob("*.png"))), SIDE)
    generator = torch.Generator().manual_seed(0)
    shuffled = draw_windows(len(images), WINDOWS_PER_IMAGE, images.form.grid, WINDOW_SIDE, generator)
    listed = shuffled._replace(image_b=shuffled.image_b.sort().values)
    some = slice(given.batches * BATCH)
    works = {
        name: timed(partial(load, images, each.select(some)))
        for name, each in (("listed", listed), ("shuffled", shuffled))
    }
    rounds = interleave(works, precision=0.02, limit_s=LIMIT_S)
    ratio = rounds.ratio("shuffled", "listed")
    windows = given.batches * BATCH
    listed_ms, shuffled_ms = (median(rounds.times_ns[name]) / 1e6 / windows for name in works)
    sys.stdout.write(
        f"{len(images)} files, {windows} windows; ms a window: listed {listed_ms:.2f}, shuffled {shuffled_ms:.2f}, "
        f"{ratio.value:.3f} times ({ratio.low:.3f} to {ratio.high:.3f}; {ratio.samples} rounds)\n"
    )


if __name__ == "__main__":
    main()
