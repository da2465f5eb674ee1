"""A model in training outside of a run, by the same parts, on images of noise or of files."""

import math
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from harness.decoding import Decoder
from harness.interrupt import Interrupt
from harness.pipelines.parts import Batch, Form, Images, Loaded, as_images
from harness.pipelines.table import PIPELINES
from harness.progress import Reporter
from harness.training import TrainingConfig
from models.loss import LossConfig
from models.transformer import InpaintingTransformer, ModelConfig
from models.windows import covering_windows, draw_windows
from profiles.stages import backpropagate, stage

PATCH_SIDE, WINDOW_SIDE = 16, 7
WORKERS = 4
CPU = torch.device("cpu")
IMAGES = 20
"""Of which training windows are drawn."""


class Work(NamedTuple):
    """A model in training by one pipeline."""

    pipeline: str
    model: nn.Module
    optimizer: torch.optim.Optimizer

    def batch(self, loaded: Loaded) -> Batch:
        """Cut windows out."""
        return PIPELINES[self.pipeline].cut(loaded)

    def loss(self, prediction_bp: Tensor, target_bp: Tensor) -> Tensor:
        """Return the loss of flat patches."""
        of_images = PIPELINES[self.pipeline].loss
        return of_images(as_images(prediction_bp, PATCH_SIDE), as_images(target_bp, PATCH_SIDE), LossConfig())

    def step(self, loaded: Loaded) -> float:
        """Take a whole training step, marked as in a run; return the loss before it."""
        batch = self.batch(loaded)
        prediction_bp = self.model(batch.context_bkp, batch.positions_bt)
        with stage("loss") as mark:
            loss = mark.output(self.loss(mark.input(prediction_bp), batch.target_bp))
        backpropagate(loss)
        with stage("optimizer"):
            self.optimizer.step()
            self.optimizer.zero_grad()
        return loss.item()

    def paint(self, loaded: Loaded, batch_size: int) -> Tensor:
        """Paint a whole image."""
        pipeline = PIPELINES[self.pipeline]
        with torch.no_grad():
            return pipeline.paint(loaded, self.model, pipeline.cut, self.loss, batch_size)


def work(pipeline: str, name: str, config: ModelConfig | None = None, side: int = 256) -> Work:
    """Build a model and its optimizer as a run does."""
    parts, config = PIPELINES[pipeline], config or ModelConfig()
    torch.manual_seed(0)
    backend = config.model_copy(update={"attention_backend": parts.attention})
    model = InpaintingTransformer(name, backend, (side // PATCH_SIDE) ** 2, parts.gather)
    return Work(pipeline, model, parts.optimizer(model.parameters(), TrainingConfig().learning_rate))


def training_windows(count: int, side: int = 256) -> Loaded:
    """Return images of noise and *count* random windows of theirs."""
    grid, images = side // PATCH_SIDE, IMAGES
    images_irqcss = torch.randint(256, (images, grid, grid, 3, PATCH_SIDE, PATCH_SIDE), dtype=torch.uint8)
    windows = draw_windows(
        images, math.ceil(count / images), (grid, grid), WINDOW_SIDE, torch.Generator().manual_seed(0)
    )
    return Loaded(images_irqcss, windows.select(slice(count)), WINDOW_SIDE)


def covered_image(side: int = 256) -> Loaded:
    """Return an image of noise with the windows that reconstruct it."""
    grid = side // PATCH_SIDE
    images_irqcss = torch.randint(256, (1, grid, grid, 3, PATCH_SIDE, PATCH_SIDE), dtype=torch.uint8)
    return Loaded(images_irqcss, covering_windows(1, (grid, grid), WINDOW_SIDE), WINDOW_SIDE)


def fresh_images(pipeline: str, paths: tuple[Path, ...], side: int) -> Images:
    """Return images of files, of which none is decoded yet; they go past no cache."""
    decoder = Decoder(None, Reporter(), Interrupt())
    return PIPELINES[pipeline].images(paths, Form(side, PATCH_SIDE, WINDOW_SIDE), CPU, WORKERS, decoder)


@cache
def prepared_images(pipeline: str, paths: tuple[Path, ...], side: int) -> Images:
    """Return images of files, decoded as far as the pipeline does so before training."""
    images = fresh_images(pipeline, paths, side)
    images.prepare()
    return images
