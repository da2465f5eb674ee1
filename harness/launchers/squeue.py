"""What SLURM says of jobs, and patience while it says nothing: a controller may be restarted under a run of days."""

import subprocess
from collections.abc import Callable, Iterable
from time import monotonic

from harness.progress import Reporter, duration
from profiles.errors import MachineError

PATIENCE_S = 900.0
"""How long squeue may fail before a run gives up."""

ANSWER_S = 60.0
"""How long one answer may take."""


class Queue:
    """The states of jobs.

    Args:
        reporter: whom to tell that SLURM does not answer.
        clock: seconds.

    """

    def __init__(self, reporter: Reporter, clock: Callable[[], float] = monotonic) -> None:
        self._reporter = reporter
        self._clock = clock
        self._silent_since: float | None = None

    def states(self, jobs: Iterable[str]) -> dict[str, str] | None:
        """Return the states of those of *jobs* that SLURM has not done with; nothing where it does not answer.

        Raises:
            MachineError: it has not answered for `PATIENCE_S`.

        """
        try:
            found = queued(jobs)
        except MachineError as error:
            self._bear(error)
            return None
        if self._silent_since is not None:
            self._reporter.say("squeue answers again")
            self._silent_since = None
        return found

    def _bear(self, error: MachineError) -> None:
        now, patience = self._clock(), duration(PATIENCE_S)
        if self._silent_since is None:
            self._silent_since = now
            self._reporter.say(f"{error}; asking again for {patience}")
        elif now - self._silent_since >= PATIENCE_S:
            message = f"SLURM has not answered for {patience}; {error}"
            raise MachineError(message) from error


def queued(jobs: Iterable[str]) -> dict[str, str]:
    """Return the states of those of *jobs* that SLURM has not done with.

    Raises:
        MachineError: it does not say.

    """
    answer = _answer(["squeue", "--noheader", "--array", "--format=%i %T", f"--jobs={','.join(jobs)}"])
    if answer.returncode != 0 and "Invalid job id" not in answer.stderr:
        message = f"squeue: {answer.stderr.strip() or f'exit code {answer.returncode}'}"
        raise MachineError(message)
    return {job: state for job, _, state in (line.partition(" ") for line in answer.stdout.splitlines())}


def cancel(jobs: Iterable[str]) -> None:
    """Have SLURM cancel jobs.

    Raises:
        MachineError: it does not.

    """
    answer = _answer(["scancel", *jobs])
    if answer.returncode != 0:
        message = f"scancel: {answer.stderr.strip() or f'exit code {answer.returncode}'}"
        raise MachineError(message)


def _answer(words: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(words, capture_output=True, text=True, check=False, timeout=ANSWER_S)  # noqa: S603 - our words
    except (OSError, subprocess.TimeoutExpired) as error:
        message = f"{words[0]}: {error}"
        raise MachineError(message) from error
