"""Steps looked at closely: windows within their budgets, comparisons in turn, traces that do not pile up."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from time import sleep

import pytest
import torch
from torch.profiler import profile

from profiles.memory import PeakMemory
from profiles.record import Observation
from profiles.stages import backpropagate, recorder, stage
from profiles.timing.clock import StageClock
from profiles.tracing.observation import FEWEST_STEPS, MOST_PAIRS, Observer, Rehearsal
from profiles.tracing.window import ProfilerConfig, affordable_steps, count_events, profile_steps

CPU = torch.device("cpu")


class Steps:
    """A small training step that notes whether a clock heard it, and whether a profiler ran."""

    def __init__(self, work: int = 1) -> None:
        self.heard: list[bool] = []
        self.profiled: list[bool] = []
        self._weight = torch.randn(8, 8, requires_grad=True)
        self._work = work

    def __call__(self) -> None:
        self.heard.append(recorder() is not None)
        self.profiled.append(torch.autograd.profiler._is_profiler_enabled)
        with stage("loss") as mark:
            x = mark.input(torch.ones(4, 8))
            for _ in range(self._work):
                x = torch.tanh(x @ self._weight)
            loss = mark.output(x.sum())
        backpropagate(loss)


@pytest.fixture
def observe(tmp_path: Path) -> Callable[..., Observation]:
    """Return a function that looks at so many steps under a configuration."""

    def observe(step: Steps, most_steps: int, epoch: int = 2, **config: float) -> Observation:
        clock = StageClock()
        observer = Observer(clock, ProfilerConfig(**config), tmp_path, PeakMemory(CPU))  # type: ignore[arg-type]
        with clock.phase("train", epoch):
            return observer.observe(step, epoch, most_steps)

    return observe


def test_what_is_looked_at_closely_is_told_to_no_one_else(tmp_path: Path) -> None:
    told: list[tuple[str, str]] = []
    unheeded: list[tuple[str, str]] = []
    clock = StageClock(charged=lambda cell, *_: told.append(cell))
    instead = lambda cell, *_: unheeded.append(cell)  # noqa: E731
    observer, step = Observer(clock, ProfilerConfig(), tmp_path, PeakMemory(CPU), unheeded=instead), Steps()
    with clock.phase("train", 2):
        step()
        clock.read()
        before = len(told)
        observer.observe(step, 2, 20)
        assert len(told) == before + 1  # what was open when it began
        step()
    assert ("loss", "backward") in told[before + 1 :]
    assert unheeded.count(("loss", "backward")) >= sum(step.heard) - 2  # telling costs what it does otherwise


@pytest.mark.parametrize(("events", "config", "steps"), [
    (100, {}, 3),
    (100, {"steps": 50}, 50),
    (25_000, {"steps": 50}, 2),  # 256 MB at 5 kB an event
    (25_000, {"steps": 50, "memory_mb": 1024}, 8),
    (25_000, {"steps": 50, "memory_mb": 1024, "file_mb": 3}, 6),  # 3 MB at 20 B an event
    (100_000, {"steps": 50}, 0),
])  # fmt: skip
def test_a_window_is_as_long_as_its_budgets_allow(events: int, config: dict[str, int], steps: int) -> None:
    assert affordable_steps(ProfilerConfig(**config), events) == steps


def test_steps_with_and_without_clock_take_turns_and_so_does_who_is_first(observe: Callable[..., Observation]) -> None:
    step = Steps()
    seen = observe(step, 100)
    assert step.heard[:8] == [False, True, True, False, False, True, True, False]
    assert {time.state: time.n for time in seen.steps} == {"bare": 16, "clock": 16, "window": 3, "after": 16}
    assert step.profiled == [False] * 2 * MOST_PAIRS + [True] * 4 + [False] * (1 + MOST_PAIRS)
    assert step.heard[2 * MOST_PAIRS :] == [True] * (5 + MOST_PAIRS)


@pytest.mark.parametrize("most_steps", [FEWEST_STEPS, 8, 20, 50, 51])
def test_no_more_steps_are_taken_than_there_are(observe: Callable[..., Observation], most_steps: int) -> None:
    step = Steps()
    seen = observe(step, most_steps)
    assert len(step.heard) <= most_steps
    assert seen.window is not None
    assert {time.state for time in seen.steps} == {"bare", "clock", "window", "after"}


def test_long_steps_are_compared_often_enough_for_a_spread(observe: Callable[..., Observation]) -> None:
    seen = observe(Steps(), 100, compare_s=1e-9)
    assert {time.state: time.n for time in seen.steps} == {"bare": 3, "clock": 3, "window": 3, "after": 3}


def test_the_step_that_asks_for_memory_again_after_a_window_is_not_timed(tmp_path: Path) -> None:
    clock, step = StageClock(), Steps()
    observer = Observer(clock, ProfilerConfig(compare_s=1e-9), tmp_path, PeakMemory(CPU))

    def slow_after_the_window() -> None:
        step()
        if step.profiled[-2:] == [True, False]:
            sleep(0.5)

    with clock.phase("train", 2):
        seen = observer.observe(slow_after_the_window, 2, 20)
    (after,) = (time for time in seen.steps if time.state == "after")
    assert after.spread_s is not None
    assert after.spread_s < 0.1


def test_too_few_steps_are_left_alone(observe: Callable[..., Observation]) -> None:
    step = Steps()
    seen = observe(step, FEWEST_STEPS - 1)
    assert step.heard == []
    assert (seen.window, seen.steps, seen.reason) == (None, (), "5 steps are too few to look at")


def test_a_step_too_large_for_the_budget_has_no_window_and_a_reason(observe: Callable[..., Observation]) -> None:
    step = Steps(work=200)
    seen = observe(step, 20, memory_mb=1)
    assert seen.window is None
    assert seen.reason is not None
    assert "too many for a window of 1 MB of memory and 64 MB of trace" in seen.reason
    assert step.profiled.count(True) == 1  # only the step that was counted
    assert {time.state for time in seen.steps} == {"bare", "clock", "after"}  # the profiler ran all the same


def linear(windows: int) -> None:
    """Make twelve operators, and three for each window."""
    for _ in range(4 + windows):
        torch.ones(1).add_(1).neg_()


def test_a_step_s_events_follow_from_those_of_a_few_windows() -> None:
    for windows in (1, 64, 300):
        assert Rehearsal(windows, linear).events() == count_events(lambda: linear(windows))  # noqa: B023


def test_what_is_too_large_in_rehearsal_is_not_profiled(tmp_path: Path) -> None:
    clock, step = StageClock(), Steps()
    observer = Observer(clock, ProfilerConfig(memory_mb=1), tmp_path, PeakMemory(CPU))
    with clock.phase("train", 2):
        seen = observer.observe(step, 2, 20, Rehearsal(1000, linear))
    assert seen.reason is not None
    assert "too many for a window of 1 MB of memory" in seen.reason
    assert step.profiled.count(True) == 0


@pytest.mark.parametrize("verb", ["start", "stop"])
def test_a_profiler_that_is_refused_is_a_reason_and_no_failed_training(
    observe: Callable[..., Observation], monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    def refused(self: profile) -> None:
        message = "CUPTI_ERROR_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED"
        raise RuntimeError(message)

    if verb == "stop":
        stop = profile.stop
        monkeypatch.setattr(profile, "stop", lambda self: (stop(self), refused(self)))
    else:
        monkeypatch.setattr(profile, "start", refused)
    seen = observe(Steps(), 20)
    assert seen.window is None
    assert seen.reason == f"the profiler does not {verb}: CUPTI_ERROR_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED"


def test_an_error_of_a_step_under_the_profiler_is_not_taken_for_the_profiler_s() -> None:
    def failing() -> None:
        message = "out of memory"
        raise RuntimeError(message)

    with pytest.raises(RuntimeError, match=r"^out of memory$"):
        count_events(failing)
    assert not torch.autograd.profiler._is_profiler_enabled


def test_operators_of_the_host_do_not_pass_for_a_device_whose_kernels_are_not_seen(tmp_path: Path) -> None:
    clock = StageClock()
    observer = Observer(clock, ProfilerConfig(), tmp_path, PeakMemory(CPU), on_device=True)
    with clock.phase("train", 2):
        seen = observer.observe(Steps(), 2, 20)
    assert seen.window is None
    assert seen.reason == "kernels of the device are not seen: CUPTI was refused"
    assert list(tmp_path.iterdir()) == []


def test_a_window_takes_no_more_than_was_reckoned(observe: Callable[..., Observation]) -> None:
    window = observe(Steps(work=2000), 20, steps=4).window
    assert window is not None
    assert window.resident_bytes is not None
    assert window.events > 20_000
    assert window.reckoned_bytes == 5000 * window.events
    assert window.resident_bytes <= window.reckoned_bytes
    assert window.trace_bytes < 20 * window.events


def test_a_trace_is_gzipped_and_holds_the_stages_of_every_step(tmp_path: Path) -> None:
    clock = StageClock()
    with clock.phase("train", 1):
        window = profile_steps(Steps(), 2, clock, tmp_path / "new" / "epoch0001.pt.trace.json.gz", 1)
    assert window.busy_residual_s is None
    assert window.busy_residual_reason is not None
    assert "no device computes" in window.busy_residual_reason
    trace = json.loads(gzip.decompress((tmp_path / "new" / "epoch0001.pt.trace.json.gz").read_bytes()))
    names = [event.get("name") for event in trace["traceEvents"] if event.get("cat") == "user_annotation"]
    assert sorted(names) == ["ProfilerStep#0", "ProfilerStep#1", *["backward pass"] * 2, *["stage::loss"] * 2]
    assert window.trace == "epoch0001.pt.trace.json.gz"


def test_of_many_traces_an_early_a_middle_and_a_late_one_are_kept(tmp_path: Path) -> None:
    clock = StageClock()
    observer = Observer(clock, ProfilerConfig(), tmp_path, PeakMemory(CPU))
    seen: list[Observation] = []
    with clock.phase("train", 1):
        for epoch in (2, 4, 8, 16, 32):
            seen = observer.thinned([*seen, observer.observe(Steps(), epoch, FEWEST_STEPS)], 3)
    kept = [each.window.trace for each in seen if each.window and each.window.trace]
    assert kept == [f"epoch{epoch:04d}.pt.trace.json.gz" for epoch in (2, 16, 32)]
    assert sorted(path.name for path in tmp_path.iterdir()) == kept
    assert len(seen) == 5
    assert all(each.window for each in seen)


def test_peak_memory_leaves_out_what_is_not_watched() -> None:
    memory = PeakMemory(CPU)
    in_use_bytes = memory.in_use_bytes
    if in_use_bytes is None:
        pytest.skip("the system does not tell the memory of a process")
    with memory.unwatched():
        torch.ones(50_000_000).sum()
    assert (memory.peak_bytes() or 0) - in_use_bytes < 100e6
    torch.ones(50_000_000).sum()
    assert (memory.peak_bytes() or 0) - in_use_bytes > 190e6
    with memory.unwatched():
        pass
    assert (memory.peak_bytes() or 0) - in_use_bytes > 190e6  # what was met before is not forgotten
