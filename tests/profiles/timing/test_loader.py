"""What loading works is counted where it works, in this process or in others, and what it makes wait is exposed."""

import itertools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from statistics import median

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from profiles.stages import stage
from profiles.timing.clock import StageClock
from profiles.timing.loader import Delivery, Metered, delivered, part, take
from profiles.timing.times import Cell, PhaseTimes

LOADING = Cell("data_loading", "none")


def compute(seconds: float) -> None:
    """Use the processor for so long, whatever else runs, be it in this process."""
    end_s = time.thread_time() + seconds
    while time.thread_time() < end_s:
        pass


class Images(Dataset[Tensor]):
    """Images that take time: so much decoding, resizing, and waiting for a disk."""

    def __init__(self, count: int, decode_s: float = 0.0, resize_s: float = 0.0, disk_s: float = 0.0) -> None:
        self._count = count
        self._parts_s = decode_s, resize_s, disk_s
        self.loaded = torch.zeros(count, dtype=torch.bool).share_memory_()

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Tensor:
        decode_s, resize_s, disk_s = self._parts_s
        time.sleep(disk_s)
        with part("decode"):
            compute(decode_s)
        with part("resize"):
            compute(resize_s)
        self.loaded[index] = True
        return torch.tensor([index])

    def wait(self) -> None:
        """Wait until a worker has loaded all of them."""
        while not self.loaded.all():
            time.sleep(0.01)


def loader(images: Images, workers: int, ahead: int | None = None) -> DataLoader[Tensor]:
    collate = Metered(default_collate)
    return DataLoader(images, batch_size=2, num_workers=workers, collate_fn=collate, prefetch_factor=ahead)


def consume(
    images: Images, workers: int, ahead: int | None = None, train: Callable[[], None] = lambda: None
) -> tuple[PhaseTimes, list[int], list[float]]:
    """Read all batches and train on each; return times, contents, and waits after the first batch."""
    clock, contents, waits_s = StageClock(), [], []
    with clock.phase("train", 1) as times:
        for batch in delivered(loader(images, workers, ahead)):
            waits_s.append(clock.read()[LOADING] / 1e9)
            contents += batch.flatten().tolist()
            with stage("patching"):
                train()
    return times, contents, [later - earlier for earlier, later in itertools.pairwise(waits_s)]


@pytest.mark.alone
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_processor_time_of_loading_is_counted_in_whatever_process_it_is_spent(workers: int) -> None:
    times, contents, _ = consume(Images(8, decode_s=0.03, resize_s=0.02), workers)
    assert sorted(contents) == list(range(8))
    assert times.loader_ns["decode"] == pytest.approx(8 * 0.03e9, rel=0.02)
    assert times.loader_ns["resize"] == pytest.approx(8 * 0.02e9, rel=0.02)
    assert 0 < times.loader_ns["copy"] < 0.02e9
    (row,) = [row for row in times.rows() if row.stage == "data_loading"]
    assert row.busy_s == pytest.approx(sum(times.loader_ns.values()) / 1e9)
    assert {row.part for row in times.loader_rows()} == {"decode", "resize", "copy"}


@pytest.mark.alone
def test_threads_that_load_at_once_count_each_its_own_work() -> None:
    def decode(_: int) -> int:
        started_ns = time.thread_time_ns()
        with part("decode"):
            while time.thread_time_ns() - started_ns < 0.03e9:
                pass
        return time.thread_time_ns() - started_ns

    take()
    with ThreadPoolExecutor(4) as pool:
        worked_ns = sum(pool.map(decode, range(16)))
    assert take()["decode"] == pytest.approx(worked_ns, rel=0.02)


@pytest.mark.alone
def test_what_the_training_waits_for_a_worker_is_exposed() -> None:
    _, _, waits_s = consume(Images(12, disk_s=0.05), workers=1)
    _, _, without_s = consume(Images(12), workers=1)
    # the worker is ahead by what it prefetched before the first batch was asked for, so the first waits do not count
    assert median(waits_s[2:]) - median(without_s[2:]) == pytest.approx(2 * 0.05, rel=0.02)


@pytest.mark.alone
def test_loading_hidden_behind_the_training_is_busy_and_not_exposed() -> None:
    images = Images(16, decode_s=0.02)
    times, _, waits_s = consume(images, workers=1, ahead=8, train=images.wait)
    assert times.loader_ns["decode"] == pytest.approx(16 * 0.02e9, rel=0.02)
    assert median(waits_s) < 0.2 * 2 * 0.02
    assert times.exposed_ns[Cell("patching", "none")] > 0.5 * 16 * 0.02e9  # it hid most of it


def test_a_worker_that_fails_says_so_and_time_still_adds_up() -> None:
    class Broken(Images):
        def __getitem__(self, index: int) -> Tensor:
            message = f"image {index} is damaged"
            raise ValueError(message)

    with pytest.raises(ValueError, match="is damaged"), StageClock().phase("train", 1) as times:
        next(delivered(loader(Broken(4), 1)))
    times.check()


def test_what_was_loaded_before_a_phase_is_none_of_it() -> None:
    with part("decode"):
        compute(0.01)
    with StageClock().phase("train", 1) as times:
        pass
    assert not times.loader_ns
    assert not take()


def test_without_a_recorder_batches_come_all_the_same() -> None:
    def deliveries() -> Iterator[Delivery[int]]:
        yield Delivery(1, {"decode": 5})
        yield Delivery(2, {})

    assert list(delivered(deliveries())) == [1, 2]
