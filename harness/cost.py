"""What a cell will cost, before it runs: counted in floating-point operations, timed by the machine's matrix rate."""

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from harness.categories import mvtec_ad
from harness.cells import Cell
from harness.config import RunConfig
from models.transformer import InpaintingTransformer, ModelConfig

TRAINING_FACTOR = 3
"""A training step does its forward work once, and about twice as much backward."""


class Cost(NamedTuple):
    """What a cell consists of. `at_least_s` is a lower bound where the stopping rule decides how long it takes."""

    image_side: int
    windows_per_epoch: int
    steps_per_epoch: int
    epoch_s: float
    at_least_s: float


@lru_cache(maxsize=16)
def forward_flops(name: str, config: ModelConfig) -> int:
    """Count the operations of one window's forward pass as torch does: those of matrix products, on no data.

    Left out: what works element by element, as norms and activations do.
    """
    config = config.model_copy(
        update={"attention_backend": "native", "precision": "float32"}
    )  # neither changes the count
    tokens = config.attention_sizes.tokens
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model = InpaintingTransformer(name, config, positions=tokens)
        model(torch.empty(1, tokens - 1, config.patch_values), torch.empty(1, tokens, dtype=torch.long))
    total: int = counter.get_total_flops()
    return total


def estimate(cell: Cell, config: RunConfig, train_good: int, test: int, flops_per_s: float) -> Cost:
    """Estimate one cell from the number of its images and the machine's matrix rate."""
    training, side = config.training, config.image_side(cell.category)
    window_s = forward_flops(cell.model, config.model) / flops_per_s
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


def by_gain(cells: list[Cell], config: RunConfig) -> list[Cell]:
    """Return the cells in the order in which a run that may be stopped learns most.

    What is compared, all models and pipelines of a category and seed, stays together, or there is no comparison. Every
    category's first seed comes before any second one, which tells less; then the cheapest category.
    """

    def cost_s(category: str) -> float:
        images = expected_images(category, config)
        return sum(estimate(cell, config, *images, flops_per_s=1.0).at_least_s for cell in groups[category])

    groups = {category: [cell for cell in cells if cell.category == category] for category in config.data.categories}
    place = {category: number for number, category in enumerate(sorted(groups, key=cost_s))}
    return sorted(cells, key=lambda cell: (config.seeds.index(cell.seed), place[cell.category]))
