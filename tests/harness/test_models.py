"""A real run of every model, on either backend, with and without rescaled maps."""

import sys
from pathlib import Path
from typing import Any, get_args

import pytest

from harness.config import ModelName, RunConfig, build
from harness.directory import RunDirectory
from harness.launch import Outcome, start
from models.attention.table import VARIANTS
from profiles.errors import ConfigError
from profiles.record import CellRecord, read_model
from tests.harness.conftest import tiny_table


def run_of(root: Path, models: list[str], *, model: dict[str, Any] | None = None, **evaluation: Any) -> RunConfig:
    table = tiny_table(root, max_epochs=2)
    table |= {"models": models, "data": {**table["data"], "categories": ["weave"]}}
    table["model"] |= model or {}
    table["evaluation"] |= evaluation
    return build(table, "tiny")


def records(outcome: Outcome) -> dict[str, CellRecord]:
    folder = RunDirectory(outcome.directory)
    return {cell.model: read_model(CellRecord, folder.cell(cell.name).record) for cell in outcome.cells}


def values(record: CellRecord) -> dict[str, float | None]:
    return {metric.name: metric.value for metric in record.metrics}


@pytest.fixture(scope="module")
def all_five(generated: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return start(run_of(generated, list(VARIANTS)), tmp_path_factory.mktemp("five") / "run")


def test_every_model_is_trained_calibrated_and_scored(all_five: Outcome) -> None:
    assert all_five.failed == 0
    assert records(all_five).keys() == VARIANTS.keys()
    for record in records(all_five).values():
        found = values(record)
        for name in ("segmentation_auroc", "detection_auroc", "aupro_30", "average_precision"):
            assert 0 <= (found[name] or 0) <= 100, name
    parameters = [values(record)["parameters"] for record in records(all_five).values()]
    assert len(set(parameters)) == 4  # msa and mlsa have the same


def test_no_two_models_give_the_same_numbers(all_five: Outcome) -> None:
    losses = {record.best_validation_loss for record in records(all_five).values()}
    assert len(losses) == len(VARIANTS)


def test_the_librarys_backend_gives_the_numbers_of_ours(all_five: Outcome, generated: Path, tmp_path: Path) -> None:
    theirs = start(
        run_of(generated, ["msa", "mlsa"], model={"attention_backend": "fast-transformers"}), tmp_path / "run"
    )
    assert theirs.failed == 0
    assert 'attention_backend = "fast-transformers"' in RunDirectory(theirs.directory).config.read_text()
    for name, record in records(theirs).items():
        ours = records(all_five)[name]
        assert record.best_validation_loss == pytest.approx(ours.best_validation_loss, rel=1e-4)
        for theirs_image, ours_image in zip(record.image_scores, ours.image_scores, strict=True):
            assert theirs_image.score == pytest.approx(ours_image.score, rel=1e-2, abs=1e-6)


def test_a_model_without_the_backend_is_refused(generated: Path) -> None:
    with pytest.raises(ConfigError) as error:
        run_of(generated, ["msa", "intra"], model={"attention_backend": "fast-transformers"})
    assert "model intra without model.attention_backend 'fast-transformers', which only msa, mlsa have" in str(
        error.value
    )


def test_without_the_library_its_backend_is_refused_before_anything_is_written_and_the_target_named(
    generated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fast_transformers.attention", None)
    config = run_of(generated, ["msa"], model={"attention_backend": "fast-transformers"})
    with pytest.raises(ConfigError, match=r"weave/msa-fast/seed0: got .*; fix: make fast-transformers, or ") as error:
        start(config, tmp_path / "run")
    assert error.value.exit_code == 2
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()
    assert start(run_of(generated, ["msa"]), tmp_path / "native").failed == 0


def test_rescaling_maps_changes_their_scores_and_nothing_of_the_training(
    all_five: Outcome, generated: Path, tmp_path: Path
) -> None:
    rescaled = records(start(run_of(generated, ["msa"], rescale_maps=True), tmp_path / "run"))["msa"]
    plain = records(all_five)["msa"]
    assert rescaled.best_validation_loss == plain.best_validation_loss
    assert max(image.score for image in rescaled.image_scores) <= 1  # a square of a difference of two such maps
    assert {image.score for image in rescaled.image_scores}.isdisjoint(image.score for image in plain.image_scores)


def test_the_table_of_variants_holds_the_models_that_a_configuration_can_name() -> None:
    assert tuple(VARIANTS) == get_args(ModelName)
