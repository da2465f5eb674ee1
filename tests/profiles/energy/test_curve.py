import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles.energy.curve import EnergyCurve, Joules, total

S = 1_000_000_000

powers = st.lists(st.floats(1, 500), min_size=3, max_size=30)


@given(powers, st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)))
def test_energies_of_neighbouring_stretches_add_up(powers_w: list[float], shares: tuple[float, ...]) -> None:
    curve, end_ns = EnergyCurve("trapezoid"), (len(powers_w) - 1) * S
    first, middle, last = (curve.ask(round(share * end_ns)) for share in sorted(shares))
    for second, power_w in enumerate(powers_w):
        curve.sampled(second * S, power_w)
    parts = [curve.between(first, middle), curve.between(middle, last)]
    whole = curve.between(first, last)
    assert whole.energy_j == pytest.approx(total(parts).energy_j, rel=1e-9, abs=1e-6)
    assert whole.energy_j is not None
    assert 0 <= whole.energy_j <= max(powers_w) * end_ns / S + 1e-6


@given(powers, st.integers(0, 20 * S), st.integers(0, 20 * S))
def test_the_truth_lies_within_a_counters_error(powers_w: list[float], one_ns: int, other_ns: int) -> None:
    """Power changes where it likes; the counter moves every second."""
    start_ns, end_ns = sorted((one_ns, other_ns))
    curve = EnergyCurve("counter")
    start, end = curve.ask(start_ns), curve.ask(end_ns)

    def truth_j(at_ns: int) -> float:
        """Return the energy by then, of a power that changes every 0.7 s."""
        whole, rest_s = divmod(at_ns / S, 0.7)
        cycle = [powers_w[i % len(powers_w)] * 0.7 for i in range(int(whole))]
        return math.fsum(cycle) + rest_s * powers_w[int(whole) % len(powers_w)]

    for second in range(23):
        curve.counted(second * S, 0, truth_j(second * S))
    joules = curve.between(start, end)
    assert joules.energy_j is not None
    assert joules.error_j is not None
    assert abs(joules.energy_j - (truth_j(end_ns) - truth_j(start_ns))) <= joules.error_j + 1e-6


def test_a_moment_is_answered_only_when_the_next_knot_has_come() -> None:
    curve = EnergyCurve("counter")
    curve.counted(0, 0, 10.0)
    moment = curve.ask(S)
    assert not moment.settled
    curve.counted(2 * S, 0, 20.0)
    assert moment.energy_j == 15


def test_a_moment_before_the_first_knot_is_unknown() -> None:
    curve = EnergyCurve("counter")
    start, end = curve.ask(0), curve.ask(3 * S // 2)
    curve.counted(S, 0, 10.0)
    curve.counted(2 * S, 0, 20.0)
    assert curve.between(start, end) == Joules(None, None, None, "it began before the first reading")


@pytest.mark.parametrize("asked_s", [0, 3, 5])
def test_a_difference_over_an_interruption_means_nothing(asked_s: int) -> None:
    curve = EnergyCurve("counter")
    start = curve.ask(S)
    for second, energy_j in ((0, 100.0), (2, 120.0), (4, 3.0), (6, 9.0)):
        if asked_s in {second, second - 1}:
            end = curve.ask(5 * S)
        curve.counted(second * S, 0, energy_j)
    assert curve.between(start, end) == Joules(None, None, None, "the counter went back")


def test_a_gap_between_samples_is_not_bridged() -> None:
    curve = EnergyCurve("trapezoid", longest_gap_ns=S)
    start, end = curve.ask(S // 2), curve.ask(9 * S)
    for second in (0, 1, 8, 9):
        curve.sampled(second * S, 100.0)
    assert curve.between(start, end) == Joules(None, None, None, "no power was read for 7.0 s")


def test_one_unknown_part_makes_the_sum_unknown() -> None:
    known = Joules(5.0, 3.0, "counter")
    assert total([known, Joules(7.0, 4.0, "trapezoid")]) == Joules(12.0, 5.0, "trapezoid")
    lost = total([known, Joules(None, None, None, "GPU is lost")])
    assert lost == Joules(None, None, None, "1 of 2 stretches are unknown: GPU is lost")
    assert total([]).energy_j is None
