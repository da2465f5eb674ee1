"""How much arithmetic and traffic each stage of a training step is, counted in closed form: for a roofline.

FLOPs are those of matrix products and convolutions, a multiplication and an addition each; norms, activations and
softmax are left out, and so is all that the optimizer does. Bytes are the least that can move: weights read once a
step, what enters and what leaves a stage once a window, and gradients likewise. A kernel that is not fused moves more.
The loss is counted as it is defined, in convolutions, whichever way a pipeline computes it.
Symbols: T tokens, D width, H heads, E width of a head, F hidden width, P values of a patch, n blocks.
"""

from collections.abc import Callable

from models.loss import SCALES, SSIM_WINDOW
from models.transformer import ModelConfig
from profiles.record import Direction, StageWork

VALUE_BYTES = 4
"""A float32."""

UPDATE_VALUES = 7
"""Values that Adam moves for each parameter: weight, gradient and both moments read, all but the gradient written."""

PREWITT_SIDE = 3


def _softmax(tokens: int, width: int, heads: int) -> int:
    """4 projections, Q·K and A·V."""
    del heads
    return 8 * tokens * width**2 + 4 * tokens**2 * width


def _linear(tokens: int, width: int, heads: int) -> int:
    """4 projections, K·V, Q·(K·V) and Q·ΣK."""
    head_width = width // heads
    return 8 * tokens * width**2 + 4 * tokens * width * head_width + 2 * tokens * width


def _feature(tokens: int, width: int, heads: int) -> int:
    """Two MLPs of 2·D and D / 2, 2 projections, Q·K of half the width and A·V."""
    reduced = heads * max(1, width // heads // 2)
    mlps = 2 * (2 * tokens * width * 2 * width + 2 * tokens * 2 * width * reduced)
    return mlps + 4 * tokens * width**2 + 2 * tokens**2 * (reduced + width)


def _projected(tokens: int, width: int, heads: int) -> int:
    """4 projections, keys and values reduced to T / 4 tokens, Q·K and A·V."""
    del heads
    return 8 * tokens * width**2 + 8 * max(1, tokens // 4) * tokens * width


def _additive(tokens: int, width: int, heads: int) -> int:
    """3 projections; the rest works element by element."""
    del heads
    return 6 * tokens * width**2


ATTENTION: dict[str, Callable[[int, int, int], int]] = {
    "msa": _softmax,
    "mlsa": _linear,
    "intra": _feature,
    "linformer": _projected,
    "fastformer": _additive,
}
"""FLOPs of one block's attention on one window."""


def forward_flops(model: str, config: ModelConfig) -> dict[str, int]:
    """Return the FLOPs of each stage for one window, forward."""
    width, heads, tokens = config.attention_sizes
    return {
        "embedding": 2 * (tokens - 1) * config.patch_values * width,
        "attention": config.depth * ATTENTION[model](tokens, width, heads),
        "feed_forward": config.depth * 4 * tokens * width * config.feed_forward,
        "head": 2 * width * config.patch_values,
    }


def stage_work(model: str, config: ModelConfig, batch_size: int, attention_parameters: int) -> list[StageWork]:
    """Return what each stage of a training step is, per window of a full batch.

    Args:
        model: its name.
        config: its sizes.
        batch_size: windows that share the reading of weights.
        attention_parameters: of all blocks' attentions together.

    """
    width, _, tokens = config.attention_sizes
    patch, depth = config.patch_values, config.depth
    ends = {
        "embedding": ((tokens - 1) * patch, tokens * width, patch * width),
        "attention": (depth * tokens * width, depth * tokens * width, attention_parameters),
        "feed_forward": (depth * tokens * width, depth * tokens * width, depth * 2 * width * config.feed_forward),
        "head": (width, patch, width * patch),
    }
    return [
        _work(stage, direction, flops, ends[stage], batch_size)
        for stage, flops in forward_flops(model, config).items()
        for direction in ("forward", "backward")
    ]


def _work(stage: str, direction: Direction, flops: int, ends: tuple[int, int, int], batch_size: int) -> StageWork:
    """Return one direction of a stage: backward has two products for each, but none for the patches themselves."""
    entering, leaving, weights = ends
    if direction == "forward":
        values = entering + leaving + weights / batch_size
        return StageWork(stage=stage, direction=direction, flops=flops, least_bytes=VALUE_BYTES * values)
    of_input = stage != "embedding"
    values = entering + leaving + of_input * entering + (1 + of_input) * weights / batch_size
    return StageWork(stage=stage, direction=direction, flops=(1 + of_input) * flops, least_bytes=VALUE_BYTES * values)


def loss_flops(side: int, values: int) -> tuple[int, int]:
    """Return the FLOPs of the loss on one patch of so many *values*, forward and backward.

    SSIM takes five Gaussian means, each by a pass across and one down: of prediction and target, of the squares of
    both, of their product; a gradient goes back through the three that hold the prediction. MSGMS takes two
    differences of both patches at three scales, and a gradient goes back through the prediction's.
    """
    mean = 2 * 2 * SSIM_WINDOW * values
    scales = sum(values // side**2 * (side // 2**scale) ** 2 for scale in range(SCALES))
    differences = 2 * 2 * PREWITT_SIDE**2 * scales
    return 5 * mean + 2 * differences, 3 * mean + differences


def work_around(config: ModelConfig, windows: int, parameters: int) -> list[StageWork]:
    """Return what loss and optimizer are, per window.

    Args:
        config: the model's sizes.
        windows: of a step, that share one update.
        parameters: that are updated.

    """
    patch = config.patch_values
    forward, backward = loss_flops(config.patch_side, patch)
    update = VALUE_BYTES * UPDATE_VALUES * parameters / windows
    return [
        StageWork(stage="loss", direction="forward", flops=forward, least_bytes=VALUE_BYTES * 2 * patch),
        StageWork(stage="loss", direction="backward", flops=backward, least_bytes=VALUE_BYTES * 3 * patch),
        StageWork(stage="optimizer", direction="none", flops=0, least_bytes=update),
    ]
