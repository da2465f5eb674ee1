"""How often the gate is wrong: comparisons of a checkout with itself, and with itself made slower by a known part.

    python -m tests.benchmarks.experiment [--pairs 10] [--comparisons 10] [--slower 0.15] [--out FILE.json]

Every pair of processes is new, as in the gate; in a pair, comparisons of both kinds alternate. The file is added to,
so that an experiment may run in pieces.
"""

import argparse
import json
import sys
from functools import partial
from pathlib import Path

from tests.benchmarks.gate import ask, compare, is_slower, worker

HERE = Path(__file__).resolve().parents[2]
LIMIT_S = 1.5
Found = dict[str, list[list[float]]]


def one_pair(comparisons: int, slower: float, found: Found) -> None:
    """Compare both ways, so many times each."""
    with worker(HERE, "mlsa", "native") as base, worker(HERE, "mlsa", "native") as head:
        for _ in range(comparisons):
            for planted in (0.0, slower):
                ratio = compare(partial(ask, base), partial(ask, head, planted), LIMIT_S)
                found.setdefault(str(planted), []).append([*ratio[:3], is_slower(ratio)])


def main() -> None:
    """Run it, print the counts and add to the file."""
    parser = argparse.ArgumentParser(description="How often the gate is wrong.")
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--comparisons", type=int, default=10)
    parser.add_argument("--slower", type=float, default=0.15)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    found: Found = json.loads(options.out.read_text()) if options.out and options.out.exists() else {}
    for _ in range(options.pairs):
        one_pair(options.comparisons, options.slower, found)
        if options.out:
            options.out.write_text(json.dumps(found, indent=0))
    for planted, ratios in found.items():
        alarms = sum(bool(alarm) for *_, alarm in ratios)
        values = sorted(value for value, *_ in ratios)
        numbers = f"ratios {values[0]:.3f} to {values[-1]:.3f}, median {values[len(values) // 2]:.3f}"
        sys.stdout.write(f"slower by {float(planted):.0%}: {alarms} alarms of {len(ratios)}; {numbers}\n")


if __name__ == "__main__":
    main()
