"""Cells: what one run consists of, in order, and what each will cost."""

from typing import NamedTuple

from harness.config import RunConfig
from models.attention.table import ATTENTION
from profiles.errors import ConfigError

PIPELINES = ("fast",)
"""The pipelines this version can run."""


class Cell(NamedTuple):
    """One model on one category, by one pipeline, from one seed."""

    category: str
    model: str
    pipeline: str
    seed: int

    @property
    def name(self) -> str:
        """The cell's folder under `cells/`, and its name everywhere."""
        return f"{self.category}/{self.model}-{self.pipeline}/seed{self.seed}"


def plan(config: RunConfig) -> list[Cell]:
    """Return the cells of a run: category by category, so that what is compared runs close together in time."""
    return [
        Cell(category, model, pipeline, seed)
        for category in config.data.categories
        for seed in config.seeds
        for pipeline in config.pipelines
        for model in config.models
    ]


def unavailable(cell: Cell) -> tuple[str, str, list[str]] | None:
    """Return what of a cell this version does not have: `model` or `pipeline`, its name, and the names it has."""
    for what, name, known in (("model", cell.model, list(ATTENTION)), ("pipeline", cell.pipeline, list(PIPELINES))):
        if name not in known:
            return what, name, known
    return None


def refuse_unavailable(cells: list[Cell]) -> None:
    """Refuse cells that this version cannot run.

    Raises:
        ConfigError: there is one.

    """
    for cell in cells:
        if lack := unavailable(cell):
            what, name, known = lack
            got, expected = f"{name!r}, which this version does not have", f"one of {', '.join(known)}"
            raise ConfigError(f"--{what}", got=got, expected=expected, fix=f"--{what} {known[0]}")
