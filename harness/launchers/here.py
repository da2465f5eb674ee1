"""Cells in this very process, one after the other: for tests and debuggers. Memory and caches outlive a cell."""

from harness.cells import Cell
from harness.context import Context
from harness.result import write_results
from harness.run import run_guarded


class Here:
    """Runs cells in this process."""

    elsewhere = False
    at_once = 1
    ranks = 1
    words = ()

    def __call__(self, cells: list[Cell], context: Context) -> None:
        """Run *cells*, which are to be done.

        Raises:
            InterruptedRunError: someone asked to stop; the state is saved.
            MachineError: the machine cannot go on.

        """
        for number, cell in enumerate(cells, start=1):
            context.reporter.say(f"cell {number} of {len(cells)}: {cell.name}")
            run_guarded(cell, context)
            write_results(context.directory, context.cells)
