"""The machine and its software: what a number was measured on, and what can be measured here at all."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
from pathlib import Path

import pynvml
import torch

from profiles.energy.host import Host, packages
from profiles.energy.nvml import NvmlBoard
from profiles.energy.readings import Source
from profiles.rate import rates
from profiles.record import Capability, Environment
from profiles.watchers import watched

DISTRIBUTIONS = (
    "inpainting-bench",
    "torch",
    "numpy",
    "pillow",
    "kornia",
    "scikit-learn",
    "scipy",
    "nvidia-ml-py",
    "psutil",
    "pytorch-fast-transformers",
    "tensorboard",
    "torch-tb-profiler",
    "submitit",
)


def environment(device: torch.device) -> Environment:
    """Describe this machine as a run on *device* sees it."""
    cuda = device.type == "cuda"
    driver, power_limit_w, sm_clock_max_mhz = _told(board(device)) if cuda else (None, None, None)
    return Environment(
        device=str(device),
        device_name=torch.cuda.get_device_name(device) if cuda else cpu_name(),
        driver=driver,
        cuda=torch.version.cuda if cuda else None,
        power_limit_w=power_limit_w,
        sm_clock_max_mhz=sm_clock_max_mhz,
        cpu=cpu_name(),
        cores=usable_processors(),
        threads=torch.get_num_threads(),
        memory_bytes=_memory_bytes(),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        packages=_packages(),
        capabilities=capabilities(),
    )


def peaks(device: torch.device) -> dict[str, float]:
    """Measure what a device can do at best, by the names of `Environment`; that takes a second."""
    found = rates(device, torch.float32)
    return {"flops_per_s": found.flops_per_s, "bytes_per_s": found.bytes_per_s}


def cpu_name() -> str:
    """Return the processor's name as the system gives it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def usable_processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, AttributeError):  # the system has no such figure
        return None


def _packages() -> dict[str, str]:
    versions = {}
    for name in DISTRIBUTIONS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # absent from the list means absent from the machine
    return versions


def board(device: torch.device) -> NvmlBoard:
    """Return the driver's side of a CUDA device; CUDA and the driver count devices differently, so the UUID decides."""
    index = torch.cuda.current_device() if device.index is None else device.index
    return NvmlBoard(f"cuda:{index}", str(torch.cuda.get_device_properties(index).uuid))


def _told(device: NvmlBoard) -> tuple[str | None, float | None, int | None]:
    """Read power limit and highest clock, and with them the driver's version; see `capabilities` for why not."""
    limit_w, clock_mhz = device.power_limit_w(), device.highest_clock_mhz()
    return device.driver, limit_w, clock_mhz


def sources(device: torch.device) -> list[Source]:
    """Return what can be sampled of a run on *device*: the device itself first, the host always."""
    return [board(device), Host()] if device.type == "cuda" else [Host()]


def capabilities() -> tuple[Capability, ...]:
    """Say what this machine can measure, and what it cannot and why."""
    return (_cuda(), _nvml(), _rapl(), _profiler(), watched(), *(_extra(*row) for row in _EXTRAS), _slurm())


def _cuda() -> Capability:
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        return Capability(name="CUDA device", available=True, detail=names)
    why = "torch is built without CUDA" if torch.version.cuda is None else "no device answers"
    return Capability(name="CUDA device", available=False, detail=f"{why}: runs on the CPU")


def _nvml() -> Capability:
    try:
        pynvml.nvmlInit()
        detail = f"driver {pynvml.nvmlSystemGetDriverVersion()}"
        pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        return Capability(name="NVML", available=False, detail=f"{error}: no power, clocks or energy of a GPU")
    return Capability(name="NVML", available=True, detail=detail)


def _rapl() -> Capability:
    found, why = packages()
    detail = ", ".join(str(package.counter) for package in found) or why
    return Capability(name="CPU package energy", available=bool(found), detail=detail)


def _profiler() -> Capability:
    available = torch.profiler.kineto_available()
    activities = torch.profiler.supported_activities()  # type: ignore[no-untyped-call]
    detail = (
        ", ".join(sorted(activity.name for activity in activities)) if available else "torch is built without Kineto"
    )
    return Capability(name="torch.profiler", available=available, detail=detail)


_EXTRAS = (
    ("fast-transformers attention", "fast_transformers", "make fast-transformers"),
    ("TensorBoard profiler plugin", "torch_tb_profiler", "pip install 'inpainting-bench[tensorboard]'"),
    ("submitit", "submitit", "pip install 'inpainting-bench[slurm]'"),
)


def _extra(name: str, module: str, install: str) -> Capability:
    available = importlib.util.find_spec(module) is not None
    return Capability(name=name, available=available, detail="installed" if available else f"not installed: {install}")


def _slurm() -> Capability:
    sbatch = shutil.which("sbatch")
    return Capability(name="SLURM", available=sbatch is not None, detail=sbatch or "no sbatch on PATH")
