"""Numbers and names as text: the one place where either is formatted.

A number carries as many digits as its spread justifies: the spread's first significant digit is the last one
shown, or its second where the first is a 1. Without a spread it carries four significant digits. What would need
dozens of digits, as a loss that diverged, is written with an exponent.

Names come from a run's files and may hold anything; what would act on the reader's screen (a line break, a
mark that reverses the writing direction) is shown as its escape.
"""

import math
import re
import unicodedata
from decimal import ROUND_HALF_EVEN, Decimal
from typing import NamedTuple

_SIGNIFICANT = 4
_SECONDS = ((36_000.0, 3_600.0, "h"), (600.0, 60.0, "min"), (0.1, 1.0, "s"), (0.0, 1e-3, "ms"))
_BYTES = ((2.0**30, 2.0**30, "GiB"), (2.0**20, 2.0**20, "MiB"), (0.0, 2.0**10, "KiB"))
_JOULES = ((1e6, 1e6, "MJ"), (1e4, 1e3, "kJ"), (0.0, 1.0, "J"))
_LADDERS = {"s": _SECONDS, "bytes": _BYTES, "J": _JOULES}
_ACTING = frozenset("\u061c\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")
_SURE = 0.001
_LARGE, _SMALL = 1e15, 1e-9
"""Sizes from which, and below which, a number is written with an exponent."""
_NUMBER = re.compile(r"\d[\d.,]*")
_MODELS = {
    "msa": "MSA",
    "mlsa": "MLSA",
    "intra": "InTra",
    "linformer": "Linformer",
    "fastformer": "Fastformer",
}
_METRICS = {
    "segmentation_auroc": "Segmentation AUROC",
    "detection_auroc": "Detection AUROC",
    "detection_auroc_rescaled": "Detection AUROC, had each map been rescaled",
    "detection_auroc_not_rescaled": "Detection AUROC, had no map been rescaled",
    "aupro_30": "AUPRO to FPR 0.3",
    "average_precision": "Average precision",
    "time_per_epoch": "Time per epoch",
    "training_time": "Training time",
    "best_epoch": "Best epoch",
    "windows_per_second": "Throughput, windows",
    "peak_memory": "Peak memory",
    "parameters": "Trainable parameters",
    "cell_energy": "Energy of all that the cell ran",
}


class Scale(NamedTuple):
    """A unit that suits a column: its values are divided by `divisor` and read in `label`."""

    divisor: float
    label: str


def scale(unit: str, largest: float) -> Scale:
    """Choose the unit in which a column, whose largest value is *largest* in *unit*, reads well."""
    for least, divisor, label in _LADDERS.get(unit, ()):
        if abs(largest) >= least:
            return Scale(divisor, label)
    return Scale(1.0, unit)


def number(value: float, spread: float | None = None) -> str:
    """Return *value* with as many digits as *spread* justifies."""
    if not math.isfinite(value):
        return "not a finite number"
    if spread is None and 0.0 < abs(value) < _SMALL:
        return _scientific(value)
    return _fixed(value, _decimals(value, spread))


def with_spread(value: float, spread: float | None, n: int | None) -> str:
    """Return what stands below a number: its spread, to the same digit, and its sample count, if any."""
    parts = []
    if spread is not None and math.isfinite(value) and math.isfinite(spread):
        parts.append(f"IQR\u00a0{_fixed(spread, _decimals(value, spread))}")
    if n is not None:
        parts.append(f"n\u00a0{integer(n)}")
    return ", ".join(parts)


def within(value: float, error: float | None) -> str:
    """Return what stands below a number that is off by *error* at most: that, to the same digit."""
    if error is None:
        return "\u00b1\u00a0unknown"
    if not math.isfinite(value) or not math.isfinite(error):
        return ""
    return f"\u00b1\u00a0{_fixed(error, _decimals(value, error))}"


def integer(value: float) -> str:
    """Return a whole number, thousands set off."""
    return _fixed(value, 0)


def percent(share: float, spread: float | None = None) -> str:
    """Return a *share* of 1 as a percentage; at most one decimal without a spread."""
    if spread is None or spread <= 0.0:
        return f"{_fixed(100.0 * share, 1)}\u00a0%" if math.isfinite(share) else "not a finite number"
    return f"{number(100.0 * share, 100.0 * spread)}\u00a0%"


def points(difference: float) -> str:
    """Return a *difference* of two shares of 1 in percentage points, with its sign."""
    if not math.isfinite(difference):
        return "not a finite number"
    return f"{'+' if difference > 0.0 else ''}{_fixed(100.0 * difference, 2)}"


def ratio(value: float, spread: float | None = None) -> str:
    """Return a ratio: to two decimals near 1 where no *spread* says how many it has."""
    if spread:
        return number(value, spread)
    near = 0.1 <= abs(value) < 100.0  # noqa: PLR2004 - two decimals say enough in between
    return _fixed(value, 2) if near else number(value)


def between(low: float | None, high: float | None) -> str:
    """Return an interval, its ends to about a hundredth of its width; what has no end is unbounded."""
    width = (high - low) / 10.0 if low is not None and high is not None else None
    ends = ["unbounded" if end is None else number(end, width) for end in (low, high)]
    return f"{ends[0]} to {ends[1]}"


def p_value(p: float) -> str:
    """Return a test's *p*, never as 0."""
    return f"< {_SURE}" if p < _SURE else _fixed(p, 3)


def count(n: int, noun: str, plural: str | None = None) -> str:
    """Return *n* with its noun: `1 cell`, `2 cells`."""
    return f"{integer(n)} {noun if n == 1 else plural or noun + 's'}"


def model_name(model: str) -> str:
    """Return a model's name as prose has it."""
    return _MODELS.get(model, visible(model))


def metric_name(metric: str) -> str:
    """Return a metric's name as a heading."""
    return _METRICS.get(metric, visible(metric).replace("_", " ").capitalize())


def listed(words: list[str], most: int = 6) -> str:
    """Return *words* as a list in prose, the rest counted after the first *most*."""
    shown = [visible(word) for word in words[:most]]
    if len(words) > most:
        shown.append(f"{len(words) - most} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}" if shown else ""


def alike(text: str) -> str:
    """Return what *text* shares with those that say the same of other numbers."""
    return _NUMBER.sub("#", text)


def visible(text: str, keep: str = "") -> str:
    r"""Return *text* with what would act instead of showing as its escape (`\n`, `\u202e`), except *keep*."""
    return "".join(_escape(c) if c not in keep and _acts(c) else c for c in text)


def short(text: str, width: int = 40) -> str:
    """Return *text* cut in its middle to *width* characters, for where there is no room to wrap."""
    text = visible(text)
    if len(text) <= width:
        return text
    tail = width // 3
    return f"{text[: width - tail - 1]}…{text[-tail:]}"


def _acts(character: str) -> bool:
    return character in _ACTING or unicodedata.category(character) in {"Cc", "Cs"}


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _decimals(value: float, spread: float | None) -> int:
    if spread is not None and math.isfinite(spread) and spread > 0.0:
        mantissa, exponent = f"{spread:.1e}".split("e")
        return min(12, -int(exponent) + (1 if mantissa.startswith("1") else 0))
    if value == 0.0:
        return 0
    return min(12, max(0, _SIGNIFICANT - 1 - math.floor(math.log10(abs(value)))))


def _scientific(value: float) -> str:
    text = f"{abs(value):.{_SIGNIFICANT - 1}e}".replace("e+", "e")
    return f"\u2212{text}" if value < 0.0 else text


def _fixed(value: float, decimals: int) -> str:
    if abs(value) >= _LARGE:
        return _scientific(value)
    rounded = Decimal(repr(float(value))).quantize(Decimal(1).scaleb(-decimals), rounding=ROUND_HALF_EVEN)
    text = f"{abs(rounded):,f}"
    return f"\u2212{text}" if rounded < 0 else text
