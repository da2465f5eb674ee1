"""The thesis's tables."""

import csv
from pathlib import Path
from statistics import fmean

import pytest

from reports.claims.alone import checks
from reports.claims.pairs import by_category, geometric_mean, log_ratio, published_pairs
from reports.rows.claims import CheckRow
from reports.source.published import categories, facts, image_side, published


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


def test_the_facts_are_those_that_the_harness_works_with() -> None:
    path = Path(__file__).parents[2] / "harness" / "mvtec_ad.csv"
    theirs = {row["category"]: row for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines())}
    ours = {name: tuple(map(str, known)) for name, known in facts().items()}
    assert ours == {n: (r["kind"], r["train_good"], r["stored_side"], r["channels"]) for n, r in theirs.items()}


def found(check: str) -> CheckRow:
    return next(row for row in checks() if row.check == check)


@pytest.mark.parametrize(
    ("check", "computed", "digits"),
    [
        ("stored_msa", 77, 0),
        ("read_msa", 1, 0),
        ("gpu_hours", 5756, 0),
        ("time_ratio", 1.07, 2),
        ("all_average_msa_segmentation", 77.57, 2),
        ("all_average_msa_detection", 68.91, 1),
        ("all_average_mlsa_segmentation", 80.04, 2),
        ("all_average_mlsa_detection", 71.28, 2),
        ("training_times_fit", 28, 0),
        ("slower_in", 11, 0),
        ("intra_carpet", 99.1, 1),
        ("side_pill", 512, 0),
        ("learning_rate", 1e-4, 5),
    ],
)
def test_the_tables_say_by_themselves(check: str, computed: float, digits: int) -> None:
    assert found(check).computed == pytest.approx(computed, abs=0.51 * 10**-digits)


def test_what_was_misprinted_differs_and_what_was_not_agrees() -> None:
    verdicts = {row.check: row.verdict for row in checks()}
    wrong = {name for name, verdict in verdicts.items() if verdict == "differs"}
    assert wrong >= {
        f"all_average_{model}_{task}" for model in ("msa", "mlsa") for task in ("segmentation", "detection")
    }
    assert wrong >= {
        "training_times_fit",
        "slower_in",
        "fewer_epochs_in",
        "at_least_7",
        "intra_carpet",
        "side_pill",
        "learning_rate",
    }
    assert verdicts["texture_average_mlsa_detection"] == verdicts["one_epoch_carpet"] == "agrees"
    assert found("training_times_fit").detail.endswith("carpet MLSA (+21.5\u00a0%) and cable MLSA (+8.4\u00a0%).")
