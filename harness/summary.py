"""From a cell's tables to the numbers of its record."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from harness.scores import Scores
from profiles.record import Metric, StageTotal

ENERGY_UNAVAILABLE = "this version does not sample power"


class Extent(NamedTuple):
    """A whole epoch, whether or not one was run, and what was run of it."""

    steps_per_epoch: int
    validation_steps_per_epoch: int
    measured_steps: int | None
    step_ns: list[int]
    draw_ns: int


def stage_totals(stages: Path, epochs: Path) -> list[StageTotal]:
    """Sum each phase's stages over the epochs that count: neither epoch 0 nor, in training, profiled ones."""
    rows = pd.read_csv(stages)
    profiled = pd.read_csv(epochs).set_index("epoch")["profiled"]
    is_profiled = rows["epoch"].map(profiled).fillna(value=False).astype(bool)
    rows = rows[(rows["epoch"] > 0) & ~(is_profiled & rows["phase"].isin(["train", "validation"]))]
    walls = rows.groupby("phase")["exposed_s"].sum()
    counts = rows.groupby("phase")["epoch"].nunique()
    sums = rows.groupby(["phase", "stage", "direction"], sort=False, as_index=False)["exposed_s"].sum()
    return [
        StageTotal(
            phase=phase,
            stage=stage,
            direction=direction,
            exposed_s=float(exposed_s),
            share=float(exposed_s / walls[phase]),
            epochs=int(counts[phase]),
        )
        for phase, stage, direction, exposed_s in sums.itertuples(index=False)
    ]


def _spread(values: "pd.Series[float]") -> float | None:
    """Return the interquartile range, or nothing for a single value."""
    return float(np.subtract(*np.percentile(values, [75, 25]))) if len(values) > 1 else None


def _wall_s(stages: pd.DataFrame, phase: str, epoch: int | None = None) -> float:
    chosen = stages[stages["phase"] == phase]
    return float((chosen if epoch is None else chosen[chosen["epoch"] == epoch])["exposed_s"].sum())


def time_metrics(stages: Path, epochs: Path, extent: Extent) -> list[Metric]:
    """Return the metrics of time: per epoch, of the whole training, windows per second."""
    stage_rows, epoch_rows = pd.read_csv(stages), pd.read_csv(epochs)
    if extent.measured_steps is not None:
        return _estimated_times(stage_rows, epoch_rows, extent)
    counted = epoch_rows[~epoch_rows["profiled"]]
    train_wall_s = stage_rows[stage_rows["phase"] == "train"].groupby("epoch")["exposed_s"].sum()
    rates = counted["windows"] / counted["epoch"].map(train_wall_s)
    training_s = _wall_s(stage_rows, "train") + _wall_s(stage_rows, "validation")
    return [
        _median("time_per_epoch", counted["wall_s"], "s"),
        Metric(name="training_time", value=training_s, unit="s", n=1, tag="measured"),
        _median("windows_per_second", rates, "1/s"),
    ]


def _median(name: str, values: "pd.Series[float]", unit: str) -> Metric:
    number = float(values.median())
    return Metric(name=name, value=number, unit=unit, n=len(values), spread=_spread(values), tag="measured")  # type: ignore[arg-type]


def _estimated_times(stages: pd.DataFrame, epochs: pd.DataFrame, extent: Extent) -> list[Metric]:
    """Extend the measured steps to a whole epoch: so many more of the same, and of validation likewise.

    What an epoch does once, drawing its windows and writing checkpoints, is counted once.
    """
    steps = len(extent.step_ns)
    validation_steps = min(extent.validation_steps_per_epoch, extent.measured_steps or steps)
    train_s, validation_s = _wall_s(stages, "train", 1), _wall_s(stages, "validation", 1)
    saving = stages[(stages["stage"] == "checkpoint") & (stages["epoch"] == 1)].groupby("phase")["exposed_s"].sum()
    train_once_s = saving.get("train", 0.0) + extent.draw_ns / 1e9
    validation_once_s = saving.get("validation", 0.0)
    whole_s = (
        train_once_s
        + (train_s - train_once_s) / steps * extent.steps_per_epoch
        + validation_once_s
        + (validation_s - validation_once_s) / validation_steps * extent.validation_steps_per_epoch
    )
    spread_s = _spread(pd.Series(extent.step_ns, dtype=float) / 1e9)
    return [
        Metric(
            name="time_per_epoch",
            value=whole_s,
            unit="s",
            n=steps,
            spread=None if spread_s is None else spread_s * extent.steps_per_epoch,
            tag="estimated",
        ),
        _unavailable("training_time", "s", "not trained to the stopping rule (training.measured_steps)"),
        Metric(
            name="windows_per_second",
            value=float(epochs["windows"][0]) / (train_s - train_once_s),
            unit="1/s",
            n=steps,
            tag="measured",
        ),
    ]


def _unavailable(name: str, unit: str, reason: str) -> Metric:
    return Metric(name=name, value=None, unit=unit, tag="unavailable", reason=reason)  # type: ignore[arg-type]


def once_metrics(stages: Path, images: dict[str, tuple[int, int]]) -> list[Metric]:
    """Return the times of calibration and evaluation, extended to all images where only some were used.

    The checkpoint that calibration begins with is counted once.

    Args:
        stages: the cell's `stages.csv`.
        images: for each of the two phases, images used and images there are.

    """
    rows = pd.read_csv(stages)
    return [
        Metric(
            name=f"{phase}_time",
            value=_extended_s(rows[rows["phase"] == phase], whole / used),
            unit="s",
            n=used,
            tag="measured" if used == whole else "estimated",
        )
        for phase, (used, whole) in images.items()
    ]


def _extended_s(rows: pd.DataFrame, factor: float) -> float:
    once_s = float(rows.loc[rows["stage"] == "checkpoint", "exposed_s"].sum())
    return once_s + (float(rows["exposed_s"].sum()) - once_s) * factor


def score_metrics(scores: Scores | None, images: int, reason: str) -> list[Metric]:
    """Return the scores, or say why there are none."""
    if scores is None:
        return [_unavailable(name, "%", reason) for name in Scores._fields]
    return [
        Metric(name=name, value=value, unit="%", n=images, tag="measured") for name, value in scores._asdict().items()
    ]


def other_metrics(parameters: int, peak_bytes: int | None, best_epoch: int | None) -> list[Metric]:
    """Return the remaining metrics of `results.csv`."""
    return [
        Metric(name="best_epoch", value=best_epoch, unit="epoch", n=1, tag="measured")
        if best_epoch is not None
        else _unavailable("best_epoch", "epoch", "not trained to the stopping rule (training.measured_steps)"),
        Metric(name="peak_memory", value=peak_bytes, unit="bytes", n=1, tag="measured")
        if peak_bytes is not None
        else _unavailable("peak_memory", "bytes", "this system does not tell a process's peak memory"),
        _unavailable("energy_per_epoch", "J", ENERGY_UNAVAILABLE),
        _unavailable("training_energy", "J", ENERGY_UNAVAILABLE),
        Metric(name="parameters", value=parameters, unit="count", n=1, tag="measured"),
    ]
