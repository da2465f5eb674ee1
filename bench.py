"""The command `bench`: joins the commands of `harness` and `reports`, and turns errors into exit codes."""

import sys
from typing import Annotated

import typer

import harness.commands
import reports.commands
from harness.version import version
from profiles.errors import BenchError

app = typer.Typer(
    name="bench",
    help="Where the time and energy of training inpainting transformers for anomaly detection really go.",
    epilog="Example: bench run --suite smoke --out runs/first && bench report runs/first --open",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data = typer.Typer(help="Data sets in the layout of MVTec AD.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data, name="data")

app.command("run")(harness.commands.run)
app.command("report")(reports.commands.report)
app.command("suites")(harness.commands.suites)
data.command("synthesize")(harness.commands.synthesize_data)
app.command("doctor")(harness.commands.doctor)


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


def main() -> None:
    """Run the command line; an error of ours is one line on stderr and its own exit code."""
    try:
        app()
    except BenchError as error:
        sys.stderr.write(f"bench: {error}\n")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
