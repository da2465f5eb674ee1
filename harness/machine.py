"""Which device a run uses, and which machine it began on: measurements of two machines are never mixed in one run."""

import torch

from harness.directory import RunDirectory, write_model
from harness.interrupt import Interrupt
from harness.locks import waited_for
from harness.progress import Reporter
from models.attention import compiled
from profiles.environment import environment, peaks
from profiles.errors import ConfigError, RunDirectoryError
from profiles.record import Capability, Environment, read_model

KERNEL_IN_C = "linear attention in C"


def resolve_device(name: str) -> torch.device:
    """Return the device of that name; `auto` is the GPU where there is one.

    Raises:
        ConfigError: there is no such device.

    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ConfigError("--device", got=name, expected=f"one of {count} CUDA device(s) or cpu", fix="--device auto")
    return device


def described(device: torch.device) -> Environment:
    """Describe this machine as a run on *device* sees it, and which of our kernels are there."""
    found = environment(device)
    return found.model_copy(update={"capabilities": (*found.capabilities, _kernel_in_c())})


def measured(device: torch.device) -> Environment:
    """Describe this machine, and measure what its device can do at best; that takes a second."""
    return described(device).model_copy(update=peaks(device))


def _kernel_in_c() -> Capability:
    detail = compiled.missing or "built: `native` mlsa on a CPU uses it"
    return Capability(name=KERNEL_IN_C, available=compiled.missing is None, detail=detail)


def describe_or_refuse(directory: RunDirectory, device: torch.device, reporter: Reporter, interrupt: Interrupt) -> None:
    """Describe this machine in a run that has no machine yet; refuse to go on with one of another machine.

    Raises:
        RunDirectoryError: device, processor or torch differ from those the run began on.

    """
    if not directory.environment.exists():
        with waited_for(directory.root / "environment.lock", reporter, interrupt):
            if not directory.environment.exists():
                write_model(directory.environment, measured(device))
    refuse_another_machine(directory, device)


def refuse_another_machine(directory: RunDirectory, device: torch.device) -> None:
    """Refuse to mix measurements of two machines in one run.

    Raises:
        RunDirectoryError: device, processor, torch or our kernels differ from those the run began on.

    """
    then, here = read_model(Environment, directory.environment), described(device)
    for name in ("device", "device_name", "cpu", "threads"):
        if getattr(then, name) != getattr(here, name):
            raise RunDirectoryError(
                directory.root,
                got=f"{name} {getattr(here, name)}",
                expected=f"{getattr(then, name)}, on which the run began",
                fix="resume it there, or start a new run here",
            )
    kernel_then, kernel_here = (
        next((each.available for each in one.capabilities if each.name == KERNEL_IN_C), False) for one in (then, here)
    )
    if kernel_then != kernel_here:
        words = {True: f"with {KERNEL_IN_C}", False: f"without {KERNEL_IN_C}"}
        raise RunDirectoryError(
            directory.root,
            got=f"a build {words[kernel_here]}",
            expected=f"one {words[kernel_then]}, with which the run began",
            fix="install it as then, or start anew",
        )
    if then.packages["torch"] != here.packages["torch"]:
        expected = f"{then.packages['torch']}, with which the run began"
        raise RunDirectoryError(
            directory.root,
            got=f"torch {here.packages['torch']}",
            expected=expected,
            fix="install that, or start anew",
        )
