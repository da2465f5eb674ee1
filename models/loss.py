"""The training loss (thesis sections 2.5 and 4.3, with the errata of spec section 8): L2 + α·MSGMS + β·SSIM.

Every mean is over pixels and channels; the data range is 1. Shapes: B images, C channels, H x W pixels.
"""

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from kornia.metrics import ssim
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

SCALES = 3
GMS_CONSTANT = 0.0026
SSIM_WINDOW = 11


class LossConfig(BaseModel):
    """Weights of the loss; the defaults are the thesis's."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    alpha: float = Field(default=0.01, ge=0, allow_inf_nan=False, description="weight of the MSGMS loss")
    beta: float = Field(default=0.01, ge=0, allow_inf_nan=False, description="weight of the SSIM loss")


def prewitt(x_bchw: Tensor) -> tuple[Tensor, Tensor]:
    """Return the Prewitt/3 differences across and down, each in the shape of *x_bchw*; the border is replicated."""
    channels = x_bchw.shape[1]
    across = torch.arange(-1.0, 2.0, dtype=x_bchw.dtype, device=x_bchw.device).expand(3, 3) / 3  # no copy from the host
    kernels = torch.stack([across, across.T])[:, None].repeat(channels, 1, 1, 1)
    padded = F.pad(x_bchw, (1, 1, 1, 1), mode="replicate")
    gradients = F.conv2d(padded, kernels, groups=channels)
    return gradients[:, 0::2], gradients[:, 1::2]


def gradient_magnitude(x_bchw: Tensor) -> Tensor:
    """Return the magnitude of the Prewitt/3 gradient, in the shape of *x_bchw*.

    The square root is shifted by 1e-12, so that its gradient is finite on constant images.
    """
    across_bchw, down_bchw = prewitt(x_bchw)
    return (across_bchw.square() + down_bchw.square() + 1e-12).sqrt()


def gms_maps(x_bchw: Tensor, y_bchw: Tensor) -> list[Tensor]:
    """Return the gradient magnitude similarity of two images at three scales, each half the last (2.26, erratum).

    Each map is 1 where the gradients are equal, and has the shape of its scale: (B, C, H / 2ˡ, W / 2ˡ).
    """
    maps = []
    for scale in range(SCALES):
        if scale:
            x_bchw, y_bchw = F.avg_pool2d(x_bchw, 2), F.avg_pool2d(y_bchw, 2)
        x_magnitude, y_magnitude = gradient_magnitude(x_bchw), gradient_magnitude(y_bchw)
        similar = 2 * x_magnitude * y_magnitude + GMS_CONSTANT
        maps.append(similar / (x_magnitude.square() + y_magnitude.square() + GMS_CONSTANT))
    return maps


def msgms_loss(x_bchw: Tensor, y_bchw: Tensor) -> Tensor:
    """Return 1 - GMS, averaged over each scale's pixels, then over scales (4.7, erratum)."""
    return torch.stack([1 - gms.mean() for gms in gms_maps(x_bchw, y_bchw)]).mean()


def ssim_loss(x_bchw: Tensor, y_bchw: Tensor) -> Tensor:
    """Return the mean of 1 - SSIM (4.6): Gaussian 11 x 11, σ = 1.5, K1 = 0.01, K2 = 0.03, mirrored border."""
    similarity: Tensor = ssim(x_bchw, y_bchw, SSIM_WINDOW, max_val=1.0, eps=0.0)
    return 1 - similarity.mean()


def inpainting_loss(prediction_bchw: Tensor, target_bchw: Tensor, config: LossConfig) -> Tensor:
    """Return the loss (4.8), a scalar; 0 for equal images."""
    squared = F.mse_loss(prediction_bchw, target_bchw)
    structural = config.beta * ssim_loss(prediction_bchw, target_bchw)
    return squared + config.alpha * msgms_loss(prediction_bchw, target_bchw) + structural
