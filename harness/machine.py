"""Which device a run uses, and which machine it began on: measurements of two machines are never mixed in one run."""

import torch

from harness.directory import RunDirectory, write_model
from harness.interrupt import Interrupt
from harness.locks import waited_for
from harness.progress import Reporter
from profiles.environment import environment, measured_environment
from profiles.errors import ConfigError, RunDirectoryError
from profiles.record import Environment, read_model


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


def describe_or_refuse(directory: RunDirectory, device: torch.device, reporter: Reporter, interrupt: Interrupt) -> None:
    """Describe this machine in a run that has no machine yet; refuse to go on with one of another machine.

    Raises:
        RunDirectoryError: device, processor or torch differ from those the run began on.

    """
    if not directory.environment.exists():
        with waited_for(directory.root / "environment.lock", reporter, interrupt):
            if not directory.environment.exists():
                write_model(directory.environment, measured_environment(device))
    refuse_another_machine(directory, device)


def refuse_another_machine(directory: RunDirectory, device: torch.device) -> None:
    """Refuse to mix measurements of two machines in one run.

    Raises:
        RunDirectoryError: device, processor or torch differ from those the run began on.

    """
    then, here = read_model(Environment, directory.environment), environment(device)
    for name in ("device", "device_name", "cpu", "threads"):
        if getattr(then, name) != getattr(here, name):
            raise RunDirectoryError(
                directory.root,
                got=f"{name} {getattr(here, name)}",
                expected=f"{getattr(then, name)}, on which the run began",
                fix="resume it there, or start a new run here",
            )
    if then.packages["torch"] != here.packages["torch"]:
        expected = f"{then.packages['torch']}, with which the run began"
        raise RunDirectoryError(
            directory.root,
            got=f"torch {here.packages['torch']}",
            expected=expected,
            fix="install that, or start anew",
        )
