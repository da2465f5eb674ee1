"""Cells in processes of this machine: each in a fresh one, so that none leaves memory or a warm cache to the next.

A worker (`harness.worker`) is told to stop by SIGTERM, at which it saves its state, and stops by itself when this
process is gone: it reads a pipe that nobody writes to.
"""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import sleep
from typing import NamedTuple

import torch

from harness.cells import Cell
from harness.context import Context
from harness.launchers.asked import counted
from harness.launchers.blame import blame_machine, stopped_by_machine
from harness.result import write_results
from harness.worker import command, tell_to_stop
from profiles.errors import InterruptedRunError, MachineError

LOOK_EVERY_S = 0.05


class Slot(NamedTuple):
    """One of the places where a cell can run: the GPU that its process sees, by number, if it is to see but one."""

    gpu: int | None


class _Running(NamedTuple):
    cell: Cell
    slot: Slot
    process: subprocess.Popen[bytes]


class Local:
    """Runs cells in processes of this machine, as many at once as there are *slots*.

    Args:
        slots: one for each cell that may run at a time.
        ranks: processes that train one cell together.

    """

    elsewhere = False

    def __init__(self, slots: Sequence[Slot], ranks: int = 1) -> None:
        self._slots = slots
        self.ranks = ranks

    @property
    def at_once(self) -> int:
        """How many cells share a device, at most."""
        return max(Counter(self._slots).values())

    @property
    def words(self) -> tuple[str, ...]:
        """The options of `bench run` that ask for this launcher."""
        return counted(jobs=len(self._slots) if len(self._slots) > 1 else None, ranks=self.ranks)

    def __call__(self, cells: list[Cell], context: Context) -> None:
        """Run *cells*, which are to be done; go on when one fails.

        Raises:
            InterruptedRunError: someone asked to stop; the state is saved.
            MachineError: the machine cannot go on.

        """
        waiting, free = list(enumerate(cells, start=1)), list(self._slots)
        with _ended() as running:
            while waiting or running:
                while waiting and free:
                    number, cell = waiting.pop(0)
                    context.reporter.say(f"cell {number} of {len(cells)}: {cell.name}")
                    running.append(self._started(cell, free.pop(0), context))
                sleep(LOOK_EVERY_S)
                context.interrupt.check()
                for one in [one for one in running if one.process.poll() is not None]:
                    running.remove(one)
                    free.append(one.slot)
                    _settle(one, context, self.ranks)

    def _started(self, cell: Cell, slot: Slot, context: Context) -> _Running:
        """Start the worker of a cell."""
        together = len(self._slots)
        environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
        if slot.gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = _visible(slot.gpu)
        process = subprocess.Popen(  # noqa: S603 - our own program
            command(sys.executable, context.directory.root, cell, together=together, ranks=self.ranks),
            env=environment,
            stdin=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C reaches this process alone, which passes it on once
        )
        return _Running(cell, slot, process)


def slots(device: str, jobs: int) -> list[Slot]:
    """Return places for *jobs* cells at once: on the GPUs in turn where any of them will do, else all on one device."""
    gpus = torch.cuda.device_count()
    if jobs == 1 or gpus == 0 or device not in {"auto", "cuda"}:
        return [Slot(None)] * jobs
    return [Slot(job % gpus) for job in range(jobs)]


def share_processors(device: torch.device, jobs: int) -> None:
    """Give each of *jobs* cells that compute on the processors its part of their threads, and this process as many."""
    if device.type == "cpu":
        torch.set_num_threads(max(1, torch.get_num_threads() // jobs))


def _visible(gpu: int) -> str:
    """Name the *gpu*-th of the devices that this process may see."""
    names = os.environ.get("CUDA_VISIBLE_DEVICES")
    return names.split(",")[gpu] if names else str(gpu)


@contextmanager
def _ended() -> Iterator[list[_Running]]:
    """Yield a list of what is running; at the end, have what still is save its state and stop, and wait for it."""
    running: list[_Running] = []
    try:
        yield running
    finally:
        try:
            for one in running:
                tell_to_stop(one.process.pid)
            for one in running:
                one.process.wait()
        except BaseException:  # asked twice: no time for saving
            for one in running:
                one.process.kill()
                one.process.wait()
            raise


def _settle(one: _Running, context: Context, ranks: int) -> None:
    """Take note of how a worker ended; of several ranks, torchrun tells only whether all ended well.

    Raises:
        MachineError: it could not go on, and no other could.

    """
    assert one.process.stdin is not None  # noqa: S101 - as it was started
    one.process.stdin.close()
    code, folder = one.process.returncode, context.directory.cell(one.cell.name)
    if code == MachineError.exit_code or stopped_by_machine(folder):
        raise blame_machine(one.cell.name, folder)
    if code == InterruptedRunError.exit_code or (ranks > 1 and folder.status() == "pending"):
        message = f"the process of {one.cell.name} was told to stop"
        raise InterruptedRunError(message)
    if folder.status() in {"pending", "running"}:  # it had no time to say so itself
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        folder.fail(f"its process {how}; what it had saved is kept: --resume --retry-failed goes on from there")
        context.reporter.say(f"{one.cell.name} failed: its process {how}")
    write_results(context.directory, context.cells)
