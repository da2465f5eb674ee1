"""From a cell's tables to the numbers of its record."""

from collections.abc import Iterable
from typing import NamedTuple

import pandas as pd

from harness.directory import CellDirectory
from harness.scores import Floats, Masks, Scores, detection_auroc
from profiles.record import EnergyRow, Metric
from profiles.spread import spread


class Extent(NamedTuple):
    """A whole epoch, whether or not one was run, and what was run of it.

    `start_ns` is what the loader's start adds to an epoch; no measured step holds it. Of validation's steps,
    *validation_lead* were fetched before any was asked for and took `validation_lead_ns`.
    """

    steps_per_epoch: int
    validation_steps_per_epoch: int
    measured_steps: int | None
    step_ns: list[int]
    draw_ns: int
    start_ns: int = 0
    validation_steps: int = 0
    validation_lead: int = 0
    validation_lead_ns: int = 0


class Tables(NamedTuple):
    """A finished cell's tables, as its folder has them."""

    stages: pd.DataFrame
    epochs: pd.DataFrame
    phases: pd.DataFrame
    loader: pd.DataFrame
    energy: pd.DataFrame

    @classmethod
    def read(cls, folder: CellDirectory, beside: Iterable[CellDirectory] = ()) -> "Tables":
        """Read them, once; of the ranks *beside*, the energy of devices that are not this one's."""
        tables = cls._of(folder)
        energy = tables.energy
        for other in (cls._of(each).energy for each in beside):
            energy = pd.concat([energy, other[~other["device"].isin(energy["device"])]])
        return tables._replace(energy=energy)

    @classmethod
    def _of(cls, folder: CellDirectory) -> "Tables":
        paths = (folder.stages, folder.epochs, folder.phases, folder.loader, folder.energy)
        return cls(*(pd.read_csv(path) for path in paths))

    def lost_epochs(self, epochs: int) -> list[int]:
        """Return which of the *epochs* that were trained lack a row of the epoch, or of a phase or its stages."""
        whole = set(self.epochs["epoch"])
        for rows in (self.phases, self.stages):
            for phase in ("train", "validation"):
                whole &= set(rows.loc[rows["phase"] == phase, "epoch"])
        return [epoch for epoch in range(1, epochs + 1) if epoch not in whole]

    def counted(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Keep the rows of the epochs that count: not epoch 0 and, in training, none with steps looked at closely."""
        profiled = self.epochs.loc[self.epochs["profiled"], "epoch"]
        in_training = rows["phase"].isin(["train", "validation"])
        return rows[(rows["epoch"] > 0) & ~(in_training & rows["epoch"].isin(profiled))]

    def counted_epochs(self) -> pd.DataFrame:
        """Return the epochs that count."""
        return self.epochs[~self.epochs["profiled"]]

    def energy_rows(self, *, counted: bool = False) -> list[EnergyRow]:
        """Return the rows of energy, of all epochs or of those that count; the unknown is None, or an empty text."""
        frame = self.counted(self.energy) if counted else self.energy
        plain = frame.astype(object).where(frame.notna(), None)
        rows = [EnergyRow(*row) for row in plain.itertuples(index=False)]
        return [row._replace(reason=row.reason or "", caveats=row.caveats or "") for row in rows]

    def wall_s(self, phase: str, epoch: int | None = None) -> float:
        """Return the wall time of a phase, of one epoch or of all, epoch 0 included."""
        chosen = self.phases[self.phases["phase"] == phase]
        return float((chosen if epoch is None else chosen[chosen["epoch"] == epoch])["wall_s"].sum())


def time_metrics(tables: Tables, extent: Extent) -> list[Metric]:
    """Return the metrics of time: per epoch, of the whole training, windows per second."""
    if extent.measured_steps is not None:
        return _estimated_times(tables, extent)
    counted = tables.counted_epochs()
    train_wall_s = tables.phases[tables.phases["phase"] == "train"].set_index("epoch")["wall_s"]
    rates = counted["windows"] / counted["epoch"].map(train_wall_s)
    training_s = tables.wall_s("train") + tables.wall_s("validation")
    return [
        _median("time_per_epoch", counted["wall_s"], "s"),
        Metric(name="training_time", value=training_s, unit="s", n=1, tag="measured"),
        _median("windows_per_second", rates, "1/s"),
    ]


def _median(name: str, values: "pd.Series[float]", unit: str) -> Metric:
    number = float(values.median())
    return Metric(name=name, value=number, unit=unit, n=len(values), spread=spread(values), tag="measured")  # type: ignore[arg-type]


def _estimated_times(tables: Tables, extent: Extent) -> list[Metric]:
    """Extend the measured steps to a whole epoch: so many more of the same, and of validation likewise.

    What an epoch does once, drawing its windows, starting its loader and writing checkpoints, is counted once.
    """
    steps = len(extent.step_ns)
    stages = tables.stages
    train_s, validation_s = tables.wall_s("train", 1), tables.wall_s("validation", 1)
    saving = stages[(stages["stage"] == "checkpoint") & (stages["epoch"] == 1)].groupby("phase")["exposed_s"].sum()
    train_once_s = saving.get("train", 0.0) + extent.draw_ns / 1e9
    whole_s = (
        train_once_s
        + extent.start_ns / 1e9
        + (train_s - train_once_s) / steps * extent.steps_per_epoch
        + _whole_validation_s(validation_s, saving.get("validation", 0.0), extent)
    )
    step_spread_s = spread([step_ns / 1e9 for step_ns in extent.step_ns])
    return [
        Metric(
            name="time_per_epoch",
            value=whole_s,
            unit="s",
            n=steps,
            spread=None if step_spread_s is None else step_spread_s * extent.steps_per_epoch,
            tag="estimated",
        ),
        unavailable("training_time", "s", "not trained to the stopping rule (training.measured_steps)"),
        Metric(
            name="windows_per_second",
            value=float(tables.epochs["windows"][0]) / (train_s - train_once_s),
            unit="1/s",
            n=steps,
            tag="measured",
        ),
    ]


def _whole_validation_s(wall_s: float, saving_s: float, extent: Extent) -> float:
    """Extend validation to all its steps: the last ones stand for those that were not run."""
    missing = extent.validation_steps_per_epoch - extent.validation_steps
    if missing == 0:
        return wall_s
    last_s = wall_s - saving_s - extent.validation_lead_ns / 1e9
    return wall_s + last_s / (extent.validation_steps - extent.validation_lead) * missing


def unavailable(name: str, unit: str, reason: str) -> Metric:
    """Return a metric that has no value, and why."""
    return Metric(name=name, value=None, unit=unit, tag="unavailable", reason=reason)  # type: ignore[arg-type]


def once_metrics(tables: Tables, images: dict[str, tuple[int, int]]) -> list[Metric]:
    """Return the times of calibration and evaluation, extended to all images where only some were used.

    The checkpoint that calibration begins with is counted once.

    Args:
        tables: the cell's.
        images: for each of the two phases, images used and images there are.

    """
    rows = tables.stages
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


def calibration_of_every_window(tables: Tables, images: tuple[int, int], windows_per_image: int) -> Metric:
    """Extend the calibration to a list that holds each image once for each window, as the published program's did.

    Args:
        tables: the cell's.
        images: images used and images there are.
        windows_per_image: of an epoch.

    """
    used, whole = images
    rows = tables.stages[tables.stages["phase"] == "calibration"]
    whole_s = _extended_s(rows, whole / used * windows_per_image)
    return Metric(name="calibration_time_every_window", value=whole_s, unit="s", n=used, tag="estimated")


def _extended_s(rows: pd.DataFrame, factor: float) -> float:
    once_s = float(rows.loc[rows["stage"] == "checkpoint", "exposed_s"].sum())
    return once_s + (float(rows["exposed_s"].sum()) - once_s) * factor


def decoding_metrics(decoded: int, from_cache: int) -> list[Metric]:
    """Return how many images were decoded, and how many the cache had, where each is loaded once."""
    counts = {"images_decoded": decoded, "images_from_cache": from_cache}
    if not decoded + from_cache:
        return [unavailable(name, "count", "the pipeline decodes an image for every window of it") for name in counts]
    return [Metric(name=name, value=value, unit="count", n=1, tag="measured") for name, value in counts.items()]


def score_metrics(scores: Scores | None, images: int, reason: str) -> list[Metric]:
    """Return the scores, or say why there are none."""
    if scores is None:
        return [unavailable(name, "%", reason) for name in Scores._fields]
    return [
        Metric(name=name, value=value, unit="%", n=images, tag="measured") for name, value in scores._asdict().items()
    ]


def other_detection(largest_i: Floats, defective_i: Masks, reason: str, *, rescaled: bool) -> Metric:
    """Return the detection AUROC under the other setting of `evaluation.rescale_maps`, or say why there is none.

    Args:
        largest_i: largest value of each image's map under that setting.
        defective_i: which images are defective.
        reason: against scoring; empty where there is none.
        rescaled: whether the cell's own maps are.

    """
    name = "detection_auroc_not_rescaled" if rescaled else "detection_auroc_rescaled"
    if reason:
        return unavailable(name, "%", reason)
    return Metric(name=name, value=detection_auroc(largest_i, defective_i), unit="%", n=len(largest_i), tag="measured")


def other_metrics(parameters: int, peak_bytes: int | None, best_epoch: int | None) -> list[Metric]:
    """Return the remaining metrics of `results.csv`."""
    return [
        Metric(name="best_epoch", value=best_epoch, unit="epoch", n=1, tag="measured")
        if best_epoch is not None
        else unavailable("best_epoch", "epoch", "not trained to the stopping rule (training.measured_steps)"),
        Metric(name="peak_memory", value=peak_bytes, unit="bytes", n=1, tag="measured")
        if peak_bytes is not None
        else unavailable("peak_memory", "bytes", "this system does not tell a process's peak memory"),
        Metric(name="parameters", value=parameters, unit="count", n=1, tag="measured"),
    ]
