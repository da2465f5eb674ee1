"""How fast the `fast` pipeline's steps, images and epochs are: against the machine, and against the `thesis` one."""

import math
from contextlib import closing
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from harness.cost import TRAINING_FACTOR, forward_flops
from harness.pipelines.parts import Images, Loaded
from models.transformer import ModelConfig
from models.windows import Windows, draw_windows
from profiles.ratio import CONFIDENCE, Ratio, interleave, timed
from profiles.stages import stage
from profiles.timing.clock import StageClock
from profiles.timing.times import PhaseTimes
from tests.benchmarks.apart import Apart, Job, paint_batch, paint_ns
from tests.benchmarks.extent import MODELS, NO_IMAGES, PRECISIONS, WINDOWS_PER_IMAGE, Extent, Table
from tests.benchmarks.work import WINDOW_SIDE, Work, fresh_images, prepared_images, training_windows, work

TOGETHER = 10
"""Products timed at once."""

PRODUCTS = (torch.ops.aten.mm.default, torch.ops.aten.addmm.default, torch.ops.aten.bmm.default)

FEEDING = ("data_loading", "transfer", "patching")


def necessary_flops(name: str, config: ModelConfig, batch: int) -> int:
    """Count a training step's matrix products: forward and twice backward, less the gradient of pixels."""
    unused = 2 * (config.window_side**2 - 1) * config.patch_values * config.width
    return batch * (TRAINING_FACTOR * forward_flops(name, config) - unused)


def as_table(ratio: Ratio) -> Table:
    """Write a ratio with its interval, which is absent where the rounds were too few for one."""
    known = math.isfinite(ratio.high)
    interval = {"low": ratio.low, "high": ratio.high} if known else {"low": None, "high": None}
    return {"value": ratio.value, **interval, "samples": ratio.samples, "confidence": CONFIDENCE}


def step(extent: Extent) -> Table:
    """Compare a fast step with matrix products alone: the share of their rate that its necessary ones run at.

    The product is that of the feed-forward network: tokens x hidden width x width. The step's own products, of their
    own shapes and one after the other with nothing between, tell how much of the rest is in what lies between them.
    """
    rows, inner, columns = extent.batch * WINDOW_SIDE**2, extent.model.feed_forward, extent.model.width
    found: Table = {"batch": extent.batch, "product": (rows, inner, columns)}
    product_flops = 2 * rows * inner * columns * TOGETHER
    for precision in PRECISIONS:
        a, b = (torch.randn(size).to(getattr(torch, precision)) for size in ((rows, inner), (inner, columns)))
        for name in MODELS:
            config = extent.model.model_copy(update={"precision": precision})
            trained, loaded = work("fast", name, config, extent.side), training_windows(extent.batch, extent.side)
            own, own_flops = own_products(trained, loaded)
            rounds = interleave(
                {
                    "step": timed(partial(trained.step, loaded)),
                    "products": timed(partial(_multiply, a, b)),
                    "own products": timed(partial(_replay, own)),
                },
                precision=0.02,
                limit_s=extent.step_limit_s,
                least_rounds=extent.step_rounds,
                warmups=2,
            )
            flops = necessary_flops(name, config, extent.batch)
            found[f"{name} {precision}"] = {
                "share_of_product_rate": _share(flops / product_flops, rounds.ratio("products", "step")),
                "necessary_flops": flops,
                "own_products_share_of_product_rate": _share(
                    own_flops / product_flops, rounds.ratio("products", "own products")
                ),
                "own_products_of_step": as_table(rounds.ratio("own products", "step")),
                "own_products_flops": own_flops,
                "step_s": median(rounds.times_ns["step"]) / 1e9,
                "product_flops_per_s": product_flops / median(rounds.times_ns["products"]) * 1e9,
            }
    return found


def _share(flops: float, ratio: Ratio) -> Table:
    """Return the share of a rate from a ratio of times and how many times as much was multiplied."""
    return as_table(Ratio(*(flops * x for x in ratio[:3]), ratio.samples))


def _multiply(a: Tensor, b: Tensor) -> None:
    for _ in range(TOGETHER):
        torch.mm(a, b)


class _Recorded(TorchDispatchMode):
    """Notes every matrix product that is called as such, forward and backward; a fused attention's are not."""

    def __init__(self) -> None:
        super().__init__()
        self.products: list[partial[Tensor]] = []
        self.flops = 0

    def __torch_dispatch__(
        self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in PRODUCTS:
            self.products.append(partial(func, *args, **(kwargs or {})))
            self.flops += 2 * result.numel() * args[-1].shape[-2]
        return result


def own_products(trained: Work, loaded: Loaded) -> tuple[list[partial[Tensor]], int]:
    """Take a step; return its matrix products, to be done again with the same operands, and their operations."""
    with _Recorded() as recorded:
        trained.step(loaded)
    return recorded.products, recorded.flops


def _replay(products: list[partial[Tensor]]) -> None:
    with torch.no_grad():
        for product in products:
            product()


def image(extent: Extent) -> Table:
    """Compare the reconstruction of an image with the `thesis` pipeline's own, which is in float32."""
    found: Table = {"side": extent.side, "batch": extent.batch}
    for name in MODELS:
        with Apart("thesis") as thesis, Apart("fast") as fast:
            asked = {"thesis": (thesis, Job("thesis", name, extent.model, extent.side, 1))}
            for precision in PRECISIONS:
                config = extent.model.model_copy(update={"precision": precision})
                asked[precision] = (fast, Job("fast", name, config, extent.side, extent.batch))
            for process, job in asked.values():
                process.ask(paint_batch, job)
            works = {key: partial(process.ask, paint_ns, job) for key, (process, job) in asked.items()}
            rounds = interleave(works, precision=0.05, limit_s=extent.image_limit_s, least_rounds=6, warmups=0)
        for precision in PRECISIONS:
            found[f"{name} {precision}"] = {
                "times_as_fast": as_table(rounds.ratio("thesis", precision)),
                "image_s": median(rounds.times_ns[precision]) / 1e9,
                "thesis_image_s": median(rounds.times_ns["thesis"]) / 1e9,
            }
    return found


def exposed(extent: Extent) -> Table:
    """Measure what loading, transfer and patching take of an epoch on real images.

    Decoding all images and drawing all windows are done as in an epoch; of its steps some stand for all.
    """
    if not extent.categories:
        return NO_IMAGES
    found: Table = {"steps": extent.epoch_steps, "batch": extent.batch, "side": extent.side}
    for category, paths in extent.categories.items():
        for name in MODELS:
            for precision in PRECISIONS:
                config = extent.model.model_copy(update={"precision": precision})
                images = fresh_images("fast", tuple(paths), extent.side)
                trained = work("fast", name, config, extent.side)
                found[f"{category} {name} {precision}"] = _epoch(trained, images, extent)
    return found


def _epoch(trained: Work, images: Images, extent: Extent) -> Table:
    """Time what an epoch does once, and some of its steps after one that warms up."""
    with StageClock().phase("train", 0) as once:
        images.prepare()
        windows = _drawn(images, WINDOWS_PER_IMAGE)
    with closing(images.batches(windows, extent.batch)) as deliveries:
        trained.step(next(deliveries))
        with StageClock().phase("train", 1) as times:
            for _ in range(extent.epoch_steps):
                trained.step(next(deliveries))
    return _projected(len(images), once, times, math.ceil(len(windows.image_b) / extent.batch) / extent.epoch_steps)


def _drawn(images: Images, per_image: int) -> Windows:
    with stage("patching"):
        return draw_windows(len(images), per_image, images.form.grid, WINDOW_SIDE, torch.Generator().manual_seed(0))


def _projected(images: int, once: PhaseTimes, times: PhaseTimes, scale: float) -> Table:
    """Take an epoch to be what is done *once*, and *scale* times the steps timed."""
    once_ns, steps_ns = (_fed_ns(each) for each in (once, times))
    epoch_ns = once.wall_ns + scale * times.wall_ns
    return {
        "images": images,
        "epoch_s_projected": epoch_ns / 1e9,
        "once_s": once_ns / 1e9,
        "share": (once_ns + scale * steps_ns) / epoch_ns,
        "share_of_steps": steps_ns / times.wall_ns,
    }


def _fed_ns(times: PhaseTimes) -> int:
    return sum(ns for cell, ns in times.exposed_ns.items() if cell.stage in FEEDING)


def pipelines(extent: Extent) -> Table:
    """Compare steps of both pipelines on real images, loading included, by stage; the fast one's are decoded before.

    A turn is an epoch of few steps, so that no worker of the one loads while the other has its turn.
    """
    if not extent.categories:
        return NO_IMAGES
    category, paths = next(iter(extent.categories.items()))
    found: Table = {"category": category, "batch": extent.turn_batch, "steps_of_a_turn": extent.turn_steps}
    for name in MODELS:
        noted: dict[str, list[PhaseTimes]] = {"thesis": [], "fast": []}
        with Apart("thesis") as thesis, Apart("fast") as fast:

            def turn(process: Apart, job: Job, noted: list[PhaseTimes]) -> int:
                noted.append(process.ask(epoch_of, job, tuple(paths), extent.turn_steps))
                return noted[-1].wall_ns

            works = {
                key: partial(turn, process, Job(key, name, extent.model, extent.side, extent.turn_batch), noted[key])
                for key, process in (("thesis", thesis), ("fast", fast))
            }
            rounds = interleave(works, precision=0.05, limit_s=extent.turn_limit_s)
        warm = {key: times[1:] for key, times in noted.items()}
        found[name] = {
            "times_as_fast": as_table(rounds.ratio("thesis", "fast")),
            "stages_s": {key: _step_stages(times, extent.turn_steps) for key, times in warm.items()},
        }
    return found


def epoch_of(job: Job, paths: tuple[Path, ...], steps: int) -> PhaseTimes:
    """Take so many steps on windows of image files by one pipeline, by stage; what is decoded once was so before."""
    images, trained = prepared_images(job.pipeline, paths, job.side), job.model()
    with StageClock().phase("train", 1) as times:
        windows = _drawn(images, 1 + steps * job.batch // len(images)).select(slice(steps * job.batch))
        with closing(images.batches(windows, job.batch)) as deliveries:
            for loaded in deliveries:
                trained.step(loaded)
    return times


def _step_stages(turns: list[PhaseTimes], steps: int) -> dict[str, float]:
    """Return the median seconds of a step by stage and direction, of `wall`, and of what `loading` worked."""
    cells = {cell for times in turns for cell in times.exposed_ns}
    found = {
        " ".join(cell): median(times.exposed_ns.get(cell, 0) for times in turns) / steps / 1e9 for cell in sorted(cells)
    }
    busy_s = median(sum(times.loader_ns.values()) for times in turns) / steps / 1e9
    return {**found, "wall": median(times.wall_ns for times in turns) / steps / 1e9, "loading busy": busy_s}
