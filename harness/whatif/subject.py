"""A cell's training step, taken apart: with whatever parts, the same weights and the same windows.

Shapes: as in `harness.pipelines.parts`.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from functools import partial
from itertools import chain
from pathlib import Path
from time import perf_counter_ns
from typing import NamedTuple

import torch
from torch import Tensor, nn

from harness.cells import Cell
from harness.config import RunConfig
from harness.decoding import Decoder
from harness.pipelines.parts import Batch, Cut, Form, Images, Loaded, PatchLoss, Pipeline, as_images
from harness.seeding import generator_for, seed_for
from models.attention.table import VARIANTS, Backend
from models.transformer import InpaintingTransformer
from models.windows import Windows, draw_windows
from profiles.stages import backpropagate, stage
from profiles.turns import Extent, Opened, Step, most_settling, settle


class Parts(NamedTuple):
    """What a training step works with.

    *stop_loading* ends whoever works ahead of *deliveries*; *update* is the optimizer's part of the step. *loading_ns*
    is what a delivery takes a worker.
    """

    model: InpaintingTransformer
    deliveries: Iterator[Loaded]
    stop_loading: Callable[[], None]
    cut: Cut
    loss: PatchLoss
    update: Step
    loading_ns: int


Models = dict[tuple[int, Backend], InpaintingTransformer]
"""By the side of images, of whose patches a model knows the positions, and the backend of its attention."""

Removal = Callable[[Parts], AbstractContextManager[Parts]]
"""Takes a stage away, or puts the least in its place, for as long as the block lasts."""


@contextmanager
def nothing_removed(parts: Parts) -> Iterator[Parts]:
    """Leave the step as it is."""
    yield parts


def take_step(parts: Parts) -> None:
    """Take a training step, marked as `Trainer` marks it."""
    loaded = next(parts.deliveries)
    batch = parts.cut(loaded)
    with stage("patching"):
        del loaded
    loss = _loss_of(batch, parts)
    backpropagate(loss)
    with stage("loss"):
        del loss
    parts.update()
    with stage("patching"):
        del batch


@torch.no_grad()
def take_validation_step(parts: Parts) -> None:
    """Take a step of validation, as `Trainer` does."""
    loaded = next(parts.deliveries)
    batch = parts.cut(loaded)
    with stage("patching"):
        del loaded
    _loss_of(batch, parts)
    with stage("patching"):
        del batch


def _loss_of(batch: Batch, parts: Parts) -> Tensor:
    """Return the loss; the predictions are let go of with it."""
    prediction_bp = parts.model(batch.context_bkp, batch.positions_bt)
    with stage("loss") as mark:
        return mark.output(parts.loss(mark.input(prediction_bp), batch.target_bp))


class Subject:
    """What is measured: a cell's training step by whatever pipeline.

    Its models have the weights that a run of the cell begins with.

    Args:
        cell: which.
        config: its run's.
        paths: the images trained on.
        device: where.
        decoder: of pipelines that decode in this process.
        extent: the steps of a turn.
        models: of the cell, made so far; subjects that differ in batches and workers alone share them.

    """

    def __init__(
        self,
        cell: Cell,
        config: RunConfig,
        paths: Sequence[Path],
        device: torch.device,
        decoder: Decoder,
        extent: Extent,
        models: Models | None = None,
    ) -> None:
        self.cell = cell
        self.config = config
        self.device = device
        self.paths = paths
        self._decoder = decoder
        self._form = Form(config.image_side(cell.category), config.model.patch_side, config.model.window_side)
        self._models: Models = {} if models is None else models
        self._images: dict[object, Images] = {}
        workers = config.data.workers
        self._windows = self._drawn(1 + workers + extent.warm + extent.timed + most_settling(workers))

    def way(self, pipeline: Pipeline, removal: Removal = nothing_removed) -> Opened:
        """Return the step by *pipeline*, less what *removal* takes away."""
        return partial(self._opened, pipeline, removal, take_step)

    def validation(self, pipeline: Pipeline) -> Opened:
        """Return the step of validation by *pipeline*."""
        return partial(self._opened, pipeline, nothing_removed, take_validation_step)

    def start(self, pipeline: Pipeline) -> Opened:
        """Return what an epoch does before its steps and after them: begin to load, wait for a batch, end."""
        images = self._prepared(pipeline)
        batch_size = self.config.training.batch_size
        one = self._windows.select(slice(batch_size))
        return lambda: nullcontext(lambda: deque(images.batches(one, batch_size), maxlen=0))

    @contextmanager
    def _opened(self, pipeline: Pipeline, removal: Removal, take: Callable[[Parts], None]) -> Iterator[Step]:
        model, images = self.model(pipeline.attention), self._prepared(pipeline)
        with (
            pipeline.memory(),
            as_it_was(model, self.device),
            exchanged(model, "gather", pipeline.gather),
            closing(images.batches(self._windows, self.config.training.batch_size)) as deliveries,
        ):
            optimizer = pipeline.optimizer(model.parameters(), self.config.training.learning_rate)
            loss, update = self.loss(pipeline), partial(_update, optimizer)
            begun, loading_ns = _begun(deliveries, self.config.data.workers)
            whole = Parts(model, begun, deliveries.close, pipeline.cut, loss, update, loading_ns)
            with removal(whole) as parts:
                step = partial(take, parts)
                settle(step, partial(next, parts.deliveries), parts.loading_ns, self.config.data.workers)
                yield step

    def model(self, usual: Backend) -> InpaintingTransformer:
        """Return the model whose attention is the configuration's backend, else *usual*; where it has none, ours."""
        has = VARIANTS[self.cell.model].attention
        backend = self.config.model.attention_backend or (usual if usual in has else "native")
        kind = self._form.side, backend
        if kind not in self._models:
            sizes = self.config.model.model_copy(update={"attention_backend": backend})
            positions = math.prod(self._form.grid)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed_for(self.cell.seed, "weights"))
                self._models[kind] = InpaintingTransformer(self.cell.model, sizes, positions).to(self.device)
        return self._models[kind]

    def images(self, pipeline: Pipeline, paths: Sequence[Path]) -> Images:
        """Return images on their way by *pipeline*."""
        return pipeline.images(paths, self._form, self.device, self.config.data.workers, self._decoder)

    def _prepared(self, pipeline: Pipeline) -> Images:
        """Return the training images, having done what is done once, which no step pays for."""
        if pipeline.images not in self._images:
            images = self.images(pipeline, self.paths)
            images.prepare()
            self._images[pipeline.images] = images
        return self._images[pipeline.images]

    def loss(self, pipeline: Pipeline) -> PatchLoss:
        """Return the pipeline's loss, of flat patches."""

        def of_patches(prediction_bp: Tensor, target_bp: Tensor) -> Tensor:
            side = self._form.patch_side
            return pipeline.loss(as_images(prediction_bp, side), as_images(target_bp, side), self.config.loss)

        return of_patches

    def _drawn(self, steps: int) -> Windows:
        count = steps * self.config.training.batch_size
        each = math.ceil(count / len(self.paths))
        generator = generator_for(self.cell.seed, "windows", "whatif")
        windows = draw_windows(len(self.paths), each, self._form.grid, self._form.window_side, generator)
        return windows.select(slice(count))


def _begun(deliveries: Iterator[Loaded], workers: int) -> tuple[Iterator[Loaded], int]:
    """Return deliveries that have begun, and what one of them takes a worker, in nanoseconds.

    That is from the first to the one behind the first of every worker: before the first, workers are started.
    """
    first = next(deliveries)
    began_ns = perf_counter_ns()
    for _ in range(workers):
        first = next(deliveries)
    return chain([first], deliveries), perf_counter_ns() - began_ns


def _update(optimizer: torch.optim.Optimizer) -> None:
    with stage("optimizer"):
        optimizer.step()
        optimizer.zero_grad()


@contextmanager
def exchanged(owner: nn.Module, name: str, value: object) -> Iterator[None]:
    """Let an attribute have another value inside the block."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextmanager
def as_it_was(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Bring weights, gradients and torch's generators back, to the bit, after the block; gradients begin as none."""
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for parameter, _ in gradients:
            parameter.grad = None
        try:
            yield
        finally:
            model.load_state_dict(weights)
            for parameter, gradient in gradients:
                parameter.grad = gradient
