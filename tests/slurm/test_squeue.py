"""A controller that does not answer: SLURM's commands are stand-ins here, which fail as its own do."""

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.launchers import squeue as subject
from harness.launchers.squeue import PATIENCE_S, Queue, cancel
from harness.progress import Reporter
from profiles.errors import MachineError

DOWN = "echo 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)' >&2; exit 1"


class Heard(Reporter):
    """A reporter whose lines are kept."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def answering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Return what makes one of SLURM's commands do as a line of shell says."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def put(name: str, line: str) -> None:
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)

    return put


def test_a_controller_that_comes_back_is_waited_for_and_told_of_in_two_lines(
    answering: Callable[[str, str], None],
) -> None:
    now_s, reporter = [0.0], Heard()
    queue = Queue(reporter, lambda: now_s[0])
    answering("squeue", DOWN)
    for now_s[0] in (0.0, 1.0, PATIENCE_S - 1):
        assert queue.states(["7_0"]) is None
    answering("squeue", "echo 7_0 RUNNING; echo 7_1 PENDING")
    now_s[0] = PATIENCE_S + 1
    assert queue.states(["7_0", "7_1"]) == {"7_0": "RUNNING", "7_1": "PENDING"}
    assert reporter.lines == [
        "squeue: slurm_load_jobs error: Unable to contact slurm controller (connect failure); asking again for "
        "15 min 00 s",
        "squeue answers again",
    ]
    answering("squeue", DOWN)
    assert queue.states(["7_0"]) is None  # and the patience is whole again


def test_a_controller_that_stays_away_is_given_up_after_a_quarter_of_an_hour(
    answering: Callable[[str, str], None],
) -> None:
    now_s = [0.0]
    queue = Queue(Heard(), lambda: now_s[0])
    answering("squeue", DOWN)
    assert queue.states(["7_0"]) is None
    now_s[0] = 15 * 60.0
    with pytest.raises(MachineError, match=r"SLURM has not answered for 15 min 00 s; squeue: .*connect failure"):
        queue.states(["7_0"])


@pytest.mark.parametrize(("line", "said"), [
    ("exit 3", "squeue: exit code 3"),
    ("exec sleep 5", "timed out after"),
    ("kill -9 $$", "squeue: exit code -9"),
])  # fmt: skip
def test_no_answer_is_an_answer_that_failed(
    answering: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch, line: str, said: str
) -> None:
    monkeypatch.setattr(subject, "ANSWER_S", 0.5)
    answering("squeue", line)
    reporter = Heard()
    assert Queue(reporter).states(["7_0"]) is None
    assert said in reporter.lines[0]


def test_without_the_commands_there_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert Queue(Heard()).states(["7_0"]) is None
    with pytest.raises(MachineError, match=r"scancel: .*No such file"):
        cancel(["7_0"])


def test_jobs_that_slurm_has_forgotten_are_gone(answering: Callable[[str, str], None]) -> None:
    answering("squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert Queue(Heard()).states(["7_0"]) == {}
