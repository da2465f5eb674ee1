"""Cells: what one run consists of, in order, and what each will cost."""

from typing import NamedTuple

from harness.config import RunConfig
from harness.pipelines.table import PIPELINES
from models.attention import library
from models.attention.table import Backend
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
    """Return whose attention a cell runs: what the configuration says, else what its pipeline does."""
    return config.model.attention_backend or PIPELINES[cell.pipeline].attention


def unavailable(cell: Cell) -> str | None:
    """Return the name of the cell's pipeline if this version does not have it."""
    return None if cell.pipeline in PIPELINES else cell.pipeline


def refuse_unavailable(cells: list[Cell], config: RunConfig) -> None:
    """Refuse what cannot be run: cells of a pipeline that this version lacks, a library that is not here.

    Raises:
        ConfigError: there is something of it.

    """
    for cell in cells:
        if lack := unavailable(cell):
            got, expected = f"{lack!r}, which this version does not have", f"one of {', '.join(PIPELINES)}"
            raise ConfigError("--pipeline", got=got, expected=expected, fix=f"--pipeline {next(iter(PIPELINES))}")
        if (backend := backend_of(cell, config)) == "fast-transformers" and (why := library.unusable()):
            got, fix = f"{backend!r}, which cannot be used here ({why})", "make fast-transformers"
            raise ConfigError("model.attention_backend", got=got, expected="a library that is installed", fix=fix)
