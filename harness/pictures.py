"""Pictures a cell keeps under `maps/`: samples side by side, and every anomaly map as a TIFF if asked.

Shapes: I images, C channels, H x W pixels.
"""

from pathlib import Path

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

from harness.evaluation import Evaluated
from harness.samples import extremes, spread_over_defects
from profiles.record import SampleMap, SampleRole

GAP = 4
ROLES: tuple[SampleRole, SampleRole] = ("worst", "best")


def save_samples(evaluated: Evaluated, count: int, folder: Path) -> list[SampleMap]:
    """Write strips of image, mask, reconstruction and anomaly map; the maps share a scale, 0 to their largest value.

    The worst and the best defective image come first, then others, spread over the defects.
    """
    scale = float(evaluated.maps_ihw.max()) or 1.0
    aurocs, samples = evaluated.samples.aurocs, []
    for index, role in _chosen(evaluated, count):
        image, picture = evaluated.images[index], evaluated.samples.pictures[index]
        heat = colormaps["inferno"](evaluated.maps_ihw[index] / scale)[..., :3]
        panels = [
            picture.image_hwc,
            np.repeat(evaluated.masks_ihw[index, :, :, None].astype(np.uint8) * 255, 3, axis=-1),
            picture.reconstruction_hwc,
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


def _chosen(evaluated: Evaluated, count: int) -> list[tuple[int, SampleRole]]:
    """Choose *count* images: the worst, the best, and others in turn over the defects."""
    roles: dict[int, SampleRole] = {}
    for index, role in zip(extremes(evaluated.samples.aurocs), ROLES, strict=False):
        roles.setdefault(index, role)
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
