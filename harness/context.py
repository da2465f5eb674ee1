"""What the steps of a run share."""

from typing import NamedTuple

import torch

from harness.config import RunConfig
from harness.dataset import Category, LabelledImage
from harness.decoding import Decoder
from harness.directory import RunDirectory
from harness.interrupt import Interrupt
from harness.pipelines.parts import Images
from harness.progress import Reporter


class Context(NamedTuple):
    """What all cells of a run share."""

    run: str
    config: RunConfig
    directory: RunDirectory
    device: torch.device
    categories: dict[str, Category]
    commit: str
    reporter: Reporter
    interrupt: Interrupt


class Sources(NamedTuple):
    """The images of a cell: trained on, validated on, and tested; *labels* say what the latter are.

    *decoder* tells what became of their files.
    """

    train: Images
    validation: Images
    test: Images
    labels: tuple[LabelledImage, ...]
    decoder: Decoder
