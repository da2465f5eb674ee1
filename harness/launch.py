"""Starting a run, or going on with one: everything that can be wrong is found before anything is written."""

import fcntl
import shlex
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import torch

from harness.cache import image_cache
from harness.cells import Cell, plan, refuse_unavailable
from harness.config import RunConfig, build, file_table
from harness.context import Context
from harness.dataset import Category, inspect_category, read_category, split_validation
from harness.directory import RunDirectory, now, write_atomically, write_model
from harness.interrupt import Interrupt, listening
from harness.progress import Reporter
from harness.result import write_results
from harness.run import run_cells
from harness.synthesize import synthesize
from harness.version import version
from profiles.environment import environment, measured_environment
from profiles.errors import ConfigError, InterruptedRunError, RunDirectoryError
from profiles.record import Environment, Manifest, RunStatus, read_model


class Outcome(NamedTuple):
    """How a run ended."""

    directory: Path
    cells: list[Cell]
    failed: int


def default_directory(suite: str) -> Path:
    """Return a new folder under `runs/`, named after the suite and the time."""
    return Path("runs") / f"{suite}-{datetime.now().astimezone():%Y%m%d-%H%M%S}"


def start(config: RunConfig, out: Path | None) -> Outcome:
    """Run a configuration in a new directory.

    Raises:
        InputError: the configuration, the data set or the directory cannot be used; nothing was written.
        InterruptedRunError: someone asked to stop; the state is saved.

    """
    cells = plan(config)
    refuse_unavailable(cells, config)
    image_cache(config.data.cache)
    directory = RunDirectory(out or default_directory(config.suite))
    directory.refuse_occupied()
    device = resolve_device(config.device)
    categories = _inspected(config)
    directory.create()
    with _only_one(directory), listening() as interrupt:
        _describe(directory, config, cells, device)
        return _run(directory, config, cells, device, categories, interrupt)


def resume(out: Path | None, asked: RunConfig | None, *, retry_failed: bool) -> Outcome:
    """Go on with the run in *out*.

    Args:
        out: the run's directory.
        asked: the configuration that the command line describes; it must be the run's own. Absent: the run's own.
        retry_failed: start failed cells again, from the beginning.

    Raises:
        InputError: there is no such run, or it is not the one asked for, or this is not the machine it began on.
        InterruptedRunError: someone asked to stop; the state is saved.

    """
    config = stored_configuration(out)
    assert out is not None  # noqa: S101 - or there is no stored configuration
    directory = RunDirectory(out)
    manifest = read_model(Manifest, directory.manifest)
    if asked is not None and asked.hash() != config.hash():
        got = f"options that differ in {', '.join(_differences(asked, config))}"
        raise RunDirectoryError(out, got=got, expected="the run's own", fix=f"bench run --resume --out {out}")
    cells = plan(config)
    refuse_unavailable(cells, config)
    image_cache(config.data.cache)
    device = resolve_device(config.device)
    _refuse_another_machine(directory, device)
    _refuse_another_program(directory, manifest)
    with _only_one(directory), listening() as interrupt:
        _mend(directory, cells, retry_failed=retry_failed)
        statuses = [directory.cell(cell.name).status() for cell in cells]
        if not {"pending", "running"} & set(statuses):
            return Outcome(directory.root, cells, statuses.count("failed"))
        categories = _inspected(config)
        write_model(directory.manifest, manifest.model_copy(update={"ended": None, "status": "running"}))
        return _run(directory, config, cells, device, categories, interrupt)


def stored_configuration(out: Path | None) -> RunConfig:
    """Return the configuration of the run in *out*.

    Raises:
        InputError: there is no such run, or its configuration is damaged.

    """
    if out is None:
        raise ConfigError("--resume", got="no --out", expected="the run to go on with", fix="--resume --out RUN")
    directory = RunDirectory(out)
    read_model(Manifest, directory.manifest)
    return build(file_table(directory.config), str(directory.config))


def resolve_device(name: str) -> torch.device:
    """Return the device of that name; `auto` is the GPU where there is one.

    Raises:
        ConfigError: there is no such device.

    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ConfigError("--device", got=name, expected=f"one of {count} CUDA device(s) or cpu", fix="--device auto")
    return device


def _inspected(config: RunConfig) -> dict[str, Category]:
    """Look through the data set, every file of it; what is generated is made when the run begins.

    Raises:
        InputError: it is missing or damaged.

    """
    root = config.data.root
    if root is None and config.data.generated is None:
        raise ConfigError(
            "data.root",
            got="nothing",
            expected="the folder of MVTec AD",
            fix="--data-root DIR, or --suite smoke",
        )
    for name in config.data.categories:
        config.image_side(name)
    if root is None:
        return {}
    categories = {name: read_category(Path(root), name) for name in config.data.categories}
    for category in categories.values():
        inspect_category(category)
        split_validation(category.train, list(range(len(category.train))))
    return categories


def _generated(config: RunConfig, directory: RunDirectory) -> dict[str, Category]:
    """Make the generated categories that are not there yet."""
    assert config.data.generated is not None  # noqa: S101 - `_inspected` refuses a run with neither
    root = directory.generated_data
    for name in config.data.categories:
        if not (root / name).exists():
            synthesize(root, name, config.data.generated, config.data.generated_seed)
    return {name: read_category(root, name) for name in config.data.categories}


def _describe(directory: RunDirectory, config: RunConfig, cells: list[Cell], device: torch.device) -> None:
    """Write what the run is: manifest, environment, configuration, and a folder for each cell."""
    program = version()
    write_atomically(directory.config, config.to_toml().encode())
    write_model(directory.environment, measured_environment(device))
    for cell in cells:
        directory.cell(cell.name).create()
    write_results(directory, cells)
    manifest = Manifest(
        run=directory.root.absolute().name,
        suite=config.suite,
        command=shlex.join(["bench", *sys.argv[1:]]),
        version=program.version,
        commit=program.commit,
        dirty=program.dirty,
        config_hash=config.hash(),
        started=now(),
        ended=None,
        status="running",
        cells=tuple(cell.name for cell in cells),
    )
    write_model(directory.manifest, manifest)  # last: a directory with a manifest is whole


def _run(
    directory: RunDirectory,
    config: RunConfig,
    cells: list[Cell],
    device: torch.device,
    categories: dict[str, Category],
    interrupt: Interrupt,
) -> Outcome:
    """Run what is not done and keep the manifest's status."""
    manifest = read_model(Manifest, directory.manifest)
    directory.log("run_start", run=manifest.run)
    context = Context(
        run=manifest.run,
        config=config,
        directory=directory,
        device=device,
        categories=categories or _generated(config, directory),
        commit=manifest.commit,
        reporter=Reporter(),
        interrupt=interrupt,
    )
    status: RunStatus = "failed"
    try:
        failed = run_cells(cells, context)
        status = "failed" if failed else "done"
    except InterruptedRunError as error:
        status = "interrupted"
        message = (
            f"{error}; the state is saved; go on with: bench run --resume --out {shlex.quote(str(directory.root))}"
        )
        raise InterruptedRunError(message) from error
    finally:
        write_model(directory.manifest, manifest.model_copy(update={"ended": now(), "status": status}))
        directory.log("run_stop", run=manifest.run, status=status)
    return Outcome(directory.root, cells, failed)


@contextmanager
def _only_one(directory: RunDirectory) -> Iterator[None]:
    """Hold the run's lock, which the system gives back when the process ends, however it ends.

    Raises:
        RunDirectoryError: another process holds it.

    """
    with ExitStack() as held:
        try:
            file = held.enter_context((directory.root / "lock").open("w"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            got, fix = "a run that is going on", "wait, or another --out"
            raise RunDirectoryError(directory.root, got=got, expected="one that has stopped", fix=fix) from error
        except OSError as error:
            got, fix = f"no lock ({error.strerror})", "a --out where files can be written and locked"
            raise RunDirectoryError(directory.root, got=got, expected="a folder to lock", fix=fix) from error
        yield


def _refuse_another_machine(directory: RunDirectory, device: torch.device) -> None:
    """Refuse to mix measurements of two machines in one run.

    Raises:
        RunDirectoryError: device, processor or torch differ from those the run began on.

    """
    then, here = read_model(Environment, directory.environment), environment(device)
    for name in ("device", "device_name", "cpu", "threads"):
        if getattr(then, name) != getattr(here, name):
            raise RunDirectoryError(
                directory.root,
                got=f"{name} {getattr(here, name)}",
                expected=f"{getattr(then, name)}, on which the run began",
                fix="resume it there, or start a new run here",
            )
    if then.packages["torch"] != here.packages["torch"]:
        expected = f"{then.packages['torch']}, with which the run began"
        raise RunDirectoryError(
            directory.root,
            got=f"torch {here.packages['torch']}",
            expected=expected,
            fix="install that, or start anew",
        )


def _refuse_another_program(directory: RunDirectory, manifest: Manifest) -> None:
    """Refuse to go on with a run that another version of this program began.

    Raises:
        RunDirectoryError: version or commit differ.

    """
    here = version()
    if (here.version, here.commit) != (manifest.version, manifest.commit):
        raise RunDirectoryError(
            directory.root,
            got=f"bench {here.version} of commit {here.commit[:12]}",
            expected=f"{manifest.version} of {manifest.commit[:12]}, which began the run",
            fix="go back to that commit, or start a new run",
        )


def _mend(directory: RunDirectory, cells: list[Cell], *, retry_failed: bool) -> None:
    """Make anew the folders of cells that have none or whose status is gone, and of failed ones if asked to."""
    for cell in cells:
        folder = directory.cell(cell.name)
        if not folder.has_status() or (retry_failed and folder.status() == "failed"):
            folder.create()


def _differences(one: RunConfig, other: RunConfig) -> list[str]:
    """Return the dotted keys in which two configurations differ."""
    return sorted(
        key for key in one.flat().keys() | other.flat().keys() if one.flat().get(key) != other.flat().get(key)
    )
