"""`bench whatif --project`: a grid measured for each cell; its errors and answers shown, and written."""

from collections.abc import Sequence
from functools import partial

from rich.table import Column, Table

from harness.cells import Cell
from harness.commands import out_console
from harness.config import RunConfig
from harness.progress import Reporter, duration
from harness.version import version
from harness.whatif.grid import settings_of
from harness.whatif.job import Job
from harness.whatif.loads import Machine, Setting
from harness.whatif.projecting import ASSUMPTIONS, Projection, Wish, asked_of, at_setting, levels_of, projected
from harness.whatif.subject import Models, Subject
from profiles.errors import NothingMeasuredError
from profiles.files import replacing
from profiles.record import Environment, write_csv
from profiles.turns import Extent
from profiles.whatif import AskedRow, CostRow, FitRow, ProjectionRecord, SettingRow

RECORD = "projection.json"
UNKNOWN = Machine(1, 1.0, 1.0, 1.0, apart=False)
"""In whose place anything that can be asked can be asked."""


def check(cells: Sequence[Cell], config: RunConfig, wish: Wish) -> None:
    """Refuse what cannot be varied or predicted, before anything is measured.

    Raises:
        ConfigError: there is such.

    """
    for cell in cells:
        settings = settings_of(levels_of(cell, config, wish.vary))
        for setting in settings:
            at_setting(config, setting)
        for text in wish.at:
            at_setting(config, asked_of(text, settings[0], UNKNOWN).setting, "--at")


def project_all(job: Job, wish: Wish) -> None:
    """Project cell by cell, writing what was found so far, and show it."""
    found = Projection()
    for number, cell in enumerate(job.cells, start=1):
        reporter = Reporter()
        reporter.say(f"cell {number} of {len(job.cells)}: {cell.name}, about {job.budget_s:.0f} s")
        found = found.and_(_projected(cell, job, wish, reporter))
        _write(found, job)
    _show(found)


def _projected(cell: Cell, job: Job, wish: Wish, reporter: Reporter) -> Projection:
    made = partial(_subject, cell, job, {})
    images = len(job.training_paths(cell))
    here = machine_of(job.here, apart=job.device.type == "cuda")
    return projected(cell, job.config, made, wish, here, job.here.threads, images, reporter, job.budget_s)


def machine_of(here: Environment, *, apart: bool) -> Machine:
    """Return the machine that settings are measured on, but for its rate of decoding, which they tell.

    Raises:
        NothingMeasuredError: the device's best rates are not known.

    """
    if here.flops_per_s is None or here.bytes_per_s is None:
        message = f"{here.device_name}: its best rates were not measured, and by them a projection counts its work"
        raise NothingMeasuredError(message)
    return Machine(here.cores, here.flops_per_s, here.bytes_per_s, 1.0, apart=apart)


def _subject(cell: Cell, job: Job, models: Models, setting: Setting, extent: Extent) -> Subject:
    return job.subject(cell, at_setting(job.config, setting), extent, models)


def _write(found: Projection, job: Job) -> None:
    record = ProjectionRecord(
        commit=version().commit,
        suite=job.config.suite,
        dtype=job.config.model.precision,
        environment=job.here,
        assumptions=ASSUMPTIONS,
        **found._asdict(),
    )
    write_csv(job.folder / "projection.csv", SettingRow._fields, found.settings)
    write_csv(job.folder / "costs.csv", CostRow._fields, found.costs)
    write_csv(job.folder / "asked.csv", AskedRow._fields, found.asked)
    with replacing(job.folder / RECORD) as aside:
        aside.write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")


def _show(found: Projection) -> None:
    """Print each cell's errors, its grid and what was asked."""
    for fit in found.fits:
        out_console.print(f"{fit.category}, {fit.model}, {fit.pipeline}: {_error(fit)}")
        _show_settings([row for row in found.settings if row[:3] == fit[:3]])
        _show_asked([row for row in found.asked if row[:3] == fit[:3]])


def _error(fit: FitRow) -> str:
    """Say how far off predictions are."""
    held_out = (
        f"{fit.held_out_error:.1%} (median; {fit.largest_error:.1%} at most) on the {fit.held_out} settings held out"
    )
    return f"predictions are off by {held_out}, by {fit.fitted_error:.1%} on the {fit.fitted} that were fitted"


def _show_settings(rows: Sequence[SettingRow]) -> None:
    table = Table(
        "workers", "batch", "side", "half", "measured, s", "predicted, s", "off by", "held up by", "n", box=None
    )
    for row in rows:
        half = "held out" if row.held_out else "fitted"
        times = (f"{row.measured_s:.4g}", f"{row.predicted_s:.4g}", f"{row.error:+.1%}")
        setting = map(str, (row.workers, row.batch_size, row.image_side))
        table.add_row(*setting, half, *times, row.held_up_by, str(row.rounds))
    out_console.print(table)


def _show_asked(rows: Sequence[AskedRow]) -> None:
    table = Table(
        Column("predicted", overflow="fold"), "step, s", "epoch", "held up by", "loader, s", "host, s", "device, s",
        Column("not measured", overflow="fold"), box=None,
    )  # fmt: skip
    for row in rows:
        needed = (f"{seconds:.4g}" for seconds in (row.loader_s, row.host_s, row.device_s))
        table.add_row(row.asked, f"{row.step_s:.4g}", duration(row.epoch_s), row.held_up_by, *needed, row.beyond)
    out_console.print(table)
