"""The command `bench`: joins the commands of `harness` and `reports`, and turns errors into exit codes."""

import sys
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

import harness.commands
import harness.kernels.command
import harness.whatif.command
import harness.whatif.surface_command
import reports.commands
import reports.kernels
import reports.surface
from harness.run import machine_is_to_blame
from harness.version import version
from profiles.errors import BenchError, BudgetSpentError, MachineError, NothingMeasuredError

INTERRUPTED = 130
WRONG_USE = 2

app = typer.Typer(
    name="bench",
    help="Where the time and energy of training inpainting transformers for anomaly detection really go.",
    epilog="Example: bench run --suite smoke --out runs/first && bench report runs/first --open",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data = typer.Typer(
    help="Data sets in the layout of MVTec AD.",
    epilog="Example: bench data verify datasets/mvtec",
    rich_markup_mode=None,
)
app.add_typer(data, name="data")


@app.command("run")
@wraps(harness.commands.run)
def run(**options: Any) -> None:  # noqa: ANN401 - those of the command that it wraps
    """Run, and report what there is when the budget is spent."""
    try:
        harness.commands.run(**options)
    except BudgetSpentError as error:
        _report_so_far(error)
        raise


def _report_so_far(error: BudgetSpentError) -> None:
    """Report the cells that are done, if any is."""
    if error.run is None:
        return
    try:
        reports.commands.report(error.run)
    except NothingMeasuredError as nothing:
        sys.stderr.write(f"bench: {nothing}\n")


app.command("report")(reports.commands.report)
app.command("compare")(reports.commands.compare)
app.command("whatif")(harness.whatif.command.whatif)
app.command("suites")(harness.commands.suites)
data.command("download")(harness.commands.download_data)
data.command("verify")(harness.commands.verify_data)
data.command("synthesize")(harness.commands.synthesize_data)
app.command("doctor")(harness.commands.doctor)


@app.command("kernels")
@wraps(harness.kernels.command.kernels)
def kernels(**options: Any) -> None:  # noqa: ANN401 - those of the command that it wraps
    """Measure, and draw what was written, results that were wrong or not."""
    try:
        harness.kernels.command.kernels(**options)
    except typer.Exit:
        _draw_kernels(options["out"])
        raise
    _draw_kernels(options["out"])


def _draw_kernels(out: Path | None) -> None:
    if out is not None:
        reports.kernels.draw(out)


@app.command("surface")
@wraps(harness.whatif.surface_command.attention_surface)
def surface(**options: Any) -> None:  # noqa: ANN401 - those of the command that it wraps
    """Measure, and draw what was written."""
    harness.whatif.surface_command.attention_surface(**options)
    if options["out"] is not None:
        reports.surface.draw(options["out"])


@app.callback(invoke_without_command=True)
def bench(
    context: typer.Context,
    show_version: Annotated[bool, typer.Option("--version", help="Print version and commit.")] = False,  # noqa: FBT002
) -> None:
    """Print the version, or help where nothing was asked for."""
    if show_version:
        typer.echo(version())
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


@data.callback(invoke_without_command=True)
def data_help(context: typer.Context) -> None:
    """Print help where nothing was asked for."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


# typer carries a click of its own and exports, of its errors, only some: the root of those about wrong use is theirs.
_WrongUse: type[Exception] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


def main() -> None:
    """Run the command line; what goes wrong is one line on stderr and an exit code."""
    try:
        sys.exit(app(standalone_mode=False) or 0)
    except BenchError as error:
        _fail(str(error), error.exit_code)
    except _WrongUse as error:
        _fail(f"command line: {_words(error)}; fix: see --help", WRONG_USE)
    except (KeyboardInterrupt, typer.Abort):
        _fail("interrupted", INTERRUPTED)
    except OSError as error:  # a full disk, say: the system's own words, and what a run had saved is still there
        _fail(str(error), MachineError.exit_code if machine_is_to_blame(error) else BenchError.exit_code)


def _words(error: Exception) -> str:
    format_message = getattr(error, "format_message", lambda: str(error))
    return " ".join(format_message().split()).rstrip(".")


def _fail(text: str, code: int) -> None:
    sys.stderr.write(f"bench: {text}\n")
    sys.exit(code)


if __name__ == "__main__":
    main()
