"""How much memory both pipelines take, and how time and memory grow with batch, image side and number of images."""

import math
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from statistics import median
from time import sleep

import numpy as np
import torch

from harness.pipelines.parts import Images
from harness.pipelines.table import PIPELINES
from harness.scores import score
from models.transformer import Precision
from models.windows import Windows, draw_windows
from profiles.ratio import interleave, timed
from tests.benchmarks.apart import Apart, Job, added_peak, paint_batch, paint_ns, peak, resident, step_ns
from tests.benchmarks.extent import MODELS, PRECISIONS, Extent, Table
from tests.benchmarks.scores import SIDE, made
from tests.benchmarks.work import WINDOW_SIDE, fresh_images, prepared_images

BOTH = ("thesis", "fast")
PAUSE_S = 0.2
"""Between two batches, for those that load to get ahead."""

Task = Callable[[], int]
"""Does its work once and returns how long that took, in nanoseconds; a process can be sent it."""


def memory(extent: Extent) -> Table:
    """Measure what a model in training and painting adds to a process of its own, at full size.

    Its weights, gradients and Adam's averages are part of that. What the processes have in use that load for the
    `thesis` pipeline, as many batches ahead as they do, stands beside it.
    """
    found: Table = {"batch": extent.batch, "side": extent.side}
    if extent.first_images:
        job = Job("thesis", MODELS[0], extent.model, extent.side, extent.batch)
        with Apart("thesis") as process:
            found["children_bytes"] = process.ask(peak, partial(load_ahead, job, extent.first_images)).children_bytes
    for name in MODELS:
        for pipeline, precision in (("thesis", "float32"), *(("fast", precision) for precision in PRECISIONS)):
            found[f"{name} {pipeline} {precision}"] = _memory(extent, pipeline, name, precision)
    return found


def _memory(extent: Extent, pipeline: str, name: str, precision: Precision) -> Table:
    config = extent.model.model_copy(update={"precision": precision})
    job = Job(pipeline, name, config, extent.side, extent.batch)
    with Apart(pipeline) as process:
        before_bytes = process.ask(resident)
        process.ask(step_ns, job._replace(batch=1))  # makes Adam's averages
        kept_bytes, step_bytes = process.ask(resident), process.ask(added_peak, partial(step_ns, job))
        paint_bytes = process.ask(added_peak, partial(paint_batch, job))
    if before_bytes is None or kept_bytes is None or step_bytes is None or paint_bytes is None:
        return {"left_out": "the system does not tell"}
    model_bytes = kept_bytes - before_bytes
    return {
        "model_bytes": model_bytes,
        "step_bytes": model_bytes + step_bytes,
        "paint_bytes": model_bytes + paint_bytes,
    }


def load_ahead(job: Job, paths: tuple[Path, ...]) -> None:
    """Deliver so many batches that every process which loads has made all that it may before they are asked for."""
    images = fresh_images(job.pipeline, paths, job.side)
    batches = images.fetched_ahead + 1
    with closing(images.batches(_windows(images, batches * job.batch), job.batch)) as deliveries:
        for _ in deliveries:
            sleep(PAUSE_S)


def growth(extent: Extent) -> Table:
    """Fit how time and peak memory grow: the slope of their logarithms over that of a size, by both pipelines.

    Memory is what a process takes beyond what it has in use before; beside it, what those have that load for it.
    """
    found: Table = {"blocks": extent.grown.depth, "batch": extent.turn_batch, "side": extent.grown_sides[0]}
    with ExitStack() as stack:
        processes = {pipeline: stack.enter_context(Apart(pipeline)) for pipeline in BOTH}
        jobs = [Job(BOTH[0], name, extent.grown, extent.grown_sides[0], extent.turn_batch) for name in MODELS]
        for job in jobs:
            for what in of_models(extent, job):
                tasks = {each: of_models(extent, job._replace(pipeline=each))[what] for each in BOTH}
                found[f"{job.name} {what}"] = _grown(tasks, processes, extent)
        for what in of_images(extent, jobs[0]):
            tasks = {each: of_images(extent, jobs[0]._replace(pipeline=each))[what] for each in BOTH}
            found[what] = _grown(tasks, processes, extent)
        for what, tasks in of_scores(extent).items():
            found[what] = _grown({"fast": tasks}, processes, extent)
    return found


def of_models(extent: Extent, job: Job) -> dict[str, dict[int, Task]]:
    """Return what is done with a model, by size."""
    paths = extent.first_images
    found: dict[str, dict[int, Task]] = {
        "step over batch": {n: partial(step_ns, job._replace(batch=n)) for n in extent.grown_batches},
        "step over side": {n: partial(step_ns, job._replace(side=n)) for n in extent.grown_sides},
        "reconstruction over batch": {n: partial(paint_ns, job._replace(batch=n)) for n in extent.grown_batches},
        "reconstruction over side": {n: partial(paint_ns, job._replace(side=n)) for n in extent.grown_sides},
    }
    if paths:
        counts = extent.grown_counts
        found["reconstruction over images"] = {n: partial(paint_images_ns, job, paths[:n]) for n in counts}
        found["step over images"] = {n: partial(step_on_images_ns, job, paths[:n]) for n in extent.loaded_counts}
    return found


def of_images(extent: Extent, job: Job) -> dict[str, dict[int, Task]]:
    """Return what is done with image files alone, by size."""
    paths, counts = extent.first_images, extent.loaded_counts
    if not paths:
        return {}
    return {
        "loading over images": {n: partial(load_ns, job, paths[:n]) for n in counts},
        "loading over side": {
            n: partial(load_ns, job._replace(side=n), paths[: counts[0]]) for n in extent.grown_sides
        },
        "loading over batch": {n: partial(batch_ns, job._replace(batch=n), paths) for n in extent.grown_batches},
    }


def of_scores(extent: Extent) -> dict[str, dict[int, Task]]:
    """Return the scoring of maps, by their number and their side."""
    fewest = extent.scored_counts[0]
    return {
        "scores over images": {n: partial(score_ns, n) for n in extent.scored_counts},
        "scores over side": {n: partial(score_ns, fewest, n) for n in extent.scored_sides},
    }


def step_on_images_ns(job: Job, paths: tuple[Path, ...]) -> int:
    """Take a step on windows of all the images, loading included, except for what is decoded before training."""
    images, trained = fresh_images(job.pipeline, paths, job.side), job.model()
    images.prepare()

    def step() -> None:
        with closing(images.batches(_windows(images, job.batch), job.batch)) as deliveries:
            for loaded in deliveries:
                trained.step(loaded)

    return timed(step)()


def paint_images_ns(job: Job, paths: tuple[Path, ...]) -> int:
    """Load every image and paint it, as calibration does."""

    def paint() -> None:
        with closing(fresh_images(job.pipeline, paths, job.side).each()) as deliveries:
            for loaded in deliveries:
                job.model().paint(loaded, job.batch)

    return timed(paint)()


def load_ns(job: Job, paths: tuple[Path, ...]) -> int:
    """Load every image once and keep none."""

    def load() -> None:
        with closing(fresh_images(job.pipeline, paths, job.side).each()) as deliveries:
            for _ in deliveries:
                pass

    return timed(load)()


def batch_ns(job: Job, paths: tuple[Path, ...]) -> int:
    """Deliver a batch of windows and cut it out of images that are decoded as far as they are before training."""
    images = prepared_images(job.pipeline, paths, job.side)
    windows = _windows(images, job.batch)

    def deliver() -> None:
        with closing(images.batches(windows, job.batch)) as deliveries:
            for loaded in deliveries:
                PIPELINES[job.pipeline].cut(loaded)

    return timed(deliver)()


def _windows(images: Images, count: int) -> Windows:
    """Draw *count* windows, of as many of the images as there are windows."""
    per_image = math.ceil(count / len(images))
    generator = torch.Generator().manual_seed(0)
    return draw_windows(len(images), per_image, images.form.grid, WINDOW_SIDE, generator).select(slice(count))


def score_ns(images: int, side: int = SIDE) -> int:
    """Score the maps of so many images."""
    maps = made("continuous", images, side)
    return timed(lambda: score(maps.maps_ihw, maps.masks_ihw, maps.masks_ihw.any(axis=(1, 2))))()


def _grown(tasks: dict[str, dict[int, Task]], processes: dict[str, Apart], extent: Extent) -> Table:
    """Do each pipeline's tasks in turns, then once more for memory."""
    works = {
        f"{pipeline} {size}": partial(processes[pipeline].ask, task)
        for pipeline, of_size in tasks.items()
        for size, task in of_size.items()
    }
    rounds = interleave(works, precision=math.inf, limit_s=extent.growth_limit_s, least_rounds=extent.grown_rounds)
    found: Table = {}
    for pipeline, of_size in tasks.items():
        times_s = {size: [ns / 1e9 for ns in rounds.times_ns[f"{pipeline} {size}"]] for size in of_size}
        peaks = [processes[pipeline].ask(peak, task) for task in of_size.values()]
        found[pipeline] = fitted(times_s, [each.own_bytes for each in peaks])
        if any(each.children_bytes for each in peaks):
            found[pipeline]["children_bytes"] = [each.children_bytes for each in peaks]
    return found


def fitted(times_s: dict[int, list[float]], peaks_bytes: list[int | None]) -> Table:
    """Return medians by size and their slopes; of time, also the least and the largest slope of a single round."""
    sizes, medians_s = list(times_s), [median(each_s) for each_s in times_s.values()]
    slopes = [slope(sizes, list(round_s)) for round_s in zip(*times_s.values(), strict=True)]
    known = [peak for peak in peaks_bytes if peak]  # a process that had the memory anyway added nothing
    return {
        "sizes": sizes,
        "rounds": len(slopes),
        "time_s": medians_s,
        "time_slope": slope(sizes, medians_s),
        "time_slopes": [min(slopes), max(slopes)],
        "peak_bytes": peaks_bytes,
        "peak_slope": slope(sizes, known) if len(known) == len(sizes) else None,
    }


def slope(sizes: list[int], values: list[float] | list[int]) -> float:
    """Return the exponent of a power law through the points, by least squares of logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])
