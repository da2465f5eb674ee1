"""Cells: what one run consists of, in order, and what each will cost."""

from typing import NamedTuple

from harness.config import RunConfig
from harness.pipelines.table import PIPELINES
from models.attention import library
from models.attention.table import VARIANTS, Backend
from profiles.errors import ConfigError


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


def backend_of(cell: Cell, config: RunConfig) -> Backend:
    """Return whose attention a cell runs: what the configuration says, else what its pipeline does.

    A model that the pipeline's library does not have runs ours.
    """
    usual = PIPELINES[cell.pipeline].attention
    return config.model.attention_backend or (usual if usual in VARIANTS[cell.model].attention else "native")


def refuse_unavailable(cells: list[Cell], config: RunConfig) -> None:
    """Refuse cells that need a library which is not here.

    Raises:
        ConfigError: there is one.

    """
    for cell in cells:
        if backend_of(cell, config) == "fast-transformers" and (why := library.unusable()):
            where = f"the attention of {cell.name}"
            got, expected = f"'fast-transformers', which cannot be used here ({why})", "a library that is installed"
            fix = "make fast-transformers, or --set model.attention_backend=native"
            raise ConfigError(where, got=got, expected=expected, fix=fix)
