"""Scores by counting pairs and thresholds. Shapes: I images, H x W pixels."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


def auroc(scores: NDArray[np.float64], labels: NDArray[np.bool_]) -> float:
    """Return the share of (anomalous, good) pairs in the right order; a tie is half a pair."""
    good, bad = scores[~labels], scores[labels]
    wins = sum((b > g) + 0.5 * (b == g) for b in bad for g in good)
    return float(wins / (len(bad) * len(good)))


def aupro(maps_ihw: NDArray[np.float64], masks_ihw: NDArray[np.bool_], limit: float) -> float:
    """Walk down every threshold; at each, the mean share found of each region and the share of good pixels hit."""
    regions = []
    for index, mask_hw in enumerate(masks_ihw):
        labels_hw, count = ndimage.label(mask_hw, structure=np.ones((3, 3)))
        regions += [(index, labels_hw == number) for number in range(1, count + 1)]
    points = [(0.0, 0.0)]
    for threshold in np.unique(maps_ihw)[::-1]:
        found = maps_ihw >= threshold
        overlap = np.mean([found[index][region].mean() for index, region in regions])
        points.append((float(found[~masks_ihw].mean()), float(overlap)))
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 >= limit:
            break
        end = min(x1, limit)
        y_end = y1 if x1 <= limit else y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
        area += (end - x0) * (y0 + y_end) / 2
    return area / limit
