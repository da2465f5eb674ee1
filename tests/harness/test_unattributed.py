"""Of every phase of a real run, little is in no stage.

    python -m pytest tests/harness/test_unattributed.py -s

The clock counts processor time, which other processes do not disturb as they do wall time, of one thread. Two threads
take half as long for a step, and as long for what lies between two stages.
"""

from functools import partial
from pathlib import Path
from time import thread_time_ns

import pytest

from harness import run
from harness.config import build, suite_table
from harness.directory import RunDirectory
from harness.launch import start
from profiles.bounds import UNATTRIBUTED_BOUND
from profiles.record import CellRecord, read_model
from profiles.timing.clock import StageClock

EPOCHS = 3
"""Of which the second, whose steps are looked at closely, does not count."""


@pytest.mark.alone
@pytest.mark.slow
def test_every_phase_of_smoke_has_nearly_all_of_its_time_in_stages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "StageClock", partial(StageClock, thread_time_ns))
    table = suite_table("smoke")
    table["training"]["max_epochs"] = EPOCHS
    outcome = start(build(table, "smoke"), tmp_path / "run")
    records = [read_model(CellRecord, RunDirectory(outcome.directory).cell(each.name).record) for each in outcome.cells]
    shares = {
        (record.category, record.model, closure.phase): closure.unattributed_s / closure.wall_s
        for record in records
        for closure in record.closures
    }
    for (category, model, phase), share in shares.items():
        print(f"{category} {model} {phase}: {share:.2%} unattributed")
    assert len(shares) == 2 * 2 * 4
    assert max(shares.values()) < UNATTRIBUTED_BOUND
