"""How near the `fast` pipeline is to what the machine can do, and how far from the `thesis` pipeline and scikit-learn.

    OMP_NUM_THREADS=2 BENCH_TEST_DATA=... python -m tests.benchmarks.pipelines [--part step]... [--out FILE.json]

What is compared takes turns, so that a ratio is of one time and one machine; keep other work off it nevertheless. Where
both pipelines take turns, each has a process of its own (`tests.benchmarks.apart`). Parts are written as they are
measured; `--resume` keeps those that this machine and commit have measured already. `--page` writes the tables of a
results page.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter

import torch

from harness.pipelines.table import PIPELINES
from harness.version import version
from profiles.environment import cpu_name
from tests.benchmarks.agreement import agreement
from tests.benchmarks.extent import Extent, Table, real_images
from tests.benchmarks.growth import growth, memory
from tests.benchmarks.scores import scores
from tests.benchmarks.speed import exposed, image, pipelines, step
from tests.benchmarks.tables import page

Part = Callable[[Extent], Table]


def as_fast(part: Part) -> Part:
    """Measure a part of the `fast` pipeline alone, under that one's rules of memory."""

    def measured(extent: Extent) -> Table:
        with PIPELINES["fast"].memory():
            return part(extent)

    return measured


PARTS: dict[str, Part] = {
    "step": as_fast(step),
    "image": image,
    "exposed": as_fast(exposed),
    "pipelines": pipelines,
    "agreement": agreement,
    "memory": memory,
    "growth": growth,
    "scores": scores,
}


def main(arguments: Sequence[str] | None = None, extent: Extent | None = None) -> None:
    """Measure the parts asked for, and write them beside what is there already."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=PARTS, help="measure only this one; may be repeated")
    parser.add_argument("--out", type=Path, required=True, help="JSON; parts that are there and not measured are kept")
    parser.add_argument("--resume", action="store_true", help="leave out what this machine and commit have measured")
    parser.add_argument("--page", type=Path, help="Markdown to write, of all parts in the JSON")
    given = parser.parse_args(arguments)
    results: Table = json.loads(given.out.read_text()) if given.out.exists() else {}
    extent = extent or Extent(categories=real_images(os.environ.get("BENCH_TEST_DATA")))
    for part in given.part or PARTS:
        if given.resume and results.get(part, {}).get("machine") == machine():
            continue
        started_s = perf_counter()
        measured = PARTS[part](extent)
        results[part] = {"machine": machine(), "took_s": round(perf_counter() - started_s), **measured}
        sys.stdout.write(json.dumps({part: results[part]}, indent=2) + "\n")
        write(given.out, json.dumps(results, indent=2) + "\n")
    if given.page:
        write(given.page, page(results))


def write(path: Path, text: str) -> None:
    """Write a file as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".part")
    aside.write_text(text)
    aside.replace(path)


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
