"""What exact scores cost: ours against scikit-learn's, on the same maps, in turns; memory in processes of their own.

    python -m tests.benchmarks.scores [MILLIONS_OF_PIXELS]

Both of a pair run in one process, one right after the other, so that what else the machine does meets both; the median
of the pairs' ratios counts. Memory is what a call has in use at most beyond its inputs.
"""

import sys
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from statistics import median
from time import perf_counter
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from harness.scores import auroc, average_precision, score, stand
from profiles.memory import PeakMemory

SIDE = 512
PAIRS = 3
KINDS = ("continuous", "256 levels", "a third anomalous", "64-bit")


class Maps(NamedTuple):
    """Anomaly maps and masks, (I, H, W)."""

    maps_ihw: NDArray[np.float32] | NDArray[np.float64]
    masks_ihw: NDArray[np.bool_]


def made(kind: str, images: int) -> Maps:
    """Return maps like those of a run: every other image has a defect, whose pixels are somewhat higher."""
    random = np.random.default_rng(0)
    masks = np.zeros((images, SIDE, SIDE), dtype=bool)
    height = 420 if kind == "a third anomalous" else 160
    masks[::2, 50 : 50 + height, 80 : 80 + height] = True
    maps = np.square(random.standard_normal(masks.shape, dtype=np.float32))
    maps[masks] *= 2
    if kind == "256 levels":
        np.floor(maps * (255 / maps.max()), out=maps)
    return Maps(maps.astype(np.float64) if kind == "64-bit" else maps, masks)


CALLS: dict[str, Callable[[Maps], object]] = {
    "AUROC, ours": lambda it: auroc(stand(it.maps_ihw, it.masks_ihw)),
    "AUROC, scikit-learn": lambda it: roc_auc_score(it.masks_ihw.ravel(), it.maps_ihw.ravel()),
    "AP, ours": lambda it: average_precision(stand(it.maps_ihw, it.masks_ihw)),
    "AP, scikit-learn": lambda it: average_precision_score(it.masks_ihw.ravel(), it.maps_ihw.ravel()),
    "all four, ours": lambda it: score(it.maps_ihw, it.masks_ihw, it.masks_ihw.any(axis=(1, 2))),
}


def seconds(kind: str, images: int) -> dict[str, list[float]]:
    """Time every call so many times, in turns."""
    maps = made(kind, images)
    took_s: dict[str, list[float]] = {name: [] for name in CALLS}
    for _ in range(PAIRS):
        for name, call in CALLS.items():
            started_s = perf_counter()
            call(maps)
            took_s[name].append(perf_counter() - started_s)
    return took_s


def peaks(kind: str, images: int, name: str) -> tuple[int | None, int]:
    """Return what a call adds to the process's resident memory at most, and what it has allocated at most."""
    maps = made(kind, images)
    memory = PeakMemory(torch.device("cpu"))
    CALLS[name](maps)
    peak_bytes = memory.peak_bytes()
    added_bytes = None if peak_bytes is None else peak_bytes - (memory.in_use_bytes or 0)
    tracemalloc.start()
    CALLS[name](maps)
    allocated_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return added_bytes, allocated_bytes


def main() -> None:
    """Print two tables."""
    millions = float(sys.argv[1]) if len(sys.argv) > 1 else 16.0
    images = max(2, round(millions * 2**20 / SIDE**2))
    print(f"{images} maps of {SIDE} x {SIDE}: {images * SIDE**2:,} pixels; medians of {PAIRS}, in turns")
    print("| maps | " + " | ".join(f"{name}, s" for name in CALLS) + " | AUROC, times faster | AP, times faster |")
    for kind in KINDS:
        took_s = seconds(kind, images)
        ratios = [
            median(
                theirs / ours
                for theirs, ours in zip(took_s[f"{what}, scikit-learn"], took_s[f"{what}, ours"], strict=True)
            )
            for what in ("AUROC", "AP")
        ]
        cells = [f"{median(each_s):.3f}" for each_s in took_s.values()] + [f"{ratio:.0f}" for ratio in ratios]
        print(f"| {kind} | " + " | ".join(cells) + " |", flush=True)
    print("| maps | call | resident, MiB | allocated, MiB |")
    for kind in KINDS:
        for name in CALLS:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
                added, allocated = fresh.submit(peaks, kind, images, name).result()
            shown = "not told" if added is None else f"{added / 2**20:.0f}"
            print(f"| {kind} | {name} | {shown} | {allocated / 2**20:.0f} |", flush=True)


if __name__ == "__main__":
    main()
