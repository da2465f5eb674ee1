"""The gate's verdict, and its two processes. Ratios are given, no duration is asserted."""

import math
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from models.attention import compiled
from profiles.ratio import Ratio
from tests.benchmarks import gate

HERE = Path(__file__).resolve().parents[2]
UNENDING_S = 3600.0
"""A limit that no test reaches."""


@pytest.mark.parametrize(("ratio", "slower"), [
    (Ratio(1.15, 1.10, 1.20, 30), True),
    (Ratio(1.04, 1.03, 1.05, 30), False),  # beyond noise, below the threshold
    (Ratio(1.15, 0.99, 1.30, 30), False),  # above the threshold, within noise
    (Ratio(0.50, 0.45, 0.55, 30), False),
    (Ratio(1.50, 0.00, math.inf, 3), False),
])  # fmt: skip
def test_only_what_is_above_the_threshold_and_beyond_noise_fails(ratio: Ratio, slower: bool) -> None:  # noqa: FBT001
    assert gate.is_slower(ratio) == slower


@pytest.mark.parametrize(("ratio", "words"), [
    (Ratio(1.15, 1.10, 1.20, 30), "SLOWER"),
    (Ratio(1.01, 0.98, 1.04, 30), "no regression"),
    (Ratio(1.01, 0.80, 1.30, 30), "too noisy to tell"),
    (Ratio(1.50, 0.00, math.inf, 3), "too noisy to tell"),
])  # fmt: skip
def test_noise_is_not_taken_for_a_proof(ratio: Ratio, words: str) -> None:
    assert gate.verdict(ratio, 0.05) == words


def test_a_noisy_machine_does_not_hide_fifteen_percent_nor_invent_them() -> None:
    noise = random.Random(3)

    def taking(time_ns: float) -> gate.Timed:
        return lambda: round(time_ns * math.exp(noise.gauss(0.0, 0.1)))

    alarms = [gate.is_slower(gate.compare(taking(1e6), taking(1.15e6), UNENDING_S)) for _ in range(20)]
    assert all(alarms)
    assert not any(gate.is_slower(gate.compare(taking(1e6), taking(1e6), UNENDING_S)) for _ in range(20))


@pytest.mark.slow
def test_a_worker_answers_with_the_time_of_its_work_and_ends_with_the_gate() -> None:
    with gate.worker(HERE, "fastformer native") as process:
        for direction in gate.DIRECTIONS:
            assert gate.ask(process, direction) > 0
            assert gate.ask(process, direction, slower=0.5) > 0
    assert process.returncode == 0


def test_the_processes_of_a_checkout_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str, float]] = []
    monkeypatch.setattr(gate, "ask", lambda *of: asked.append(of))
    workers = gate.Workers(["one", "other"])  # type: ignore[list-item]
    for slower in (0.0, 0.1, 0.2):
        workers.ask("forward", slower)
    assert asked == [("one", "forward", 0.0), ("other", "forward", 0.1), ("one", "forward", 0.2)]


def test_a_loss_in_one_direction_alone_is_an_alarm(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ask(process: str, direction: str, _: float) -> int:
        return 1150 if (process, direction) == ("head", "forward") else 1000

    @contextmanager
    def workers(checkout: Path, _: str) -> Iterator[gate.Workers]:
        yield gate.Workers([str(checkout)])  # type: ignore[list-item]

    monkeypatch.setattr(gate, "ask", ask)
    monkeypatch.setattr(gate, "workers", workers)
    monkeypatch.setattr(gate, "built", lambda _: "was built")
    assert gate.main(["base", "head"]) == gate.REGRESSION
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 * len(gate.KERNELS)
    assert all(line.endswith("SLOWER") == (", forward:" in line) for line in lines)


def test_make_builds_the_heads_kernel_before_it_is_timed() -> None:
    command = ["make", "--dry-run", "--what-if=models/attention/linear_kernel.c", "gate"]
    planned = subprocess.run(command, check=True, capture_output=True, text=True, cwd=HERE).stdout
    assert 0 <= planned.find("--editable .") < planned.find("-m tests.benchmarks.gate")


@pytest.mark.slow
def test_being_put_aside_or_waiting_is_no_part_of_the_time() -> None:
    with gate.worker(HERE, "fastformer native") as process:
        gate.ask(process, "forward")
        process.send_signal(signal.SIGSTOP)
        assert process.stdin is not None
        process.stdin.write("0 forward\n")
        process.stdin.flush()
        time.sleep(2.0)
        process.send_signal(signal.SIGCONT)
        assert process.stdout is not None
        assert int(process.stdout.readline()) < 2e9


@pytest.mark.slow
def test_a_checkout_without_the_attention_is_not_comparable(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert gate.main([str(tmp_path), str(HERE)]) == gate.NOT_COMPARABLE
    assert "not comparable" in capfd.readouterr().err


@pytest.mark.slow
def test_a_checkout_without_the_kernel_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    with gate.worker(HERE, "no such") as process, pytest.raises(EOFError):
        gate.ask(process, "forward")
    assert "has no kernel 'no such'" in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(("value", "code"), [(1.0, 0), (1.2, gate.REGRESSION)])
def test_the_exit_code_tells(value: float, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "KERNELS", ["fastformer native"])
    monkeypatch.setattr(gate, "compare", lambda *_: Ratio(value, value - 0.01, value + 0.01, 30))
    assert gate.main([str(HERE), str(HERE)]) == code


def test_a_checkout_whose_kernel_was_not_built_is_not_compared_with_one_whose_was(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    states = iter([gate.NOT_BUILT, "was built"])
    monkeypatch.setattr(gate, "built", lambda _: next(states))
    assert gate.main(["base", "head"]) == gate.NOT_COMPARABLE
    assert "the base's was not built, the head's was built" in capsys.readouterr().err


def test_whether_the_kernel_was_built_is_asked_of_the_checkout_itself(tmp_path: Path) -> None:
    assert gate.built(HERE) == ("was not built" if compiled.missing else "was built")
    shutil.copytree(HERE / "models", tmp_path / "models", ignore=shutil.ignore_patterns("*.so"))
    assert gate.built(tmp_path) == "was not built"
