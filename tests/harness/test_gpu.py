from pathlib import Path

import pytest
import torch

from harness.config import build
from harness.directory import RunDirectory
from harness.launch import start
from profiles.record import CellRecord, read_model
from tests.harness.conftest import tiny_table


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="gpu: no CUDA device")
def test_a_gpu_computes_what_a_cpu_does(generated: Path, tmp_path: Path) -> None:
    losses = []
    for device in ("cpu", "cuda"):
        table = {**tiny_table(generated, max_epochs=1), "device": device, "models": ["msa"]}
        outcome = start(build(table, "tiny"), tmp_path / device)
        record = read_model(CellRecord, RunDirectory(outcome.directory).cell(outcome.cells[0].name).record)
        losses.append(record.best_validation_loss)
        for phase in ("train", "validation", "calibration", "evaluation"):
            assert sum(total.share for total in record.stage_totals if total.phase == phase) == pytest.approx(1)
    assert all(total.tag == "measured" for total in record.stage_totals)
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
