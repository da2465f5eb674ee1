"""Digits and names."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reports.words.format import (
    between,
    listed,
    number,
    p_value,
    percent,
    points,
    ratio,
    scale,
    short,
    visible,
    with_spread,
)


@pytest.mark.parametrize(
    ("value", "spread", "shown"),
    [
        (12.3456, 0.04, "12.35"),
        (12.3456, 0.013, "12.346"),
        (12.3456, 3.0, "12"),
        (12345.6, 300.0, "12,300"),
        (0.99996, 0.0097, "1.000"),
        (-1.5, 0.2, "\u22121.5"),
        (-0.001, 0.5, "0.0"),
        (12.3456, None, "12.35"),
        (0.000123456, None, "0.0001235"),
        (3.0, 0.0, "3.000"),
        (0.0, None, "0"),
        (float("nan"), None, "not a finite number"),
        (-1.23456e30, None, "\u22121.235e30"),
        (1.23456e30, 1e29, "1.235e30"),
        (2.5e-12, None, "2.500e-12"),
    ],
)
def test_a_number_has_the_digits_its_spread_justifies(value: float, spread: float | None, shown: str) -> None:
    assert number(value, spread) == shown


@given(value=st.floats(-1e9, 1e9), spread=st.floats(1e-6, 1e6))
def test_rounding_moves_a_number_by_less_than_its_spread(value: float, spread: float) -> None:
    shown = float(number(value, spread).replace(",", "").replace("\u2212", "-"))
    assert abs(shown - value) <= spread + 1e-6


@given(value=st.floats(), spread=st.floats(min_value=0.0))
@example(value=float("nan"), spread=1.0)
def test_every_number_has_a_text_that_fits_a_table(value: float, spread: float) -> None:
    told = (
        number(value),
        number(value, spread),
        with_spread(value, spread, None),
        percent(value),
        percent(value, spread),
        points(value),
    )
    assert all(len(text) < 50 for text in (*told, ratio(value), between(value, 2.0 * value)))


def test_a_spread_is_rounded_to_the_digit_of_its_number() -> None:
    assert number(1543.2, 21.0) == "1,540"
    assert with_spread(1543.2, 21.0, 5) == "IQR\u00a020, n\u00a05"
    assert with_spread(1.0, None, None) == ""


def test_percent_ratio_and_p_are_told_their_own_way() -> None:
    assert percent(0.1234) == "12.3\u00a0%"
    assert percent(0.1234, 0.02) == "12\u00a0%"
    assert ratio(1.0749) == "1.07"
    assert ratio(1.0749, 0.004) == "1.075"
    assert p_value(0.00001) == "< 0.001"
    assert p_value(0.0353) == "0.035"


def test_a_column_is_told_in_the_unit_that_suits_its_largest_value() -> None:
    assert scale("s", 3485.0).label == "min"
    assert scale("bytes", 3.2e9).label == "GiB"
    assert scale("%", 90.0) == (1.0, "%")


def test_what_would_act_on_the_screen_is_shown_as_its_escape() -> None:
    assert visible("a\nb\u202ec\x00") == "a\\nb\\u202ec\\x00"
    assert visible("a\nb", keep="\n") == "a\nb"
    assert visible("אב") == "אב"


def test_a_long_name_keeps_its_ends() -> None:
    assert len(short("x" * 300, 40)) == 40
    assert short("abc" + "x" * 300 + "xyz", 12).endswith("xyz")


def test_a_list_in_prose_counts_what_it_does_not_show() -> None:
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"], most=2) == "a, b and 1 more"
