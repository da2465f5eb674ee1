"""An evaluation less its maps or its scores: what is skipped is not run, what is left is."""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch

from harness import evaluation as evaluating
from harness.cells import Cell
from harness.config import build
from harness.dataset import LabelledImage, read_category
from harness.decoding import Decoder
from harness.interrupt import Interrupt
from harness.pipelines import fast, thesis
from harness.pipelines.table import PIPELINES
from harness.progress import Reporter
from harness.whatif import inspection
from harness.whatif.inspection import SKIPPED, evaluation, has_both_kinds, one_of_each
from harness.whatif.subject import Subject
from profiles.stages import Stage
from profiles.turns import Extent, compare, gain
from tests.harness.conftest import tiny_table


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of what is run of an evaluation."""
    names: list[str] = []
    for module, name in ((evaluating, "difference"), (evaluating, "anomaly_map"), (inspection, "score")):
        function = getattr(module, name)

        def noted(*arguments: Any, name: str = name, function: Any = function) -> Any:
            names.append(name)
            return function(*arguments)

        monkeypatch.setattr(module, name, noted)
    return names


def subject_of(root: Path) -> Subject:
    table = tiny_table(root)
    table["data"] |= {"workers": 1}
    table["model"] |= {"attention_backend": "native"}
    paths = read_category(root, "weave").train
    decoder = Decoder(None, Reporter(), Interrupt(), threads=1)
    cell = Cell("weave", "msa", "fast", 0)
    return Subject(cell, build(table, "tiny"), paths, torch.device("cpu"), decoder, Extent(1, 1))


def inspect(root: Path, labels: list[LabelledImage], skipped: Stage | None) -> None:
    with evaluation(subject_of(root), PIPELINES["fast"], labels, skipped)() as step:
        step()


@pytest.mark.parametrize(
    ("skipped", "left"),
    [
        (None, [*["difference", "anomaly_map"] * 2, "score"]),
        ("anomaly_map", ["score"]),
        ("scoring", ["difference", "anomaly_map"] * 2),
    ],
)
def test_what_is_skipped_is_not_run_and_the_rest_is(
    generated: Path, run: list[str], skipped: Stage | None, left: list[str]
) -> None:
    inspect(generated, one_of_each(read_category(generated, "weave").test), skipped)
    assert run == left


def test_a_good_image_and_a_defective_one_are_inspected_as_far_as_there_are_such() -> None:
    kinds = {name: LabelledImage(Path(name), name, None) for name in ("crack", "good", "hole")}
    assert [image.defect for image in one_of_each([kinds["crack"], kinds["hole"], kinds["good"]])] == ["crack", "good"]
    assert one_of_each([kinds["good"]]) == [kinds["good"]]
    assert has_both_kinds([kinds["good"], kinds["hole"]])
    assert not has_both_kinds([kinds["crack"], kinds["hole"]])
    assert not has_both_kinds([kinds["good"]])


def test_what_cannot_be_told_apart_is_not_scored(generated: Path, run: list[str]) -> None:
    inspect(generated, [label for label in read_category(generated, "weave").test if label.mask is None], None)
    assert "score" not in run


LOADING_S, PAINTING_S, SCORING_S = 0.35, 0.08, 0.15
MAPPING_S = {"difference": 0.07, "anomaly_map": 0.05}


def slowly(function: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    def run(*arguments: Any) -> Any:
        time.sleep(seconds)
        return function(*arguments)

    return run


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.parametrize(
    ("pipeline", "mapping_s"),
    [
        pytest.param("fast", 2 * sum(MAPPING_S.values()), id="one after the other"),
        pytest.param("thesis", sum(MAPPING_S.values()), id="the first image's map hides behind loading the second"),
    ],
)
def test_ceilings_of_an_evaluation_whose_parts_sleep_are_right_within_3_percent(
    generated: Path, monkeypatch: pytest.MonkeyPatch, pipeline: str, mapping_s: float
) -> None:
    for name, seconds in MAPPING_S.items():
        monkeypatch.setattr(evaluating, name, slowly(getattr(evaluating, name), seconds))
    monkeypatch.setattr(inspection, "score", slowly(inspection.score, SCORING_S))
    monkeypatch.setattr(thesis, "read_image", slowly(thesis.read_image, LOADING_S))
    asleep = PIPELINES[pipeline]._replace(paint=slowly(fast.paint_in_batches, PAINTING_S), attention="native")
    subject, labels = subject_of(generated), one_of_each(read_category(generated, "weave").test)
    ways = {"full": evaluation(subject, asleep, labels)}
    ways |= {name: evaluation(subject, asleep, labels, name) for name in SKIPPED}
    found = compare(ways, Extent(1, 1), lambda: None, precision=0.005, limit_s=12.0)
    step_s = median(found.times_ns["full"]) / 1e9
    assert gain(found.ratios["anomaly_map"]).value == pytest.approx(mapping_s / step_s, abs=0.03)
    assert gain(found.ratios["scoring"]).value == pytest.approx(SCORING_S / step_s, abs=0.03)
