"""The memory a cell will need, before it runs: counted on tensors without contents, compared with what is free.

A training step of few windows through two and through three blocks is carried out on tensors that have a shape and no
memory, and the largest sum of those that live at once is taken. It is linear in windows and in blocks, so four such
steps tell any number of both. Who is refused is told the largest batch that would do.
"""

import textwrap
import traceback
import weakref
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from harness.cells import Cell, backend_of
from harness.config import RunConfig
from harness.cost import expected_images
from harness.dataset import Category
from harness.pipelines.table import PIPELINES
from models.attention.table import VARIANTS
from models.loss import LossConfig
from models.patch_loss import operators
from models.transformer import InpaintingTransformer, ModelConfig
from profiles.errors import ConfigError, OutOfMemoryError
from profiles.memory import free_bytes, give_back

CPU = torch.device("cpu")
FLOAT_BYTES = 4
CHANNELS = 3
FEW = 8
"""Windows of the smaller of the steps counted; the larger has twice as many."""

KNOWN_SIDE = 16
"""Of the patches whose loss is counted; of others it takes as much for a pixel, its matrices for a pair of pixels."""

COPIES_OF_WEIGHTS = 5
"""Weights, gradients, Adam's two moments, and what a warm-up keeps or a checkpoint gathers."""

SCORED_PIXEL_BYTES = 20
"""Map 4, mask 1, reconstruction 3; scoring sorts a copy of the good ones and numbers the others several times."""

WINDOW_BYTES = 64
"""Of a drawn window: three integers, and those they were made of."""

NODE_BYTES = 2048
"""Of a position that is gathered by itself: what autograd notes of it."""

PROCESS_BYTES = 64 * 2**20
"""What libraries take on the host when they are first used, and what lies between the tensors there."""

BATCHES_OF_A_WORKER = 3
"""Two ahead, and the one being put together."""

OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""How torch says so where it has no type for it."""


class Footprint(NamedTuple):
    """The most memory that a cell needs at once, bytes, by what for: the first three on its device, the rest beside it.

    *weights* with their gradients and Adam's moments; a training *step* with what it keeps for its backward pass;
    *images* held; *loading*, windows drawn and images on their way; *scoring*, maps and masks.
    """

    weights: int
    step: int
    images: int
    loading: int
    scoring: int

    def needs(self, device: torch.device) -> tuple[int, int]:
        """Return what is needed on the device, and on the host where that is another memory."""
        working = self.weights + self.images
        if device.type == "cpu":
            return PROCESS_BYTES + working + max(self.step + self.loading, self.scoring), 0
        return working + self.step, PROCESS_BYTES + self.images + max(self.loading, self.scoring)


class Extent(NamedTuple):
    """How many images a cell trains on and validates on, together, and how many it tests on."""

    train: int
    test: int


def extent(cell: Cell, config: RunConfig, categories: Mapping[str, Category]) -> Extent:
    """Return the number of a cell's images: those read, else those that will be generated."""
    category = categories.get(cell.category)
    return (
        Extent(len(category.train), len(category.test)) if category else Extent(*expected_images(cell.category, config))
    )


def footprint(cell: Cell, config: RunConfig, images: Extent, device: torch.device, ranks: int = 1) -> Footprint:
    """Estimate what a cell needs; of several *ranks*, what the first does, which also evaluates."""
    model, side, batch = config.model, config.image_side(cell.category), config.training.batch_size // ranks
    pixels = CHANNELS * side**2
    weights, step = _model_bytes(cell.model, _counted(cell, config, device), model.depth, batch)
    weights += FLOAT_BYTES * model.width * (side // model.patch_side) ** 2
    step += _loss_bytes(cell.pipeline, model.patch_side, batch)
    loading, held = images.train * config.training.windows_per_image * WINDOW_BYTES, 0
    if PIPELINES[cell.pipeline].reloads_every_window:
        whole = batch * FLOAT_BYTES * (pixels + side**2)
        loading += config.data.workers * BATCHES_OF_A_WORKER * whole
        step += whole + batch * model.attention_sizes.tokens * (NODE_BYTES + 2 * FLOAT_BYTES * model.width)
    else:
        held = 2 * images.train * pixels  # for a moment there is a copy, by patches
    tested = min(images.test, config.evaluation.images or images.test)
    copies = COPIES_OF_WEIGHTS + (ranks > 1)  # gradients are exchanged from a copy of them
    return Footprint(copies * weights, step, held, loading, tested * side**2 * SCORED_PIXEL_BYTES)


def refuse_too_large(
    cells: Sequence[Cell],
    config: RunConfig,
    categories: Mapping[str, Category],
    device: torch.device,
    at_once: int = 1,
    ranks: int = 1,
) -> None:
    """Refuse cells that need more memory than is free.

    Args:
        cells: which.
        config: their run's.
        categories: their images, as far as they are there already.
        device: where they run.
        at_once: how many of them share the device and the host.
        ranks: how many processes train each, on a GPU each or sharing the processor's memory.

    Raises:
        ConfigError: there is one; it names the largest batch with which all would fit.

    """
    processes = at_once * ranks
    on_device, on_host = _free(device)
    free = (on_device // (processes if device.type == "cpu" else at_once), on_host // processes)
    extents = {cell: extent(cell, config, categories) for cell in cells}
    needs = {cell: footprint(cell, config, extents[cell], device, ranks).needs(device) for cell in cells}
    too_large = [cell for cell in cells if not _fits(needs[cell], free)]
    if not too_large:
        return
    worst = max(too_large, key=lambda cell: sum(needs[cell]))
    batch = min(largest_batch(cell, config, extents[cell], device, free, ranks) for cell in too_large)
    got = f"a need of about {_told(needs[worst], device)}"
    sharing = f" for each of {at_once} cells at once" if at_once > 1 else ""
    sharing += f" for each of {ranks} ranks" if ranks > 1 else ""
    expected = f"at most {_told(free, device)}, which is free{sharing}"
    where = f"memory of {worst.name}"
    raise ConfigError(where, got=got, expected=expected, fix=_fix(batch))


def largest_batch(
    cell: Cell, config: RunConfig, images: Extent, device: torch.device, free: tuple[int, ...], ranks: int = 1
) -> int:
    """Return the largest batch that *ranks* can share, not above the configured one, with which a cell fits; else 0."""

    def too_large(part: int) -> bool:
        training = config.training.model_copy(update={"batch_size": ranks * part})
        smaller = config.model_copy(update={"training": training})
        return not _fits(footprint(cell, smaller, images, device, ranks).needs(device), free)

    return ranks * bisect_left(range(1, config.training.batch_size // ranks + 1), x=True, key=too_large)


def explained(
    error: Exception,
    cell: Cell,
    config: RunConfig,
    categories: Mapping[str, Category],
    device: torch.device,
    ranks: int = 1,
) -> Exception:
    """Return *error*; in place of one by which memory ran out, one that names the batch that would fit.

    What the failed work held is given up to see what is free. The estimate let this batch pass, so half of it is the
    most that is proposed.
    """
    if not ran_out(error):
        return error
    traceback.clear_frames(error.__traceback__)  # which hold what there was memory for
    images, batch = extent(cell, config, categories), config.training.batch_size
    footprint(cell, config, images, device, ranks)  # so that what counting takes is not taken for free
    give_back(device)
    fits = largest_batch(cell, config, images, device, _free(device), ranks)
    half = batch // 2 // ranks * ranks
    words = textwrap.shorten(str(error) or type(error).__name__, 200, placeholder=" …")
    return OutOfMemoryError(
        f"out of memory on {device} with batches of {batch} ({words}); fix: {_fix(min(fits, half))}"
    )


def ran_out(error: BaseException) -> bool:
    """Whether an error says that no memory is left, on a device or on the host."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)


def _free(device: torch.device) -> tuple[int, int]:
    return free_bytes(device), free_bytes(CPU)


def _fits(needs: tuple[int, ...], free: tuple[int, ...]) -> bool:
    return all(need <= there for need, there in zip(needs, free, strict=True))


def _told(sizes: tuple[int, ...], device: torch.device) -> str:
    """Say how much of each memory."""
    on_device, on_host = (f"{size / 2**30:,.2f} GiB" for size in sizes)
    return on_device if device.type == "cpu" else f"{on_device} on {device} and {on_host} beside it"


def _fix(batch: int) -> str:
    if batch:
        return f"--set training.batch_size={batch}"
    return "a smaller data.image_side or model, fewer images or data.workers, or a machine with more memory"


def _counted(cell: Cell, config: RunConfig, device: torch.device) -> ModelConfig:
    """Return the model's sizes with an attention of ours that keeps as much as the one that will run."""
    backend = backend_of(cell, config)
    if backend == "fast-transformers" or (backend == "native" and device.type != "cpu"):
        backend = "eager" if "eager" in VARIANTS[cell.model].attention else "native"
    return config.model.model_copy(update={"attention_backend": backend, "depth": 1})


def _model_bytes(name: str, config: ModelConfig, depth: int, windows: int) -> tuple[int, int]:
    """Return what the weights take, those of positions left out, and what a step's tensors beside them take."""

    def at(blocks: int, few: int) -> tuple[int, int]:
        return _step_bytes(name, config.model_copy(update={"depth": blocks}), few)

    def through(two: int, three: int) -> int:
        return two + (depth - 2) * (three - two)

    weights, few = (through(two, three) for two, three in zip(at(2, FEW), at(3, FEW), strict=True))
    twice = through(at(2, 2 * FEW)[1], at(3, 2 * FEW)[1])
    return weights, few + (windows - FEW) * (twice - few) // FEW


@lru_cache(maxsize=64)
def _step_bytes(name: str, config: ModelConfig, windows: int) -> tuple[int, int]:
    """Count the weights of a model, and the most that lives beside them in a step, weights' gradients left out."""
    tokens = config.attention_sizes.tokens
    with FakeTensorMode(), _Living() as living:
        model = InpaintingTransformer(name, config, positions=tokens)
        model.positions.requires_grad_(requires_grad=False)
        weights = living.bytes
        painted_bp = model(torch.empty(windows, tokens - 1, config.patch_values), torch.zeros(windows, tokens).long())
        torch.autograd.grad(painted_bp.sum(), model.inpaint)
    return weights - FLOAT_BYTES * tokens * config.width, living.most - weights


def _loss_bytes(pipeline: str, patch_side: int, windows: int) -> int:
    """Return what a pipeline's loss takes: so much for a pixel of a patch, and its matrices for a pair of pixels."""
    pixels = patch_side**2
    return round(windows * pixels * _loss_pixel_bytes(pipeline) + pixels**2 * _matrix_pixel_bytes())


@lru_cache(maxsize=8)
def _loss_pixel_bytes(pipeline: str) -> float:
    """Count what lives at once in a loss and its backward pass, for a pixel of a window."""
    predicted_bcss, target_bcss = torch.zeros(2, FEW, CHANNELS, KNOWN_SIDE, KNOWN_SIDE)
    predicted_bcss.requires_grad_()
    PIPELINES[pipeline].loss(predicted_bcss, target_bcss, LossConfig())  # makes what is made once
    with _Living() as living:
        torch.autograd.grad(PIPELINES[pipeline].loss(predicted_bcss, target_bcss, LossConfig()), predicted_bcss)
    return float(living.most / (FEW * KNOWN_SIDE**2))


@lru_cache(maxsize=1)
def _matrix_pixel_bytes() -> float:
    """Count what lives at once while the loss's matrices are made, for a pair of pixels."""
    with _Living() as living:
        operators.__wrapped__(KNOWN_SIDE, torch.float32, CPU)
    return float(living.most / KNOWN_SIDE**4)


class _Living(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of tensors made within it that live: now, and the most that did."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        """Carry out an operation, and count the storages it made."""
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        name = storage._cdata  # noqa: SLF001 - what tells storages apart that have no memory
        if name in self._known:
            return
        size = storage.nbytes()
        self._known.add(name)
        self.bytes += size
        self.most = max(self.most, self.bytes)
        weakref.finalize(storage, self._forget, name, size)

    def _forget(self, name: int, size: int) -> None:
        self._known.discard(name)
        self.bytes -= size
