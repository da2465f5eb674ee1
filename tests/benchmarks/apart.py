"""A pipeline at work in a process of its own, under its own rules of memory, as in a run.

What is compared takes turns between such processes: in one process, a pipeline that keeps what it frees would hand it
to the other. A process does one thing at a time and only when asked.
"""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import cache
from multiprocessing import get_context
from types import TracebackType
from typing import NamedTuple, ParamSpec, Self, TypeVar

import torch

from harness.pipelines.table import PIPELINES
from models.transformer import ModelConfig
from profiles.memory import PeakMemory
from profiles.ratio import timed
from tests.benchmarks.children import Children
from tests.benchmarks.work import CPU, Work, covered_image, training_windows, work

Asked = ParamSpec("Asked")
Answer = TypeVar("Answer")

_rules = ExitStack()
"""Of memory, of this process, for as long as it lives."""


class Job(NamedTuple):
    """Which model does which pipeline's work: on images of which side, and how many windows at a time."""

    pipeline: str
    name: str
    config: ModelConfig
    side: int
    batch: int

    def model(self) -> Work:
        """Return the model in training, the same one for every batch."""
        return _model(self.pipeline, self.name, self.config, self.side)


@cache
def _model(pipeline: str, name: str, config: ModelConfig, side: int) -> Work:
    return work(pipeline, name, config, side)


class Apart:
    """A process for one pipeline."""

    def __init__(self, pipeline: str) -> None:
        context = get_context("forkserver")  # whose server loads torch once for all
        context.set_forkserver_preload([__name__])
        self._pool = ProcessPoolExecutor(1, context, _begin, (pipeline, torch.get_num_threads()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()

    def ask(self, task: Callable[Asked, Answer], *args: Asked.args, **kwargs: Asked.kwargs) -> Answer:
        """Have it do *task*, wait, and return what it returned."""
        return self._pool.submit(task, *args, **kwargs).result()


def _begin(pipeline: str, threads: int) -> None:
    torch.set_num_threads(threads)
    _rules.enter_context(PIPELINES[pipeline].memory())


def step_ns(job: Job) -> int:
    """Take a training step."""
    loaded = training_windows(job.batch, job.side)
    return timed(lambda: job.model().step(loaded))()


def paint_ns(job: Job) -> int:
    """Paint a whole image."""
    loaded = covered_image(job.side)
    return timed(lambda: job.model().paint(loaded, job.batch))()


def paint_batch(job: Job) -> int:
    """Paint as many windows of an image as a batch has."""
    covered = covered_image(job.side)
    some = covered._replace(windows=covered.windows.select(slice(job.batch)))
    return timed(lambda: job.model().paint(some, job.batch))()


def resident() -> int | None:
    """Return what the process has in use."""
    return PeakMemory(CPU).in_use_bytes


def added_peak(task: Callable[[], object]) -> int | None:
    """Return how much more is in use during *task* than before, or nothing where the system does not tell."""
    memory = PeakMemory(CPU)
    task()
    peak_bytes = memory.peak_bytes()
    return None if peak_bytes is None or memory.in_use_bytes is None else peak_bytes - memory.in_use_bytes


class Peak(NamedTuple):
    """What is in use at most: by a process beyond what it had before, and by those that it starts."""

    own_bytes: int | None
    children_bytes: int | None


def peak(task: Callable[[], object]) -> Peak:
    """Return what *task* needs."""
    with Children() as children:
        own_bytes = added_peak(task)
    return Peak(own_bytes, children.peak_bytes)
