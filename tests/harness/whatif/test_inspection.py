"""An evaluation less its maps or its scores: what is skipped is not run, what is left is."""

from pathlib import Path
from typing import Any

import pytest
import torch

from harness import evaluation as evaluating
from harness.cells import Cell
from harness.config import build
from harness.dataset import LabelledImage, read_category
from harness.decoding import Decoder
from harness.interrupt import Interrupt
from harness.pipelines.table import PIPELINES
from harness.progress import Reporter
from harness.whatif import inspection
from harness.whatif.inspection import evaluation, one_of_each
from harness.whatif.subject import Subject
from profiles.stages import Stage
from profiles.turns import Extent
from tests.harness.conftest import tiny_table


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of what is run of an evaluation."""
    names: list[str] = []
    for module, name in ((evaluating, "difference"), (inspection, "score")):
        function = getattr(module, name)

        def noted(*arguments: Any, name: str = name, function: Any = function) -> Any:
            names.append(name)
            return function(*arguments)

        monkeypatch.setattr(module, name, noted)
    return names


def inspect(root: Path, labels: list[LabelledImage], skipped: Stage | None) -> None:
    config, paths = build(tiny_table(root), "tiny"), read_category(root, "weave").train
    decoder = Decoder(None, Reporter(), Interrupt(), threads=1)
    subject = Subject(Cell("weave", "msa", "fast", 0), config, paths, torch.device("cpu"), decoder, Extent(1, 1))
    with evaluation(subject, PIPELINES["fast"], labels, skipped)() as step:
        step()


@pytest.mark.parametrize(
    ("skipped", "left"),
    [
        (None, ["difference", "difference", "score"]),
        ("anomaly_map", ["score"]),
        ("scoring", ["difference", "difference"]),
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


def test_what_cannot_be_told_apart_is_not_scored(generated: Path, run: list[str]) -> None:
    inspect(generated, [label for label in read_category(generated, "weave").test if label.mask is None], None)
    assert "score" not in run
