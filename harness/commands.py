"""The commands `run`, `suites`, `data` and `doctor`: words in, words out; the work is done elsewhere."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer
from rich.console import Console
from rich.table import Column, Table

from harness.cells import plan
from harness.config import RunConfig, assign, build, file_table, set_key, suite_names, suite_table
from harness.context import Launcher
from harness.cost import by_gain, estimate, expected_images
from harness.data.download import Wish, check_wish, download
from harness.data.licence import OPTION, accept
from harness.data.sources import check_mirrors, given_checksums
from harness.data.transfer import Patience
from harness.data.verify import CategoryReport, Counts, verify
from harness.directory import RunDirectory
from harness.footprint import Extent, footprint
from harness.launch import Outcome, resume, start, stored_configuration, stored_ranks
from harness.launchers.asked import gpus_asked, slurm_options
from harness.launchers.local import Local, share_processors, slots
from harness.machine import described, resolve_device
from harness.progress import Reporter, duration, seconds
from harness.ranks import gpus_here, refuse_ranks
from harness.synthesize import GENERATED, LARGEST_SIDE, MOST_IMAGES, SyntheticConfig, check, synthesize
from profiles.errors import ConfigError
from profiles.rate import matmul_flops_per_s
from profiles.record import CellRecord, CellStatus, read_model
from profiles.tracing.probe import probe

DEFAULT_SUITE = "smoke"
INCOMPLETE = 4
Strings = list[str]

REPORT_CELL_S = 1.0
"""What a report takes for each cell: 29 s were seen for thirty, on a busy machine."""

REPORT_SHARE = 0.1
"""The most of a budget that is kept for its report."""

PLAIN_WIDTH = 200
"""Columns of a table that goes to a file or a pipe."""

out_console = Console(highlight=False, markup=False, soft_wrap=True, width=None if sys.stdout.isatty() else PLAIN_WIDTH)


def run(
    suite: Annotated[str | None, typer.Option(help="A suite of `bench suites`; smoke unless told otherwise.")] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file instead of a suite.")] = None,
    data_root: Annotated[Path | None, typer.Option(help="Folder of MVTec AD.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="The run's directory; runs/SUITE-TIME unless told otherwise.")
    ] = None,
    category: Annotated[Strings | None, typer.Option(help="Only this category; repeatable.")] = None,
    model: Annotated[Strings | None, typer.Option(help="Only this model; repeatable.")] = None,
    pipeline: Annotated[Strings | None, typer.Option(help="Only this pipeline; repeatable.")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="A seed; repeatable.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")] = None,
    setting: Annotated[
        Strings | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting; repeatable.")
    ] = None,
    resume_run: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="With --resume: run failed cells again.")
    ] = False,
    budget: Annotated[
        str | None, typer.Option(metavar="TIME", help="Stop when it is spent, state saved: 8h, 90m, 1h30m; exit 4.")
    ] = None,
    launcher: Annotated[
        Literal["local", "slurm"], typer.Option(help="Where cells run: here, or as jobs of a SLURM cluster.")
    ] = "local",
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1, help="Cells at once: on GPUs in turn, or sharing the processors. 1 here; in SLURM, any number."
        ),
    ] = None,
    ranks: Annotated[
        int | None,
        typer.Option(
            min=1, help="Processes that train one cell together, each on its GPU; 1, with --resume as the run began."
        ),
    ] = None,
    partition: Annotated[str | None, typer.Option(help="SLURM's.")] = None,
    time: Annotated[
        str | None, typer.Option(help="SLURM's limit for a job, which goes on in another: 8:00:00.")
    ] = None,
    gres: Annotated[str | None, typer.Option(help="SLURM's: gpu:1.")] = None,
    slurm: Annotated[
        Strings | None, typer.Option(metavar="KEY=VALUE", help="Any other of sbatch's options; repeatable.")
    ] = None,
    no_profiler: Annotated[bool, typer.Option("--no-profiler", help="No torch.profiler windows.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list the cells and what they will cost.")] = False,
) -> None:
    """Train and evaluate every cell of a suite, and measure where the time goes.

    Example: bench run --suite mvtec-epoch --data-root mvtec --category bottle --set training.batch_size=64
    """
    options: dict[str, Any] = {
        "data.root": str(data_root) if data_root else None,
        "data.categories": category,
        "models": model,
        "pipelines": pipeline,
        "seeds": seed,
        "device": device,
        "profiler.steps": 0 if no_profiler else None,
    }
    named = any((suite, config, setting)) or any(value is not None for value in options.values())
    asked = None if resume_run and not named else configuration(suite, config, options, setting or [])
    if retry_failed and not resume_run:
        raise ConfigError("--retry-failed", got="no --resume", expected="a run to go on with", fix="--resume --out RUN")
    if dry_run:
        _show_cells(asked or stored_configuration(out))
        return
    to_run = asked or stored_configuration(out)
    budget_s = None if budget is None else without_report(seconds("--budget", budget), len(plan(to_run)))
    of_slurm = _slurm_options(launcher, partition, time, gres, slurm or [])
    together = ranks or (stored_ranks(out) if resume_run else 1)
    chosen = _slurm(to_run, of_slurm, jobs, together) if launcher == "slurm" else _local(to_run, jobs or 1, together)
    outcome = (
        start(asked, out, chosen, budget_s=budget_s)
        if asked and not resume_run
        else resume(out, asked, chosen, retry_failed=retry_failed, budget_s=budget_s)
    )
    _show_outcome(outcome)
    if outcome.failed:
        raise typer.Exit(1)


def without_report(budget_s: float, cells: int) -> float:
    """Return what a budget leaves for the run, beside the report of so many cells that follows when it is spent."""
    return budget_s - min(cells * REPORT_CELL_S, budget_s * REPORT_SHARE)


def _local(config: RunConfig, jobs: int, ranks: int) -> Launcher:
    """Return what runs cells on this machine, whose processors it shares among them."""
    device = resolve_device(config.device)
    refuse_ranks(ranks, device, config.training.batch_size, gpus=gpus_here(device), jobs=jobs)
    share_processors(device, jobs * ranks)
    return Local(slots(config.device, jobs), ranks)


def _slurm(config: RunConfig, options: dict[str, str | int], jobs: int | None, ranks: int) -> Launcher:
    """Return what runs cells as jobs of a cluster.

    Raises:
        ConfigError: submitit is not here, or no SLURM, or jobs cannot have so many ranks.

    """
    gpus = gpus_asked(options)
    device = torch.device(("cuda" if gpus else "cpu") if config.device == "auto" else config.device)
    refuse_ranks(ranks, device, config.training.batch_size, gpus=gpus)
    where = "--launcher slurm"
    if importlib.util.find_spec("submitit") is None:
        fix = "pip install -c constraints.txt '.[slurm]'"
        raise ConfigError(where, got="no submitit", expected="it to be installed", fix=fix)
    if shutil.which("sbatch") is None:
        fix = "start it where sbatch is, or --launcher local"
        raise ConfigError(where, got="no sbatch", expected="a machine of a SLURM cluster", fix=fix)
    from harness.launchers.slurm import Slurm  # noqa: PLC0415 - submitit is an extra

    return Slurm(options, jobs, ranks)


def _slurm_options(
    launcher: str, partition: str | None, time: str | None, gres: str | None, others: Strings
) -> dict[str, str | int]:
    """Return SLURM's options, if it is asked for.

    Raises:
        ConfigError: it is not, or one of them is not written so, or its jobs would have no limit.

    """
    found = slurm_options(partition, time, gres, others)
    if launcher == "slurm" and "time" not in found:
        expected = "a limit of jobs, ahead of which they save their state; longer than a cell's evaluation"
        raise ConfigError("--time", got="nothing", expected=expected, fix="--time 8:00:00")
    if found and launcher != "slurm":
        got = f"{', '.join(found)} without --launcher slurm"
        raise ConfigError("--launcher", got=got, expected="options of the launcher", fix="--launcher slurm")
    return found


def configuration(suite: str | None, file: Path | None, options: dict[str, Any], settings: Strings) -> RunConfig:
    """Read a suite or a file and apply what the command line changes.

    Raises:
        ConfigError: something about it is wrong.

    """
    if suite and file:
        raise ConfigError("--suite", got="--config as well", expected="one of the two", fix="leave one out")
    table, where = (
        (file_table(file), str(file)) if file else (suite_table(suite or DEFAULT_SUITE), suite or DEFAULT_SUITE)
    )
    build(table, where)  # what is wrong with the file is said of the file
    for key, value in options.items():
        if value is not None:
            set_key(table, key, value, f"--{key.rpartition('.')[2]}")
    for assignment in settings:
        assign(table, assignment)
    config = build(table, "command line")
    if config.data.root is None:
        return config
    set_key(table, "data.root", str(Path(config.data.root).absolute()), "data.root")  # a run may resume elsewhere
    return build(table, "command line")


def suites(
    name: Annotated[str | None, typer.Argument(help="A suite to show, resolved, with its cost.")] = None,
) -> None:
    """List the suites, or show one resolved with its estimated cost.

    Example: bench suites mvtec-epoch
    """
    if name is not None:
        config = build(suite_table(name), name)
        out_console.print(config.to_toml())
        _show_cells(config)
        return
    table = Table("suite", "cells", "what", box=None)
    for each in suite_names():
        config = build(suite_table(each), each)
        table.add_row(each, str(len(plan(config))), config.description)
    out_console.print(table)


def synthesize_data(
    root: Annotated[Path, typer.Argument(help="Folder to write the categories to.")],
    category: Annotated[Strings | None, typer.Option(help="Only this category; repeatable.")] = None,
    side: Annotated[int, typer.Option(min=64, max=LARGEST_SIDE, help="Side of the images, pixels.")] = 256,
    train: Annotated[int, typer.Option(min=2, max=MOST_IMAGES, help="Training images.")] = 100,
    test_good: Annotated[int, typer.Option(min=1, max=MOST_IMAGES, help="Good test images.")] = 20,
    test_per_defect: Annotated[int, typer.Option(min=1, max=MOST_IMAGES, help="Test images of each defect.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the images.")] = 0,
) -> None:
    """Write generated categories in the layout of MVTec AD: textures and objects, defects and their masks.

    Example: bench data synthesize datasets/generated --category weave --train 50
    """
    config = SyntheticConfig(side=side, train=train, test_good=test_good, test_per_defect=test_per_defect)
    names = category or list(GENERATED)
    for name in names:
        check(root, name)
    for name in names:
        synthesize(root, name, config, seed)
        out_console.print(f"{root / name}: {GENERATED[name]}")


def download_data(
    root: Annotated[Path, typer.Argument(help="Folder to hold the categories.")],
    category: Annotated[Strings | None, typer.Option(help="Only this category; repeatable.")] = None,
    accept_licence: Annotated[bool, typer.Option(OPTION, help="Accept CC BY-NC-SA 4.0, which is shown.")] = False,
    mirror: Annotated[
        Strings | None,
        typer.Option(
            metavar="URL", help="Folder of archives to use instead of the official one; repeatable, in order."
        ),
    ] = None,
    sha256: Annotated[
        Strings | None, typer.Option(metavar="ARCHIVE=HEX", help="An archive's SHA-256, if you know it; repeatable.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for a silent server.")] = 30.0,
    keep_archives: Annotated[bool, typer.Option(help="Keep the archives, in ROOT/.download.")] = False,
) -> None:
    """Fetch MVTec AD, whole or by category; call it again to go on after an interruption.

    Example: bench data download datasets/mvtec --category bottle --accept-licence
    """
    mirrors, sums = check_mirrors(mirror or []), given_checksums(sha256 or [])
    wish = Wish(root, category or [], mirrors, sums, keep_archives)
    check_wish(wish)
    accept(accepted=accept_licence)
    folders = download(wish, Reporter(), Patience(timeout))
    out_console.print("\n".join([*map(str, folders), f"check what is there: bench data verify {root}"]))


def verify_data(
    root: Annotated[Path, typer.Argument(help="Folder of MVTec AD.")],
    category: Annotated[Strings | None, typer.Option(help="Only this category; repeatable.")] = None,
    output: Annotated[Literal["table", "json"], typer.Option("--format", help="What to print.")] = "table",
) -> None:
    """Compare what is there with what is published: counts, sizes and masks; exit 4 if anything is off.

    Example: bench data verify datasets/mvtec --category bottle
    """
    reports = verify(root, category or [], Reporter())
    off = sum(len(report.findings) for report in reports)
    if output == "json":
        typer.echo(json.dumps(_as_json(root, reports), indent=2))
    else:
        _show_data(reports, off)
    if off:
        raise typer.Exit(INCOMPLETE)


def _as_json(root: Path, reports: list[CategoryReport]) -> dict[str, object]:
    categories = {
        report.name: {
            "got": report.got._asdict(),
            "expected": report.expected._asdict(),
            "findings": [finding._asdict() for finding in report.findings],
        }
        for report in reports
    }
    return {
        "root": str(root),
        "as_published": not any(report.findings for report in reports),
        "categories": categories,
    }


def _show_data(reports: list[CategoryReport], off: int) -> None:
    """Print the counts of each category beside the published ones, and every file that is off."""
    names = [name.replace("_", " ") for name in Counts._fields]
    table = Table("category", *names, "off", box=None)
    for report in reports:
        counts = [
            str(got) if got == number else f"{got} of {number}"
            for got, number in zip(report.got, report.expected, strict=True)
        ]
        table.add_row(report.name, *counts, str(len(report.findings)))
    out_console.print(table)
    if off:
        table = Table(*(Column(name, overflow="fold") for name in ("file", "got", "expected")), box=None)
        for report in reports:
            for finding in report.findings:
                table.add_row(*finding)
        out_console.print(table)
    out_console.print(f"{off} things are off" if off else "all as published")


def doctor() -> None:
    """Say what this machine can measure, and what it cannot and why.

    Example: bench doctor
    """
    device = resolve_device("auto")
    here = described(device)
    table = Table("what", "available", "detail", box=None)
    for capability in (*here.capabilities, *probe(device)):
        table.add_row(capability.name, "yes" if capability.available else "no", capability.detail)
    memory = "unknown" if here.memory_bytes is None else f"{here.memory_bytes / 2**30:.1f} GiB"
    out_console.print(f"device {here.device}: {here.device_name}; {here.cores} cores, {memory}")
    out_console.print(f"{here.system}, Python {here.python}, torch {here.packages['torch']}")
    out_console.print(table)


def _show_cells(config: RunConfig) -> None:
    """Print the cells and what each will cost on this machine."""
    device = resolve_device(config.device)
    flops_per_s = matmul_flops_per_s(device, getattr(torch, config.model.precision))
    title = f"{config.suite}: estimated at {flops_per_s / 1e9:,.0f} GFLOP/s, this device's rate in matrix products"
    out_console.print(title)
    columns = ("side", "windows/epoch", "steps/epoch", "time/epoch", "cell, at least", "memory")
    table = Table(Column("cell", overflow="fold"), *columns, box=None)
    total_s = 0.0
    for cell in by_gain(plan(config), config):
        images = Extent(*expected_images(cell.category, config))
        cost = estimate(cell, config, *images, flops_per_s)
        memory = f"{footprint(cell, config, images, device).needs(device)[0] / 2**30:.2f} GiB"
        total_s += cost.at_least_s
        numbers = (f"{cost.image_side}", f"{cost.windows_per_epoch:,}", f"{cost.steps_per_epoch:,}")
        table.add_row(cell.name, *numbers, duration(cost.epoch_s), duration(cost.at_least_s), memory)
    out_console.print(table)
    out_console.print(f"{len(plan(config))} cells, at least {duration(total_s)} of arithmetic alone")
    if "thesis" in config.pipelines:
        out_console.print("pipeline 'thesis' takes many times as long: it decodes an image for every window")


def _show_outcome(outcome: Outcome) -> None:
    """Print each cell's scores and time, and where the rest is."""
    columns = ("status", "segmentation", "detection", "time/epoch")
    table = Table(Column("cell", overflow="fold"), *(Column(name, overflow="fold") for name in columns), box=None)
    directory = RunDirectory(outcome.directory)
    for cell in outcome.cells:
        folder = directory.cell(cell.name)
        status = read_model(CellStatus, folder.root / "status.json")
        shown = (
            _shown(read_model(CellRecord, folder.record)) if status.status == "done" else [status.error or "", "", ""]
        )
        table.add_row(cell.name, status.status, *shown)
    out_console.print(table)
    out_console.print(f"run: {outcome.directory}\nreport: bench report {outcome.directory}")


def _shown(record: CellRecord) -> list[str]:
    metrics = {metric.name: metric for metric in record.metrics}
    shown = []
    for name in ("segmentation_auroc", "detection_auroc", "time_per_epoch"):
        metric = metrics[name]
        number = "unavailable" if metric.value is None else f"{metric.value:.2f} {metric.unit}"
        shown.append(f"{number} ({metric.tag})" if metric.tag == "estimated" else number)
    return shown
