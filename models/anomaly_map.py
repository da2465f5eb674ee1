"""The anomaly map (thesis section 4.4.2): where a reconstruction differs more, or less, than it does on good images.

Shapes: I images, C channels, H x W pixels.
"""

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

from models.loss import gms_maps

MEAN_SIDE = 21


def smooth(map_ihw: Tensor) -> Tensor:
    """Average over 21 x 21 pixels, or over those of them that lie in the image.

    Zero padding would pull a similarity down at the border and so invent anomalies there.
    """
    half = MEAN_SIDE // 2
    x = map_ihw.unsqueeze(1)
    x = F.avg_pool2d(x, (MEAN_SIDE, 1), stride=1, padding=(half, 0), count_include_pad=False)
    return F.avg_pool2d(x, (1, MEAN_SIDE), stride=1, padding=(0, half), count_include_pad=False).squeeze(1)


def difference(image_ichw: Tensor, reconstruction_ichw: Tensor) -> Tensor:
    """Return 1 - (MSGMS * mean), (I, H, W) (4.12, 4.13); 0 where image and reconstruction are equal.

    Maps of the three scales are brought to H x W bilinearly, then averaged over scales and channels.
    """
    size = image_ichw.shape[-2:]
    maps = [
        F.interpolate(gms, size=size, mode="bilinear").mean(dim=1) for gms in gms_maps(image_ichw, reconstruction_ichw)
    ]
    return smooth(1 - torch.stack(maps).mean(dim=0))


def rescale(map_ihw: Tensor) -> Tensor:
    """Stretch each map linearly to [0, 1]; a constant one becomes 0.

    The thesis's author did so to a difference before 4.14. No equation says it, and it discards how large an image's
    largest difference is, by which images are told apart.
    """
    lowest_i11, highest_i11 = map_ihw.amin(dim=(1, 2), keepdim=True), map_ihw.amax(dim=(1, 2), keepdim=True)
    range_i11 = highest_i11 - lowest_i11
    return (map_ihw - lowest_i11) / range_i11.where(range_i11 > 0, 1)


def anomaly_map(difference_ihw: Tensor, mean_hw: Tensor) -> Tensor:
    """Return the squared deviation from the training images' mean difference, (I, H, W) (4.14)."""
    return (difference_ihw - mean_hw).square()
