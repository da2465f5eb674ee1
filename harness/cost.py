"""What a cell will cost, before it runs: counted in floating-point operations, timed by the machine's matrix rate."""

import math
from typing import NamedTuple

from harness.categories import mvtec_ad
from harness.cells import Cell
from harness.config import RunConfig
from models.transformer import ModelConfig

TRAINING_FACTOR = 3
"""A training step does its forward work once, and about twice as much backward."""


class Cost(NamedTuple):
    """What a cell consists of. `at_least_s` is a lower bound where the stopping rule decides how long it takes."""

    image_side: int
    windows_per_epoch: int
    steps_per_epoch: int
    epoch_s: float
    at_least_s: float


def forward_flops(config: ModelConfig) -> int:
    """Count one window's forward operations: 8·D² and 4·D·F a token and block, embedding and head.

    Left out: mixing the tokens, under 2 % at the thesis's sizes (spec section 1), norms and activations.
    """
    tokens, width = config.window_side**2, config.width
    block = 8 * width**2 + 4 * width * config.feed_forward
    return tokens * config.depth * block + 2 * tokens * config.patch_values * width


def estimate(cell: Cell, config: RunConfig, train_good: int, test: int, flops_per_s: float) -> Cost:
    """Estimate one cell from the number of its images and the machine's matrix rate."""
    training, side = config.training, config.image_side(cell.category)
    window_s = forward_flops(config.model) / flops_per_s
    validation = max(1, min(20, train_good // 10))
    windows = (train_good - validation) * training.windows_per_image
    steps = math.ceil(windows / training.batch_size)
    validation_windows = validation * training.windows_per_image
    epoch_s = window_s * (TRAINING_FACTOR * windows + validation_windows)
    limit = config.evaluation.images or math.inf
    images = min(limit, train_good - validation) + min(limit, test)
    images_s = images * (side // config.model.patch_side) ** 2 * window_s
    if training.measured_steps is None:
        epochs = min(training.patience + 1, training.max_epochs)
        return Cost(side, windows, steps, epoch_s, epochs * epoch_s + images_s)
    run_steps = training.warmup_steps + config.profiler.steps + min(steps, training.measured_steps)
    run_windows = min(training.measured_steps * training.batch_size, validation_windows)
    steps_s = window_s * (TRAINING_FACTOR * run_steps * training.batch_size + run_windows)
    return Cost(side, windows, steps, epoch_s, steps_s + images_s)


def expected_images(category: str, config: RunConfig) -> tuple[int, int]:
    """Return how many training and test images a category has, by what is generated or published.

    A category of neither kind counts as the median of MVTec AD's.
    """
    generated = config.data.generated
    if config.data.root is None and generated is not None:
        return generated.train, generated.test_images(category)
    facts = mvtec_ad().get(category)
    return (facts.train_good, facts.test_good + facts.test_defective) if facts else (230, 115)
