"""The epoch at each place of the waterfall: its parts sum to it, and what the exchanges take off sums to the whole."""

from pathlib import Path

import pytest

from harness.cells import Cell
from harness.config import build
from harness.whatif.epochs import PHASES, Steps, epochs, steps_of
from harness.whatif.waterfall import falls
from profiles.ratio import paired_ratio
from profiles.turns import Measured
from tests.harness.conftest import tiny_table

CELL = Cell("weave", "msa", "thesis", 0)
S = 10**9


def measured(times_ns: dict[str, list[int]]) -> Measured:
    first, *others = times_ns
    return Measured({name: paired_ratio(times_ns[name], times_ns[first]) for name in others}, times_ns, "time")


def test_an_epoch_is_its_starts_and_steps_and_its_waterfall_sums_to_the_whole() -> None:
    steps = {"whole": [4 * S] * 7, "images": [3 * S] * 7, "cut": [1 * S] * 7}
    starts = measured({"whole": [2 * S] * 3, "images": [S // 1000] * 3, "cut": [S // 1000] * 3})
    validation = measured({"whole": [2 * S] * 3, "images": [1 * S] * 3, "cut": [1 * S] * 3})
    rows = epochs(CELL, 4.0, falls(CELL, measured(steps), {}), Steps(10, 3), starts, validation, 2)
    whole, images, cut = rows
    assert whole.epoch_s == pytest.approx(PHASES * 2.0 + 10 * 4.0 + 3 * 1.0)
    assert images.epoch_s == pytest.approx(PHASES * 0.001 + 10 * 3.0 + 3 * 0.5)
    assert cut.epoch_s == pytest.approx(PHASES * 0.001 + 10 * 1.0 + 3 * 0.5)
    assert sum(row.gain_s for row in rows) == pytest.approx(whole.epoch_s - cut.epoch_s, rel=1e-12)
    assert [row.part for row in rows] == ["whole", "images", "cut"]


def test_an_epoch_has_as_many_steps_as_a_run_of_it(generated: Path) -> None:
    table = tiny_table(generated)
    table["training"] |= {"windows_per_image": 10, "batch_size": 8}
    assert steps_of(5, 1, build(table, "tiny")) == Steps(7, 2)
