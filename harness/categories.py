"""What is published of the categories: kind, counts, the thesis's image side; and of the generated ones."""

import csv
from functools import cache
from importlib import resources
from typing import NamedTuple

from harness.synthesize import GENERATED


class CategoryFacts(NamedTuple):
    """One row of `mvtec_ad.csv`; `image_side` is the model's input side in the thesis (its table 5.1), pixels."""

    category: str
    kind: str
    train_good: int
    test_good: int
    test_defective: int
    defect_types: int
    stored_side: int
    channels: int
    image_side: int


@cache
def mvtec_ad() -> dict[str, CategoryFacts]:
    """Return the 15 categories of MVTec AD by name."""
    text = resources.files("harness").joinpath("mvtec_ad.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines())
    return {
        row["category"]: CategoryFacts(
            row["category"], row["kind"], *(int(row[key]) for key in CategoryFacts._fields[2:])
        )
        for row in rows
    }


def kind_of(category: str) -> str:
    """Return `texture` or `object`; `other` for a category that is neither MVTec AD's nor generated."""
    facts = mvtec_ad().get(category)
    return facts.kind if facts else GENERATED.get(category, "other")
