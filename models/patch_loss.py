"""The training loss of `models.loss` for patches, in a few large operations: the same value and gradients.

Whatever in it is linear - the Gaussian mean, the halving, the Prewitt differences - is a matrix on a flattened patch,
and one product applies it to all patches and scales. Shapes: B patches, C channels, S x S pixels, M = B·C, V = S·S
pixels, G gradient pixels of all scales together.
"""

from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from kornia.filters import gaussian_blur2d
from torch import Tensor

from models.loss import GMS_CONSTANT, SCALES, SSIM_WINDOW, LossConfig, prewitt

SSIM_SIGMA = 1.5
LUMINANCE_CONSTANT, STRUCTURE_CONSTANT = 0.01**2, 0.03**2


class Operators(NamedTuple):
    """What is linear in the loss, as matrices to be multiplied by from the right.

    Columns of *prewitt_vh*, H = 2·G, are differences across, then down. *share_g* weighs a pixel by the number of its
    scale's pixels and the number of scales.
    """

    mean_vv: Tensor
    prewitt_vh: Tensor
    share_g: Tensor


@lru_cache(maxsize=8)
def operators(side: int, dtype: torch.dtype, device: torch.device) -> Operators:
    """Make the matrices by working on every image that has a single pixel of 1."""
    with torch.inference_mode(mode=False), torch.no_grad():
        unit_v1ss = torch.eye(side * side, dtype=torch.float64).reshape(-1, 1, side, side)
        mean_vv = gaussian_blur2d(unit_v1ss, (SSIM_WINDOW, SSIM_WINDOW), (SSIM_SIGMA, SSIM_SIGMA), "reflect").flatten(1)
        scales = [unit_v1ss]
        while len(scales) < SCALES:
            scales.append(F.avg_pool2d(scales[-1], 2))
        gradients = [torch.stack(prewitt(scale), dim=1).flatten(2) for scale in scales]  # (V, 2, pixels)
        shares = [torch.full((g.shape[2],), 1 / (SCALES * g.shape[2]), dtype=torch.float64) for g in gradients]
        prewitt_vh = torch.cat(gradients, dim=2).flatten(1)
        return Operators(*(matrix.to(device, dtype) for matrix in (mean_vv, prewitt_vh, torch.cat(shares))))


def patch_inpainting_loss(prediction_bcss: Tensor, target_bcss: Tensor, config: LossConfig) -> Tensor:
    """Return `models.loss.inpainting_loss` of square patches, a scalar."""
    x_mv, y_mv = prediction_bcss.flatten(2).flatten(0, 1), target_bcss.flatten(2).flatten(0, 1)
    parts = operators(prediction_bcss.shape[-1], x_mv.dtype, x_mv.device)
    structural = config.beta * (1 - _ssim(x_mv, y_mv, parts))
    return F.mse_loss(x_mv, y_mv) + config.alpha * (1 - _msgms(x_mv, y_mv, parts)) + structural


def _ssim(x_mv: Tensor, y_mv: Tensor, parts: Operators) -> Tensor:
    """Return the mean SSIM; of the two variances only their sum is needed."""
    moments = torch.cat([x_mv, y_mv, x_mv.square() + y_mv.square(), x_mv * y_mv]) @ parts.mean_vv
    x_mean, y_mean, squares, products = moments.chunk(4)
    both_means, mean_squares = x_mean * y_mean, x_mean.square() + y_mean.square()
    luminance = (2 * both_means + LUMINANCE_CONSTANT) / (mean_squares + LUMINANCE_CONSTANT)
    structure = (2 * (products - both_means) + STRUCTURE_CONSTANT) / (squares - mean_squares + STRUCTURE_CONSTANT)
    return (luminance * structure).mean()


def _msgms(x_mv: Tensor, y_mv: Tensor, parts: Operators) -> Tensor:
    """Return the gradient magnitude similarity, averaged over each scale's pixels, then over scales."""
    across, down = (torch.cat([x_mv, y_mv]) @ parts.prewitt_vh).chunk(2, dim=1)
    x_squared, y_squared = (across.square() + down.square() + 1e-12).chunk(2)  # of the magnitudes
    similar = 2 * (x_squared * y_squared).sqrt() + GMS_CONSTANT
    return ((similar / (x_squared + y_squared + GMS_CONSTANT)) @ parts.share_g).mean()
