"""Is the head's attention slower than the base's? Two checkouts, a process each, take turns in one job.

It fails where the head is slower by more than the threshold *and* the interval of the ratio is above 1: a noisy machine
widens the interval, it does not raise alarms. What was measured is printed either way.

    python -m tests.benchmarks.gate BASE HEAD [--threshold 0.05]

Exit codes are those of `bench`: 0 no regression, 3 regression, 4 the checkouts cannot be compared.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from profiles.ratio import Ratio, Timed, interleave

REGRESSION, NOT_COMPARABLE = 3, 4
THRESHOLD, PRECISION, LIMIT_S = 0.05, 0.01, 20.0
ATTENTIONS = (("msa", "native"), ("mlsa", "native"), ("linformer", "native"), ("fastformer", "native"))
ENDED = "the worker has ended"
WORKER = Path(__file__).with_name("worker.py").read_text()


@contextmanager
def worker(checkout: Path, model: str, backend: str) -> Iterator["subprocess.Popen[str]"]:
    """Start a checkout's worker; the program is handed over as text, as a script would import from its own folder."""
    environment = {**os.environ, "PYTHONPATH": str(checkout.resolve()), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", WORKER, model, backend]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment, cwd=checkout) as process:
        try:
            yield process
        finally:
            process.communicate()  # its stdin ends, and so does it


def ask(process: "subprocess.Popen[str]", slower: float = 0.0) -> int:
    """Let a worker work once; return the nanoseconds.

    Raises:
        EOFError: the worker has ended; it said why on stderr.

    """
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(f"{slower}\n")
        process.stdin.flush()
    except BrokenPipeError:
        raise EOFError(ENDED) from None
    if not (answer := process.stdout.readline()):
        raise EOFError(ENDED)
    return int(answer)


def compare(base: Timed, head: Timed, limit_s: float = LIMIT_S) -> Ratio:
    """Return how many times as long the head takes."""
    rounds = interleave({"base": base, "head": head}, precision=PRECISION, limit_s=limit_s, least_rounds=30)
    return rounds.ratio("head", "base")


def is_slower(ratio: Ratio, threshold: float = THRESHOLD) -> bool:
    """Say whether there is a regression: larger than the threshold and beyond noise."""
    return ratio.value > 1.0 + threshold and ratio.low > 1.0


def verdict(ratio: Ratio, threshold: float) -> str:
    """Say it in words; a machine too noisy to show a regression is no proof that there is none."""
    if is_slower(ratio, threshold):
        return "SLOWER"
    return "no regression" if ratio.high <= 1.0 + 2 * threshold else "too noisy to tell"


def main(arguments: Sequence[str]) -> int:
    """Compare every attention; return the exit code."""
    parser = argparse.ArgumentParser(description="Compare two checkouts' attention.")
    parser.add_argument("base", type=Path)
    parser.add_argument("head", type=Path)
    parser.add_argument("--threshold", type=float, default=THRESHOLD)
    options = parser.parse_args(arguments)
    slower = 0
    for model, backend in ATTENTIONS:
        try:
            with worker(options.base, model, backend) as base, worker(options.head, model, backend) as head:
                ratio = compare(lambda base=base: ask(base), lambda head=head: ask(head))
        except EOFError as error:
            sys.stderr.write(f"{model} {backend}: {error}: not comparable\n")
            return NOT_COMPARABLE
        found = is_slower(ratio, options.threshold)
        slower += found
        numbers = f"{ratio.value:.3f} times the base's time, 95 % [{ratio.low:.3f}, {ratio.high:.3f}]"
        sys.stdout.write(f"{model} {backend}: {numbers}, {ratio.samples} rounds: {verdict(ratio, options.threshold)}\n")
    return REGRESSION if slower else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
