"""What the processes that a process starts have in use together, as those that load for the `thesis` pipeline."""

import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from types import TracebackType
from typing import Self

import psutil

EVERY_S = 0.02
_PROC = Path("/proc")


class Children:
    """Watches what this process's children have in use; `peak_bytes` is the most seen, absent where none can be seen.

    A page of memory that several processes have in use counts by halves or thirds (PSS), a tensor on its way to the
    training, which no process has mapped, as a whole.
    """

    def __init__(self) -> None:
        self.peak_bytes = 0 if (_PROC / "self" / "smaps_rollup").exists() else None
        self._ended = Event()
        self._thread = Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        if self.peak_bytes is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        this = psutil.Process()
        while not self._ended.wait(EVERY_S):
            seen_bytes = in_use_bytes(child.pid for child in this.children(recursive=True))
            self.peak_bytes = max(self.peak_bytes or 0, seen_bytes)


def in_use_bytes(processes: Iterable[int]) -> int:
    """Return what processes have in use together, shared tensors once."""
    total_bytes = 0
    tensors: dict[int, int] = {}
    for folder in (_PROC / str(process) for process in processes):
        with suppress(OSError):  # it has ended meanwhile, and has nothing in use
            shares = re.findall(r"^Pss_(?:Anon|File): +(\d+)", (folder / "smaps_rollup").read_text(), re.MULTILINE)
            total_bytes += 1024 * sum(map(int, shares))
            for handle in (folder / "fd").iterdir():
                if str(handle.readlink()).startswith("/dev/shm/torch_"):  # noqa: S108 - only read
                    found = handle.stat()
                    tensors[found.st_ino] = 512 * found.st_blocks
    return total_bytes + sum(tensors.values())
