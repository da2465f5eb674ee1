"""How often the gate is wrong: comparisons of a checkout with itself, and with itself made slower by a known part.

    python -m tests.benchmarks.experiment [--starts 20] [--comparisons 5] [--slower 0.15] [--out FILE.json]

It is the gate's own comparison, its processes started anew so many times, for its kernels by turns and
its directions by turns; comparisons of both kinds alternate. The file is added to, so that an experiment may run in
pieces.
"""

import argparse
import json
import os
import sys
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from time import perf_counter

from tests.benchmarks.gate import DIRECTIONS, KERNELS, compare, is_slower, workers

HERE = Path(__file__).resolve().parents[2]
Found = dict[str, list[dict[str, float | str | bool]]]
"""Comparisons by the planted slowdown."""


def one_start(kernel: str, comparisons: int, slower: float, found: Found) -> None:
    """Compare both ways, so many times each."""
    with workers(HERE, kernel) as base, workers(HERE, kernel) as head:
        for direction in islice(cycle(DIRECTIONS), comparisons):
            for planted in (0.0, slower):
                started = perf_counter()
                ratio = compare(partial(base.ask, direction), partial(head.ask, direction, planted))
                found.setdefault(str(planted), []).append(
                    {
                        "kernel": kernel,
                        "direction": direction,
                        **ratio._asdict(),
                        "alarm": is_slower(ratio),
                        "seconds": round(perf_counter() - started, 1),
                        "load": os.getloadavg()[0],
                    }
                )


def main() -> None:
    """Run it, print the counts and add to the file."""
    parser = argparse.ArgumentParser(description="How often the gate is wrong.")
    parser.add_argument("--starts", type=int, default=20)
    parser.add_argument("--comparisons", type=int, default=5)
    parser.add_argument("--slower", type=float, default=0.15)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    found: Found = json.loads(options.out.read_text()) if options.out and options.out.exists() else {}
    for kernel in islice(cycle(KERNELS), options.starts):
        one_start(kernel, options.comparisons, options.slower, found)
        if options.out:
            options.out.write_text(json.dumps(found, indent=0) + "\n")
    for planted, each in found.items():
        values, seconds = (sorted(float(one[what]) for one in each) for what in ("value", "seconds"))
        sys.stdout.write(
            f"slower by {float(planted):.0%}: {sum(bool(one['alarm']) for one in each)} alarms of {len(each)}; "
            f"ratios {values[0]:.3f} to {values[-1]:.3f}, median {values[len(values) // 2]:.3f}; "
            f"seconds {seconds[0]:.1f} to {seconds[-1]:.1f}, median {seconds[len(seconds) // 2]:.1f}\n"
        )


if __name__ == "__main__":
    main()
