"""Scores of anomaly maps against masks (thesis section 4.6), in percent, exact: only counts until the last division.

Each is a mean over the anomalous pixels, taken from where a pixel's value stands among those of the good pixels. So
good pixels are sorted once, by value alone, many of them in parts side by side, and of an anomalous one a binary search
in each part tells all, or two. Equal values fall together: a curve goes straight from before them to after them.

Shapes: I images, H x W pixels, K anomalous pixels in rising order of their values.
"""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from profiles.environment import usable_processors
from profiles.errors import DivergedError

FPR_LIMIT = 0.3

PART = 1_000_000
"""Good pixels that are worth a thread of their own."""

MOST_PARTS = 4
"""Each takes as much memory as the anomalous pixels, twice."""

Floats = NDArray[np.float64] | NDArray[np.float32]
Masks = NDArray[np.bool_]
Counts = NDArray[np.intp]


class Scores(NamedTuple):
    """The four scores, each in [0, 100]."""

    segmentation_auroc: float
    detection_auroc: float
    aupro_30: float
    average_precision: float


def score(maps_ihw: Floats, masks_ihw: Masks, defective_i: Masks) -> Scores:
    """Score anomaly maps.

    Args:
        maps_ihw: the larger, the more anomalous.
        masks_ihw: true where anomalous.
        defective_i: which images are defective; of them, a mask may have lost its marks in resizing.

    Raises:
        ValueError: all images are good or all defective, or no pixel or every pixel is anomalous, so that nothing can
            be told apart.
        DivergedError: a map holds what is no number.

    """
    if defective_i.all() or not defective_i.any() or masks_ihw.all() or not masks_ihw.any():
        message = "scores need both good and defective images"
        raise ValueError(message)
    largest_i = maps_ihw.max(axis=(1, 2))  # NaN where a map holds one
    if broken := np.flatnonzero(~np.isfinite(largest_i)).tolist():
        which = f"{len(broken)} of {len(largest_i)} images hold NaN or infinity, from image {broken[0]} on"
        message = f"the anomaly maps of {which}"
        raise DivergedError(message)
    standing = stand(maps_ihw, masks_ihw)
    return Scores(
        segmentation_auroc=100 * auroc(standing),
        detection_auroc=detection_auroc(largest_i, defective_i),
        aupro_30=100 * aupro(standing, masks_ihw, FPR_LIMIT),
        average_precision=100 * average_precision(standing),
    )


def detection_auroc(largest_i: Floats, defective_i: Masks) -> float:
    """Return how well each map's largest value tells defective images from good ones, in percent."""
    return 100 * auroc(stand(largest_i, defective_i))


class Standing(NamedTuple):
    """Where each anomalous value stands among the good ones.

    `order_k` sorts the anomalous values as the mask lists them; `below_k` of the *good* ones are smaller than it,
    `up_to_k` are not larger; `above_k` anomalous ones are not smaller, itself included.
    """

    good: int
    order_k: Counts
    below_k: Counts
    up_to_k: Counts
    above_k: Counts


def stand(values: Floats, anomalous: Masks) -> Standing:
    """Compare every anomalous one of *values* with all good ones; there is at least one of each, and no NaN."""
    good = values[~anomalous]
    marked = values[anomalous]
    order_k = np.argsort(marked)
    marked_k = marked[order_k]  # searched for in rising order, one meets in the cache what the last one left there
    below_k, up_to_k = _below_and_up_to(good, marked_k)
    firsts = np.flatnonzero(np.append(True, marked_k[1:] != marked_k[:-1]))
    above_k = marked_k.size - np.repeat(firsts, np.diff(firsts, append=marked_k.size))
    return Standing(good.size, order_k, below_k, up_to_k, above_k)


def _below_and_up_to(good: Floats, marked_k: Floats) -> Counts:
    """Count the *good*, sorted here in parts, that are smaller, and not larger, than each of *marked_k*: (2, K)."""
    size = math.ceil(good.size / min(usable_processors(), MOST_PARTS, 1 + good.size // PART))
    parts = [good[start : start + size] for start in range(0, good.size, size)]
    counts_2k = np.zeros((2, marked_k.size), np.intp)
    with ThreadPoolExecutor(len(parts)) as pool:
        for of_part_2k in pool.map(_of_part, parts, repeat(marked_k)):
            counts_2k += of_part_2k
    return counts_2k


def _of_part(part: Floats, marked_k: Floats) -> Counts:
    part.sort()  # numpy lets go of the interpreter while it sorts
    below_k = np.searchsorted(part, marked_k)
    up_to_k = below_k.copy()
    tied_k = part.take(below_k, mode="clip") == marked_k
    up_to_k[tied_k] = np.searchsorted(part, marked_k[tied_k], side="right")
    return np.stack((below_k, up_to_k))


def auroc(standing: Standing) -> float:
    """Return the share of pairs of an anomalous and a good value in the right order; a tie is half a pair."""
    pairs_twice = 2 * standing.good * standing.below_k.size
    return (int(standing.below_k.sum()) + int(standing.up_to_k.sum())) / pairs_twice


def average_precision(standing: Standing) -> float:
    """Return the mean precision at the anomalous values: of what is at least as large, the share that is anomalous."""
    found_k = standing.above_k
    return float(np.mean(found_k / (found_k + standing.good - standing.below_k)))


def aupro(standing: Standing, masks_ihw: Masks, fpr_limit: float) -> float:
    """Return the area under the per-region overlap curve up to a false positive rate, divided by that rate.

    Bergmann et al. 2021, "The MVTec Anomaly Detection Dataset", section 5: at each threshold, the mean over all
    defective regions (8-connected) of the share of the region that is found. A pixel adds its share of its region to
    the curve from the rate at which it is found; one with ties rises while they fall.

    Args:
        standing: of the maps' pixels.
        masks_ihw: true where anomalous.
        fpr_limit: in (0, 1].

    """
    limit = fpr_limit * standing.good
    ties_k = standing.up_to_k - standing.below_k
    fallen_k = np.clip(limit - (standing.good - standing.up_to_k), 0, ties_k)
    rising_k = np.divide(fallen_k**2, 2 * ties_k, out=np.zeros_like(fallen_k), where=ties_k > 0)
    risen_k = np.maximum(limit - (standing.good - standing.below_k), 0)
    weights = np.concatenate(list(_region_shares(masks_ihw)))
    weights_k = weights[standing.order_k]
    return float((rising_k + risen_k) @ weights_k / weights_k.sum() / limit)


def _region_shares(masks_ihw: Masks) -> Iterator[NDArray[np.float64]]:
    """Yield for every image 1 / (pixels of its region) of each anomalous pixel, in the mask's order."""
    for mask_hw in masks_ihw:
        labels_hw, _ = ndimage.label(mask_hw, structure=np.ones((3, 3)))
        labels = labels_hw[mask_hw]
        yield 1 / np.bincount(labels)[labels]
