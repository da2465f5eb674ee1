"""What the command is to do: which cells of which configuration, where, for how long; and their subjects."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from harness.cache import image_cache
from harness.cells import Cell
from harness.config import RunConfig
from harness.dataset import Category, split_validation
from harness.decoding import Decoder
from harness.interrupt import Interrupt
from harness.progress import Reporter
from harness.seeding import generator_for
from harness.whatif.subject import Models, Subject
from profiles.record import Environment
from profiles.turns import Extent


class Job(NamedTuple):
    """What to do, and the folder to write to."""

    cells: Sequence[Cell]
    config: RunConfig
    categories: Mapping[str, Category]
    device: torch.device
    here: Environment
    budget_s: float
    folder: Path

    def training_paths(self, cell: Cell) -> list[Path]:
        """Return the images that a run of the cell trains on."""
        category = self.categories[cell.category]
        order = torch.randperm(len(category.train), generator=generator_for(cell.seed, "split")).tolist()
        return split_validation(category.train, order)[0]

    def subject(self, cell: Cell, config: RunConfig, extent: Extent, models: Models | None = None) -> Subject:
        """Return what is measured of a cell, by a configuration that may differ from the job's; see `Subject`."""
        decoder = Decoder(image_cache(config.data.cache), Reporter(), Interrupt())
        return Subject(cell, config, self.training_paths(cell), self.device, decoder, extent, models)
