"""A cell that the machine stopped: it is pending again, and says why."""

from harness.directory import CellDirectory
from profiles.errors import MachineError
from profiles.record import CellStatus, read_model

UNTOLD = "it could not write or open what it needs; its last words are in its log"


def stopped_by_machine(folder: CellDirectory) -> str | None:
    """Return why the machine stopped a cell, as the cell's status says, if it did."""
    found = read_model(CellStatus, folder.root / "status.json")
    return found.error if found.status == "pending" else None


def blame_machine(name: str, folder: CellDirectory) -> MachineError:
    """Return that the machine stopped a cell; make it pending where it could not say so itself and we can."""
    why = stopped_by_machine(folder)
    if why is None:
        why = UNTOLD
        try:
            folder.error.unlink(missing_ok=True)  # of rank 0, which lost the rank that the machine stopped
            folder.set_status("pending", why)
        except OSError as error:
            why = f"{why}; nor could its status be written ({error})"
    return MachineError(f"{name}: {why}")
