"""What of the profiler works here, found out by trying.

Trying starts the profiler in this process, which a run must not do before its first window: on some GPUs everything
after that is slower. So only `bench doctor` tries.
"""

from pathlib import Path

import torch

from profiles.record import Capability
from profiles.tracing.attribution import intervals
from profiles.tracing.window import new_profiler, raw_events
from profiles.watchers import watchers

DRIVER = Path("/proc/driver/nvidia/params")


def probe(device: torch.device) -> tuple[Capability, ...]:
    """Start the profiler, do a little work, and say whether it saw that: on the host, and on the device if any."""
    matrix = torch.ones(64, 64, device=device)
    try:
        with new_profiler() as profiler:
            (matrix @ matrix).sum().item()
        events = intervals(raw_events(profiler))
    except RuntimeError as error:
        why = f"the profiler does not start: {error}"
        return tuple(Capability(name=name, available=False, detail=why) for name in ("host events", "device events"))
    on_device = sum(event.on_device for event in events)
    return _host_events(len(events) - on_device), _device_events(on_device, device)


def _host_events(count: int) -> Capability:
    detail = f"{count} of a small product" if count else "the profiler saw no operator"
    return Capability(name="host events", available=count > 0, detail=detail)


def _device_events(count: int, device: torch.device, driver: Path = DRIVER) -> Capability:
    if device.type != "cuda":
        return Capability(name="device events", available=False, detail="runs on the CPU: its operators are its device")
    if count:
        return Capability(name="device events", available=True, detail=f"{count} of a small product{_counters(driver)}")
    why = "; ".join(watchers()) or "CUPTI was refused: another profiler may hold the device, or a container hides it"
    return Capability(name="device events", available=False, detail=f"kernels are not seen: {why}")


def _counters(driver: Path) -> str:
    """Say whether this user may also read the device's performance counters, which nothing here needs."""
    if not driver.exists() or "RmProfilingAdminOnly: 1" not in driver.read_text():
        return ""
    return "; performance counters are for administrators only, which no measurement here needs"
