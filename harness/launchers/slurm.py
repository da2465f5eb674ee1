"""Cells as jobs of a SLURM cluster: one array, a job for each cell, by submitit.

A job starts the cell's worker. Ahead of its time limit, or of being preempted, it gets SIGUSR2, at which submitit has
it save its state and queues it again; a job that is requeued or cancelled by hand gets SIGTERM, which the worker itself
heeds. What the cells came to is read from the run's directory, which login node and compute nodes share.
"""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import submitit
from submitit.slurm.slurm import SlurmExecutor

from harness.cells import Cell
from harness.context import Context
from harness.directory import RunDirectory
from harness.launchers.asked import as_typed, counted
from harness.launchers.blame import blame_machine, stopped_by_machine
from harness.launchers.job import CellJob
from harness.launchers.squeue import Queue, cancel
from harness.progress import LINE_EVERY_S, Reporter
from harness.result import write_results
from harness.worker import command
from profiles.errors import ConfigError, InterruptedRunError, MachineError
from profiles.record import CellStatus, read_model

LOOK_EVERY_S = 1.0
ENDING_S = 600.0
"""How long cancelled jobs may take to save their state; SLURM's own KillWait is shorter as a rule."""

GONE = "gone"
"""Of a job that SLURM has done with."""

REQUEUES = 10_000
LOG_LINES = 20


class Slurm:
    """Runs cells as jobs of one array.

    Args:
        options: of sbatch, by submitit's names where it has one.
        jobs: how many run at once, at most; absent: as many as SLURM lets.
        ranks: processes that train one cell together.

    """

    elsewhere = True
    at_once = 1

    def __init__(self, options: Mapping[str, str | int], jobs: int | None, ranks: int = 1) -> None:
        self._options = options
        self._jobs = jobs
        self.ranks = ranks

    @property
    def words(self) -> tuple[str, ...]:
        """The options of `bench run` that ask for this launcher."""
        return ("--launcher", "slurm", *as_typed(self._options), *counted(jobs=self._jobs, ranks=self.ranks))

    def __call__(self, cells: list[Cell], context: Context) -> None:
        """Run *cells*, which are to be done; go on when one fails.

        Raises:
            ConfigError: SLURM refuses the jobs.
            InterruptedRunError: someone asked to stop, or cancelled a job; the state is saved.
            MachineError: SLURM does not answer any more.

        """
        if not cells:
            return
        jobs = self._submitted(cells, context)
        context.reporter.say(f"{len(cells)} jobs: {', '.join(jobs.values())}; logs in {_logs(context)}")
        stopped: list[str] = []
        queue, watch = Queue(context.reporter), _Watch(context)
        with _cancelled_at_end(jobs, context.reporter):
            while jobs:
                sleep(LOOK_EVERY_S)
                context.interrupt.check()
                states = queue.states(jobs.values())
                for cell, job in list(jobs.items()):
                    state = "unknown" if states is None else states.get(job, GONE)
                    watch.look(cell, state)
                    if state == GONE or context.directory.cell(cell.name).is_over():
                        del jobs[cell]
                        stopped += _settle(cell, job, context)
        if stopped:
            message = f"jobs ended before their cells did, their state saved: {', '.join(stopped)}"
            raise InterruptedRunError(message)

    def _submitted(self, cells: list[Cell], context: Context) -> dict[Cell, str]:
        """Submit an array; return the job of each cell."""
        executor = SlurmExecutor(folder=_logs(context), max_num_timeout=REQUEUES)
        known = executor._valid_parameters()  # noqa: SLF001 - the only list of them there is
        parameters: dict[str, Any] = {key: value for key, value in self._options.items() if key in known}
        parameters["additional_parameters"] = {
            "requeue": True,
            **{key: value for key, value in self._options.items() if key not in known},
        }
        executor.update_parameters(
            job_name=context.run, array_parallelism=self._jobs or len(cells), stderr_to_stdout=True, **parameters
        )
        root = context.directory.root.absolute()
        folder = RunDirectory(root).cell
        submitted = [CellJob(self._words(root, cell), folder(cell.name).root, self.ranks) for cell in cells]
        try:
            with executor.batch():
                jobs = [executor.submit(job) for job in submitted]
        except submitit.core.utils.FailedJobError as error:
            where, fix = "--launcher slurm", "change --partition, --time, --gres or --slurm"
            raise ConfigError(where, got=str(error), expected="jobs that SLURM takes", fix=fix) from error
        return {cell: job.job_id for cell, job in zip(cells, jobs, strict=True)}

    def _words(self, root: Path, cell: Cell) -> list[str]:
        return [*command(sys.executable, root, cell, together=1, ranks=self.ranks), "--in-job"]


class _Watch:
    """Tells what becomes of the cells, from the run's directory: each change of a job, each epoch now and then."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._seen: dict[Cell, tuple[str, int]] = {}
        self._told_at: dict[Cell, float] = {}

    def look(self, cell: Cell, state: str) -> None:
        """Look at a cell whose job is in *state*, and say what is new."""
        now = (state, _epochs(cell, self._context))
        before = self._seen.get(cell)
        if now == before:
            return
        is_new_state = before is None or before[0] != state
        if is_new_state or monotonic() - self._told_at.get(cell, 0.0) >= LINE_EVERY_S:
            self._seen[cell], self._told_at[cell] = now, monotonic()
            self._context.reporter.say(f"{cell.name}: {state.lower()}, {now[1]} epochs done")


def _logs(context: Context) -> Path:
    return context.directory.root.absolute() / "slurm"


def _epochs(cell: Cell, context: Context) -> int:
    """Count the finished epochs of a cell: the lines of its table, but for the head."""
    return context.directory.cell(cell.name).epochs.read_bytes().count(b"\n") - 1


def _settle(cell: Cell, job: str, context: Context) -> list[str]:
    """Take note of a job that ended; return its cell's name if the cell has not, but has saved its state.

    Raises:
        MachineError: it could not go on, and no other could.

    """
    folder = context.directory.cell(cell.name)
    if stopped_by_machine(folder):
        raise blame_machine(cell.name, folder)
    status = folder.status()
    if status == "running":  # it had no time to say so itself
        folder.fail(f"job {job} ended without a word; its last lines: {_last_lines(job, context)}")
    if status in {"running", "failed"}:
        why = read_model(CellStatus, folder.root / "status.json").error
        context.reporter.say(f"{cell.name} failed (job {job}; logs in {_logs(context)}): {why}")
    write_results(context.directory, context.cells)
    return [cell.name] if status == "pending" else []


def _last_lines(job: str, context: Context) -> str:
    log = _logs(context) / f"{job}_0_log.out"
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else "no log"
    return " | ".join(text.splitlines()[-LOG_LINES:])


@contextmanager
def _cancelled_at_end(jobs: Mapping[Cell, str], reporter: Reporter) -> Iterator[None]:
    """At the end, cancel the jobs that are left, and wait while they save their state."""
    try:
        yield
    finally:
        if jobs:
            reporter.say(f"cancelling {len(jobs)} jobs, which save their state")
            _cancel(list(jobs.values()), reporter)


def _cancel(jobs: list[str], reporter: Reporter) -> None:
    """Cancel jobs and wait until they are gone, as far as SLURM answers."""
    queue, cancelled, limit = Queue(reporter), True, monotonic() + ENDING_S
    try:
        cancel(jobs)
    except MachineError as error:
        reporter.say(f"{error}; of these jobs, any that are left go on: scancel {' '.join(jobs)}")
        cancelled = False
    while (left := queue.states(jobs)) != {} and monotonic() < limit:
        if left is None and not cancelled:
            return
        sleep(LOOK_EVERY_S)
