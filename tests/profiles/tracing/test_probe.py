"""What the doctor finds out of profilers: ours by trying, others' by their traces."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from profiles import watchers as others
from profiles.tracing import probe as probes
from profiles.tracing.probe import probe
from profiles.watchers import ATTACHED, watched, watchers

CPU = torch.device("cpu")


def test_a_profiler_that_works_sees_a_small_product() -> None:
    host, device = probe(CPU)
    assert host.available
    assert not device.available
    assert "runs on the CPU" in device.detail


def test_a_profiler_that_does_not_start_is_told_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> profile:
        message = "CUPTI_ERROR_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED"
        raise RuntimeError(message)

    monkeypatch.setattr(probes, "new_profiler", refused)
    for capability in probe(CPU):
        assert not capability.available
        assert "does not start: CUPTI_ERROR_MULTIPLE" in capability.detail


def test_a_device_whose_kernels_are_not_seen_is_told_with_who_may_be_the_cause(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cuda = torch.device("cuda")
    assert "another profiler may hold the device" in probes._device_events(0, cuda).detail
    monkeypatch.setenv("NSYS_PROFILING_SESSION_ID", "7")
    assert "kernels are not seen: Nsight Systems" in probes._device_events(0, cuda).detail
    (tmp_path / "params").write_text("Mobile: 4\nRmProfilingAdminOnly: 1\n")
    seen = probes._device_events(3, cuda, tmp_path / "params")
    assert seen.available
    assert "performance counters are for administrators only" in seen.detail
    assert "counters" not in probes._device_events(3, cuda, tmp_path / "none").detail


@pytest.mark.parametrize("name", ATTACHED)
def test_a_tool_that_attached_itself_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert watched().available
    monkeypatch.setenv(name, "1")
    (found,) = watchers()
    assert ATTACHED[name] in found
    assert name in found
    assert not watched().available


def test_a_python_tracer_and_a_foreign_torch_profiler_are_named() -> None:
    sys.setprofile(lambda *_: None)
    try:
        found = watchers()
    finally:
        sys.setprofile(None)
    assert found == ["a Python tracer, such as a debugger or a measurement of coverage"]
    with profile(activities=[ProfilerActivity.CPU]):
        assert watchers() == ["a torch.profiler of someone else in this process"]


def test_a_debugger_is_named_by_its_process(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nTracerPid:\t4711\n")
    assert watchers(status) == ["process 4711, attached as a debugger"]
    assert watchers(tmp_path / "none") == []
    assert others._tracer(Path("/proc/self/status")) == 0
    code = "from profiles.watchers import watchers; print(watchers())"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"
