"""Profiler windows: a few steps under `torch.profiler`, kept out of every timing statistic."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch.profiler import ProfilerActivity, profile


class ProfilerConfig(BaseModel):
    """How much is profiled."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    steps: int = Field(default=2, ge=0, description="training steps of a cell under torch.profiler; 0: none")


@contextmanager
def profiler_window(path: Path) -> Iterator[None]:
    """Profile the block; write its trace to *path* (`*.pt.trace.json.gz`: Perfetto, TensorBoard, TraceInsight).

    Operators on the host and, where there is a device, its kernels.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or Kineto writes of its start and stop on stderr
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    with profile(activities=activities) as profiler:
        yield
    path.parent.mkdir(parents=True, exist_ok=True)
    profiler.export_chrome_trace(str(path))
