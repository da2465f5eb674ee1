import os
import time
from collections import namedtuple
from pathlib import Path
from threading import Event, Thread

import psutil
import pytest

from profiles.energy.host import Host, packages

S = 1_000_000_000


def package(powercap: Path, name: str, energy_uj: int, range_uj: int = 1000, kind: str = "package-0") -> Path:
    folder = powercap / name
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{kind}\n")
    (folder / "energy_uj").write_text(f"{energy_uj}\n")
    (folder / "max_energy_range_uj").write_text(f"{range_uj}\n")
    return folder / "energy_uj"


def energy_j(host: Host) -> float | None:
    return host.read_meter().energy_j


def test_packages_are_summed_and_their_parts_are_not(tmp_path: Path) -> None:
    package(tmp_path, "intel-rapl:0", 100)
    package(tmp_path, "intel-rapl:1", 200, kind="package-1")
    package(tmp_path, "intel-rapl:0:0", 50, kind="core")
    package(tmp_path, "intel-rapl:2", 900, kind="psys")
    assert energy_j(Host(powercap=tmp_path)) == pytest.approx(300e-6)


def test_a_counter_that_turns_over_goes_on(tmp_path: Path) -> None:
    counter = package(tmp_path, "intel-rapl:0", 900)
    host = Host(powercap=tmp_path)
    for shown_uj, meant_uj in ((950, 950), (20, 1020), (999, 1999), (5, 2005)):
        counter.write_text(str(shown_uj))
        assert energy_j(host) == pytest.approx(meant_uj * 1e-6)


def test_a_kernel_without_counter_says_so(tmp_path: Path) -> None:
    reading = Host(powercap=tmp_path).read(0)
    assert reading.energy_j is None
    assert reading.why["energy_j"] == "the kernel exposes no RAPL counter"
    assert reading.utilization_pct is None  # of no time yet
    assert reading.memory_bytes is not None
    assert reading.memory_bytes > 1 << 20


def test_load_and_memory_are_asked_once_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host, answers = Host(powercap=tmp_path), iter([(5.0, 5.0, 3.0), (6.0, 14.0, 3.0), (9.0, 21.0, 8.0)])
    times = namedtuple("times", ("user", "idle", "iowait"))  # noqa: PYI024 - as psutil's are
    monkeypatch.setattr(psutil, "cpu_times", lambda: times(*next(answers)))
    told = [host.read(now_ns).utilization_pct for now_ns in range(0, 3 * S, S // 10)]
    assert told == [None] * 10 + [10.0] * 10 + [20.0] * 10


def test_a_thread_that_asks_for_the_load_is_told_it_from_its_second_answer_on(tmp_path: Path) -> None:
    host, told, over = Host(powercap=tmp_path), [], Event()

    def compute() -> None:
        while not over.is_set():
            sum(range(1000))

    def ask() -> None:
        for now_ns in (0, S):
            told.append(host.read(now_ns).utilization_pct)
            time.sleep(0.5)

    computing, asking = Thread(target=compute), Thread(target=ask)
    computing.start()
    asking.start()
    asking.join()
    over.set()
    computing.join()
    assert told[0] is None
    assert 100 >= told[1] > 10 / (os.cpu_count() or 1)  # one processor at least is busy


def test_a_counter_for_other_users_only_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counter = package(tmp_path, "intel-rapl:0", 900)
    original = Path.read_text

    def refuse(path: Path, *arguments: str) -> str:
        if path == counter:
            raise PermissionError(13, "Permission denied", str(path))
        return original(path, *arguments)

    monkeypatch.setattr(Path, "read_text", refuse)  # root, who runs tests in containers, may read everything
    assert packages(tmp_path) == ([], f"{counter} is not readable for this user")


def test_a_counter_that_goes_away_is_unavailable_with_its_reason(tmp_path: Path) -> None:
    counter = package(tmp_path, "intel-rapl:0", 900)
    host = Host(powercap=tmp_path)
    counter.unlink()
    assert energy_j(host) is None
    assert "No such file" in host.read(0).why["energy_j"]
