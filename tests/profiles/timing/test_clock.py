from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from profiles.stages import STAGES, Stage, recording, stage
from profiles.timing.clock import StageClock
from profiles.timing.times import Cell, PhaseTimes
from tests.profiles.timing.fake_clock import FakeClock
from tests.profiles.timing.test_backward import two_stage_step

programs = st.recursive(
    st.integers(0, 1000).map(lambda duration_ns: ("work", duration_ns)),
    lambda inner: st.tuples(st.sampled_from(STAGES), st.lists(inner, max_size=4)),
    max_leaves=20,
)


def play(program: Any, clock: FakeClock, current: str, expected: dict[str, int]) -> None:
    name, content = program
    if name == "work":
        clock.pass_ns(content)
        expected[current] = expected.get(current, 0) + content
        return
    with stage(name):
        for part in content:
            play(part, clock, name, expected)


@given(st.lists(programs, max_size=6))
def test_no_time_is_lost_or_counted_twice(parts: list[Any]) -> None:
    clock, expected = FakeClock(), {}
    with StageClock(clock).phase("train", 1) as times:
        for part in parts:
            play(part, clock, "unattributed", expected)
    charged: dict[str, int] = {}
    for cell, exposed_ns in times.exposed_ns.items():
        charged[cell.stage] = charged.get(cell.stage, 0) + exposed_ns
    assert {name: value for name, value in charged.items() if value} == {k: v for k, v in expected.items() if v}
    assert times.wall_ns == clock.now_ns == sum(times.exposed_ns.values())
    assert sum(row.share for row in times.rows()) == pytest.approx(1 if times.wall_ns else 0)


def test_a_nested_stage_is_subtracted_from_its_parent() -> None:
    clock = FakeClock()
    with StageClock(clock).phase("train", 1) as times, stage("loss"):
        clock.pass_ns(5)
        with stage("transfer"):
            clock.pass_ns(7)
        clock.pass_ns(1)
    assert times.exposed_ns[Cell("loss", "forward")] == 6
    assert times.exposed_ns[Cell("transfer", "none")] == 7


def test_what_a_mark_costs_is_its_stage_s() -> None:
    clock, told = FakeClock(), list[str]()

    def tell(cell: Cell, *_: int) -> None:
        clock.pass_ns(5)
        told.append(cell.stage)

    with StageClock(clock, charged=tell).phase("train", 1) as times:
        for _ in range(3):
            with stage("loss"), stage("transfer"):
                clock.pass_ns(100)
    assert times.exposed_ns[Cell("unattributed", "none")] == 0
    assert times.wall_ns == 3 * 100 + 5 * (len(told) - 4)  # the last ones are told when the phase is over
    assert told == ["unattributed", "loss", *["transfer", "loss", "unattributed", "loss"] * 2,
                    "transfer", "loss", "unattributed", "unattributed"]  # fmt: skip


def test_an_exception_inside_a_stage_leaves_the_clock_whole() -> None:
    clock = FakeClock()
    stage_clock = StageClock(clock)
    with pytest.raises(ValueError, match="oops"), stage_clock.phase("train", 1) as times, stage("loss"):
        clock.pass_ns(3)
        message = "oops"
        raise ValueError(message)
    assert times.exposed_ns[Cell("loss", "forward")] == 3
    with stage_clock.phase("train", 2) as again:
        clock.pass_ns(4)
    assert again.exposed_ns == {Cell("unattributed", "none"): 4}


def test_a_phase_adds_to_what_ran_before_an_interruption() -> None:
    clock = FakeClock()
    with StageClock(clock).phase("train", 3) as first, stage("loss"):
        clock.pass_ns(3)
    carried = PhaseTimes.from_state(first.to_state())
    with StageClock(clock).phase("train", 3, carried) as times, stage("loss"):
        clock.pass_ns(5)
    assert times.exposed_ns[Cell("loss", "forward")] == 8
    assert times.calls[Cell("loss", "forward")] == 2
    assert times.wall_ns == 8


def test_lost_time_is_an_error_and_not_a_row() -> None:
    with pytest.raises(AssertionError, match="stages sum to 3 ns, wall time is 4 ns"):
        PhaseTimes("train", 1, parts_ns=[4], exposed_ns={Cell("loss", "forward"): 3}).rows()


def test_every_table_leads_with_the_same_five_stages_and_ends_with_the_remainder() -> None:
    clock = FakeClock()
    with StageClock(clock).phase("train", 1) as times:
        two_stage_step(clock)
        with stage("optimizer"):
            clock.pass_ns(1)
    assert [(row.stage, row.direction) for row in times.rows()] == [
        ("data_loading", "none"), ("patching", "none"), ("attention", "forward"), ("attention", "backward"),
        ("loss", "forward"), ("loss", "backward"), ("anomaly_map", "none"), ("optimizer", "none"),
        ("unattributed", "none"), ("unattributed", "backward"),
    ]  # fmt: skip
    unused = [row for row in times.rows() if row.calls == 0 and row.stage != "unattributed"]
    assert {(row.stage, row.exposed_s) for row in unused} == {("data_loading", 0), ("patching", 0), ("anomaly_map", 0)}


def test_the_device_is_drained_at_both_ends_of_a_phase() -> None:
    clock = FakeClock()
    with StageClock(clock, drain=lambda: clock.pass_ns(10)).phase("train", 1) as times:
        clock.pass_ns(1)
    assert times.wall_ns == 11  # the drain before the phase is not the phase's


def test_phases_do_not_nest() -> None:
    clock = StageClock(FakeClock())
    with clock.phase("train", 1), pytest.raises(RuntimeError, match="already installed"), clock.phase("train", 2):
        pass


@pytest.mark.parametrize("name", STAGES)
def test_a_mark_without_recorder_does_nothing(name: Stage) -> None:
    x = torch.ones(2, requires_grad=True)
    with stage(name) as mark:
        assert mark.input(x) is x
        assert mark.output(x) is x


def test_a_mark_disappears_under_compile() -> None:
    graphs = 0

    def count(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        nonlocal graphs
        graphs += 1
        return graph.forward

    @torch.compile(backend=count, fullgraph=True)
    def marked(x: Tensor) -> Tensor:
        with stage("attention") as mark:
            return mark.output(mark.input(x) + 1)

    x = torch.ones(2)
    assert torch.equal(marked(x), x + 1)
    with StageClock().phase("train", 1) as times:
        assert torch.equal(marked(x), x + 1)
    assert graphs == 1  # installing a recorder does not recompile
    assert Cell("attention", "forward") not in times.exposed_ns


def test_recordings_do_not_nest() -> None:
    clock = StageClock(FakeClock())
    with recording(clock), pytest.raises(RuntimeError, match="already installed"), recording(clock):
        pass
