"""Neither clock nor windows gather memory, however long a training is."""

from pathlib import Path

import pytest
import torch

from models.transformer import ModelConfig
from profiles.memory import PeakMemory
from profiles.record import Observation
from profiles.timing.clock import StageClock
from profiles.tracing.observation import Observer
from profiles.tracing.window import ProfilerConfig
from tests.harness.test_planted_delays import real_step

STEPS = 10_000
EPOCH = 100
MOST_BYTES = 20e6
SMALLEST = ModelConfig(width=16, depth=1, heads=2, feed_forward=16)


def in_use_bytes() -> int:
    """Return the resident memory without what is free and only not given back."""
    resident_bytes = PeakMemory(torch.device("cpu")).in_use_bytes
    if resident_bytes is None:
        pytest.skip("the system does not tell the memory of a process")
    return resident_bytes


@pytest.mark.slow
def test_ten_thousand_steps_take_no_more_memory_than_a_hundred(tmp_path: Path) -> None:
    clock, step = StageClock(), real_step(lambda _: None, SMALLEST, windows=1)
    observer = Observer(clock, ProfilerConfig(), tmp_path, PeakMemory(torch.device("cpu")))
    seen: list[Observation] = []
    with clock.phase("train", 1):
        for _ in range(EPOCH):
            step()
    before_bytes = most_bytes = in_use_bytes()
    for epoch in range(2, STEPS // EPOCH + 1):
        with clock.phase("train", epoch) as times:
            if epoch & (epoch - 1) == 0:
                seen = observer.thinned([*seen, observer.observe(step, epoch, EPOCH)], 3)
            for _ in range(EPOCH):
                step()
        assert len(times.rows()) < 20
        most_bytes = max(most_bytes, in_use_bytes())
    print(f"{STEPS} steps, {len(seen)} windows: {(most_bytes - before_bytes) / 1e6:.1f} MB more")
    assert len(seen) == 6
    assert most_bytes - before_bytes < MOST_BYTES
