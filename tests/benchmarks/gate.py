"""Is the head's attention slower than the base's? Two checkouts' processes take turns in one job.

It works on a machine that others use, too. What is compared is processor time, which does not count being put aside;
all processes share one core, so that whoever else is there disturbs all of them alike; and each checkout has several
processes, whose turns alternate, for the same program is a few per cent faster or slower by where in memory it lies.

It fails where the head is slower by more than the threshold *and* the interval of the ratio is above 1: a noisy machine
widens the interval, it does not raise alarms. Rounds end when the interval is narrow enough. What was measured is
printed either way.

    python -m tests.benchmarks.gate BASE HEAD [--threshold 0.075]

Each kernel is timed forward, and forward + backward: a loss of 15 % in the one is about 5 % of the other.

It does not watch other lengths and batches than the worker's (16 windows of 49 tokens, 8 heads of 64), bfloat16, GPUs,
and work that threads share: one thread's time says nothing of those who wait for each other. That the kernel in C
shares its heads among threads at all is tested where it is built; what is done in bfloat16, the proxies count.

Exit codes are those of `bench`: 0 no regression, 3 regression, 4 the checkouts cannot be compared. Through `make gate`
both are 2, as whatever fails in a recipe is; make prints the code itself.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import cycle
from pathlib import Path

from profiles.ratio import Ratio, Timed, interleave

REGRESSION, NOT_COMPARABLE = 3, 4
THRESHOLD = 0.075
"""Half of the slowdown that has to be caught, 15 %, so that it and none at all are told apart equally well."""

PRECISION, LIMIT_S, LEAST_ROUNDS = 0.03, 20.0, 30
PROCESSES = 3
"""Of each checkout."""

KEEP_FREED = {"MALLOC_MMAP_THRESHOLD_": "33554432", "MALLOC_TRIM_THRESHOLD_": "1073741824"}
"""Lets glibc keep what is freed, as the fast pipeline does: whether it gives it back depends on what lies where,
and makes a process up to a sixth slower for as long as it lives."""

KERNELS = (
    "softmax native",
    "linear native",
    "linear fused",
    "linformer native",
    "fastformer native",
    "feature native",
)
"""What is trained on a CPU, where the kernel in C was built and where not."""

DIRECTIONS = ("forward", "forward + backward")
ENDED = "the worker has ended"
NOT_BUILT = "was not built"
BUILT = f"""
from importlib.util import find_spec

if find_spec("models.attention.compiled") is None:
    print("has none")
else:
    from models.attention import compiled

    print("{NOT_BUILT}" if compiled.missing else "was built")
"""
WORKER = Path(__file__).with_name("worker.py").read_text()


class Workers:
    """A checkout's processes that run one of its kernels; each turn is the next one's."""

    def __init__(self, processes: "Sequence[subprocess.Popen[str]]") -> None:
        self._turns = cycle(processes)

    def ask(self, direction: str, slower: float = 0.0) -> int:
        """Let the next process work once in a direction, longer by a part of it; return the nanoseconds.

        Raises:
            EOFError: it has ended; it said why on stderr.

        """
        return ask(next(self._turns), direction, slower)


@contextmanager
def workers(checkout: Path, kernel: str) -> Iterator[Workers]:
    """Start a checkout's processes."""
    with ExitStack() as stack:
        yield Workers([stack.enter_context(worker(checkout, kernel)) for _ in range(PROCESSES)])


@contextmanager
def worker(checkout: Path, kernel: str) -> Iterator["subprocess.Popen[str]"]:
    """Start one of them; the program is handed over as text, as a script would import from its own folder."""
    environment = {**os.environ, "PYTHONPATH": str(checkout.resolve()), "OMP_NUM_THREADS": "1", **KEEP_FREED}
    command = [sys.executable, "-c", WORKER, kernel]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment, cwd=checkout) as process:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(process.pid, {max(os.sched_getaffinity(0))})
        try:
            yield process
        finally:
            process.communicate()  # its stdin ends, and so does it


def ask(process: "subprocess.Popen[str]", direction: str, slower: float = 0.0) -> int:
    """Let a process work once; see `Workers.ask`."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(f"{slower} {direction}\n")
        process.stdin.flush()
    except BrokenPipeError:
        raise EOFError(ENDED) from None
    if not (answer := process.stdout.readline()):
        raise EOFError(ENDED)
    return int(answer)


def built(checkout: Path) -> str:
    """Say whether a checkout's linear attention in C was built: without it, another program is timed in its place."""
    environment = {**os.environ, "PYTHONPATH": str(checkout.resolve())}
    command = [sys.executable, "-c", BUILT]
    return subprocess.run(
        command, check=True, capture_output=True, text=True, env=environment, cwd=checkout
    ).stdout.strip()


def compare(base: Timed, head: Timed, limit_s: float = LIMIT_S) -> Ratio:
    """Return how many times as long the head takes."""
    for _ in range(2 * PROCESSES):  # starting is no part of the limit
        base(), head()
    works = {"base": base, "head": head}
    rounds = interleave(works, precision=PRECISION, limit_s=limit_s, least_rounds=LEAST_ROUNDS, warmups=0)
    return rounds.ratio("head", "base")


def is_slower(ratio: Ratio, threshold: float = THRESHOLD) -> bool:
    """Say whether there is a regression: larger than the threshold and beyond noise."""
    return ratio.value > 1.0 + threshold and ratio.low > 1.0


def verdict(ratio: Ratio, threshold: float) -> str:
    """Say it in words; a machine too noisy to show a regression is no proof that there is none."""
    if is_slower(ratio, threshold):
        return "SLOWER"
    return "no regression" if ratio.high <= 1.0 + 2 * threshold else "too noisy to tell"


def say(kernel: str, direction: str, ratio: Ratio, threshold: float) -> None:
    """Print what was found of a kernel in a direction."""
    numbers = f"{ratio.value:.3f} times the base's time, 95 % [{ratio.low:.3f}, {ratio.high:.3f}]"
    sys.stdout.write(f"{kernel}, {direction}: {numbers}, {ratio.samples} rounds: {verdict(ratio, threshold)}\n")


def main(arguments: Sequence[str]) -> int:
    """Compare every kernel; return the exit code."""
    parser = argparse.ArgumentParser(description="Compare two checkouts' attention.")
    parser.add_argument("base", type=Path)
    parser.add_argument("head", type=Path)
    parser.add_argument("--threshold", type=float, default=THRESHOLD)
    options = parser.parse_args(arguments)
    found = {name: built(checkout) for name, checkout in (("base", options.base), ("head", options.head))}
    if NOT_BUILT in found.values() and len(set(found.values())) > 1:
        said = ", ".join(f"the {name}'s {state}" for name, state in found.items())
        sys.stderr.write(f"linear attention in C: {said}: not comparable\n")
        return NOT_COMPARABLE
    slower = 0
    for kernel in KERNELS:
        try:
            with workers(options.base, kernel) as base, workers(options.head, kernel) as head:
                for direction in DIRECTIONS:
                    ratio = compare(partial(base.ask, direction), partial(head.ask, direction))
                    slower += is_slower(ratio, options.threshold)
                    say(kernel, direction, ratio, options.threshold)
        except EOFError as error:
            sys.stderr.write(f"{kernel}: {error}: not comparable\n")
            return NOT_COMPARABLE
    return REGRESSION if slower else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
