"""The command `kernels`: words in, a table, a record and its CSV out."""

import csv
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import Annotated, TypeVar

import torch
import typer
from rich.console import Console
from rich.table import Table

from harness.kernels.crossover import Point, crossover
from harness.kernels.shape import Shape
from harness.kernels.sweep import LENGTHS, TOKENS, fitting, ratio, shapes, sweep_shape
from harness.kernels.table import KERNELS
from harness.machine import described, resolve_device
from harness.version import version
from profiles.environment import sources
from profiles.errors import ConfigError, NothingMeasuredError
from profiles.files import replacing
from profiles.kernels import Crossover, Direction, KernelRow, KernelsRecord
from profiles.rate import Rates, copied_bytes_per_s, matmul_flops_per_s
from profiles.ratio import Rounds

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
PLAIN_WIDTH = 200
HEADS, HEAD_WIDTH = 8, 64

Value = TypeVar("Value")

Timed = dict[tuple[str, Direction, int], list[Rounds]]
"""Rounds of every instance by number type, direction and length."""


def kernels(
    out: Annotated[
        Path | None,
        typer.Option(help="Record to write, FILE.json, after every shape; FILE.csv, .svg and .png beside it."),
    ] = None,
    lengths: Annotated[str, typer.Option(help="Lengths of the sequence, with commas.")] = ",".join(map(str, LENGTHS)),
    kernel: Annotated[
        list[str] | None, typer.Option("--kernels", help="Only names with this in them; repeatable.")
    ] = None,
    dtype: Annotated[
        list[str] | None, typer.Option(help="float32 or bfloat16; repeatable; float32 if not told.")
    ] = None,
    direction: Annotated[list[str] | None, typer.Option(help="forward or both; repeatable; each if not told.")] = None,
    budget: Annotated[
        float, typer.Option(min=0.0, help="Seconds of timing, about; each shape is timed at least once.")
    ] = 120.0,
    tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Tokens of a batch; if not told, enough to fill the device, or as many as fit."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Time every attention kernel over the length of the sequence, and say where linear attention overtakes softmax.

    Example: bench kernels --lengths 49,256,1024 --kernels softmax --kernels linear --out kernels.json
    """
    where = resolve_device(device)
    names = _chosen(kernel)
    dtypes = {name: _one_of(name, DTYPES, "--dtype") for name in dtype or ["float32"]}
    words: dict[str, Direction] = {"forward": "forward", "both": "forward + backward"}
    directions = [_one_of(name, words, "--direction") for name in direction or list(words)]
    if out is not None:
        _check(out)
    plan = list(
        shapes(_lengths(lengths), list(dtypes.values()), HEADS, HEAD_WIDTH, tokens or TOKENS[where.type], str(where))
    )
    if tokens is None:
        plan = [fitting(shape, names) for shape in plan]
    record = None
    for record in _measured(names, plan, directions, dtypes, budget / (len(plan) * len(directions)), where):
        if out is not None:
            write(record, out)
    assert record is not None  # noqa: S101 - there is a length
    console = Console(highlight=False, markup=False, soft_wrap=True, width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    show(record, console)
    if all(row.time_s is None for row in record.rows):
        raise NothingMeasuredError("no kernel was timed; see the table")  # noqa: TRY003 - the error says no more
    if wrong := [row for row in record.rows if row.reason.startswith("wrong result")]:
        console.print(f"{len(wrong)} wrong results")
        raise typer.Exit(1)


def _check(out: Path) -> None:
    """Refuse what could not be written, or would write the record, its CSV and its pictures over each other."""
    if not out.absolute().parent.is_dir():
        raise ConfigError("--out", got=str(out), expected="a file in a folder that exists", fix="make the folder")
    if out.suffix != ".json" or out.is_dir():
        raise ConfigError("--out", got=str(out), expected="a file whose name ends in .json", fix="--out kernels.json")


def _chosen(parts: list[str] | None) -> list[str]:
    names = [name for name in KERNELS if not parts or any(part in name for part in parts)]
    if not names:
        raise ConfigError(
            "--kernels", got=", ".join(parts or []), expected="a part of " + ", ".join(KERNELS), fix="--help"
        )
    return names


def _one_of(name: str, values: dict[str, Value], option: str) -> Value:
    if name not in values:
        raise ConfigError(option, got=repr(name), expected=" or ".join(values), fix=f"{option} {next(iter(values))}")
    return values[name]


def _lengths(text: str) -> list[int]:
    try:
        found = sorted({int(part) for part in text.split(",")})
    except ValueError:
        found = [0]
    if found[0] < 1:
        raise ConfigError("--lengths", got=repr(text), expected="whole numbers from 1 on", fix="--lengths 49,256")
    return found


def _measured(
    names: Sequence[str],
    plan: Sequence[Shape],
    directions: Sequence[Direction],
    dtypes: dict[str, torch.dtype],
    limit_s: float,
    device: torch.device,
) -> Iterator[KernelsRecord]:
    """Yield the record as it grows, after every shape and direction."""
    moved = copied_bytes_per_s(device)
    peak = {name: matmul_flops_per_s(device, dtype) for name, dtype in dtypes.items()}
    source, environment = sources(device)[0], described(device)
    rows: list[KernelRow] = []
    rounds: Timed = {}
    for shape in plan:
        dtype = str(shape.dtype).removeprefix("torch.")
        for direction in directions:
            started = perf_counter()
            found, timed = sweep_shape(names, shape, direction, Rates(peak[dtype], moved), source, limit_s)
            rows += found
            if timed:
                rounds[dtype, direction, shape.tokens] = timed
            sys.stderr.write(f"{dtype}, {direction}, {shape.tokens} tokens: {perf_counter() - started:.0f} s\n")
            yield KernelsRecord(
                commit=version().commit,
                environment=environment,
                heads=HEADS,
                head_width=HEAD_WIDTH,
                peak_flops_per_s=peak,
                peak_bytes_per_s=moved,
                rows=tuple(rows),
                crossovers=tuple(crossovers(rounds)),
            )


def crossovers(rounds: Timed) -> list[Crossover]:
    """Find where each linear kernel overtakes each softmax one, from lengths at which both took turns."""
    found = []
    for dtype, direction in dict.fromkeys((dtype, direction) for dtype, direction, _ in rounds):
        at = {tokens: each for (d, way, tokens), each in rounds.items() if (d, way) == (dtype, direction)}
        for linear in (name for name, kernel in KERNELS.items() if kernel.family == "linear"):
            for softmax in (name for name, kernel in KERNELS.items() if kernel.family == "softmax"):
                both = [tokens for tokens in sorted(at) if {linear, softmax} <= at[tokens][0].times_ns.keys()]
                points = [Point(tokens, ratio(at[tokens], linear, softmax)) for tokens in both]
                if len(points) > 1:
                    found.append(crossover(linear, softmax, dtype, direction, points, HEAD_WIDTH))
    return found


def show(record: KernelsRecord, console: Console) -> None:
    """Print the tables."""
    here = record.environment
    peaks = ", ".join(f"{name} {rate / 1e9:,.0f} GFLOP/s" for name, rate in record.peak_flops_per_s.items())
    console.print(
        f"{here.device_name}, {here.threads} threads, torch {here.packages['torch']}, commit {record.commit[:12]}"
    )
    console.print(
        f"measured peak: {peaks}, {record.peak_bytes_per_s / 1e9:,.0f} GB/s; "
        f"{record.heads} heads of {record.head_width}"
    )
    console.print("time: median of interleaved rounds ± half its interquartile range; roofline: part of the least time")
    columns = (
        "tokens",
        "windows",
        "dtype",
        "direction",
        "kernel",
        "ms",
        "±",
        "n",
        "GFLOP/s",
        "GB/s",
        "roofline",
        "MiB",
        "J",
    )
    table = Table(*columns, box=None)
    for row in record.rows:
        lead = (f"{row.tokens}{' *' if row.marks else ''}", str(row.windows), row.dtype, row.direction, row.kernel)
        table.add_row(*lead, *_cells(row))
    console.print(table)
    for marks in dict.fromkeys(f"* {row.tokens}: {row.marks}" for row in record.rows if row.marks):
        console.print(marks)
    for reason in dict.fromkeys(row.energy_reason for row in record.rows if row.energy_reason):
        console.print(f"joules unavailable: {reason}")
    _show_crossovers(record, console)


def _cells(row: KernelRow) -> list[str]:
    if row.time_s is None or row.bytes_per_s is None or row.roofline_share is None:
        return [f"skipped: {row.reason}"]
    return [
        f"{row.time_s * 1e3:.3g}",
        "unavailable" if row.spread_s is None else f"{row.spread_s * 500:.2g}",
        str(row.rounds),
        "unavailable" if row.flops_per_s is None else f"{row.flops_per_s / 1e9:.0f}",
        f"{row.bytes_per_s / 1e9:.1f}",
        f"{row.roofline_share:.0%}",
        "unavailable" if row.peak_bytes is None else f"{row.peak_bytes / 2**20:.0f}",
        "unavailable" if row.energy_j is None else f"{row.energy_j:.3g}",
    ]


def _show_crossovers(record: KernelsRecord, console: Console) -> None:
    if not record.crossovers:
        return
    table = Table("linear kernel", "overtakes", "dtype", "direction", "at tokens", "95 %", "analytic", box=None)
    for each in record.crossovers:
        at = f"{each.tokens:.0f}" if each.tokens is not None else each.note
        table.add_row(each.linear, each.softmax, each.dtype, each.direction, at, _interval(each), f"{each.analytic:g}")
    console.print(table)


def _interval(found: Crossover) -> str:
    """Return the ends that are known, in words; nothing where none is in range."""
    ends = [f"{end:.0f}" if end is not None else "unbounded" for end in (found.low, found.high)]
    return "" if found.tokens is None and ends == ["unbounded", "unbounded"] else " to ".join(ends)


def write(record: KernelsRecord, out: Path) -> None:
    """Write the record, and its rows as CSV beside it."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(KernelRow.model_fields)
    for row in record.rows:
        writer.writerow("" if value is None else value for value in row.model_dump().values())
    for path, content in ((out, record.model_dump_json(indent=1) + "\n"), (out.with_suffix(".csv"), text.getvalue())):
        with replacing(path) as aside:
            aside.write_text(content, encoding="utf-8")
