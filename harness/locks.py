"""Locks between processes, which the system gives back when a process ends, however it ends."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import sleep
from typing import IO

from harness.interrupt import Interrupt
from harness.progress import Reporter
from profiles.errors import RunDirectoryError

LOOK_EVERY_S = 0.1


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold a run's lock.

    Raises:
        RunDirectoryError: another process holds it, or there can be none.

    """
    with _opened(path) as file:
        if not _taken(file, path):
            got, fix = "a run that is going on", "wait, or another --out"
            raise RunDirectoryError(path.parent, got=got, expected="one that has stopped", fix=fix)
        yield


@contextmanager
def waited_for(path: Path, reporter: Reporter, interrupt: Interrupt) -> Iterator[None]:
    """Hold a cell's lock, once the process that has it is done: one whose launcher was killed saves its state first.

    Raises:
        InterruptedRunError: someone asked to stop.
        RunDirectoryError: there can be no lock.

    """
    with _opened(path) as file:
        told = False
        while not _taken(file, path):
            if not told:
                reporter.say(f"waiting for another process that is still at {path.parent}")
                told = True
            interrupt.check()
            sleep(LOOK_EVERY_S)
        yield


@contextmanager
def _opened(path: Path) -> Iterator[IO[str]]:
    try:
        file = path.open("a")
    except OSError as error:
        raise _unusable(path, error) from error
    with file:
        yield file


def _taken(file: IO[str], path: Path) -> bool:
    """Take the lock, if it is free."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise _unusable(path, error) from error
    return True


def _unusable(path: Path, error: OSError) -> RunDirectoryError:
    got, fix = f"no lock ({error.strerror})", "a --out where files can be written and locked"
    return RunDirectoryError(path.parent, got=got, expected="a folder to lock", fix=fix)
