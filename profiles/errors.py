"""Every error a user can meet, with the exit code it ends in.

BenchError                  1   something failed
    InputError              2   wrong use or input
        ConfigError             a suite, a configuration file, an option
        DataError               a data set, an image, a mask
        RunDirectoryError       a run's directory
    DivergedError           1   a training whose loss, or whose maps, are not numbers
    LoaderError             1   a process that loads images died
    MachineError           74   the disk is full or read-only, or too many files are open: no cell can go on
    OutOfMemoryError        1   memory that ran out, on a device or on the host
    DownloadError           1   a file that cannot be had, or is not the right one
    NothingMeasuredError    5   nothing to show
    InterruptedRunError   130   stopped by the user; state saved
        BudgetSpentError    4   stopped because its time was up; state saved
"""

from collections.abc import Callable
from pathlib import Path


class BenchError(Exception):
    """The root: no other exception reaches a user. Its text is one line."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))

    def __reduce__(self) -> tuple[Callable[..., "BenchError"], tuple[type["BenchError"], str]]:
        """Travel between processes by the text, whatever it was made of."""
        return _again, (type(self), str(self))


def _again(kind: type[BenchError], text: str) -> BenchError:
    error = kind.__new__(kind)
    BenchError.__init__(error, text)
    return error


class InputError(BenchError):
    """What was given cannot be used: says where, what was got, what was expected and how to mend it."""

    exit_code = 2

    def __init__(self, where: object, *, got: str, expected: str, fix: str) -> None:
        super().__init__(f"{where}: got {got}; expected {expected}; fix: {fix}")
        self.got, self.expected = got, expected


class ConfigError(InputError):
    """A suite, a configuration file or a command-line option."""


class DataError(InputError):
    """A data set, an image or a mask."""


class RunDirectoryError(InputError):
    """A run's directory that is missing, occupied, unwritable or damaged."""


class DivergedError(BenchError):
    """The loss or an anomaly map became NaN or infinite; the cell keeps its last good checkpoint."""


class LoaderError(BenchError):
    """A process that loads images was killed, or ran out of memory."""


class MachineError(BenchError):
    """The machine cannot go on: no space, a read-only disk, no file descriptors. What was saved is kept.

    Its exit code is that of sysexits.h for input and output.
    """

    exit_code = 74


class OutOfMemoryError(BenchError):
    """Memory ran out, on a device or on the host; says which batch would fit."""


class DownloadError(BenchError):
    """A file that a server does not give, or gives wrongly: the words of `InputError`, but not the user's mistake."""

    def __init__(self, where: object, *, got: str, expected: str, fix: str) -> None:
        super().__init__(f"{where}: got {got}; expected {expected}; fix: {fix}")


class NothingMeasuredError(BenchError):
    """There is no finished measurement to show."""

    exit_code = 5


class InterruptedRunError(BenchError):
    """A signal asked the run to stop; what it had is saved, in the folder *run* where that is known."""

    exit_code = 130

    run: Path | None = None

    def __init__(self, message: str, run: Path | None = None) -> None:
        super().__init__(message)
        self.run = run


class BudgetSpentError(InterruptedRunError):
    """The time that the run was given is up; what it had is saved, and the run is incomplete."""

    exit_code = 4
