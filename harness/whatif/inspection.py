"""A cell's evaluation, less its anomaly maps or its scores. A step inspects one good test image and one defective."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from rich.console import Console
from torch import Tensor

from harness.dataset import GOOD, LabelledImage
from harness.evaluation import Evaluated, Reconstructor, evaluate
from harness.interrupt import Interrupt
from harness.pipelines.parts import Loaded, Pipeline, as_floats, joined
from harness.progress import Reporter
from harness.result import why_unscored
from harness.scores import score
from harness.whatif.subject import Subject, as_it_was, exchanged
from profiles.stages import Stage, stage
from profiles.turns import Opened, Step

SKIPPED: tuple[Stage, ...] = ("anomaly_map", "scoring")


class Unmapped(Reconstructor):
    """Paints, and hands on the image itself for what it would have found."""

    @torch.no_grad()
    def compare(self, loaded: Loaded) -> tuple[Tensor, Tensor]:
        """Return the image (1, C, H, W) and its brightness (1, H, W)."""
        self.pipeline.paint(loaded, self.model, self.pipeline.cut, self.loss, self.batch_size)
        original_ichw = as_floats(joined(loaded.images_irqcss))
        return original_ichw, original_ichw.mean(dim=1)


def one_of_each(images: Sequence[LabelledImage]) -> list[LabelledImage]:
    """Choose the first good image and the first defective one, as far as there are such."""
    first: dict[bool, LabelledImage] = {}
    for image in images:
        first.setdefault(image.defect == GOOD, image)
    return list(first.values())


def evaluation(
    subject: Subject, pipeline: Pipeline, labels: Sequence[LabelledImage], skipped: Stage | None = None
) -> Opened:
    """Return the evaluation of *labels* by *pipeline*, with one of `SKIPPED` left out or none."""
    return partial(_opened, subject, pipeline, labels, skipped)


@contextmanager
def _opened(
    subject: Subject, pipeline: Pipeline, labels: Sequence[LabelledImage], skipped: Stage | None
) -> Iterator[Step]:
    model, loss = subject.model(pipeline.attention), subject.loss(pipeline)
    images = subject.images(pipeline, [label.path for label in labels])
    kind = Unmapped if skipped == "anomaly_map" else Reconstructor
    quiet = Reporter(Console(quiet=True, force_terminal=False))
    batch_size, rescaled = subject.config.training.batch_size, subject.config.evaluation.rescale_maps
    reconstructor = kind(model, pipeline, loss, batch_size, rescaled, quiet, Interrupt())
    mean_hw = torch.zeros(images.form.side, images.form.side, device=subject.device)

    def step() -> None:
        evaluated = evaluate(reconstructor, images, labels, mean_hw)
        if skipped != "scoring":
            with stage("scoring"):
                _score(evaluated)

    with pipeline.memory(), as_it_was(model, subject.device), exchanged(model, "gather", pipeline.gather):
        yield step


def _score(evaluated: Evaluated) -> None:
    """Score the maps, unless there is a reason against it."""
    if not why_unscored(evaluated, len(evaluated.images)):
        score(evaluated.maps_ihw, evaluated.masks_ihw, evaluated.defective_i)
