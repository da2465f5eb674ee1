"""How near the `fast` pipeline is to what the machine can do, and how far from the `thesis` pipeline.

    OMP_NUM_THREADS=2 BENCH_TEST_DATA=... python -m tests.benchmarks.pipelines [--part step]... [--out FILE.json]

What is compared takes turns, so that a ratio is of one time and one machine; keep other work off it nevertheless. Each
part can be run alone; a part whose means are absent is left out and says why. The model is the thesis's but for
`growth`, where four blocks tell as much as thirteen.
"""

import argparse
import json
import math
import os
import sys
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.cost import TRAINING_FACTOR, forward_flops
from harness.decoding import Decoder
from harness.interrupt import Interrupt
from harness.pipelines.parts import Form, Images
from harness.pipelines.table import PIPELINES
from harness.progress import Reporter
from harness.version import version
from models.transformer import ModelConfig, Precision
from models.windows import draw_windows
from profiles.environment import cpu_name
from profiles.memory import PeakMemory
from profiles.ratio import CONFIDENCE, Ratio, interleave, timed
from profiles.timing.clock import StageClock
from profiles.timing.times import PhaseTimes
from tests.benchmarks.work import PATCH_SIDE, WINDOW_SIDE, Work, covered_image, training_windows, work

MODELS = ("msa", "mlsa")
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")
CPU = torch.device("cpu")
SIDE, BATCH, WINDOWS_PER_IMAGE = 256, 64, 600
SIDES, COUNTS = (128, 256, 512), (4, 8, 16)
PRODUCT = (3136, 2048, 512)
"""Rows, sum and columns of the product whose rate is the yardstick: that of the feed-forward network, at 64 windows."""

TOGETHER = 10
"""Products timed at once."""

SMALL_BATCH = 8
"""Windows of a step of both pipelines, the slower of which takes a while."""

FEW = 4
"""Steps that stand for an epoch's."""

FEEDING = ("data_loading", "transfer", "patching")

Table = dict[str, Any]


def necessary_flops(name: str) -> int:
    """Count a training step's matrix products: forward and twice backward, less the gradient of pixels."""
    config = ModelConfig()
    unused = 2 * (config.window_side**2 - 1) * config.patch_values * config.width
    return BATCH * (TRAINING_FACTOR * forward_flops(name, config) - unused)


def as_table(ratio: Ratio) -> Table:
    """Write a ratio with its interval, which is absent where the rounds were too few for one."""
    known = math.isfinite(ratio.high)
    interval = {"low": ratio.low, "high": ratio.high} if known else {"low": None, "high": None}
    return {"value": ratio.value, **interval, "samples": ratio.samples, "confidence": CONFIDENCE}


def step(limit_s: float) -> Table:
    """Compare a fast step with matrix products alone: the share of their rate that its necessary ones run at."""
    rows, inner, columns = PRODUCT
    found: Table = {"batch": BATCH, "product": PRODUCT}
    for precision in PRECISIONS:
        a, b = (torch.randn(size).to(getattr(torch, precision)) for size in ((rows, inner), (inner, columns)))
        product_flops = 2 * rows * inner * columns * TOGETHER
        for name in MODELS:
            trained, loaded = work("fast", name, ModelConfig(precision=precision)), training_windows(BATCH)
            rounds = interleave(
                {
                    "step": timed(partial(trained.step, loaded)),
                    "products": timed(partial(_multiply, a, b)),
                },
                precision=0.02,
                limit_s=limit_s,
                warmups=3,
            )
            share = rounds.ratio("products", "step")
            scale = necessary_flops(name) / product_flops
            found[f"{name} {precision}"] = {
                "share_of_product_rate": as_table(Ratio(*(scale * x for x in share[:3]), share.samples)),
                "necessary_flops": necessary_flops(name),
                "step_s": float(np.median(rounds.times_ns["step"])) / 1e9,
                "product_flops_per_s": product_flops / float(np.median(rounds.times_ns["products"])) * 1e9,
            }
    return found


def _multiply(a: Tensor, b: Tensor) -> None:
    for _ in range(TOGETHER):
        torch.mm(a, b)


def image(limit_s: float) -> Table:
    """Compare the reconstruction of an image with that window by window, in float32."""
    found: Table = {"side": SIDE, "one_by_one": "thesis pipeline, float32"}
    loaded = covered_image()
    for name in MODELS:
        works = {"one by one": (work("thesis", name), 1)}
        works |= {p: (work("fast", name, ModelConfig(precision=p)), BATCH) for p in PRECISIONS}
        rounds = interleave(
            {key: timed(partial(w.paint, loaded, size)) for key, (w, size) in works.items()},
            precision=0.05,
            limit_s=limit_s,
            least_rounds=6,
        )
        for precision in PRECISIONS:
            found[f"{name} {precision}"] = {
                "times_as_fast": as_table(rounds.ratio("one by one", precision)),
                "image_s": float(np.median(rounds.times_ns[precision])) / 1e9,
            }
    return found


def growth(_limit_s: float) -> Table:
    """Fit how time and peak memory grow: the slope of their logarithms over that of a size."""
    config = ModelConfig(depth=4)
    found: Table = {"blocks": config.depth}
    for name in MODELS:
        trained = work("fast", name, config)
        steps = {size: partial(trained.step, training_windows(size)) for size in (16, 32, 64, 128)}
        found[f"{name} step over batch"] = _slopes(steps)
        found[f"{name} reconstruction over side"] = _slopes(
            {side: partial(work("fast", name, config, side).paint, covered_image(side), BATCH) for side in SIDES}
        )
    folder = os.environ.get("BENCH_TEST_DATA")
    if folder:
        paths = sorted(Path(folder, "mvtec", "bottle", "train", "good").glob("*.png"))
        trained = work("fast", "mlsa", config, SIDES[0])
        counted = {n: partial(_load_and_paint, trained, paths[:n]) for n in COUNTS}
        found["mlsa calibration over images"] = _slopes(counted)
    return found


def _images(paths: list[Path], side: int) -> Images:
    """Return images that are decoded by every processor, past no cache."""
    decoder = Decoder(None, Reporter(), Interrupt())
    return PIPELINES["fast"].images(paths, Form(side, PATCH_SIDE, WINDOW_SIDE), CPU, 1, decoder)


def _load_and_paint(trained: Work, paths: list[Path]) -> None:
    images = _images(paths, SIDES[0])
    images.prepare()
    for loaded in images.each():
        trained.paint(loaded, BATCH)


def _slopes(works: dict[int, Callable[[], object]]) -> Table:
    """Run each work by size; memory is what it takes beyond what was there."""
    for run in works.values():
        run()  # so that no first time is among the times
    times_s, peaks_bytes = [], []
    for run in works.values():
        times_s.append(min(timed(run)() for _ in range(3)) / 1e9)
        memory = PeakMemory(CPU)
        run()
        peak_bytes = memory.peak_bytes()
        peaks_bytes.append(None if peak_bytes is None else peak_bytes - (memory.in_use_bytes or 0))
    return {
        "sizes": list(works),
        "time_s": times_s,
        "peak_bytes": peaks_bytes,
        "time_slope": slope(list(works), times_s),
        "peak_slope": None if None in peaks_bytes else slope(list(works), peaks_bytes),
    }


def slope(sizes: list[int], values: list[float]) -> float:
    """Return the exponent of a power law through the points, by least squares of logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def exposed(_limit_s: float) -> Table:
    """Measure what loading, transfer and patching take of an epoch on real images, all decoded within that epoch.

    Some steps are measured and stand for all of the epoch: 600 windows of each image.
    """
    folder = os.environ.get("BENCH_TEST_DATA")
    if not folder:
        return {"left_out": "BENCH_TEST_DATA names no folder"}
    found: Table = {}
    for category in sorted(path for path in Path(folder, "mvtec").iterdir() if path.is_dir()):
        paths = sorted((category / "train" / "good").glob("*.png"))
        images = _images(paths, SIDE)
        with StageClock().phase("train", 0) as preparation:
            images.prepare()
        for name in MODELS:
            for precision in PRECISIONS:
                times = _few_steps(work("fast", name, ModelConfig(precision=precision)), images)
                found[f"{category.name} {name} {precision}"] = _projected(len(paths), preparation.wall_ns, times)
    return found


def _few_steps(trained: Work, images: Images) -> PhaseTimes:
    """Time `FEW` steps by stage, after two that warm up."""
    per_image = math.ceil((FEW + 2) * BATCH / len(images))
    windows = draw_windows(len(images), per_image, images.form.grid, WINDOW_SIDE, torch.Generator().manual_seed(0))
    with closing(images.batches(windows, BATCH)) as deliveries:
        for _ in range(2):
            trained.step(next(deliveries))
        with StageClock().phase("train", 1) as times:
            for _ in range(FEW):
                trained.step(next(deliveries))
    return times


def _projected(images: int, preparation_ns: int, times: PhaseTimes) -> Table:
    """Take an epoch to be its preparation and steps like those timed."""
    scale = math.ceil(images * WINDOWS_PER_IMAGE / BATCH) / FEW
    fed_ns = scale * sum(ns for cell, ns in times.exposed_ns.items() if cell.stage in FEEDING)
    epoch_ns = preparation_ns + scale * times.wall_ns
    return {
        "images": images,
        "epoch_s_projected": epoch_ns / 1e9,
        "preparation_s": preparation_ns / 1e9,
        "share": (preparation_ns + fed_ns) / epoch_ns,
        "share_of_steps": fed_ns / epoch_ns,
    }


def pipelines(limit_s: float) -> Table:
    """Compare steps of both pipelines from the same images on the device, in float32."""
    found: Table = {"batch": SMALL_BATCH}
    loaded = training_windows(SMALL_BATCH)
    for name in MODELS:
        works = {pipeline: work(pipeline, name) for pipeline in ("thesis", "fast")}
        runs = {key: timed(partial(w.step, loaded)) for key, w in works.items()}
        rounds = interleave(runs, precision=0.05, limit_s=limit_s)
        found[name] = {"times_as_fast": as_table(rounds.ratio("thesis", "fast"))}
    return found


PARTS: dict[str, Callable[[float], Table]] = {
    "step": step,
    "image": image,
    "growth": growth,
    "exposed": exposed,
    "pipelines": pipelines,
}


def main() -> None:
    """Run the parts asked for, print them, and write them beside what is there already."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=PARTS, help="run only this one; may be repeated")
    parser.add_argument("--out", type=Path, help="JSON to write; parts that are there already and not run are kept")
    parser.add_argument("--limit-s", type=float, default=75.0, help="most that one comparison's rounds take")
    arguments = parser.parse_args()
    results: Table = json.loads(arguments.out.read_text()) if arguments.out and arguments.out.exists() else {}
    for part in arguments.part or PARTS:
        with PIPELINES["fast"].memory():
            measured = PARTS[part](arguments.limit_s)
        results[part] = {"machine": machine(), **measured}
        sys.stdout.write(json.dumps({part: results[part]}, indent=2) + "\n")
        if arguments.out:
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            arguments.out.write_text(json.dumps(results, indent=2) + "\n")


def machine() -> Table:
    """Say where and with what."""
    return {
        "cpu": cpu_name(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "version": str(version()),
    }


if __name__ == "__main__":
    main()
