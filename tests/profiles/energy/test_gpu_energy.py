"""What a real board's meters say, printed as JSON; nothing of it can be known from the stand-in.

python -m pytest tests/profiles/energy/test_gpu_energy.py -s
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from models.transformer import InpaintingTransformer, ModelConfig
from profiles import environment
from profiles.energy.telemetry import Telemetry, TelemetryConfig
from profiles.record import EnergyRow

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="gpu: no CUDA device"),
]

BATCH = 256
LOAD_S, IDLE_S = 20, 10
MODELS = ("msa", "mlsa")


def for_a_while(seconds: float, work: Callable[[], object]) -> int:
    """Work again and again; return how often."""
    count, deadline = 0, time.monotonic() + seconds
    while time.monotonic() < deadline:
        work()
        torch.cuda.synchronize()
        count += 1
    return count


def step_of(name: str, config: ModelConfig, device: torch.device) -> Callable[[], None]:
    """Return a function that runs a model forward and backward on random windows."""
    positions, tokens = 256, config.window_side**2  # of an image of 256 pixels
    model = InpaintingTransformer(name, config, positions).to(device)
    context_bkp = torch.rand(BATCH, tokens - 1, config.patch_values, device=device)
    positions_bt = torch.randint(positions, (BATCH, tokens), device=device)

    def step() -> None:
        model.zero_grad()
        model(context_bkp, positions_bt).square().mean().backward()

    return step


def trapezoid_j(table: pd.DataFrame, row: EnergyRow) -> float:
    """Return the energy of a phase from the sampled powers alone."""
    assert row.start_s is not None
    within = table[(table["device"] == row.device) & table["time_s"].between(row.start_s, row.start_s + row.wall_s)]
    mean_w = np.trapezoid(within["power_w"], within["time_s"]) / np.ptp(within["time_s"])
    return float(mean_w) * row.wall_s


def measure(folder: Path, device: torch.device, config: ModelConfig, load_s: float, idle_s: float) -> dict[str, Any]:
    """Measure load, idleness and each model's windows on the first device of a run."""
    path, windows = folder / "telemetry.csv", dict.fromkeys(MODELS, 0)
    square = torch.rand(4096, 4096, device=device)
    with Telemetry(environment.sources(device), TelemetryConfig(), path) as telemetry:
        with telemetry.phase("train", 0):
            for_a_while(load_s, lambda: square @ square)
        with telemetry.phase("validation", 0):
            time.sleep(idle_s)
        for epoch, name in enumerate(MODELS, start=1):
            step = step_of(name, config, device)
            for_a_while(1, step)  # compiles and allocates what is needed once
            with telemetry.phase("train", epoch):
                windows[name] = BATCH * for_a_while(load_s, step)
    meter, table = telemetry._meters[0], pd.read_csv(path)
    rows = [row for row in telemetry.settled() if row.device == meter.device]
    told = [{**row._asdict(), "trapezoid_j": trapezoid_j(table, row)} for row in rows]
    return {
        "device": torch.cuda.get_device_name(device),
        "idle_w": telemetry.idle_w()[meter.device],
        "counter_period_ms": None if meter.period_ns is None else meter.period_ns / 1e6,
        "load": told[0],
        "idle": told[1],
        "j_per_window": {name: row["energy_j"] / windows[name] for name, row in zip(MODELS, told[2:], strict=True)},
        "windows": windows,
        "models": told[2:],
        "caveats": telemetry.caveats(),
    }


def test_a_real_boards_meters_agree(tmp_path: Path) -> None:
    found = measure(tmp_path, torch.device("cuda"), ModelConfig(), LOAD_S, IDLE_S)
    print(json.dumps(found, indent=1))
    load, idle = found["load"], found["idle"]
    assert load["energy_j"] == pytest.approx(load["trapezoid_j"], rel=0.1)
    assert load["energy_j"] / load["wall_s"] > idle["energy_j"] / idle["wall_s"] > 0
    assert found["idle_w"] == pytest.approx(idle["energy_j"] / idle["wall_s"], rel=0.5)
    assert min(found["j_per_window"].values()) > 0


def test_a_real_board_counts_the_same_however_it_is_asked() -> None:
    board = environment.board(torch.device("cuda"))
    try:
        together_j, _, _ = board._energy_and_power()
    except Exception as error:  # noqa: BLE001 - whichever it is, it is the board's
        pytest.skip(f"gpu: the board does not tell both in one call: {error}")
    assert board._counter_j() == pytest.approx(together_j, abs=100)  # not more than it draws in between
