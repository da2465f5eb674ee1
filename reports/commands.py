"""`bench report`: HTML and CSV from a run, finished or still going. `bench compare`: two runs, and a verdict."""

import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from profiles.errors import NothingMeasuredError, RunDirectoryError
from profiles.record import CellRecord, write_csv
from reports.claims.alone import checks
from reports.claims.verdicts import claim_rows
from reports.compare.comparison import compare_runs, threshold_of
from reports.compare.words import Format, told
from reports.export.benchmark import benchmarks
from reports.export.summary import FILE as SUMMARY
from reports.export.summary import summary
from reports.page.answer import answers
from reports.page.render import Rows, render
from reports.rows.claims import CheckRow, ClaimRow
from reports.rows.details import FILES
from reports.rows.metrics import (
    CellColumns,
    MetricRow,
    accuracy_rows,
    cell_columns,
    energy_rows,
    timing_rows,
)
from reports.source.load import Run, read_run
from reports.words.format import count, short


def report(
    run: Annotated[Path, typer.Argument(help="A run's directory, as `bench run --out` wrote it.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where to write.", show_default="RUN/report")
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,  # noqa: FBT002 - a flag
) -> None:
    """Write a run's report: index.html, its tables as CSV, a summary for pull requests, files for dashboards.

    The run may be finished, still going, or have failed cells: the report shows what there is and says what
    is missing.

    Example: bench report runs/smoke --out smoke-report --open
    \f

    Raises:
        RunDirectoryError: *run* is no run's directory, its manifest is damaged, or *out* cannot be written.
        NothingMeasuredError: no cell has a finished record.

    """  # noqa: D301 - a real form feed, which ends what `--help` shows
    found = read_run(run)
    if not found.records:
        raise NothingMeasuredError(_nothing(found))
    page = write_report(found, out or run / "report")
    typer.echo(f"report: {page}")
    typer.echo(f"cells: {_states(found)}")
    if open_page:
        webbrowser.open(page.resolve().as_uri())


def compare(
    base: Annotated[Path, typer.Argument(help="The run before.")],
    head: Annotated[Path, typer.Argument(help="The run after.")],
    threshold: Annotated[
        str, typer.Option("--threshold", metavar="SHARE", help="How much worse counts as a regression.")
    ] = "5%",
    form: Annotated[Format, typer.Option("--format", help="How to tell it.")] = "text",
) -> None:
    """Set two runs against each other: every metric before and after, its ratio with an interval, a verdict.

    Exits with 0 where nothing that was tested got worse, 3 where something did, 4 where neither can be said: the runs
    are not comparable, one of them lacks a cell, or it is undecided, because something looks worse that could not be
    tested, or nothing could; 5 where one of them has finished no cell, 2 where a folder or the threshold is wrong.

    Example: bench compare runs/main runs/branch --threshold 5% --format markdown
    \f

    Raises:
        RunDirectoryError: one of them is no run's directory, or its manifest is damaged.
        NothingMeasuredError: one of them has no finished record.
        ConfigError: the threshold is no share.

    """  # noqa: D301 - a real form feed, which ends what `--help` shows
    comparison = compare_runs(base, head, threshold_of(threshold))
    typer.echo(told(comparison, form))
    raise typer.Exit(comparison.exit_code)


def write_report(run: Run, out: Path) -> Path:
    """Write the page and the CSV files into *out*, made where it is missing, and return the page's path.

    Raises:
        RunDirectoryError: *out* cannot be written.

    """
    rows = Rows(
        accuracy_rows(run.records),
        timing_rows(run.records),
        energy_rows(run.records),
        claim_rows(run.records),
        checks(),
    )
    page = render(run, rows)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for table in _tables(rows, run.records):
            write_csv(out / table.file, table.columns, table.rows)
        for file, text in _texts(run, rows):
            (out / file).write_text(text, encoding="utf-8")
        (out / "index.html").write_text(page, encoding="utf-8")
    except OSError as error:
        got = error.strerror or "a folder that cannot be written"
        raise RunDirectoryError(out, got=got, expected="a folder to write", fix="name another with --out") from error
    return out / "index.html"


def _texts(run: Run, rows: Rows) -> list[tuple[str, str]]:
    """Return what other tools read, by file."""
    found = answers(run.records, rows.claims)
    told = summary(run, found, [*rows.timing, *rows.accuracy, *rows.energy], rows.claims)
    return [(SUMMARY, told), *benchmarks(run.records)]


class _Table(NamedTuple):
    file: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[object, ...]]


def _tables(rows: Rows, records: list[CellRecord]) -> tuple[_Table, ...]:
    return (
        _Table("auroc.csv", MetricRow._fields, rows.accuracy),
        _Table("timing.csv", MetricRow._fields, rows.timing),
        _Table("energy.csv", MetricRow._fields, rows.energy),
        _Table("claims.csv", ClaimRow._fields, rows.claims),
        _Table("published.csv", CheckRow._fields, rows.checks),
        *(
            _Table(
                file,
                CellColumns._fields + detail.columns,
                [cell_columns(record) + row for record in records for row in detail.rows(record)],
            )
            for file, detail in FILES.items()
        ),
    )


def _states(run: Run) -> str:
    return ", ".join(f"{number} {state}" for state, number in run.states.items()) or "none"


def _nothing(run: Run) -> str:
    """Say, in a line, that no cell is finished and what the first that failed says of it."""
    told = next(
        (f"; {short(c.name, 80)}: {short(c.why, 300)}" for c in run.cells if c.why and c.state != "pending"), ""
    )
    cells = count(len(run.cells), "cell")
    return f"{run.folder}: no finished record among {cells} ({_states(run)}){told}; fix: let the run finish a cell"
