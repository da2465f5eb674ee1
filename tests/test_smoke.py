"""The command that a newcomer types, as typed: the smoke suite, trained and untrained; and the thesis's sizes."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

SCORES = {"segmentation_auroc", "detection_auroc", "aupro_30", "average_precision"}
TIMELESS = {*SCORES, "best_epoch", "parameters"}


def bench(*arguments: str) -> None:
    """Run the command with as many threads as a user would have."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-m", "bench", *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def losses(run: Path) -> list[object]:
    """Return every loss of every epoch of every cell."""
    columns = ["train_loss", "validation_loss"]
    return [pd.read_csv(path)[columns].to_numpy().tolist() for path in sorted(run.glob("cells/*/*/*/epochs.csv"))]


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_smoke_tells_a_trained_model_from_an_untrained_one_and_gives_the_same_numbers_twice(tmp_path: Path) -> None:
    runs = [tmp_path / "one", tmp_path / "two"]
    for run in runs:
        bench("run", "--out", str(run))
    results = [pd.read_csv(run / "results.csv").set_index(["category", "model", "metric"]) for run in runs]
    timeless = [table.loc[table.index.isin(TIMELESS, level="metric"), "value"] for table in results]
    assert len(timeless[0]) == 4 * len(TIMELESS)
    pd.testing.assert_series_equal(*timeless, check_exact=True)
    assert losses(runs[0]) == losses(runs[1])

    bench("run", "--out", str(tmp_path / "untrained"), "--set", "training.learning_rate=1e-30",
          "--set", "training.max_epochs=1")  # fmt: skip
    untrained = pd.read_csv(tmp_path / "untrained" / "results.csv").set_index(["category", "model", "metric"])
    for category in ("corduroy", "chip"):
        for model in ("msa", "mlsa"):
            trained_pct = results[0].loc[(category, model, "segmentation_auroc"), "value"]
            untrained_pct = untrained.loc[(category, model, "segmentation_auroc"), "value"]
            assert trained_pct >= 90, (category, model)
            assert untrained_pct < 90, (category, model)


@pytest.mark.data
@pytest.mark.slow
def test_real_images_are_trained_on_and_scored(real_data: Path, tmp_path: Path) -> None:
    bench(
        "run", "--suite", "mvtec-full", "--data-root", str(real_data / "mvtec"), "--category", "grid",
        "--out", str(tmp_path / "run"), "--set", "training.max_epochs=2", "--set", "training.windows_per_image=40",
        "--set", "model.width=32", "--set", "model.depth=1", "--set", "model.feed_forward=64",
    )  # fmt: skip
    bench("report", str(tmp_path / "run"))
    results = pd.read_csv(tmp_path / "run" / "results.csv")
    scores = results[results["metric"].isin(SCORES)]
    assert len(scores) == 2 * len(SCORES)
    assert scores["value"].between(0, 100).all()
    assert (tmp_path / "run" / "report" / "index.html").stat().st_size > 10_000
