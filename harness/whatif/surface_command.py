"""The command `surface`: words in; a table, a record and its CSV out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table

from harness.commands import out_console
from harness.machine import described, resolve_device
from harness.progress import Reporter
from harness.version import version
from harness.whatif.surface import HEAD_WIDTH, LINEAR, SIDES, SOFTMAX, WIDTHS, overtakes, surface
from models.attention import library
from profiles.errors import ConfigError
from profiles.files import replacing
from profiles.record import Environment, write_csv
from profiles.whatif import SurfaceRecord, SurfaceRow


def attention_surface(
    out: Annotated[
        Path | None, typer.Option(help="Record to write, FILE.json; FILE.csv and FILE.svg beside it.")
    ] = None,
    sides: Annotated[str, typer.Option(help="Sides of a window, with commas.")] = ",".join(map(str, SIDES)),
    widths: Annotated[str, typer.Option(help="Widths of the model, with commas.")] = ",".join(map(str, WIDTHS)),
    budget: Annotated[
        float, typer.Option(min=0.0, help="Seconds of timing, about; every point is timed at least once.")
    ] = 180.0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    backend: Annotated[
        Literal["native", "fast-transformers"], typer.Option(help="Whose attentions: ours, or the thesis's library's.")
    ] = "native",
) -> None:
    """Time linear attention by softmax attention with all else free, over the side of a window and the width.

    Example: bench surface --sides 3,7,16 --widths 256,512 --out surface.json
    """
    where = resolve_device(device)
    chosen = _numbers("--sides", sides, 1), _numbers("--widths", widths, HEAD_WIDTH)
    if out is not None and not out.absolute().parent.is_dir():
        raise ConfigError("--out", got=str(out), expected="a file in a folder that exists", fix="make the folder")
    if backend == "fast-transformers" and (why := library.unusable()):
        expected = "a library that is installed"
        raise ConfigError("--backend", got=f"{backend} ({why})", expected=expected, fix="make fast-transformers")
    rows: list[SurfaceRow] = []
    reporter, here = Reporter(), described(where)
    reporter.begin("surface", len(chosen[0]) * len(chosen[1]), "points")
    for row in surface(where, budget, *chosen, backend):
        rows.append(row)
        if out is not None:
            _write(out, rows, here, backend)
        reporter.advance(1)
    reporter.end()
    _show(rows)
    if out is not None:
        out_console.print(f"written: {out}; a report shows it where it is RUN/whatif/surface*.json", soft_wrap=True)


def _write(out: Path, rows: Sequence[SurfaceRow], here: Environment, backend: str) -> None:
    """Write what was measured so far."""
    record = SurfaceRecord(
        commit=version().commit,
        dtype="float32",
        environment=here,
        softmax=SOFTMAX,
        linear=LINEAR,
        backend=backend,
        rows=tuple(rows),
    )
    write_csv(out.with_suffix(".csv"), SurfaceRow._fields, rows)
    with replacing(out) as aside:
        aside.write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")


def _numbers(option: str, text: str, unit: int) -> list[int]:
    """Read numbers that are multiples of *unit*."""
    try:
        found = sorted({int(part) for part in text.split(",")})
    except ValueError:
        found = [0]
    if found[0] < 1 or any(number % unit for number in found):
        expected = "whole numbers from 1 on" if unit == 1 else f"multiples of {unit}, the width of a head"
        raise ConfigError(option, got=repr(text), expected=expected, fix=f"{option} {7 * unit}")
    return found


def _show(rows: list[SurfaceRow]) -> None:
    """Print a row for each side, a column for each width, and from where on linear attention is faster."""
    widths = list(dict.fromkeys(row.width for row in rows))
    table = Table("side", "tokens", *(f"width {width}" for width in widths), box=None)
    for side in dict.fromkeys(row.window_side for row in rows):
        at = [row for row in rows if row.window_side == side]
        table.add_row(str(side), str(side**2), *map(_cell, at))
    out_console.print(
        f"time of {LINEAR} by that of {SOFTMAX}, attention alone, forward and backward, with 95 % interval"
    )
    out_console.print(table)
    for width in widths:
        out_console.print(f"width {width}: {_told(rows, width)}")


def _told(rows: list[SurfaceRow], width: int) -> str:
    """Say from where on linear attention is faster."""
    if any(row.high is None for row in rows if row.width == width):
        return "too few rounds to tell; --budget gives more"
    found = overtakes(rows, width)
    return f"{LINEAR} is faster " + (f"from a window of {found} x {found} on" if found else "at no side, for sure")


def _cell(row: SurfaceRow) -> str:
    interval = "too few rounds" if row.low is None or row.high is None else f"{row.low:.2f} to {row.high:.2f}"
    return f"{row.ratio:.3f} ({interval})"
