"""Peak memory of a stretch of work, of the device where there is one, else of the process; and what is still free.

A process keeps what it has freed, so a stretch begins by giving back what can be given back.
"""

import ctypes
import gc
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil
import torch

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_GROUPS = Path("/proc/self/cgroup")
_GROUP_FOLDERS = Path("/sys/fs/cgroup")


class _GroupFiles(NamedTuple):
    """What a control group's folder calls its limit, its use, and the part of that which the system would give up."""

    limit: str
    used: str
    reclaimable: str


_GROUP_FILES = (
    _GroupFiles("memory.max", "memory.current", "inactive_file"),
    _GroupFiles("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


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
        if self._device.type == "cuda":
            gc.collect()
            torch.cuda.reset_peak_memory_stats(self._device)
            return torch.cuda.memory_allocated(self._device)
        if not _can_reset():
            return None
        give_back(self._device)
        _CLEAR_REFS.write_text("5")  # the high-water mark becomes what is in use; see proc(5)
        return _status_bytes("VmRSS:")


def resident_bytes() -> int | None:
    """Return the memory that this process has in use, or nothing where the system does not tell."""
    return _status_bytes("VmRSS:") if _STATUS.exists() else None


def give_back(device: torch.device) -> None:
    """Give back to the system what this process has freed and kept, of *device* and of the host."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # of glibc
        trim(0)


def free_bytes(device: torch.device) -> int:
    """Return the memory of *device* that this process can still take.

    Of a host it is the least that the system, the process's own limit (`ulimit -v`) and its control groups leave, as a
    batch system or a container sets them.
    """
    if device.type == "cuda":
        spare = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + spare
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    left = [] if limit == resource.RLIM_INFINITY else [limit - psutil.Process().memory_info().vms]
    return max(0, min(psutil.virtual_memory().available, *left, *_left_by_groups(_GROUPS, _GROUP_FOLDERS)))


def _left_by_groups(groups: Path, folders: Path) -> Iterator[int]:
    """Yield what each control group that limits this process's memory leaves it, of either version of them."""
    names = re.findall(r"^\d+:(|memory):(/.*)$", groups.read_text(), re.MULTILINE) if groups.exists() else []
    for controller, name in names:
        top = folders / controller
        group = top / name.lstrip("/")
        for folder in (group, *(parent for parent in group.parents if parent.is_relative_to(top))):
            yield from (left for files in _GROUP_FILES if (left := _left_by_group(folder, files)) is not None)


def _left_by_group(folder: Path, files: _GroupFiles) -> int | None:
    try:
        limit, used = ((folder / name).read_text().strip() for name in (files.limit, files.used))
        stat = (folder / "memory.stat").read_text()
    except OSError:
        return None  # it does not limit memory, or is not for us to see
    reclaimable = re.search(rf"^{files.reclaimable} (\d+)$", stat, re.MULTILINE)
    return None if limit == "max" else int(limit) - int(used) + (int(reclaimable[1]) if reclaimable else 0)


def _can_reset() -> bool:
    return _STATUS.exists() and _CLEAR_REFS.exists()


def _status_bytes(name: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024
