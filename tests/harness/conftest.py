"""A run small enough for a test: two categories of generated data, a model of a few thousand parameters."""

from pathlib import Path
from typing import Any

import pytest

from harness.config import RunConfig, build


def tiny_table(root: Path | None, **training: Any) -> dict[str, Any]:
    """Return the configuration of a run of a few seconds."""
    data: dict[str, Any] = {"categories": ["weave", "chip"], "image_side": 32}
    if root is not None:
        data["root"] = str(root)
    else:
        data["generated"] = {"side": 64, "train": 4, "test_good": 2, "test_per_defect": 1}
    return {
        "suite": "tiny",
        "description": "for tests",
        "models": ["msa", "mlsa"],
        "data": data,
        "model": {"width": 16, "depth": 1, "heads": 2, "feed_forward": 16, "patch_side": 8, "window_side": 3},
        "training": {"batch_size": 8, "max_epochs": 3, "windows_per_image": 10, **training},
        "evaluation": {"samples": 2},
        "telemetry": {"idle_s": 0.0},
    }


@pytest.fixture
def tiny(generated: Path) -> RunConfig:
    """Return a run of a few seconds on shared data: four cells, three epochs of seven steps."""
    return build(tiny_table(generated), "tiny")
