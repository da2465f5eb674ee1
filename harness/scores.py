"""Scores of anomaly maps against masks (thesis section 4.6), in percent.

Shapes: I images, H x W pixels.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.metrics import average_precision_score, roc_auc_score

FPR_LIMIT = 0.3

Floats = NDArray[np.float64] | NDArray[np.float32]
Masks = NDArray[np.bool_]


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
        ValueError: all images are good or all defective, or no pixel is anomalous, so that nothing can be told apart.

    """
    if defective_i.all() or not defective_i.any() or not masks_ihw.any():
        message = "scores need both good and defective images"
        raise ValueError(message)
    pixels, labels = maps_ihw.ravel(), masks_ihw.ravel()
    return Scores(
        segmentation_auroc=100 * float(roc_auc_score(labels, pixels)),
        detection_auroc=100 * float(roc_auc_score(defective_i, maps_ihw.max(axis=(1, 2)))),
        aupro_30=100 * aupro(maps_ihw, masks_ihw, FPR_LIMIT),
        average_precision=100 * float(average_precision_score(labels, pixels)),
    )


def aupro(maps_ihw: Floats, masks_ihw: Masks, fpr_limit: float) -> float:
    """Return the area under the per-region overlap curve up to a false positive rate, divided by that rate.

    Bergmann et al. 2021, "The MVTec Anomaly Detection Dataset", section 5: at each threshold, the mean over all
    defective regions (8-connected) of the share of the region that is found. Equal values fall together.

    Args:
        maps_ihw: the larger, the more anomalous.
        masks_ihw: true where anomalous.
        fpr_limit: in (0, 1].

    """
    weights_ihw = _region_weights(masks_ihw)
    order = np.argsort(maps_ihw, axis=None)[::-1]
    values = maps_ihw.ravel()[order]
    good = ~masks_ihw.ravel()[order]
    last_of_ties = np.append(np.flatnonzero(np.diff(values)), values.size - 1)
    fpr = np.append(0.0, np.cumsum(good)[last_of_ties] / good.sum())
    overlap = np.append(0.0, np.cumsum(weights_ihw.ravel()[order])[last_of_ties])
    inside = fpr <= fpr_limit
    fpr_inside = np.append(fpr[inside], fpr_limit)
    overlap_inside = np.append(overlap[inside], np.interp(fpr_limit, fpr, overlap))
    return float(np.trapezoid(overlap_inside, fpr_inside) / fpr_limit)


def _region_weights(masks_ihw: Masks) -> NDArray[np.float64]:
    """Give every defective pixel 1 / (pixels of its region · regions), so that all weights sum to 1."""
    weights = np.zeros(masks_ihw.shape)
    regions = 0
    for weights_hw, mask_hw in zip(weights, masks_ihw, strict=True):
        labels_hw, count = ndimage.label(mask_hw, structure=np.ones((3, 3)))
        regions += count
        sizes = np.bincount(labels_hw.ravel())
        weights_hw[mask_hw] = 1 / sizes[labels_hw[mask_hw]]
    return weights / regions
