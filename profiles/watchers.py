"""Who else is watching this process: other tools' profilers, tracers and debuggers."""

import os
import sys
from pathlib import Path

import torch

from profiles.record import Capability

ATTACHED = {
    "NSYS_PROFILING_SESSION_ID": "Nsight Systems",
    "CUDA_INJECTION64_PATH": "a library injected into CUDA",
    "NVTX_INJECTION64_PATH": "a library injected into NVTX",
    "KINETO_USE_DAEMON": "a Kineto daemon",
}
"""Variables by which tools attach themselves, and whose they are."""

STATUS = Path("/proc/self/status")


def watchers(status: Path = STATUS) -> list[str]:
    """Name the other tools that watch this process: each slows it down, and some keep our profiler out."""
    found = [f"{whose} ({name} is set)" for name, whose in ATTACHED.items() if os.environ.get(name)]
    if sys.gettrace() is not None or sys.getprofile() is not None:
        found.append("a Python tracer, such as a debugger or a measurement of coverage")
    if torch.autograd.profiler._is_profiler_enabled:  # noqa: SLF001 - torch tells it nowhere else
        found.append("a torch.profiler of someone else in this process")
    if tracer := _tracer(status):
        found.append(f"process {tracer}, attached as a debugger")
    return found


def _tracer(status: Path) -> int:
    """Return the process that traces this one (strace, gdb), or 0."""
    if not status.exists():
        return 0
    line = next((line for line in status.read_text().splitlines() if line.startswith("TracerPid:")), "TracerPid: 0")
    return int(line.split()[1])


def watched() -> Capability:
    """Say whether this process is left alone."""
    found = watchers()
    return Capability(
        name="undisturbed profiler",
        available=not found,
        detail="; ".join(found) or "no other tool watches this process",
    )
