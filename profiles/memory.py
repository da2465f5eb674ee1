"""Peak memory of a stretch of work: of the device where there is one, else of the process.

A process keeps what it has freed, so a stretch begins by giving back what can be given back.
"""

import ctypes
import gc
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")


def reset_peak(device: torch.device) -> int | None:
    """Start a new stretch; return the bytes in use at its beginning, or nothing where the system does not tell."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    if not _can_reset():
        return None
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # of glibc
        trim(0)
    _CLEAR_REFS.write_text("5")  # the high-water mark becomes what is in use; see proc(5)
    return _status_bytes("VmRSS:")


def peak_bytes(device: torch.device) -> int | None:
    """Return the largest memory in use since `reset_peak`, or nothing where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return _status_bytes("VmHWM:") if _can_reset() else None


def _can_reset() -> bool:
    return _STATUS.exists() and _CLEAR_REFS.exists()


def _status_bytes(name: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024
