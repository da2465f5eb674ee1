"""Why a ceiling is not the exposed share: the clock names what took more, or less, once the stage was gone."""

import math
from contextlib import AbstractContextManager

import pytest
import torch

from harness.whatif.readings import REPEATS, Spent, Worked, clock_for, metered, reading, spent
from profiles.ratio import Ratio
from profiles.timing.clock import StageClock
from profiles.turns import Extent, Step
from tests.profiles.test_turns import Virtual

FULL = Spent(10.0, {"data_loading": 1.0, "transfer": 0.5, "attention": 5.0, "loss": 3.5}, {"decode": 9.0, "copy": 3.0})


UNKNOWN = Worked(None)


def close(value: float) -> Ratio:
    return Ratio(value, value - 0.005, value + 0.005, 9)


def test_where_the_gain_is_the_exposed_share_nothing_is_to_be_explained() -> None:
    without = Spent(5.0, {**FULL.exposed_s, "attention": 0.0}, {})
    assert reading("attention", close(0.5), FULL, without, UNKNOWN) == "as exposed"


def test_what_hid_behind_a_stage_takes_its_place_and_is_named() -> None:
    without = Spent(9.0, {"data_loading": 5.0, "transfer": 0.5, "loss": 3.5}, {})
    told = reading("attention", close(0.1), FULL, without, UNKNOWN)
    assert told == "the step waits elsewhere instead: without it data_loading +40.0% of the step"
    without = Spent(9.0, {"data_loading": 1.0, "transfer": 0.5, "loss": 7.5}, {})
    told = reading("attention", close(0.1), FULL, without, UNKNOWN)
    assert told == "what it hid takes its place: without it loss +40.0% of the step"


def test_what_the_clock_does_not_explain_is_said_to_be_unexplained() -> None:
    less = Spent(9.0, {"loss": 3.5, "data_loading": 1.0, "transfer": 0.5}, {})
    assert reading("attention", close(0.1), FULL, less, UNKNOWN) == "less than exposed, and the clock does not say why"
    more = Spent(1.0, {"loss": 3.5, "data_loading": 1.0, "transfer": 0.5}, {})
    assert reading("attention", close(0.9), FULL, more, UNKNOWN) == "more than exposed, and the clock does not say why"
    partly = Spent(9.0, {"data_loading": 1.0, "transfer": 0.5, "loss": 4.0}, {})
    told = reading("attention", close(0.1), FULL, partly, UNKNOWN)
    assert told.endswith("without it loss +5.0% of the step, of the rest the clock does not say why")


def test_what_is_still_there_of_a_stage_that_was_taken_away_is_said() -> None:
    without = Spent(5.2, {**FULL.exposed_s, "attention": 0.2}, {})
    told = reading("attention", close(0.48), FULL, without, UNKNOWN)
    assert told == "as exposed; 2.0% of the step is still exposed without it"


@pytest.mark.parametrize(("workers", "told"), [
    (0, "as exposed; 105.0% of the step at least is worked beside other stages (overlap)"),
    (4, "as exposed; 60.0% of the step at least is worked beside other stages (overlap)"),
    (8, "as exposed; several workers work at once, and whether beside other stages too these shares do not tell"),
])  # fmt: skip
def test_what_more_is_worked_than_workers_can_while_the_step_waits_is_called_overlap(workers: int, told: str) -> None:
    without = Spent(8.5, {"attention": 5.0, "loss": 3.5}, {})
    assert reading("data_loading", close(0.15), FULL, without, metered(FULL, workers)) == told


def test_what_is_exposed_and_not_worked_is_called_starvation() -> None:
    without = Spent(5.0, {**FULL.exposed_s, "attention": 0.0}, {})
    told = reading("attention", close(0.5), FULL, without, Worked(0.3, tag="estimated"))
    assert told == "as exposed; 20.0% of the step is exposed and not worked (starvation)"


def test_a_wide_interval_that_holds_the_exposed_share_does_not_show_that_it_is_the_gain() -> None:
    without = Spent(5.0, {**FULL.exposed_s, "attention": 0.0}, {})
    told = reading("attention", Ratio(0.12, -0.10, 0.60, 6), FULL, without, UNKNOWN)
    assert told == "not told apart from exposed: the interval is wide"


def test_loading_is_metered_where_something_was_loaded() -> None:
    assert metered(FULL, 4) == Worked(1.2, 4, "measured")
    assert metered(FULL, 0) == Worked(1.2, 1, "measured")
    unknown = "nothing was loaded in the steps that were timed"
    assert metered(FULL._replace(loader_s={}), 4) == Worked(None, unknown=unknown)


def test_what_a_stage_slowed_down_while_it_worked_is_named() -> None:
    without = Spent(5.0, {"attention": 3.0, "loss": 2.0}, {})
    told = reading("data_loading", close(0.5), FULL, without, UNKNOWN)
    assert told == "it slowed others down while it worked: without it attention -20.0%, loss -15.0% of the step"


def test_transfer_is_taken_away_with_loading() -> None:
    assert FULL.exposed("data_loading") == 1.5
    without = Spent(8.5, {"attention": 5.0, "loss": 3.5}, {})
    assert reading("data_loading", close(0.15), FULL, without, UNKNOWN) == "as exposed"


def test_what_changed_too_little_to_matter_is_not_named() -> None:
    without = Spent(9.6, {"data_loading": 4.98, "transfer": 0.52, "loss": 3.54}, {})
    told = reading("attention", close(0.1), FULL, without, UNKNOWN)
    assert told == "the step waits elsewhere instead: without it data_loading +39.8% of the step"


@pytest.mark.parametrize("ends", [(-math.inf, 1.0), (0.1, math.inf)])
def test_too_few_rounds_explain_nothing(ends: tuple[float, float]) -> None:
    assert reading("attention", Ratio(0.5, *ends, 3), FULL, FULL, UNKNOWN) == "too few rounds to tell"


def test_turns_by_the_clock_are_timed_by_it_from_the_first_step_that_counts() -> None:
    pipeline = Virtual({"data_loading": 1_000_000, "attention": 4_000_000}, ahead=0)
    extent = Extent(3, 5)
    found = spent({"full": pipeline.without(None)}, extent, lambda: StageClock(pipeline.clock_ns), 1.0)
    assert found["full"].wall_s == pytest.approx(5 * 0.005)
    assert found["full"].exposed_s == pytest.approx({"unattributed": 5 * 0.005})
    assert found["full"].busy_s is None


@pytest.mark.parametrize(("limit_s", "turns"), [(0.0, 1), (1.5, 2), (60.0, REPEATS)])
def test_turns_by_the_clock_end_when_time_is_up(limit_s: float, turns: int) -> None:
    pipeline = Virtual({"data_loading": 1_000_000}, ahead=0)  # whose turn takes a second to close
    opened = []

    def counted() -> AbstractContextManager[Step]:
        opened.append(1)
        return pipeline.without(None)()

    spent({"full": counted}, Extent(1, 1), lambda: StageClock(pipeline.clock_ns), limit_s, pipeline.clock_ns)
    assert len(opened) == turns


def test_a_cpu_is_timed_by_the_clock_of_the_host() -> None:
    assert type(clock_for(torch.device("cpu"))) is StageClock
