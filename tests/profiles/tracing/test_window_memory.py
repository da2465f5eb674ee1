"""A window as long as its budget allows stays within it: what events are reckoned to take is what they take.

Each is taken in a process of its own, whose memory nothing else has used.
"""

from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch

from profiles.memory import PeakMemory, resident_bytes
from profiles.record import ProfilerWindow
from profiles.timing.clock import StageClock
from profiles.tracing.observation import Observer
from profiles.tracing.window import ProfilerConfig
from tests.harness.test_planted_delays import SMALL, real_step
from tests.profiles.tracing.test_observation import Steps

CONFIG = ProfilerConfig(steps=1000)
LONG = 1100


def training() -> Callable[[], None]:
    """Return a step of a small model, whose operators are of all kinds."""
    return real_step(lambda _: None, SMALL)


def one_by_one() -> Callable[[], None]:
    """Return a step of hundreds of tiny operators, as of a pipeline that works window by window."""
    return Steps(work=300)


def longest_window(making: Callable[[], Callable[[], None]], traces: Path) -> ProfilerWindow:
    """Return a window whose length only its budget limits."""
    clock, step = StageClock(), making()
    observer = Observer(clock, CONFIG, traces, PeakMemory(torch.device("cpu")))
    with clock.phase("train", 2):
        window = observer.observe(step, 2, LONG).window
    assert window is not None
    return window


@pytest.mark.slow
@pytest.mark.skipif(resident_bytes() is None, reason="the system does not tell the memory of a process")
@pytest.mark.parametrize("making", [training, one_by_one])
def test_a_window_as_long_as_its_budget_allows_stays_within_it(
    making: Callable[[], Callable[[], None]], tmp_path: Path
) -> None:
    with get_context("spawn").Pool(1) as processes:
        window = processes.apply(longest_window, (making, tmp_path))
    assert window.resident_bytes is not None
    assert window.reckoned_bytes is not None
    print(f"{window.events} events: reckoned {window.reckoned_bytes}, taken {window.resident_bytes} bytes")
    assert 0.75 * CONFIG.memory_mb * 1e6 < window.reckoned_bytes <= CONFIG.memory_mb * 1e6
    assert 0.3 * window.reckoned_bytes < window.resident_bytes <= window.reckoned_bytes
