"""Writing a file so that a reader never sees half of it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a place to write aside; what was written is then synced and renamed, so that a reader sees old or new."""
    aside = path.with_name(path.name + ".part")
    yield aside
    with aside.open("r+b") as file:
        os.fsync(file.fileno())
    aside.replace(path)
