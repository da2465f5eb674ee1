"""Pictures a cell keeps under `maps/`: samples side by side, and every anomaly map as a TIFF if asked.

Shapes: I images, C channels, H x W pixels.
"""

from pathlib import Path

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import roc_auc_score

from harness.evaluation import Evaluated, spread_over_defects
from harness.images import read_image
from profiles.record import SampleMap, SampleRole

GAP = 4


def save_samples(evaluated: Evaluated, count: int, folder: Path) -> list[SampleMap]:
    """Write strips of image, mask, reconstruction and anomaly map; the maps share a scale, 0 to their largest value.

    The worst and the best defective image come first, then others, spread over the defects.
    """
    side = evaluated.maps_ihw.shape[-1]
    scale = float(evaluated.maps_ihw.max()) or 1.0
    aurocs, samples = _own_aurocs(evaluated), []
    for index, role in _chosen(evaluated, aurocs, count):
        image = evaluated.images[index]
        heat = colormaps["inferno"](evaluated.maps_ihw[index] / scale)[..., :3]
        panels = [
            read_image(image.path, side).permute(1, 2, 0).numpy(),
            np.repeat(evaluated.masks_ihw[index, :, :, None].astype(np.uint8) * 255, 3, axis=-1),
            evaluated.reconstructions_ichw[index].transpose(1, 2, 0),
            (heat * 255).round().astype(np.uint8),
        ]
        file = f"{image.defect}-{image.path.stem}.png"
        Image.fromarray(_side_by_side(panels)).save(folder / file)
        samples.append(
            SampleMap(
                image=f"{image.defect}/{image.path.name}",
                defect=image.defect,
                file=f"maps/{file}",
                role=role,
                segmentation_auroc=aurocs.get(index),
            )
        )
    return samples


def _own_aurocs(evaluated: Evaluated) -> dict[int, float]:
    """Return, in percent, how well each map tells its own image's marked pixels from the others."""
    return {
        index: 100.0 * float(roc_auc_score(mask_hw.ravel(), map_hw.ravel()))
        for index, (mask_hw, map_hw) in enumerate(zip(evaluated.masks_ihw, evaluated.maps_ihw, strict=True))
        if mask_hw.any() and not mask_hw.all()
    }


def _chosen(evaluated: Evaluated, aurocs: dict[int, float], count: int) -> list[tuple[int, SampleRole]]:
    """Choose *count* images: the worst, the best, and others in turn over the defects."""
    roles: dict[int, SampleRole] = {}
    if aurocs:
        roles[min(aurocs, key=aurocs.__getitem__)] = "worst"
        roles.setdefault(max(aurocs, key=aurocs.__getitem__), "best")
    order = dict.fromkeys([*roles, *spread_over_defects(evaluated.images, len(evaluated.images))])
    return [(index, roles.get(index, "sample")) for index in order][:count]


def _side_by_side(panels: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    gap = np.full((panels[0].shape[0], GAP, 3), 255, dtype=np.uint8)
    return np.concatenate([part for panel in panels for part in (gap, panel)][1:], axis=1)


def save_maps(evaluated: Evaluated, folder: Path) -> None:
    """Write every anomaly map to `<defect>/<stem>.tiff`, 32-bit floats, as the MVTec AD evaluation code reads them."""
    for image, map_hw in zip(evaluated.images, evaluated.maps_ihw, strict=True):
        path = folder / image.defect / f"{image.path.stem}.tiff"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(map_hw).save(path)
