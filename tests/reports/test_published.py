"""The thesis's tables."""

from statistics import fmean

import pytest

from reports.claims.pairs import by_category, geometric_mean, log_ratio, published_pairs
from reports.source.published import categories, image_side, published


def test_a_published_time_is_in_seconds() -> None:
    found = published("carpet", "msa", "time_per_epoch")
    assert found is not None
    assert found == (58 * 60 + 5, "table 5.2")


def test_averages_are_computed_and_not_the_printed_ones() -> None:
    found = [published(name, "msa", "segmentation_auroc") for name in categories()]
    assert fmean(entry.value for entry in found if entry) == pytest.approx(77.57, abs=0.005)


def test_the_thesis_has_mlsa_slower_in_11_of_15_by_7_percent() -> None:
    effects = by_category(published_pairs("time_per_epoch", "msa", "mlsa"), log_ratio)
    assert geometric_mean(list(effects.values())) == pytest.approx(1.07, abs=0.005)
    assert sum(effect > 0.0 for effect in effects.values()) == 11
    assert len(effects) == 15


def test_nothing_is_published_for_other_categories_and_models() -> None:
    assert published("striped", "msa", "time_per_epoch") is None
    assert published("carpet", "linformer", "segmentation_auroc") is None
    assert image_side("striped") is None
    assert image_side("pill") == 320
