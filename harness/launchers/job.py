"""A job of a SLURM cluster: the worker of a cell, told to save its state when SLURM signals the job."""

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from time import sleep

from submitit.helpers import DelayedSubmission

from harness.directory import CellDirectory
from harness.launchers.blame import blame_machine
from harness.worker import tell_to_stop
from profiles.errors import MachineError

TOLD_BY = {signal.SIGUSR2}
"""What SLURM signals ahead of a time limit, or of preempting a job."""


class CellJob:
    """What a job does: run the worker of a cell, and when told have it save its state and come again."""

    def __init__(self, words: Sequence[str], folder: Path, ranks: int = 1) -> None:
        self.words = list(words)
        self.folder = folder
        self.ranks = ranks
        self.pid: int | None = None

    def __call__(self) -> int:
        """Run the worker to its end; return its exit code."""
        processors = os.environ.get("SLURM_CPUS_PER_TASK")
        threads = {"OMP_NUM_THREADS": str(max(1, int(processors) // self.ranks))} if processors else {}
        reading, self.writing = os.pipe()  # which closes when this process ends, so that the worker ends too
        signal.pthread_sigmask(signal.SIG_BLOCK, TOLD_BY)  # SLURM sends it to the worker too, which inherits this
        stdin = [(os.POSIX_SPAWN_DUP2, reading, 0)]
        self.pid = os.posix_spawnp(self.words[0], self.words, {**os.environ, **threads}, file_actions=stdin)
        os.close(reading)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, TOLD_BY)
        code = self._wait()
        if code == MachineError.exit_code:
            raise blame_machine(str(self.folder), CellDirectory(self.folder))
        return code

    def checkpoint(self) -> DelayedSubmission:
        """Have the worker save its state and stop; return what to queue. submitit calls this within a signal.

        SLURM and srun may both signal: a second call, in the middle of this one, would wait for a worker that the first
        has yet to tell.
        """
        for each in TOLD_BY:
            signal.signal(each, signal.SIG_IGN)  # this job ends here
        if self.pid is not None:
            tell_to_stop(self.pid)
            self._wait()
        return DelayedSubmission(CellJob(self.words, self.folder, self.ranks))

    def _wait(self) -> int:
        """Wait for the worker without a lock, which a signal could find held."""
        assert self.pid is not None  # noqa: S101 - it was started
        while True:
            try:
                ended, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:  # waited for already, by whom the signal interrupted
                return 0
            if ended:
                return os.waitstatus_to_exitcode(status)
            sleep(0.05)
