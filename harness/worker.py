"""The process of one cell: `python -m harness.worker RUN CELL`. Launchers start it; nobody types it.

It ends with 0 when the cell is done or failed, as `status.json` says; with 130 when it was told to stop and saved its
state; with 74 when the machine cannot go on. Several of them can be the ranks of one cell, as torchrun starts them:
`torchrun --standalone --nproc-per-node 4 -m harness.worker RUN CELL`.
"""

import os
import signal
import sys
import threading
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from rich.console import Console

from harness.cells import Cell, plan
from harness.config import RunConfig, build, file_table
from harness.context import Context
from harness.dataset import read_category
from harness.directory import RunDirectory
from harness.footprint import refuse_too_large
from harness.interrupt import listening
from harness.locks import waited_for
from harness.machine import describe_or_refuse, resolve_device
from harness.progress import Reporter
from harness.ranks import (
    Ranks,
    gpus_here,
    is_started_by_torchrun,
    joined,
    rank_device,
    refuse_ranks,
    started_by_torchrun,
)
from harness.run import follow_cell, machine_is_to_blame, run_guarded
from profiles.errors import BenchError, ConfigError, InterruptedRunError, MachineError
from profiles.record import Manifest, read_model


def command(python: str, root: Path, cell: Cell, *, together: int, ranks: int = 1) -> list[str]:
    """Return the words that start a worker.

    Args:
        python: the interpreter.
        root: the run's directory.
        cell: what to run.
        together: how many cells run at once on the machine.
        ranks: processes that train the cell together, started by torchrun where there are several.

    """
    torchrun = ["-m", "harness.torchrun", "--standalone", "--nproc-per-node", str(ranks)] if ranks > 1 else []
    return [
        python,
        *torchrun,
        "-m",
        "harness.worker",
        str(root),
        cell.name,
        "--with-parent",
        "--together",
        str(together),
    ]


def main(words: list[str] | None = None) -> int:
    """Run a cell; return the exit code."""
    parser = ArgumentParser(prog="harness.worker")
    parser.add_argument("run", type=Path)
    parser.add_argument("cell")
    parser.add_argument("--together", type=int, default=1)
    parser.add_argument("--with-parent", action="store_true", help="stop when standard input ends")
    parser.add_argument("--in-job", action="store_true", help="compare memory first; heed no second signal to stop")
    asked = parser.parse_args(words)
    if asked.with_parent:
        stop_with_parent()
    try:
        run_alone(asked.run, asked.cell, together=asked.together, in_job=asked.in_job)
    except InterruptedRunError as error:
        return 0 if is_started_by_torchrun() else error.exit_code  # torchrun would kill the ranks that still save
    except (BenchError, OSError) as error:
        sys.stderr.write(f"bench: {asked.cell}: {error}\n")
        if machine_is_to_blame(error):
            return MachineError.exit_code
        if isinstance(error, OSError):
            raise
        if is_started_by_torchrun() and os.environ["RANK"] != "0":
            if isinstance(error, ConfigError):  # rank 0 met it too, and says so
                return 0
            raise
        RunDirectory(asked.run).cell(asked.cell).fail(str(error))
    return 0


def run_alone(root: Path, name: str, *, together: int, in_job: bool = False) -> None:
    """Run the cell of that name, unless it is done or failed, when no other process does.

    Args:
        root: the run's directory.
        name: the cell's.
        together: how many cells run at once on the machine.
        in_job: whether this is a job of a cluster, whose memory nobody has compared with the cell's need, and which
            several may tell to stop at once.

    Raises:
        BenchError: the cell cannot be run here.
        InterruptedRunError: someone asked to stop; the state is saved.
        MachineError: the machine cannot go on.

    """
    directory = RunDirectory(root)
    config = build(file_table(directory.config), str(directory.config))
    cell = next(cell for cell in plan(config) if cell.name == name)
    found = resolve_device(config.device)
    refuse_ranks(started_by_torchrun(), found, config.training.batch_size, gpus=gpus_here(found))
    device = rank_device(found)
    manifest = read_model(Manifest, directory.manifest)
    if in_job:
        heed_once()
    with listening() as interrupt, joined(device) as ranks:
        context = Context(
            run=manifest.run,
            config=config,
            cells=(cell,),
            directory=directory.of_rank(ranks.rank),
            shared=directory,
            device=device,
            categories={cell.category: read_category(data_root(config, directory), cell.category)},
            commit=manifest.commit,
            reporter=_reporter(bars=together == 1 and ranks.leads),
            interrupt=interrupt,
            together=together,
            ranks=ranks,
        )
        if ranks.leads:
            _lead(cell, context, in_job=in_job)
        elif ranks.any(here=False):
            follow_cell(cell, context)


def _lead(cell: Cell, context: Context, *, in_job: bool) -> None:
    """Run a cell, unless it is done or failed, and tell the other ranks whether there is anything to do."""
    folder, interrupt = context.directory.cell(cell.name), context.interrupt
    with waited_for(folder.lock, context.reporter, interrupt):
        to_do = not folder.is_over()
        if to_do:
            with _no_rank_waits(context.ranks):
                describe_or_refuse(context.directory, context.device, context.reporter, interrupt)
                if in_job:
                    refuse_too_large(
                        [cell], context.config, context.categories, context.device, context.together, context.ranks.size
                    )
        if context.ranks.any(here=to_do):
            run_guarded(cell, context)


@contextmanager
def _no_rank_waits(ranks: Ranks) -> Iterator[None]:
    """Tell the other ranks that there is nothing to do where the cell is refused."""
    try:
        yield
    except BenchError:
        ranks.any(here=False)
        raise


def data_root(config: RunConfig, directory: RunDirectory) -> Path:
    """Return where a run's categories are."""
    return Path(config.data.root) if config.data.root else directory.generated_data


def _reporter(*, bars: bool) -> Reporter:
    """Return whom to tell: with bars on a terminal, where no other process draws one there."""
    return Reporter() if bars else Reporter(Console(stderr=True, force_terminal=False, soft_wrap=True, markup=False))


def tell_to_stop(pid: int) -> None:
    """Have a worker save its state and stop; of several ranks each, since torchrun would give them half a minute."""
    with suppress(psutil.NoSuchProcess):
        worker = psutil.Process(pid)
        for each in [child for child in worker.children() if _is_rank(child)] or [worker]:
            with suppress(psutil.NoSuchProcess):  # gone by itself; the others are still to be told
                each.terminate()


def _is_rank(process: psutil.Process) -> bool:
    try:
        return "harness.worker" in process.cmdline()
    except psutil.NoSuchProcess:
        return False


def heed_once() -> None:
    """Have signals that come after the first do nothing, not end this process: SLURM itself kills who takes too long.

    What listens from here on puts this back once it was told. It is no `SIG_IGN`, which processes inherit.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)


def stop_with_parent() -> None:
    """Have this process stop, its state saved, when the one that started it is gone, and with it standard input."""

    def wait() -> None:
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="parent", daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
