"""Two runs, read and set against each other."""

from pathlib import Path

from profiles.errors import ConfigError, NothingMeasuredError
from reports.compare.differences import differences
from reports.compare.metrics import compared
from reports.compare.words import Comparison
from reports.source.load import Run, read_run
from reports.words.format import count


def compare_runs(base: Path, head: Path, threshold: float) -> Comparison:
    """Read two runs and compare what both finished.

    Raises:
        RunDirectoryError: one of them is no run's directory, or its manifest is damaged.
        NothingMeasuredError: one of them has no finished record.

    """
    before, after = _measured(base), _measured(head)
    found = tuple(differences(before, after))
    rows = () if any(difference.forbids for difference in found) else tuple(compared(before, after, threshold))
    missing = tuple(sorted(_finished(before) ^ _finished(after) | _unfinished(before) | _unfinished(after)))
    return Comparison(str(base), str(head), threshold, found, missing, rows)


def _measured(folder: Path) -> Run:
    run = read_run(folder)
    if not run.records:
        cells = count(len(run.cells), "cell")
        message = f"{folder}: no finished record among {cells}, so nothing to compare; fix: let the run finish a cell"
        raise NothingMeasuredError(message)
    return run


def threshold_of(text: str) -> float:
    """Return the share that a threshold such as `5%` or `0.05` means.

    Raises:
        ConfigError: it is neither, or not between 0 and 100 %.

    """
    try:
        share = float(text.removesuffix("%")) / (100.0 if text.endswith("%") else 1.0)
    except ValueError:
        share = -1.0
    if not 0.0 <= share < 1.0:
        raise ConfigError(
            "--threshold", got=repr(text), expected="a share from 0% to below 100%", fix="write --threshold 5%"
        )
    return share


def _finished(run: Run) -> set[str]:
    return {cell.name for cell in run.cells if cell.record is not None}


def _unfinished(run: Run) -> set[str]:
    return {cell.name for cell in run.cells if cell.record is None}
