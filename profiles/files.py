"""Writing a file so that a reader never sees half of it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ASIDE = ".part"
"""How the name of a file ends that is being written."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a place to write aside; what was written is then synced and renamed, so that a reader sees old or new.

    Where the writing fails, nothing is left of it.
    """
    aside = path.with_name(path.name + ASIDE)
    try:
        yield aside
        sync(aside)
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def sync(path: Path) -> None:
    """Have the disk hold what was written to a file."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Have the disk know a folder's new names, or a loss of power could bring the old ones back."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
