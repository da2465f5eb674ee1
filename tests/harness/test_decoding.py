"""Decoding in parallel gives what decoding one by one gives: the same images, order and error."""

import threading
from pathlib import Path
from time import thread_time_ns
from typing import Any

import pytest
import torch

from harness import decoding
from harness.cache import ImageCache
from harness.decoding import Decoder
from harness.images import read_image
from harness.interrupt import Interrupt
from harness.progress import Reporter
from profiles import environment
from profiles.environment import usable_processors
from profiles.errors import DataError, InterruptedRunError
from profiles.timing.loader import take


def decoder(cache: ImageCache | None = None, threads: int | None = None, interrupt: Interrupt | None = None) -> Decoder:
    return Decoder(cache, Reporter(), interrupt or Interrupt(), threads)


@pytest.fixture
def files(generated: Path) -> list[Path]:
    return sorted(generated.glob("*/t*/*/*.png"))


def one_by_one(files: list[Path], side: int) -> torch.Tensor:
    return torch.stack([read_image(file, side) for file in files])


@pytest.mark.parametrize("threads", [1, 2, 7, None])
@pytest.mark.parametrize("side", [32, 64])
def test_images_are_those_of_decoding_one_by_one_in_order(files: list[Path], side: int, threads: int | None) -> None:
    assert torch.equal(decoder(threads=threads).decode(files, side, telling=False), one_by_one(files, side))


def test_from_a_cold_and_from_a_warm_cache_images_are_the_same(files: list[Path], tmp_path: Path) -> None:
    cold, warm, expected = decoder(ImageCache(tmp_path)), decoder(ImageCache(tmp_path)), one_by_one(files, 32)
    assert torch.equal(cold.decode(files, 32, telling=False), expected)
    assert torch.equal(warm.decode(files, 32, telling=False), expected)
    assert (cold.decoded, cold.from_cache) == (len(files), 0)
    assert (warm.decoded, warm.from_cache) == (0, len(files))


def test_another_side_and_a_changed_file_are_decoded_anew(files: list[Path], tmp_path: Path) -> None:
    copies = [tmp_path / f"{number}.png" for number in range(2)]
    for copy, file in zip(copies, files, strict=False):
        copy.write_bytes(file.read_bytes())
    cached = decoder(ImageCache(tmp_path / "cache"))
    cached.decode(copies, 32, telling=False)
    cached.decode(copies, 64, telling=False)
    assert (cached.decoded, cached.from_cache) == (4, 0)
    copies[1].write_bytes(files[2].read_bytes())
    assert torch.equal(cached.decode(copies, 32, telling=False), one_by_one([files[0], files[2]], 32))
    assert (cached.decoded, cached.from_cache) == (5, 1)


def test_a_damaged_entry_is_made_anew(files: list[Path], tmp_path: Path) -> None:
    decoder(ImageCache(tmp_path)).decode(files, 32, telling=False)
    entry = next(tmp_path.iterdir())
    entry.write_bytes(entry.read_bytes()[:-1])
    for expected in (1, 0):
        again = decoder(ImageCache(tmp_path))
        assert torch.equal(again.decode(files, 32, telling=False), one_by_one(files, 32))
        assert again.decoded == expected


def test_of_several_damaged_files_the_first_is_named_whichever_is_met_first(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = [tmp_path / f"{number}.png" for number in range(4)]
    for path, file in zip(damaged, files, strict=False):
        path.write_bytes(file.read_bytes())
    for path in damaged[1:3]:
        path.write_bytes(path.read_bytes()[:100])
    second_failed = threading.Event()

    def late_first(path: Path, *args: Any) -> torch.Tensor:
        if path == damaged[1]:
            second_failed.wait()
        try:
            return read_image(path, *args)
        finally:
            if path == damaged[2]:
                second_failed.set()

    monkeypatch.setattr(decoding, "read_image", late_first)
    with pytest.raises(DataError, match=r"1\.png: got a damaged image"):
        decoder(threads=3).decode(damaged, 32, telling=False)


def test_a_file_that_is_not_there_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        decoder().decode([tmp_path / "none.png"], 32, telling=False)


def test_decoding_stops_when_asked_to(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt, met = Interrupt(), []

    def asking(path: Path, *args: Any) -> torch.Tensor:
        met.append(path)
        interrupt.requested_by = "SIGINT"
        return read_image(path, *args)

    monkeypatch.setattr(decoding, "read_image", asking)
    with pytest.raises(InterruptedRunError):
        decoder(threads=1, interrupt=interrupt).decode(files * 20, 32, telling=False)
    assert len(met) < len(files) * 20


def test_progress_is_told_of_every_image(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    monkeypatch.setattr(Reporter, "begin", lambda _, *what: told.append(what))
    monkeypatch.setattr(Reporter, "advance", lambda _, count: told.append(count))
    decoder().decode(files, 32, telling=False)
    assert not told
    decoder().decode(files, 32, telling=True)
    assert told == [("decoding", len(files), "images"), *[1] * len(files)]


def test_every_part_of_decoding_is_metered(files: list[Path]) -> None:
    take()
    decoder(threads=2).decode(files, 32, telling=False)
    assert set(take()) == {"decode", "resize", "copy"}


def test_a_process_decodes_on_the_processors_it_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment.os, "sched_getaffinity", lambda _: {3, 5, 8}, raising=False)
    assert usable_processors() == 3
    monkeypatch.delattr(environment.os, "sched_getaffinity")
    monkeypatch.setattr(environment.os, "cpu_count", lambda: None)
    assert usable_processors() == 1


def test_reading_a_file_is_part_of_decoding_it(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    read, worked_ns = decoding.read_content, list[int]()

    def slowly(path: Path) -> bytes:
        started_ns = thread_time_ns()
        while thread_time_ns() - started_ns < 20_000_000:
            pass
        worked_ns.append(thread_time_ns() - started_ns)
        return read(path)

    monkeypatch.setattr(decoding, "read_content", slowly)
    take()
    decoder(threads=2).decode(files, 32, telling=False)
    assert take()["decode"] >= sum(worked_ns)
