"""What the thesis published, read from its tables; a number measured here stands beside its own.

Table 5.1 holds AUROC in percent, table 5.2 times measured on an RTX 2080 Ti, table 5.3 the Inpainting
Transformer's AUROC as the thesis quotes it. Averages are computed where they are needed: the printed ones are
wrong.
"""

import csv
import math
from functools import cache
from importlib import resources
from typing import NamedTuple

HARDWARE = "RTX 2080 Ti"


class Published(NamedTuple):
    """One published number, in the unit of the metric it stands beside, and the table it is from."""

    value: float
    source: str


@cache
def published(category: str, model: str, metric: str) -> Published | None:
    """Return what was published for this cell and metric; None where nothing was."""
    return _table().get((category, model, metric))


@cache
def categories() -> tuple[str, ...]:
    """Return the categories of table 5.1, in its order."""
    return tuple(row["category"] for row in _rows("thesis_table_5_1_auroc.csv"))


@cache
def image_side(category: str) -> int | None:
    """Return the side to which the thesis resized this category's images, in pixels."""
    sides = {row["category"]: int(row["image_size"]) for row in _rows("thesis_table_5_1_auroc.csv")}
    return sides.get(category)


class Facts(NamedTuple):
    """What MVTec AD holds of one category: good training images, and the side and channels of the stored files."""

    kind: str
    train_good: int
    stored_side: int
    channels: int

    @property
    def stored_values(self) -> float:
        """Millions of values to decode from one stored image: megapixels times channels."""
        return self.stored_side**2 * self.channels / 1e6

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch: 600 windows of each image that is not held out, in batches of 256."""
        return math.ceil(600 * (self.train_good - min(20, self.train_good // 10)) / 256)


@cache
def facts() -> dict[str, Facts]:
    """Return the facts of the 15 categories."""
    return {
        row["category"]: Facts(row["kind"], int(row["train_good"]), int(row["image_side_px"]), int(row["channels"]))
        for row in _rows("mvtec_ad_facts.csv")
    }


@cache
def _table() -> dict[tuple[str, str, str], Published]:
    return _auroc() | _times() | _intra()


def _auroc() -> dict[tuple[str, str, str], Published]:
    return {
        (row["category"], model, f"{task}_auroc"): Published(float(row[f"{model}_{task}"]), "table 5.1")
        for row in _rows("thesis_table_5_1_auroc.csv")
        for model in ("msa", "mlsa")
        for task in ("segmentation", "detection")
    }


def _times() -> dict[tuple[str, str, str], Published]:
    return {
        (row["category"], model, metric): Published(read(row[f"{model}_{metric}"]), "table 5.2")
        for row in _rows("thesis_table_5_2_time.csv")
        for model in ("msa", "mlsa")
        for metric, read in (("best_epoch", float), ("time_per_epoch", _seconds), ("training_time", _seconds))
    }


def _intra() -> dict[tuple[str, str, str], Published]:
    return {
        (row["category"], "intra", f"{task}_auroc"): Published(float(row[task]), "table 5.3")
        for row in _rows("thesis_table_5_3_intra.csv")
        for task in ("segmentation", "detection")
    }


def _rows(name: str) -> list[dict[str, str]]:
    text = resources.files("reports.data").joinpath(name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def _seconds(clock: str) -> float:
    hours, minutes, seconds = clock.split(":")
    return 3600.0 * int(hours) + 60.0 * int(minutes) + float(seconds)
