"""Starting a run, or going on with one: everything that can be wrong is found before anything is written."""

import shlex
import sys
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import torch

from harness.cache import image_cache
from harness.cells import Cell, plan, refuse_unavailable
from harness.config import RunConfig, build, file_table
from harness.context import Context, Launcher
from harness.cost import by_gain
from harness.dataset import Category, inspect_category, read_category, split_validation
from harness.directory import RunDirectory, now, write_atomically, write_model
from harness.footprint import refuse_too_large
from harness.interrupt import Interrupt, listening
from harness.launchers.here import Here
from harness.locks import held
from harness.machine import measured, refuse_another_machine, resolve_device
from harness.mending import mend
from harness.progress import Reporter
from harness.result import write_results
from harness.run import machine_is_to_blame
from harness.synthesize import synthesize
from harness.version import version
from profiles.errors import ConfigError, InterruptedRunError, MachineError, RunDirectoryError
from profiles.record import Manifest, RunStatus, read_model

HERE = Here()


class Outcome(NamedTuple):
    """How a run ended."""

    directory: Path
    cells: list[Cell]
    failed: int


def default_directory(suite: str) -> Path:
    """Return a new folder under `runs/`, named after the suite and the time."""
    return Path("runs") / f"{suite}-{datetime.now().astimezone():%Y%m%d-%H%M%S}"


def start(config: RunConfig, out: Path | None, launcher: Launcher = HERE, *, budget_s: float | None = None) -> Outcome:
    """Run a configuration in a new directory.

    Args:
        config: what to run.
        out: where; absent: a new folder under `runs/`.
        launcher: where cells run.
        budget_s: seconds that all this may take, looking through the data set included; absent: what it needs.

    Raises:
        InputError: the configuration, the data set or the directory cannot be used; nothing was written.
        InterruptedRunError: someone asked to stop, or the budget is spent; the state is saved.
        MachineError: the machine cannot go on; what was saved is kept.

    """
    cells = plan(config)
    refuse_unavailable(cells, config)
    image_cache(config.data.cache)
    directory = RunDirectory(out or default_directory(config.suite))
    directory.refuse_occupied()
    device = _device(config, launcher)
    with listening(budget_s) as interrupt, ExitStack() as holding:
        categories = _inspected(config, interrupt)
        if not launcher.elsewhere:
            refuse_too_large(cells, config, categories, device, launcher.at_once, launcher.ranks)
        directory.create()
        holding.enter_context(held(directory.lock))
        directory.refuse_occupied()  # again: another process may have begun a run here, and ended, since
        _describe(directory, config, launcher, None if launcher.elsewhere else device)
        return _run(directory, config, device, categories, interrupt, launcher)


def resume(
    out: Path | None,
    asked: RunConfig | None,
    launcher: Launcher = HERE,
    *,
    retry_failed: bool,
    budget_s: float | None = None,
) -> Outcome:
    """Go on with the run in *out*.

    Args:
        out: the run's directory.
        asked: the configuration that the command line describes; it must be the run's own. Absent: the run's own.
        launcher: where cells run.
        retry_failed: go on with failed cells too, from what they saved.
        budget_s: seconds that all this may take, looking through the data set included; absent: what it needs.

    Raises:
        InputError: there is no such run, or it is not the one asked for, or this is not the machine it began on.
        InterruptedRunError: someone asked to stop, or the budget is spent; the state is saved.
        MachineError: the machine cannot go on; what was saved is kept.

    """
    config = stored_configuration(out)
    assert out is not None  # noqa: S101 - or there is no stored configuration
    directory = RunDirectory(out)
    manifest = read_model(Manifest, directory.manifest)
    if asked is not None and asked.hash() != config.hash():
        got = f"options that differ in {', '.join(_differences(asked, config))}"
        raise RunDirectoryError(out, got=got, expected="the run's own", fix=f"bench run --resume --out {out}")
    if launcher.ranks != manifest.ranks:
        fix = f"--ranks {manifest.ranks}, or a new run"
        expected = f"{manifest.ranks}, with which the run began"
        raise ConfigError("--ranks", got=str(launcher.ranks), expected=expected, fix=fix)
    cells = plan(config)
    refuse_unavailable(cells, config)
    image_cache(config.data.cache)
    device = _device(config, launcher)
    if directory.environment.exists() and not launcher.elsewhere:
        refuse_another_machine(directory, device)
    _refuse_another_program(directory, manifest)
    with listening(budget_s) as interrupt, held(directory.lock):
        mend(directory, cells, interrupt, retry_failed=retry_failed)
        statuses = [directory.cell(cell.name).status() for cell in cells]
        if not {"pending", "running"} & set(statuses) and manifest.status in {"done", "failed"}:
            return Outcome(directory.root, cells, statuses.count("failed"))
        categories = _inspected(config, interrupt)
        if not launcher.elsewhere:
            refuse_too_large(cells, config, categories, device, launcher.at_once, launcher.ranks)
        going = {"ended": None, "status": "running", "resume": _resume_command(directory, launcher)}
        write_model(directory.manifest, manifest.model_copy(update=going))
        return _run(directory, config, device, categories, interrupt, launcher)


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


def stored_ranks(out: Path | None) -> int:
    """Return how many processes train a cell of the run in *out*.

    Raises:
        InputError: there is no such run.

    """
    return 1 if out is None else read_model(Manifest, RunDirectory(out).manifest).ranks


def _device(config: RunConfig, launcher: Launcher) -> torch.device:
    """Return the device of the cells; where they run elsewhere, this machine's need not have any of that name."""
    return torch.device("cpu") if launcher.elsewhere else resolve_device(config.device)


def _inspected(config: RunConfig, interrupt: Interrupt) -> dict[str, Category]:
    """Look through the data set, every file of it; what is generated is made when the run begins.

    Raises:
        InputError: it is missing or damaged.
        InterruptedRunError: someone asked to stop, or the budget is spent.

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
        interrupt.check()
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


def _describe(directory: RunDirectory, config: RunConfig, launcher: Launcher, device: torch.device | None) -> None:
    """Write what the run is: manifest, configuration, a folder for each cell, and this machine if *device* is its."""
    program, cells = version(), plan(config)
    write_atomically(directory.config, config.to_toml().encode())
    if device is not None:
        write_model(directory.environment, measured(device))
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
        ranks=launcher.ranks,
        resume=_resume_command(directory, launcher),
    )
    write_model(directory.manifest, manifest)  # last: a directory with a manifest is whole


def _run(
    directory: RunDirectory,
    config: RunConfig,
    device: torch.device,
    categories: dict[str, Category],
    interrupt: Interrupt,
    launcher: Launcher,
) -> Outcome:
    """Run what is neither done nor failed, what tells most for its cost first, and keep the manifest's status."""
    manifest, cells = read_model(Manifest, directory.manifest), plan(config)
    directory.log("run_start", run=manifest.run)
    context = Context(
        run=manifest.run,
        config=config,
        cells=tuple(cells),
        directory=directory,
        shared=directory,
        device=device,
        categories=categories or _generated(config, directory),
        commit=manifest.commit,
        reporter=Reporter(),
        interrupt=interrupt,
    )
    status: RunStatus = "failed"
    try:
        launcher([cell for cell in by_gain(cells, config) if not directory.cell(cell.name).is_over()], context)
        write_results(directory, cells)
        failed = sum(directory.cell(cell.name).status() == "failed" for cell in cells)
        status = "failed" if failed else "done"
    except InterruptedRunError as error:
        status = "interrupted"
        message = f"{error}; the state is saved; go on with: {manifest.resume}"
        raise type(error)(message, directory.root) from error
    except KeyboardInterrupt as error:  # asked twice
        status = "interrupted"
        message = f"interrupted at once: what was saved before is kept; go on with: {manifest.resume}"
        raise InterruptedRunError(message, directory.root) from error
    except (MachineError, OSError) as error:
        if not machine_is_to_blame(error):
            raise
        raise _to_be_mended(error, manifest) from error
    finally:
        _close(directory, manifest, status, sys.exception(), context.reporter)
    return Outcome(directory.root, cells, failed)


def _close(
    directory: RunDirectory, manifest: Manifest, status: RunStatus, failure: BaseException | None, reporter: Reporter
) -> None:
    """Write how a run ended; that this cannot be written is told beside a *failure* that there is already.

    Raises:
        MachineError: it cannot be written, and nothing else is wrong.

    """
    try:
        write_model(directory.manifest, manifest.model_copy(update={"ended": now(), "status": status}))
        directory.log("run_stop", run=manifest.run, status=status)
    except OSError as error:
        if failure is None:
            raise _to_be_mended(error, manifest) from error
        reporter.say(f"how the run ended could not be written ({error})")


def _to_be_mended(error: Exception, manifest: Manifest) -> MachineError:
    return MachineError(f"{error}; what was saved is kept; mend that, then go on with: {manifest.resume}")


def _resume_command(directory: RunDirectory, launcher: Launcher) -> str:
    """Return what goes on with a run as *launcher* runs it."""
    return shlex.join(["bench", "run", "--resume", "--out", str(directory.root), *launcher.words])


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


def _differences(one: RunConfig, other: RunConfig) -> list[str]:
    """Return the dotted keys in which two configurations differ."""
    return sorted(
        key for key in one.flat().keys() | other.flat().keys() if one.flat().get(key) != other.flat().get(key)
    )
