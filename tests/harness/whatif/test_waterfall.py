"""The waterfall: its gains sum to the whole, and where the order of its parts is not sure it says so."""

import random

import pytest

from harness.cells import Cell
from harness.whatif.waterfall import falls, ordered, unresolved
from profiles.ratio import paired_ratio
from profiles.turns import Measured


def measured(times_ns: dict[str, list[int]]) -> Measured:
    first, *others = times_ns
    return Measured({name: paired_ratio(times_ns[name], times_ns[first]) for name in others}, times_ns, "time")


def test_gains_sum_to_the_whole_however_noisy_the_rounds_are() -> None:
    noise = random.Random(0)
    names = ["the whole step", "images", "cut", "loss"]
    times_ns = {name: [round(1e6 * noise.lognormvariate(0, 1)) for _ in range(9)] for name in names}
    ratios = {name: paired_ratio(times_ns[name], times_ns[names[0]]) for name in names[1:]}
    found = falls(Cell("weave", "msa", "thesis", 0), Measured(ratios, times_ns, "time"), {})
    assert sum(row.gain for row in found) == pytest.approx(1 - found[-1].step, abs=1e-12)
    for before, row in zip([None, *found], found, strict=False):
        assert row.by_previous == pytest.approx(row.step / (before.step if before else 1.0), rel=1e-12)
        assert (row.gain > 0) == (row.by_previous < 1)
        assert row.low is not None
        assert row.high is not None
        assert row.low <= row.by_previous <= row.high
        assert row.gain_low is not None
        assert row.gain_high is not None
        assert row.gain_low <= row.gain <= row.gain_high


def test_a_disturbed_round_does_not_move_the_waterfall() -> None:
    times_ns = {"the whole step": [1000] * 9, "images": [800] * 8 + [80000], "cut": [600] * 9}
    ratios = {name: paired_ratio(times_ns[name], times_ns["the whole step"]) for name in ("images", "cut")}
    found = falls(Cell("weave", "msa", "thesis", 0), Measured(ratios, times_ns, "time"), {})
    assert [row.step for row in found] == pytest.approx([0.8, 0.6])
    assert [row.gain for row in found] == pytest.approx([0.2, 0.2])


WHOLE = [1000, 1010, 990, 1005, 995, 1002, 998]


def slower(times_ns: list[int], *parts: float) -> list[int]:
    return [round(time * parts[number % len(parts)]) for number, time in enumerate(times_ns)]


def test_parts_are_exchanged_in_the_order_of_their_gains_and_what_is_told_apart_is_not_doubted() -> None:
    found = measured({"whole": WHOLE, "cut": slower(WHOLE, 0.9), "images": slower(WHOLE, 0.5)})
    order = ordered(found, ["cut", "images"])
    assert order == ["images", "cut"]
    assert unresolved(found, order) == {}


def test_where_intervals_do_not_tell_two_parts_apart_the_later_one_says_so() -> None:
    times_ns = {
        "whole": WHOLE,
        "images": slower(WHOLE, 0.5),
        "cut": slower(WHOLE, 0.9, 0.92),
        "loss": slower(WHOLE, 0.92, 0.9),
    }
    found = measured(times_ns)
    doubts = unresolved(found, ordered(found, ["cut", "loss", "images"]))
    assert list(doubts) == ["loss"]
    assert "order not resolved: alone its gain is not told from that of cut" in doubts["loss"]
    rows = falls(Cell("weave", "msa", "thesis", 0), found, doubts)
    assert {row.part: row.reading for row in rows} == {"images": "", "cut": "", "loss": doubts["loss"]}


def test_too_few_rounds_resolve_no_order() -> None:
    found = measured({"whole": [1000], "images": [500], "cut": [900]})
    assert list(unresolved(found, ["images", "cut"])) == ["cut"]
