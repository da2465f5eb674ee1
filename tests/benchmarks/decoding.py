"""What decoding the images of a run costs: one by one, by all processors, and past a cold and a warm cache, in turns.

    python -m tests.benchmarks.decoding FOLDER_OF_PNG_FILES... [--side 256]

Each round does all of them, one right after the other, so that what else the machine does meets all; the median of the
rounds' ratios counts. Files are in the system's memory: what a slow disk adds is not measured.
"""

import argparse
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray

from harness.cache import ImageCache
from harness.decoding import Decoder, usable_processors
from harness.images import read_image
from harness.interrupt import Interrupt
from harness.progress import Reporter

ROUNDS = 5
Way = Callable[[list[Path], int], object]


def one_by_one(paths: list[Path], side: int) -> object:
    """Decode as the main thread alone would."""
    return torch.stack([read_image(path, side) for path in paths])


def decoded(cache: ImageCache | None, paths: list[Path], side: int) -> object:
    """Decode as a run does."""
    return Decoder(cache, Reporter(), Interrupt()).decode(paths, side, telling=False)


def cold(folder: Path, paths: list[Path], side: int) -> object:
    """Decode and keep."""
    with tempfile.TemporaryDirectory(dir=folder) as empty:
        return decoded(ImageCache(Path(empty)), paths, side)


def pixels(path: Path, side: int) -> NDArray[np.uint8]:
    """Decode in another process."""
    return read_image(path, side).numpy()


def processes(pool: ProcessPoolExecutor, paths: list[Path], side: int) -> object:
    """Decode by processes instead of threads."""
    return np.stack(list(pool.map(partial(pixels, side=side), paths)))


def measured(paths: list[Path], side: int) -> dict[str, list[float]]:
    """Return seconds per round of each way."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(usable_processors()) as pool:
        kept = ImageCache(Path(folder) / "warm")
        ways: dict[str, Way] = {
            "one by one": one_by_one,
            "threads": partial(decoded, None),
            "processes": partial(processes, pool),
            "cold cache": partial(cold, Path(folder)),
            "warm cache": partial(decoded, kept),
        }
        took_s: dict[str, list[float]] = {name: [] for name in ways}
        for way in ways.values():
            way(paths[:4], side)
        decoded(kept, paths, side)
        for _ in range(ROUNDS):
            for name, way in ways.items():
                started_s = perf_counter()
                way(paths, side)
                took_s[name].append(perf_counter() - started_s)
    return took_s


def main() -> None:
    """Print a table for each folder."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--side", type=int, default=256)
    arguments = parser.parse_args()
    for folder in arguments.folders:
        paths = sorted(folder.glob("*.png"))
        print(f"{folder.parts[-3:]}: {len(paths)} images to {arguments.side} pixels, {usable_processors()} processors")
        took_s = measured(paths, arguments.side)
        for name, each_s in took_s.items():
            ratios = [base / other for base, other in zip(took_s["one by one"], each_s, strict=True)]
            spread = float(np.subtract(*np.percentile(ratios, [75, 25])))
            each_ms = median(each_s) / len(paths) * 1e3
            print(
                f"| {name} | {each_ms:.2f} ms an image | {median(ratios):.2f} times (spread {spread:.2f}) |", flush=True
            )


if __name__ == "__main__":
    main()
