"""A comparison as text, as Markdown and as JSON; all three say the same."""

import json
from collections import Counter
from dataclasses import dataclass
from typing import Literal

from reports.compare.differences import Difference
from reports.compare.metrics import EVERY_CELL, Compared
from reports.words.format import between, count, listed, metric_name, number, percent, ratio, scale, short, visible
from reports.words.markdown import line, plain

Format = Literal["text", "markdown", "json"]
Outcome = Literal["no regression", "regression", "not comparable", "incomplete"]

DONE, REGRESSION, NOT_COMPARABLE = 0, 3, 4


@dataclass(frozen=True)
class Comparison:
    """Two runs set against each other; *missing* are the cells that only one of them finished."""

    base: str
    head: str
    threshold: float
    differences: tuple[Difference, ...]
    missing: tuple[str, ...]
    rows: tuple[Compared, ...]

    @property
    def outcome(self) -> Outcome:
        """What it comes to."""
        if any(difference.forbids for difference in self.differences) or not self.rows:
            return "not comparable"
        if any(row.verdict == "regression" for row in self.rows):
            return "regression"
        return "incomplete" if self.missing else "no regression"

    @property
    def exit_code(self) -> int:
        """The exit code of the command."""
        codes: dict[Outcome, int] = {"no regression": DONE, "regression": REGRESSION}
        return codes.get(self.outcome, NOT_COMPARABLE)


def told(comparison: Comparison, form: Format) -> str:
    """Return *comparison* in words of the *form* asked for."""
    return {"text": _text, "markdown": _markdown, "json": _json}[form](comparison)


def headline(comparison: Comparison) -> str:
    """Return the outcome in a sentence."""
    if comparison.outcome == "not comparable":
        forbidding = [difference.what for difference in comparison.differences if difference.forbids]
        return f"Not comparable: {f'they differ in {listed(forbidding)}' if forbidding else 'no cell is in both runs'}."
    verdicts = Counter(row.verdict for row in comparison.rows if row.cell == EVERY_CELL)
    counted = ", ".join(f"{n} {verdict}" for verdict, n in verdicts.most_common())
    cells = count(len({row.cell for row in comparison.rows} - {EVERY_CELL}), "cell")
    lacking = f" Incomplete: {listed(list(comparison.missing))} in one run only." if comparison.missing else ""
    first = "Regression" if comparison.outcome == "regression" else "No regression"
    return f"{first} beyond {percent(comparison.threshold)} over {cells} (metrics: {counted}).{lacking}"


def _difference(difference: Difference) -> str:
    kind = "forbids comparing" if difference.forbids else "beware"
    return f"{kind}: {visible(difference.what)}: {short(difference.base, 60)} -> {short(difference.head, 60)}"


def _worth_telling(rows: tuple[Compared, ...]) -> list[Compared]:
    """Leave out what neither run knows; JSON has it all."""
    return [row for row in rows if (row.base, row.head, row.ratio) != (None, None, None)]


_COLUMNS = ("cell", "metric", "before", "after", "ratio", "95 % interval", "n", "verdict")


def _cells(row: Compared) -> tuple[str, ...]:
    unit = scale(row.unit, max(abs(row.base or 0.0), abs(row.head or 0.0)))
    values = ["-" if v is None else f"{number(v / unit.divisor)} {unit.label}" for v in (row.base, row.head)]
    return (
        short(row.cell, 48),
        metric_name(row.metric),
        *values,
        "-" if row.ratio is None else ratio(row.ratio),
        "-" if row.low is None else between(row.low, row.high),
        f"{row.base_n}, {row.head_n}" if row.low is not None else "-",
        row.verdict,
    )


def _text(comparison: Comparison) -> str:
    lines = [f"{visible(comparison.base)} -> {visible(comparison.head)}", headline(comparison)]
    lines += [_difference(difference) for difference in comparison.differences]
    if comparison.outcome != "not comparable":
        table = [_COLUMNS, *map(_cells, _worth_telling(comparison.rows))]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines += ["", *("  ".join(map(str.ljust, row, widths)).rstrip() for row in table)]
    return "\n".join(lines)


def _markdown(comparison: Comparison) -> str:
    lines = [f"### {plain(comparison.base)} → {plain(comparison.head)}", "", plain(headline(comparison)), ""]
    lines += [f"- {plain(_difference(difference))}" for difference in comparison.differences]
    if comparison.outcome != "not comparable":
        lines += ["", line(_COLUMNS), line(["---"] * len(_COLUMNS))]
        lines += [line(_cells(row)) for row in _worth_telling(comparison.rows)]
    return "\n".join(lines)


def _json(comparison: Comparison) -> str:
    whole = {
        "outcome": comparison.outcome,
        "exit_code": comparison.exit_code,
        "base": comparison.base,
        "head": comparison.head,
        "threshold": comparison.threshold,
        "differences": [difference._asdict() for difference in comparison.differences],
        "missing": list(comparison.missing),
        "metrics": [row._asdict() for row in comparison.rows],
    }
    return json.dumps(whole, indent=2, allow_nan=False)
