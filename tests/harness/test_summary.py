"""From a cell's tables to its metrics, its stages, and what is said of them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from harness import totals
from harness.directory import CellDirectory
from harness.doubts import doubts, unsteady
from harness.summary import Extent, Tables, once_metrics, time_metrics
from profiles.record import (
    Closure,
    EnergyRow,
    EpochRow,
    LoaderRow,
    Observation,
    Phase,
    PhaseRow,
    ProfilerWindow,
    StageRow,
    StageTotal,
    StepState,
    StepTime,
    Verdict,
    WindowCell,
    write_csv,
)
from profiles.tracing.window import ProfilerConfig


class Rows(NamedTuple):
    """A cell's tables, as they will be written."""

    stages: list[StageRow]
    epochs: list[EpochRow]
    loader: list[LoaderRow]
    energy: Sequence[EnergyRow] = ()

    def phases(self) -> list[PhaseRow]:
        """Return the wall times: what the stages sum to."""
        walls_s: dict[tuple[Phase, int], float] = {}
        for row in self.stages:
            walls_s[row.phase, row.epoch] = walls_s.get((row.phase, row.epoch), 0) + row.exposed_s
        return [PhaseRow(phase, epoch, wall_s, 1e-5 * epoch) for (phase, epoch), wall_s in walls_s.items()]

    def written(self, root: Path) -> Tables:
        """Write them and read them back."""
        folder = CellDirectory(root)
        write_csv(folder.stages, StageRow._fields, self.stages)
        write_csv(folder.epochs, EpochRow._fields, self.epochs)
        write_csv(folder.phases, PhaseRow._fields, self.phases())
        write_csv(folder.loader, LoaderRow._fields, self.loader)
        write_csv(folder.energy, EnergyRow._fields, self.energy)
        return Tables.read(folder)


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    """Return epoch 0, a counted epoch, a profiled one, another counted one."""
    stages = [
        StageRow(phase, epoch, stage, direction, exposed_s, busy_s, share, 1, "measured")
        for phase, epoch, stage, direction, exposed_s, busy_s, share in (
            ("train", 0, "data_loading", "none", 100.0, 90.0, 1.0),
            ("train", 1, "attention", "forward", 1.0, None, 0.25),
            ("train", 1, "attention", "backward", 2.0, None, 0.5),
            ("train", 1, "unattributed", "none", 1.0, None, 0.25),
            ("validation", 1, "attention", "forward", 1.0, None, 1.0),
            ("train", 2, "attention", "forward", 50.0, None, 1.0),
            ("validation", 2, "attention", "forward", 1.0, None, 1.0),
            ("train", 3, "attention", "forward", 3.0, None, 0.5),
            ("train", 3, "attention", "backward", 1.0, None, 1 / 6),
            ("train", 3, "loss", "forward", 1.0, None, 1 / 6),
            ("train", 3, "unattributed", "none", 1.0, None, 1 / 6),
            ("validation", 3, "attention", "forward", 1.0, None, 1.0),
            ("evaluation", 3, "data_loading", "none", 3.0, 2.0, 0.3),
            ("evaluation", 3, "scoring", "none", 7.0, None, 0.7),
        )
    ]
    epochs = [EpochRow(e, 1.0, 1.0, wall, 60, e == 1, e == 2) for e, wall in ((1, 5.0), (2, 51.0), (3, 7.0))]
    loader = [LoaderRow("train", 0, "decode", 60.0), LoaderRow("train", 0, "resize", 30.0),
              LoaderRow("evaluation", 3, "decode", 2.0)]  # fmt: skip
    return Rows(stages, epochs, loader).written(tmp_path)


def by_cell(found: list[StageTotal]) -> dict[tuple[str, str, str], StageTotal]:
    """Return totals by what they are of."""
    return {(total.phase, total.stage, total.direction): total for total in found}


def test_totals_leave_out_the_warm_up_and_profiled_epochs(tables: Tables) -> None:
    found = by_cell(totals.stage_totals(tables, []))
    assert found["train", "attention", "forward"].exposed_s == 4
    assert found["train", "attention", "forward"].share == pytest.approx(0.4)
    assert found["train", "attention", "forward"].epochs == 2
    assert found["evaluation", "scoring", "none"].share == pytest.approx(0.7)
    assert ("train", "data_loading", "none") not in found
    for phase in ("train", "validation", "evaluation"):
        assert sum(total.share for total in found.values() if total.phase == phase) == pytest.approx(1)


def test_an_epoch_without_a_row_of_a_stage_spent_nothing_on_it(tables: Tables) -> None:
    found = by_cell(totals.stage_totals(tables, []))
    assert found["train", "attention", "backward"].spread_s == pytest.approx(0.5)  # quartiles of 1 and 2
    assert found["train", "loss", "forward"].spread_s == pytest.approx(0.5)  # of 0 and 1
    assert found["train", "loss", "forward"].share_spread == pytest.approx(1 / 12)
    assert found["evaluation", "scoring", "none"].spread_s is None  # of one


def window(**cells: tuple[float, float]) -> ProfilerWindow:
    """Return a window of 2 steps and 1 s whose *cells* were exposed and busy for so many seconds, forward."""
    return ProfilerWindow(
        epoch=2, steps=2, events=100, resident_bytes=10**6, trace="epoch0002.pt.trace.json.gz", trace_bytes=10**5,
        wall_s=1.0, busy_s=sum(busy_s for _, busy_s in cells.values()),
        cells=tuple(
            WindowCell(stage=stage, direction="forward", clock_share=exposed_s, profiler_share=exposed_s,
                       exposed_s=exposed_s, busy_s=busy_s)
            for stage, (exposed_s, busy_s) in cells.items()
        ),
    )  # fmt: skip


def seen(found: ProfilerWindow | None = None, **medians_s: float) -> Observation:
    """Return what was seen of steps, each kind of so many seconds give or take a thousandth."""
    states: dict[str, StepState] = {"bare": "bare", "clock": "clock", "inside": "window", "after": "after"}
    steps = tuple(
        StepTime(state=states[name], median_s=median_s, spread_s=median_s / 1000, n=8)
        for name, median_s in medians_s.items()
    )
    return Observation(epoch=2, steps=steps, window=found, reason=None if found else "too few")


def test_busy_time_is_counted_or_estimated_from_windows_or_unavailable_for_a_reason(tables: Tables) -> None:
    found = by_cell(totals.stage_totals(tables, [seen(window(attention=(0.8, 0.2)))]))
    loading, attention = found["evaluation", "data_loading", "none"], found["train", "attention", "forward"]
    assert (loading.busy_s, loading.busy_tag) == (2.0, "measured")
    assert (attention.busy_s, attention.busy_tag) == (pytest.approx(4 * 0.25), "estimated")
    for cell, reason in (
        (("validation", "attention", "forward"), totals.NO_WINDOW),
        (("train", "loss", "forward"), totals.NOT_IN_WINDOWS),
        (("train", "unattributed", "none"), "it has no resource of its own"),
    ):
        assert (found[cell].busy_s, found[cell].busy_tag, found[cell].busy_reason) == (None, "unavailable", reason)


def test_loading_counts_what_training_read_before_its_first_epoch(tables: Tables) -> None:
    found = {(total.phase, total.part): total.busy_s for total in totals.loader_totals(tables, beforehand=True)}
    assert found == {("train", "decode"): 60, ("train", "resize"): 30, ("evaluation", "decode"): 2}


def test_loading_in_every_step_leaves_out_steps_that_no_number_counts(tables: Tables) -> None:
    found = {(total.phase, total.part): total.busy_s for total in totals.loader_totals(tables, beforehand=False)}
    assert found == {("evaluation", "decode"): 2}


def test_a_closure_says_what_no_stage_explains_and_what_two_clocks_disagree_by(tables: Tables) -> None:
    found = {closure.phase: closure for closure in totals.closures(tables)}
    train = found["train"]
    assert (train.wall_s, train.unattributed_s, train.epochs) == (10, 2, 2)
    assert train.residual_s == pytest.approx(3e-5)
    assert found["evaluation"].unattributed_s == 0


def trained(waits: float, wall_s: float = 1.0, epochs: int = 1) -> list[StageTotal]:
    """Return what a training of *wall_s* took that waited for input by so great a part, and worked for the rest."""
    return [
        StageTotal(phase="train", stage=stage, direction="none", exposed_s=share * wall_s, share=share, epochs=epochs)
        for stage, share in (("data_loading", waits), ("attention", 1 - waits))
    ]


def parts(found: Verdict) -> tuple[float, float, float]:
    """Return the three parts of a verdict, which are all of the time."""
    assert found.compute_share is not None
    assert found.host_share is not None
    assert found.input_share + found.compute_share + found.host_share == pytest.approx(1)
    return found.input_share, found.compute_share, found.host_share


@pytest.mark.parametrize(("waits", "busy_s", "bound"), [
    (0.7, 0.1, "input-bound"), (0.1, 0.8, "compute-bound"), (0.1, 0.2, "host-bound"), (0.3, 0.4, "mixed"),
    (0.6, 0.4, "input-bound"),
])  # fmt: skip
@pytest.mark.parametrize("on_device", [True, False])
def test_what_takes_half_the_time_bounds_the_training(
    waits: float, busy_s: float, bound: str, *, on_device: bool
) -> None:
    found = window(data_loading=(waits, 0.0), attention=(1 - waits, busy_s))  # it waits as the training does
    verdict = totals.verdict(trained(waits), [seen(found)], 2, on_device=on_device)
    assert verdict.bound == bound
    assert parts(verdict) == pytest.approx((waits, busy_s, 1 - waits - busy_s))
    assert f"{waits:.1%} waits for input" in verdict.reason


def test_a_device_s_kernels_are_set_against_the_time_of_a_step_that_waits() -> None:
    """Kernels fill 60 % of a step that waits for nothing: with 45 % of waiting, such a step is 1 s of 1.82."""
    found = window(attention=(1.0, 1.2))  # of two steps
    verdict = totals.verdict(trained(0.45, 30 / 0.55, epochs=3), [seen(found)], 10, on_device=True)
    assert verdict.bound == "mixed"
    assert parts(verdict) == pytest.approx((0.45, 0.33, 0.22))


def test_a_cpu_s_operators_are_of_the_time_that_the_training_does_not_wait() -> None:
    """The window hardly waited and the epoch did: bottle, `msa`, by the thesis's pipeline."""
    found = window(data_loading=(0.0004 * 4.762, 0.0), attention=(4.762, 4.572)).model_copy(update={"wall_s": 4.762})
    verdict = totals.verdict(trained(0.093, 40.0), [seen(found)], 4, on_device=False)
    assert parts(verdict) == pytest.approx((0.093, 0.871, 0.036), abs=5e-4)


@pytest.mark.parametrize("on_device", [True, False])
def test_operators_and_copies_of_loading_are_input_and_not_compute(*, on_device: bool) -> None:
    found = window(data_loading=(0.5, 0.3), attention=(0.5, 0.25))
    assert parts(totals.verdict(trained(0.5), [seen(found)], 2, on_device=on_device)) == pytest.approx(
        (0.5, 0.25, 0.25)
    )


def test_kernels_longer_in_a_window_than_the_training_leave_nothing_to_the_host() -> None:
    found = totals.verdict(trained(0.1), [seen(window(attention=(1.0, 1.0)))], 2, on_device=True)
    assert parts(found) == pytest.approx((0.1, 0.9, 0))


def test_a_window_of_nothing_but_waiting_says_nothing_of_a_cpu() -> None:
    found = totals.verdict(trained(0.2), [seen(window(data_loading=(1.0, 0.0)))], 2, on_device=False)
    assert (found.bound, found.compute_share) == (None, None)


def test_without_a_window_only_waiting_is_known(tables: Tables) -> None:
    found = totals.verdict(totals.stage_totals(tables, []), [seen()], 2, on_device=False)
    assert (found.bound, found.input_share, found.compute_share, found.host_share) == (None, 0, None, None)
    assert "cannot be told apart" in found.reason


def closure(unattributed_s: float = 0.1, residual_s: float | None = None) -> Closure:
    """Return the closure of two epochs of 5 s each."""
    return Closure(phase="train", wall_s=10, unattributed_s=unattributed_s, residual_s=residual_s, epochs=2)


@pytest.mark.parametrize(("closures", "observed", "said"), [
    ([closure()], [seen(window(loss=(1, 1)), bare=1, clock=1.0, inside=3, after=1.01)], None),
    ([closure(0.21)], [], "2.1% of train is unattributed; the bound is 2%"),
    ([closure(residual_s=0.006)], [], "device events and host clock disagree by 0.006 s on an epoch's train"),
    ([], [seen()], "no profiler window, epoch 2: too few"),
    ([], [seen(window(loss=(1, 1)), bare=1, clock=1.02)], "steps with the stage clock are 2.0% slower than without"),
    ([], [seen(window(loss=(1, 1)), bare=1, clock=1, after=1.2)], "after the profiler window stay 20.0% slower"),
])  # fmt: skip
def test_what_lies_beyond_a_bound_is_a_caveat(
    closures: list[Closure], observed: list[Observation], said: str | None
) -> None:
    found = doubts([], closures, observed, ProfilerConfig())
    assert len(found) == (said is not None), found
    assert said is None or said in found[0]


def test_a_single_step_of_a_kind_is_a_caveat_for_nothing_can_be_told_of_it() -> None:
    states: tuple[StepState, ...] = ("bare", "clock", "window", "after")
    steps = tuple(StepTime(state=state, median_s=1.0, spread_s=None, n=1) for state in states)
    found = seen(window(loss=(1, 1))).model_copy(update={"steps": steps})
    (said,) = doubts([], [], [found], ProfilerConfig())
    assert said == "one step each (bare, clock, after), epoch 2: whether the instruments slow steps down is not known"


def test_two_routes_that_disagree_are_a_caveat() -> None:
    cell = WindowCell(stage="loss", direction="backward", clock_share=0.3, profiler_share=0.27, exposed_s=1, busy_s=1)
    found = window(loss=(1, 1)).model_copy(update={"cells": (cell,)})
    (said,) = doubts([], [], [seen(found)], ProfilerConfig())
    assert said == "stage clock and profiler disagree on loss (backward), epoch 2: 30.0% and 27.0% of the window"


def test_stages_busier_than_their_device_are_a_caveat() -> None:
    for residual_s, said in ((None, False), (0.009, False), (0.011, True)):
        found = window(loss=(1, 1)).model_copy(update={"busy_residual_s": residual_s})
        expected = "the stages' busy times sum to 1.1% more than the device was busy, epoch 2: "
        expected += "kernels of several stages ran at once"
        assert doubts([], [], [seen(found)], ProfilerConfig()) == ([expected] if said else [])


def test_a_window_over_its_budget_is_a_caveat() -> None:
    found = window(loss=(1, 1)).model_copy(update={"resident_bytes": 300 * 10**6, "trace_bytes": 70 * 10**6})
    memory, trace = doubts([], [], [seen(found)], ProfilerConfig())
    assert "took 300000000 bytes of memory: over its budget" in memory
    assert "has 70000000 bytes: over its budget" in trace


def test_an_epoch_that_something_else_slowed_down_is_a_caveat_of_the_sums(tmp_path: Path) -> None:
    walls_s = [1.3, 2.5, 1.2, 28.8, 1.4, 5.1]  # the second was looked at closely
    epochs = [EpochRow(e, 1.0, 1.0, wall_s, 60, e == 1, e == 2) for e, wall_s in enumerate(walls_s, start=1)]
    stages = [
        StageRow("train", e, "loss", "forward", wall_s, None, 1.0, 1, "measured") for e, wall_s in enumerate(walls_s)
    ]
    (said,) = unsteady(Rows(stages, epochs, []).written(tmp_path))
    assert said.startswith("unsteady: epochs 4 (28.8 s), 6 (5.1 s) lasted more than 2 times the median of 1.4 s")
    assert list(unsteady(Rows(stages, epochs[:3], []).written(tmp_path))) == []


def test_stages_whose_marks_were_not_met_are_named(tables: Tables) -> None:
    (said,) = doubts(totals.stage_totals(tables, []), [], [], ProfilerConfig())
    assert said.startswith("no mark of patching, embedding, feed_forward, head, optimizer was met in training")


def test_time_per_epoch_is_the_median_of_the_epochs_that_count(tables: Tables) -> None:
    metrics = {metric.name: metric for metric in time_metrics(tables, Extent(1, 1, None, [], 0))}
    assert (metrics["time_per_epoch"].value, metrics["time_per_epoch"].n) == (6.0, 2)
    assert metrics["time_per_epoch"].spread == pytest.approx(1.0)  # quartiles of 5 and 7
    assert metrics["training_time"].value == pytest.approx(100 + 4 + 1 + 50 + 1 + 6 + 1)
    assert metrics["windows_per_second"].value == pytest.approx((60 / 4 + 60 / 6) / 2)


def test_an_estimate_repeats_the_steps_and_counts_once_what_is_done_once(tmp_path: Path) -> None:
    stages = [
        StageRow(phase, 1, stage, "none", exposed_s, None, 0.0, 1, "measured")
        for phase, stage, exposed_s in (
            ("train", "checkpoint", 5.0), ("train", "patching", 3.0), ("train", "attention", 8.0),
            ("validation", "attention", 2.0), ("validation", "checkpoint", 7.0),
            ("calibration", "checkpoint", 5.0), ("calibration", "attention", 4.0), ("evaluation", "attention", 6.0),
        )
    ]  # fmt: skip
    tables = Rows(stages, [EpochRow(1, 1.0, 1.0, 25.0, 400, is_best=True, profiled=False)], []).written(tmp_path)
    second_ns = 10**9
    # 4 steps of 100 took 9 s beside 2 s of drawing and 5 s of saving; 2 of 10 validation steps took 2 s beside 7 s
    steps_ns = [second_ns, 2 * second_ns, 3 * second_ns, 3 * second_ns]
    extent = Extent(100, 10, 2, steps_ns, 2 * second_ns, validation_steps=2)
    metrics = {metric.name: metric for metric in time_metrics(tables, extent)}
    assert metrics["time_per_epoch"].value == pytest.approx(7 + 9 / 4 * 100 + 7 + 2 / 2 * 10)
    assert metrics["time_per_epoch"].spread == pytest.approx(100 * 1.25)
    assert metrics["time_per_epoch"].n == 4
    assert metrics["windows_per_second"].value == pytest.approx(400 / 9)
    # a loader's start is of an epoch; of two validation steps, the first found its batch fetched and took half a second
    loaded = extent._replace(start_ns=4 * second_ns, validation_lead=1, validation_lead_ns=second_ns // 2)
    times = {metric.name: metric for metric in time_metrics(tables, loaded)}
    assert times["time_per_epoch"].value == pytest.approx(4 + 7 + 9 / 4 * 100 + 7 + 0.5 + 1.5 * 9)
    assert times["windows_per_second"].value == pytest.approx(400 / 9)
    whole = {metric.name: metric for metric in time_metrics(tables, loaded._replace(validation_steps_per_epoch=2))}
    assert whole["time_per_epoch"].value == pytest.approx(4 + 7 + 9 / 4 * 100 + 9)
    once = {metric.name: metric for metric in once_metrics(tables, {"calibration": (4, 40)})}
    assert once["calibration_time"].value == pytest.approx(5 + 4 * 10)
    assert once["calibration_time"].tag == "estimated"
    whole = once_metrics(tables, {"evaluation": (3, 3)})[0]
    assert (whole.value, whole.tag) == (6, "measured")


def test_epochs_that_were_interrupted_are_in_no_sum_over_ranks(tables: Tables) -> None:
    def attention_s(interrupted: set[int]) -> dict[str, float]:
        found = totals.rank_totals([tables, tables], interrupted)
        return {each.direction: each.summed_s for each in found if (each.phase, each.stage) == ("train", "attention")}

    assert attention_s(set()) == {"forward": 2 * (1.0 + 3.0), "backward": 2 * (2.0 + 1.0)}
    assert attention_s({1}) == {"forward": 2 * 3.0, "backward": 2 * 1.0}
    assert attention_s({1, 3}) == {}


def test_an_epoch_counts_as_interrupted_where_a_phase_of_it_did_not_end() -> None:
    def stopped(cell: str, epoch: int, *, completed: bool) -> str:
        return json.dumps({"event": "phase_stop", "cell": cell, "epoch": epoch, "completed": completed})

    lines = [
        json.dumps({"event": "run_start", "run": "a"}),
        stopped("one", 1, completed=True),
        stopped("one", 2, completed=False),
        '{"event": "phase_st' + stopped("one", 4, completed=False),  # a kill cut the first short
        stopped("other", 3, completed=False),
        stopped("one", 2, completed=True),
    ]
    assert totals.interrupted_epochs(lines, "one") == {2}
