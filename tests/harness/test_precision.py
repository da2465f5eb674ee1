"""A run in bfloat16 says so, and computes what a run in float32 does, nearly."""

from pathlib import Path

import pandas as pd
import pytest

from harness.config import build
from harness.directory import RunDirectory
from harness.launch import Outcome, start
from profiles.record import CellRecord, read_model
from tests.harness.conftest import tiny_table


def run(generated: Path, out: Path, precision: str) -> Outcome:
    table = tiny_table(generated)
    table["model"]["precision"] = precision
    return start(build(table, "tiny"), out)


def test_precision_is_recorded_and_moves_losses_by_roundings(generated: Path, tmp_path: Path) -> None:
    losses = {}
    for precision in ("float32", "bfloat16"):
        outcome = run(generated, tmp_path / precision, precision)
        assert outcome.failed == 0
        folders = [RunDirectory(outcome.directory).cell(cell.name) for cell in outcome.cells]
        assert {read_model(CellRecord, folder.record).dtype for folder in folders} == {precision}
        assert set(pd.read_csv(outcome.directory / "results.csv")["dtype"]) == {precision}
        losses[precision] = [read_model(CellRecord, folder.record).best_validation_loss for folder in folders]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.01)
    assert losses["bfloat16"] != losses["float32"]
