"""Peak memory of a stretch of work: of the device where there is one, else of the process."""

from pathlib import Path

import torch


def reset_peak(device: torch.device) -> None:
    """Start a new stretch. On a system without `/proc` the process's peak cannot be reset: `peak_bytes` says so."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif _STATUS.exists():
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM; see proc(5)


def peak_bytes(device: torch.device) -> int | None:
    """Return the largest memory in use since `reset_peak`, or nothing where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if not _STATUS.exists():
        return None
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


_STATUS = Path("/proc/self/status")
