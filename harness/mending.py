"""Mending a run before it goes on: what a kill left half-written, and cells that are damaged, failed or stopped."""

from harness import checkpoint
from harness.cells import Cell
from harness.directory import CellDirectory, RunDirectory
from harness.interrupt import Interrupt
from harness.launchers.blame import stopped_by_machine
from harness.locks import waited_for
from harness.progress import Reporter


def mend(directory: RunDirectory, cells: list[Cell], interrupt: Interrupt, *, retry_failed: bool) -> None:
    """Mend the folders of cells that cannot go on as they are, each when no process is at it any more."""
    directory.sweep()
    reporter = Reporter()
    for folder in (directory.cell(cell.name) for cell in cells):
        if _is_whole(folder, retry_failed=retry_failed):
            continue
        folder.root.mkdir(parents=True, exist_ok=True)
        with waited_for(folder.lock, reporter, interrupt):
            _mend_cell(folder, reporter, retry_failed=retry_failed)
    _forgive_machine(directory, cells)


def _forgive_machine(directory: RunDirectory, cells: list[Cell]) -> None:
    """Forget what the machine did to cells when the run stopped, or it would be taken for what it does now."""
    for folder in (directory.cell(cell.name) for cell in cells):
        if stopped_by_machine(folder):
            folder.set_status("pending")


def _is_whole(folder: CellDirectory, *, retry_failed: bool) -> bool:
    """Whether a cell can stay as it is: nothing is gone or damaged, and it did not fail or is not to be tried again."""
    return folder.has_status() and not folder.damage() and not (retry_failed and folder.status() == "failed")


def _mend_cell(folder: CellDirectory, reporter: Reporter, *, retry_failed: bool) -> None:
    """Have a failed or damaged cell go on from its checkpoints; make anew one that has none or whose status is gone."""
    if _is_whole(folder, retry_failed=retry_failed):
        return  # whoever was at it has ended it
    if folder.has_status() and (damage := folder.damage()):
        reporter.say(f"{damage}; its cell goes on from what it saved")
    if folder.has_status() and checkpoint.is_whole(folder.checkpoints):
        folder.retry()
    else:
        folder.create()
