"""What exact scores cost: ours against scikit-learn's, on the same maps, in turns; the `scores` part.

    python -m tests.benchmarks.pipelines --part scores --out FILE.json

Memory is what a call has in use at most beyond its inputs, in a process that scores nothing else.
"""

from collections.abc import Callable
from functools import partial
from statistics import median
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from harness.scores import auroc, average_precision, score, stand
from profiles.ratio import interleave, timed
from tests.benchmarks.apart import Apart, added_peak
from tests.benchmarks.extent import Extent, Table
from tests.benchmarks.speed import as_table

SIDE = 512
KINDS = ("continuous", "256 levels", "a third anomalous", "64-bit")


class Maps(NamedTuple):
    """Anomaly maps and masks, (I, H, W)."""

    maps_ihw: NDArray[np.float32] | NDArray[np.float64]
    masks_ihw: NDArray[np.bool_]


def made(kind: str, images: int, side: int = SIDE) -> Maps:
    """Return maps like those of a run: every other image has a defect, whose pixels are somewhat higher."""
    random = np.random.default_rng(0)
    masks = np.zeros((images, side, side), dtype=bool)
    top, left, height = (side * part // SIDE for part in (50, 80, 420 if kind == "a third anomalous" else 160))
    masks[::2, top : top + height, left : left + height] = True
    maps = np.square(random.standard_normal(masks.shape, dtype=np.float32))
    maps[masks] *= 2
    if kind == "256 levels":
        np.floor(maps * (255 / maps.max()), out=maps)
    return Maps(maps.astype(np.float64) if kind == "64-bit" else maps, masks)


CALLS: dict[str, Callable[[Maps], object]] = {
    "AUROC": lambda it: auroc(stand(it.maps_ihw, it.masks_ihw)),
    "AUROC, scikit-learn": lambda it: roc_auc_score(it.masks_ihw.ravel(), it.maps_ihw.ravel()),
    "AP": lambda it: average_precision(stand(it.maps_ihw, it.masks_ihw)),
    "AP, scikit-learn": lambda it: average_precision_score(it.masks_ihw.ravel(), it.maps_ihw.ravel()),
    "all four": lambda it: score(it.maps_ihw, it.masks_ihw, it.masks_ihw.any(axis=(1, 2))),
}


def scores(extent: Extent) -> Table:
    """Compare our exact scores with scikit-learn's: how many times as fast, and the peak memory of each."""
    found: Table = {"pixels": extent.scored_images * SIDE**2}
    for kind in KINDS:
        maps = made(kind, extent.scored_images)
        rounds = interleave(
            {name: timed(partial(call, maps)) for name, call in CALLS.items()},
            precision=0.1,
            limit_s=extent.scores_limit_s,
            least_rounds=6,
            warmups=0,
        )
        del maps
        with Apart("thesis") as process:  # whose rules of memory are the system's own
            peaks_bytes = {name: process.ask(peak_bytes, kind, extent.scored_images, name) for name in CALLS}
        found[kind] = {
            "auroc_times_as_fast": as_table(rounds.ratio("AUROC, scikit-learn", "AUROC")),
            "ap_times_as_fast": as_table(rounds.ratio("AP, scikit-learn", "AP")),
            "time_s": {name: median(times_ns) / 1e9 for name, times_ns in rounds.times_ns.items()},
            "peak_bytes": peaks_bytes,
        }
    return found


def peak_bytes(kind: str, images: int, name: str) -> int | None:
    """Return what a call adds to the process's memory at most."""
    maps = made(kind, images)
    return added_peak(partial(CALLS[name], maps))
