"""The command `whatif`: words in; tables, a record and its CSV files out."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import torch
import typer

from harness.cells import Cell, plan, refuse_unavailable
from harness.commands import Strings, configuration, out_console
from harness.config import RunConfig
from harness.dataset import Category, read_category
from harness.directory import RunDirectory
from harness.launch import default_directory, stored_configuration
from harness.machine import measured, resolve_device
from harness.progress import Reporter
from harness.synthesize import synthesize
from harness.version import version
from harness.whatif.epochs import steps_of
from harness.whatif.inspection import one_of_each
from harness.whatif.job import Job
from harness.whatif.measure import LEAST_ROUNDS, ORDER, SHARES, Bench, Busy, Found, Section, measure
from harness.whatif.project_command import RECORD as PROJECTION
from harness.whatif.project_command import check, project_all
from harness.whatif.projecting import Wish
from harness.whatif.shown import show
from profiles.errors import ConfigError, RunDirectoryError
from profiles.files import replacing
from profiles.record import CellRecord, Environment, Phase, read_model, write_csv
from profiles.turns import Extent, bursts
from profiles.whatif import EffectRow, EpochRow, FallRow, StepRow, WhatIfRecord

RECORD = "whatif.json"
OPTIONS = {
    "data.root": "--data-root",
    "data.categories": "--category",
    "models": "--model",
    "pipelines": "--pipeline",
    "device": "--device",
}
"""By the setting that it changes."""

LEAST = 2
"""Steps that are timed of a turn, at least."""

NOT_MEASURED = (
    "A training step is a warm one: its ceilings and swaps have no start of the loader and no validation in them.",
    "An evaluation is of two images, of which loading begins anew in every step: of many images it is a smaller part.",
    "An epoch has no checkpoint in it.",
    "A part that is the same in both pipelines, as attention whose backend is configured, is not exchanged.",
    "The head, validation and checkpoints are not taken away, nor is loading in an evaluation.",
    "What is done once before training, as decoding all images for the fast pipeline, is in no step.",
    "Weights are those that a run begins with: no step's time depends on them.",
)


def whatif(
    run: Annotated[Path | None, typer.Argument(help="A run, whose configuration is measured.")] = None,
    suite: Annotated[str | None, typer.Option(help="A suite of `bench suites`; smoke unless told otherwise.")] = None,
    data_root: Annotated[Path | None, typer.Option(help="Folder of MVTec AD.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to write; RUN/whatif or runs/SUITE-TIME if not told.")
    ] = None,
    category: Annotated[Strings | None, typer.Option(help="Only this category; repeatable.")] = None,
    model: Annotated[Strings | None, typer.Option(help="Only this model; repeatable.")] = None,
    pipeline: Annotated[Strings | None, typer.Option(help="Only this pipeline; repeatable.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")] = None,
    setting: Annotated[
        Strings | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting; repeatable.")
    ] = None,
    budget: Annotated[
        float,
        typer.Option(
            min=0.0,
            help="Seconds for each cell, about; but every step is taken in seven rounds, however long they take.",
        ),
    ] = 300.0,
    only: Annotated[Strings | None, typer.Option(help=f"Only this of {', '.join(SHARES)}; repeatable.")] = None,
    projection: Annotated[
        bool, typer.Option("--project", help="Measure a grid of settings instead, and predict steps at others.")
    ] = False,
    vary: Annotated[
        Strings | None,
        typer.Option(metavar="KEY=A,B,C", help="Of the grid: workers, batch_size or image_side; repeatable."),
    ] = None,
    at: Annotated[
        Strings | None,
        typer.Option(
            metavar="KEY=VALUE,...",
            help="Predict: of what is varied, processors, flops_per_s, bytes_per_s, decoded_per_s, apart; repeatable.",
        ),
    ] = None,
) -> None:
    """Measure what a step would gain if a stage were free, and if a part were the fast pipeline's.

    Steps with and without each stage take turns; cells of the thesis pipeline also get the waterfall to the fast one.
    With --project, a queueing model of loader, host and device is fitted to half of a grid and tried on the other half.

    Example: bench whatif --suite thesis-pipeline --data-root mvtec --category bottle --model mlsa --budget 600

    Example: bench whatif --project --pipeline thesis --at workers=8 --at apart=true,flops_per_s=13e12,bytes_per_s=6e11
    """
    root = str(data_root) if data_root else None
    options: dict[str, Any] = dict(zip(OPTIONS, (root, category, model, pipeline, device), strict=True))
    config = _asked(run, suite, options, setting or [])
    cells, wish = once_each(plan(config)), Wish(vary or [], at or [])
    refuse_unavailable(cells, config)
    sections = _sections(only or list(SHARES), cells)
    if projection:
        check(cells, config, wish)
    elif vary or at:
        raise ConfigError("--project", got="--vary or --at without it", expected="both or none", fix="add --project")
    where = resolve_device(config.device)
    boards = [where] if where.type == "cuda" else []
    with _categories(config) as categories, torch.random.fork_rng(boards):  # to measure a rate draws numbers too
        folder = _made(out or (run / "whatif" if run else default_directory(f"whatif-{config.suite}")))
        here = measured(where)
        job = Job(cells, config, categories, where, here, budget, folder)
        _refuse_overwriting(folder / (PROJECTION if projection else RECORD))
        if projection:
            project_all(job, wish)
        else:
            _measure_all(job, sections, run)
    out_console.print(f"written: {folder}")
    out_console.print(f"in a report: {to_report(folder)}", soft_wrap=True)


def to_report(folder: Path) -> str:
    """Return the command that shows what is in *folder* in the report of its run, or of one that has yet to be named.

    A report reads RUN/whatif: of a suite there may be no run, or several.
    """
    if folder.name == "whatif" and (folder.parent / "manifest.json").exists():
        return f"bench report {quote(str(folder.parent))}"
    return (
        f"cp -r {quote(str(folder))} RUN/whatif && bench report RUN, where RUN is a run of the suite without RUN/whatif"
    )


def once_each(cells: Sequence[Cell]) -> list[Cell]:
    """Keep the first seed of each category, model and pipeline: no step's time depends on it."""
    first: dict[tuple[str, str, str], Cell] = {}
    for cell in cells:
        first.setdefault((cell.category, cell.model, cell.pipeline), cell)
    return list(first.values())


def observed(run: Path | None, cell: Cell) -> Busy:
    """Return what the profiler windows of *run* saw each stage's resource work in *cell*, if it has finished it.

    Raises:
        RunDirectoryError: the cell's record is damaged.

    """
    file = RunDirectory(run).cell(cell.name).record if run else None
    if file is None or not file.exists():
        return {}
    record = read_model(CellRecord, file)
    walls_s = {closure.phase: closure.wall_s for closure in record.closures}
    busy_s: dict[tuple[Phase, str], list[float | None]] = {}
    for total in record.stage_totals:
        busy_s.setdefault((total.phase, total.stage), []).append(total.busy_s)
    return {
        (phase, stage): sum(known) / walls_s[phase]
        for (phase, stage), ways in busy_s.items()
        if len(known := [way_s for way_s in ways if way_s is not None]) == len(ways)
    }


def _refuse_overwriting(record: Path) -> None:
    if record.exists():
        got, expected = "what was measured before", "a folder without, so that nothing is lost"
        raise RunDirectoryError(record, got=got, expected=expected, fix="another --out, or move it")


def _measure_all(job: Job, sections: Sequence[Section], run: Path | None) -> None:
    """Measure cell by cell, writing what was found so far, and show it; *run* tells what was observed of the cells."""
    found = Found()
    for number, cell in enumerate(job.cells, start=1):
        Reporter().say(f"cell {number} of {len(job.cells)}: {cell.name}, {job.budget_s:.0f} s or {LEAST_ROUNDS} rounds")
        extent = Extent(0, bursts(LEAST, job.config.data.workers))
        subject, category = job.subject(cell, job.config, extent), job.categories[cell.category]
        steps = steps_of(len(subject.paths), len(category.train) - len(subject.paths), job.config)
        bench = Bench(subject, one_of_each(category.test), extent, job.budget_s, steps, observed(run, cell))
        found = found.and_(measure(bench, sections))
        _write(job.folder, found, job.config, job.here)
    show(found)


def _sections(names: Strings, cells: Sequence[Cell]) -> list[Section]:
    """Return what is to be measured, if any of it can be."""
    sections = [section for section in SHARES if section in names]
    if unknown := [name for name in names if name not in SHARES]:
        raise ConfigError("--only", got=unknown[0], expected=f"one of {', '.join(SHARES)}", fix="leave it out for all")
    if sections == ["exchanges"] and all(cell.pipeline != "thesis" for cell in cells):
        got, expected = "no cell of the thesis pipeline", "one, whose parts are exchanged"
        raise ConfigError("--only", got=got, expected=expected, fix="--pipeline thesis")
    return sections


def _asked(run: Path | None, suite: str | None, options: dict[str, Any], settings: Strings) -> RunConfig:
    """Return the configuration of a run as it is, or of a suite as the command line changes it."""
    if run is None:
        return configuration(suite, None, options, settings)
    named = [OPTIONS[key] for key, value in options.items() if value is not None]
    if suite or named or settings:
        got = ", ".join((["--suite"] if suite else []) + named + (["--set"] if settings else []))
        raise ConfigError(run, got=f"{got} as well", expected="a run as it is, or --suite", fix="leave one out")
    return stored_configuration(run)


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        got = error.strerror or "a folder that cannot be made"
        raise RunDirectoryError(folder, got=got, expected="a folder to write", fix="another --out") from error
    return folder


@contextmanager
def _categories(config: RunConfig) -> Iterator[dict[str, Category]]:
    """List the categories' files; what is generated exists inside the block only."""
    data = config.data
    if data.root is None and data.generated is None:
        fix = "--data-root DIR, or --suite smoke"
        raise ConfigError("data.root", got="nothing", expected="the folder of MVTec AD", fix=fix)
    with TemporaryDirectory(prefix="bench-whatif-") as aside:
        for name in data.categories:
            if data.root is None and data.generated is not None:
                synthesize(Path(aside), name, data.generated, data.generated_seed)
        yield {name: read_category(Path(data.root or aside), name) for name in data.categories}


def _write(folder: Path, found: Found, config: RunConfig, here: Environment) -> None:
    """Write what was found so far."""
    record = WhatIfRecord(
        commit=version().commit,
        suite=config.suite,
        dtype=config.model.precision,
        environment=here,
        order=ORDER,
        steps=found.steps,
        effects=found.effects,
        waterfall=found.waterfall,
        epochs=found.epochs,
        not_measured=NOT_MEASURED,
    )
    write_csv(folder / "whatif.csv", EffectRow._fields, found.effects)
    write_csv(folder / "waterfall.csv", FallRow._fields, found.waterfall)
    write_csv(folder / "epochs.csv", EpochRow._fields, found.epochs)
    write_csv(folder / "steps.csv", StepRow._fields, found.steps)
    with replacing(folder / RECORD) as aside:
        aside.write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
