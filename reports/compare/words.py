"""A comparison as text, as Markdown and as JSON; all three say the same."""

import json
from dataclasses import dataclass
from typing import Literal

from reports.compare.differences import Difference
from reports.compare.metrics import EVERY_CELL, Compared
from reports.words.format import between, count, listed, metric_name, number, percent, ratio, scale, short, visible
from reports.words.markdown import line, plain

Format = Literal["text", "markdown", "json"]
Outcome = Literal["no regression", "regression", "not comparable", "incomplete", "undecided"]

DONE, REGRESSION, NOT_COMPARABLE = 0, 3, 4


@dataclass(frozen=True)
class Comparison:
    """Two runs set against each other; *missing* are the cells that not both of them finished."""

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
        if self.missing:
            return "incomplete"
        return "undecided" if self.is_undecided else "no regression"

    @property
    def is_undecided(self) -> bool:
        """Whether it cannot be said that nothing got worse: something seems to have, or nothing was tested."""
        verdicts = {row.verdict for row in self.rows if row.cell == EVERY_CELL}
        return "suspected" in verdicts or verdicts <= {"not tested"}

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
    cells = count(len({row.cell for row in comparison.rows} - {EVERY_CELL}), "cell")
    limits = f"beyond {percent(comparison.threshold)} over {cells}"
    lacking = f" Incomplete: {listed(list(comparison.missing))} not finished in both." if comparison.missing else ""
    return f"{_finding(comparison, limits)} (metrics: {_standings(comparison)}).{lacking}"


def _finding(comparison: Comparison, limits: str) -> str:
    if comparison.outcome == "regression":
        return f"Regression {limits}"
    if comparison.is_undecided:
        return f"Undecided whether there is a regression {limits}"
    return f"No regression {limits} in what was tested"


def _standings(comparison: Comparison) -> str:
    """Count what all cells together come to, and name what is not simply unchanged."""
    names: dict[str, list[str]] = {}
    for row in _worth_telling(comparison.rows):
        if row.cell == EVERY_CELL:
            names.setdefault(row.verdict, []).append(metric_name(row.metric))
    return "; ".join(
        f"{len(metrics)} {verdict}" + ("" if verdict == "no change" else f": {listed(metrics)}")
        for verdict, metrics in names.items()
    )


def _difference(difference: Difference) -> str:
    kind = "forbids comparing" if difference.forbids else "beware"
    return f"{kind}: {short(difference.what, 120)}: {short(difference.base, 60)} -> {short(difference.head, 60)}"


def _worth_telling(rows: tuple[Compared, ...]) -> list[Compared]:
    """Leave out what neither run knows; JSON has it all."""
    known = {row.metric for row in rows if row.cell != EVERY_CELL and (row.base, row.head) != (None, None)}
    return [
        row for row in rows if (row.metric in known if row.cell == EVERY_CELL else (row.base, row.head) != (None, None))
    ]


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
        "headline": headline(comparison),
        "base": comparison.base,
        "head": comparison.head,
        "threshold": comparison.threshold,
        "differences": [difference._asdict() for difference in comparison.differences],
        "missing": list(comparison.missing),
        "metrics": [row._asdict() for row in comparison.rows],
    }
    return json.dumps(whole, indent=2, allow_nan=False)
