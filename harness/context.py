"""What the steps of a run share."""

from typing import NamedTuple, Protocol

import torch

from harness.cells import Cell
from harness.config import RunConfig
from harness.dataset import Category, LabelledImage
from harness.decoding import Decoder
from harness.directory import RunDirectory
from harness.interrupt import Interrupt
from harness.pipelines.parts import Images
from harness.progress import Reporter
from harness.ranks import ALONE, Ranks


class Context(NamedTuple):
    """What all cells of a run share.

    *together* of them run at once on the machine; this process is one of the *ranks* of its cell, and keeps its own
    tables in *directory*, which of rank 0 is the run's own, *shared*.
    """

    run: str
    config: RunConfig
    cells: tuple[Cell, ...]
    directory: RunDirectory
    shared: RunDirectory
    device: torch.device
    categories: dict[str, Category]
    commit: str
    reporter: Reporter
    interrupt: Interrupt
    together: int = 1
    ranks: Ranks = ALONE


class Launcher(Protocol):
    """Runs cells: when it returns, each is done or failed.

    Where cells run *elsewhere*, on a machine that is not this one, the first of them describes it.
    """

    @property
    def elsewhere(self) -> bool:
        """Whether cells run on another machine."""
        ...

    @property
    def at_once(self) -> int:
        """How many cells share a device, at most."""
        ...

    @property
    def ranks(self) -> int:
        """How many processes train one cell together."""
        ...

    @property
    def words(self) -> tuple[str, ...]:
        """The options of `bench run` that ask for this launcher."""
        ...

    def __call__(self, cells: list[Cell], context: Context) -> None:
        """Run *cells*, which are to be done; go on when one fails.

        Raises:
            InterruptedRunError: someone asked to stop; the state is saved.
            MachineError: the machine cannot go on.

        """
        ...


class Sources(NamedTuple):
    """The images of a cell: trained on, validated on, and tested; *labels* say what the latter are.

    *decoder* tells what became of their files.
    """

    train: Images
    validation: Images
    test: Images
    labels: tuple[LabelledImage, ...]
    decoder: Decoder
