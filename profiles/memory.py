"""Peak memory of a stretch of work: of the device where there is one, else of the process.

A process keeps what it has freed, so a stretch begins by giving back what can be given back.
"""

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")


class PeakMemory:
    """Watches a stretch of work that begins now; `in_use_bytes` is what is in use at its beginning.

    Where the system does not tell, that and the peak are absent.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._earlier_bytes = 0
        self.in_use_bytes = self._reset()

    def peak_bytes(self) -> int | None:
        """Return the largest memory in use since the beginning."""
        if self._device.type == "cuda":
            return max(self._earlier_bytes, torch.cuda.max_memory_allocated(self._device))
        return max(self._earlier_bytes, _status_bytes("VmHWM:")) if _can_reset() else None

    @contextmanager
    def unwatched(self) -> Iterator[None]:
        """Leave out what the block uses, as an instrument does that is not part of the work."""
        self._earlier_bytes = self.peak_bytes() or 0
        try:
            yield
        finally:
            self._reset()

    def _reset(self) -> int | None:
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            return torch.cuda.memory_allocated(self._device)
        if not _can_reset():
            return None
        if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # of glibc
            trim(0)
        _CLEAR_REFS.write_text("5")  # the high-water mark becomes what is in use; see proc(5)
        return _status_bytes("VmRSS:")


def resident_bytes() -> int | None:
    """Return the memory that this process has in use, or nothing where the system does not tell."""
    return _status_bytes("VmRSS:") if _STATUS.exists() else None


def _can_reset() -> bool:
    return _STATUS.exists() and _CLEAR_REFS.exists()


def _status_bytes(name: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024
