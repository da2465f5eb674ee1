"""A cell's evaluation, less its anomaly maps or its scores. A step inspects one good test image and one defective."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial

import torch
from rich.console import Console
from torch import Tensor

from harness.dataset import GOOD, LabelledImage
from harness.evaluation import Evaluated, Reconstructor, evaluate
from harness.images import read_mask
from harness.interrupt import Interrupt
from harness.pipelines.parts import Images, Pipeline, as_floats, joined
from harness.progress import Reporter
from harness.result import why_unscored
from harness.samples import Samples
from harness.scores import score
from harness.whatif.subject import Subject, as_it_was, exchanged
from profiles.stages import Stage, stage
from profiles.turns import Opened, Step

SKIPPED: dict[Stage, str] = {"anomaly_map": "skipped, but for joining what was painted", "scoring": "skipped"}
"""By stage: in words, what is left of it."""


@torch.no_grad()
def paint_all(reconstructor: Reconstructor, images: Images, labels: Sequence[LabelledImage]) -> None:
    """Do what an evaluation does but for its maps: load and paint the images, load their masks."""
    with closing(images.each()) as deliveries:
        for label, loaded in zip(labels, deliveries, strict=True):
            _mask(label, images.form.side)
            model, cut = reconstructor.model, reconstructor.pipeline.cut
            reconstructor.pipeline.paint(loaded, model, cut, reconstructor.loss, reconstructor.batch_size)


def brightness(images: Images, labels: Sequence[LabelledImage]) -> Evaluated:
    """Return the images' brightness in the place of their maps, so that there is something to score."""
    side = images.form.side
    with closing(images.each()) as deliveries:
        originals_ichw = torch.cat([as_floats(joined(loaded.images_irqcss)) for loaded in deliveries]).cpu()
    masks_ihw = torch.stack([_mask(label, side) for label in labels])
    maps_ihw, largest_i = originals_ichw.mean(dim=1).numpy(), originals_ichw.amax(dim=(1, 2, 3)).numpy()
    return Evaluated(tuple(labels), maps_ihw, masks_ihw.numpy(), Samples(labels, 0), largest_i)


def _mask(label: LabelledImage, side: int) -> Tensor:
    if label.mask is None:
        return torch.zeros(side, side, dtype=torch.bool)
    with stage("data_loading"):
        return read_mask(label.mask, side)


def one_of_each(images: Sequence[LabelledImage]) -> list[LabelledImage]:
    """Choose the first good image and the first defective one, as far as there are such."""
    first: dict[bool, LabelledImage] = {}
    for image in images:
        first.setdefault(image.defect == GOOD, image)
    return list(first.values())


def has_both_kinds(labels: Sequence[LabelledImage]) -> bool:
    """Whether there is something to score: good images and defective ones."""
    return len({label.defect == GOOD for label in labels}) > 1


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
    quiet = Reporter(Console(quiet=True, force_terminal=False))
    batch_size, rescaled = subject.config.training.batch_size, subject.config.evaluation.rescale_maps
    reconstructor = Reconstructor(model, pipeline, loss, batch_size, rescaled, quiet, Interrupt())
    mean_mhw = torch.zeros(2, images.form.side, images.form.side, device=subject.device)
    unmapped = brightness(images, labels) if skipped == "anomaly_map" else None

    def step() -> None:
        if unmapped is None:
            evaluated = evaluate(reconstructor, images, labels, mean_mhw)
        else:
            paint_all(reconstructor, images, labels)
            evaluated = unmapped
        if skipped != "scoring":
            with stage("scoring"):
                _score(evaluated)

    with pipeline.memory(), as_it_was(model, subject.device), exchanged(model, "gather", pipeline.gather):
        yield step


def _score(evaluated: Evaluated) -> None:
    """Score the maps, unless there is a reason against it."""
    if not why_unscored(evaluated, len(evaluated.images)):
        score(evaluated.maps_ihw, evaluated.masks_ihw, evaluated.defective_i)
