"""What loading works: CPU time by part, counted where the work is done, and sent along with the batch.

No profiler of the training process sees the processes of a `DataLoader`. So a part of loading is metered where it
runs, in whatever process, and what was metered travels with the batch to the process that trains:

    with part("decode"):
        pixels = decode(path)

    loader = DataLoader(images, num_workers=4, collate_fn=Metered(default_collate))
    for batch in delivered(loader):
        ...

Exposed time of loading is what `delivered` waited; busy time is what came along with the batches. What the training
process loads itself, the clock asks for at the end of each phase.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from threading import Lock
from time import thread_time_ns
from typing import Generic, NamedTuple, TypeVar

from profiles.stages import LoaderPart, recorder, stage

Batch = TypeVar("Batch")
Sample = TypeVar("Sample")
LoaderWork = dict[LoaderPart, int]
"""CPU nanoseconds by part of loading."""

_metered: LoaderWork = {}
"""What this process worked since it was last asked, all its threads."""

_one_at_a_time = Lock()
"""Held to change what was metered: several threads may."""


class part(AbstractContextManager[None]):  # noqa: N801 - reads as a keyword: `with part("decode"):`
    """Meter the block as work on one part of loading: CPU time of the thread that runs it; parts do not nest.

    Any number of threads may, each its own. What a block hands to further threads is not seen, so it hands on nothing:
    tensor operations on whole batches belong into a worker process, where torch has one thread.
    """

    def __init__(self, name: LoaderPart) -> None:
        self._name = name

    def __enter__(self) -> None:
        self._started_ns = thread_time_ns()

    def __exit__(self, *_: object) -> None:
        took_ns = thread_time_ns() - self._started_ns
        with _one_at_a_time:
            _metered[self._name] = _metered.get(self._name, 0) + took_ns


def take() -> LoaderWork:
    """Return what this process worked since it was last asked."""
    with _one_at_a_time:
        taken = dict(_metered)
        _metered.clear()
    return taken


class Delivery(NamedTuple, Generic[Batch]):
    """A batch, and what it took to make it."""

    batch: Batch
    work: LoaderWork


class Metered(Generic[Sample, Batch]):
    """A `collate_fn` that counts its own work as copying and sends along all that the process metered."""

    def __init__(self, collate: Callable[[list[Sample]], Batch]) -> None:
        self._collate = collate

    def __call__(self, samples: list[Sample]) -> Delivery[Batch]:
        """Make a batch of *samples*."""
        with part("copy"):
            batch = self._collate(samples)
        return Delivery(batch, take())


def delivered(loader: Iterable[Delivery[Batch]]) -> Iterator[Batch]:
    """Yield the batches of a loader, and keep none; waiting for one is `data_loading`."""
    deliveries = iter(loader)
    yield from iter(lambda: _next(deliveries), None)  # a loop would hold each batch until the next one is there


def _next(deliveries: Iterator[Delivery[Batch]]) -> Batch | None:
    """Wait for the next batch, if there is one, and count what it took to make."""
    with stage("data_loading"):
        delivery = next(deliveries, None)
        if delivery is None:
            return None
        if (listener := recorder()) is not None:
            listener.worked(delivery.work)
        return delivery.batch
