"""Attribution of a profiler's raw intervals, on intervals made up here and on those of a real step."""

from collections.abc import Callable
from statistics import median
from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from profiles.stages import backpropagate, stage
from profiles.timing.clock import ANNOTATION, BACKWARD_PASS, StageClock
from profiles.timing.times import Cell
from profiles.tracing.attribution import NODE, Interval, attribute, intervals, union_ns
from profiles.tracing.window import profile_steps

FORWARD, BACKWARD = Cell("attention", "forward"), Cell("attention", "backward")
LOSS, LOSS_BACKWARD = Cell("loss", "forward"), Cell("loss", "backward")
REST, REST_BACKWARD = Cell("unattributed", "none"), Cell("unattributed", "backward")


def mark(name: str, start_ns: int, end_ns: int) -> Interval:
    return Interval(name, start_ns, end_ns, annotation=True)


def operator(name: str, start_ns: int, end_ns: int, sequence: int = -1, correlation: int = 0) -> Interval:
    return Interval(name, start_ns, end_ns, sequence=sequence, correlation=correlation)


def node(name: str, start_ns: int, end_ns: int, sequence: int = -1) -> Interval:
    """Return a backward node, on a thread of its own, as autograd runs it for a device."""
    forward_thread = 1 if sequence >= 0 else 0
    return Interval(NODE + name, start_ns, end_ns, thread=9, sequence=sequence, forward_thread=forward_thread)


def kernel(start_ns: int, end_ns: int, correlation: int) -> Interval:
    return Interval("gemm", start_ns, end_ns, on_device=True, correlation=correlation)


def step(*events: Interval, end_ns: int = 100) -> list[Interval]:
    return [mark("ProfilerStep#0", 0, end_ns), *(each._replace(thread=each.thread or 1) for each in events)]


TRAINING = step(
    mark(f"{ANNOTATION}attention", 10, 30), operator("aten::mm", 12, 20, sequence=0),
    operator("aten::add", 22, 28, sequence=1),
    mark(f"{ANNOTATION}loss", 35, 45), operator("aten::sum", 36, 44, sequence=2),
    mark(BACKWARD_PASS, 50, 95),
    node("SumBackward0", 55, 60, sequence=2), node("AddBackward0", 62, 70, sequence=1),
    node("MmBackward0", 70, 85, sequence=0), node("torch::autograd::AccumulateGrad", 85, 90),
)  # fmt: skip


def test_backward_nodes_go_to_the_stage_whose_operator_made_them() -> None:
    found = attribute(TRAINING)
    assert found.wall_ns == 100
    assert found.exposed_ns == {
        REST: 10 + 5 + 5 + 5,  # before, between and after
        FORWARD: 20,
        LOSS: 10,
        LOSS_BACKWARD: 5 + 7,  # from the call on, and to the next node
        BACKWARD: 8 + 15 + 5 + 5,  # and what adds up the weight's gradient goes with the node before
    }


def test_a_number_seen_by_several_operators_is_that_of_the_last_which_made_the_node() -> None:
    events = step(
        mark(f"{ANNOTATION}attention", 10, 30), operator("aten::detach", 12, 14, sequence=7),
        mark(f"{ANNOTATION}loss", 30, 40), operator("aten::sum", 32, 38, sequence=7),
        mark(BACKWARD_PASS, 50, 90), node("SumBackward0", 50, 90, sequence=7),
    )  # fmt: skip
    assert attribute(events).exposed_ns[LOSS_BACKWARD] == 40
    assert BACKWARD not in attribute(events).exposed_ns


def test_what_a_checkpoint_computes_again_is_backward_work() -> None:
    events = step(
        mark(BACKWARD_PASS, 50, 90), node("CheckpointBackward", 50, 90, sequence=3), mark(f"{ANNOTATION}loss", 60, 70)
    )
    assert attribute(events).exposed_ns[LOSS_BACKWARD] == 10


def test_on_a_cpu_busy_is_the_union_of_operators() -> None:
    found = attribute([*TRAINING, operator("aten::inner", 13, 19)._replace(thread=1)])
    assert found.busy_ns[FORWARD] == 8 + 6
    assert found.busy_ns[LOSS] == 8
    assert found.union_ns == 22


def test_device_time_goes_to_the_stage_that_launched_it_and_idle_time_to_the_one_it_waited_for() -> None:
    events = step(
        mark(f"{ANNOTATION}attention", 0, 10), operator("aten::mm", 2, 3, correlation=1),
        mark(f"{ANNOTATION}data_loading", 10, 60),
        mark(f"{ANNOTATION}loss", 60, 100), operator("aten::sum", 62, 63, correlation=2),
        operator("aten::add", 64, 65, correlation=3),
        kernel(5, 40, 1), kernel(70, 90, 2), kernel(80, 120, 3),
    )  # fmt: skip
    found = attribute(events)
    assert found.wall_ns == 120  # the device is drained
    assert found.exposed_ns == {FORWARD: 5 + 35, Cell("data_loading", "none"): 20, LOSS: 10 + 50}
    assert found.busy_ns == {FORWARD: 35, LOSS: 50}
    assert found.union_ns == 85  # kernels that overlap count once


@pytest.mark.parametrize(("second", "residual_ns"), [(kernel(40, 60, 2), 0), (kernel(33, 53, 2), 7)])
def test_stages_are_busy_for_longer_than_the_device_only_where_their_kernels_overlap(
    second: Interval, residual_ns: int
) -> None:
    events = step(
        mark(f"{ANNOTATION}attention", 0, 10), operator("aten::mm", 2, 3, correlation=1),
        operator("aten::mm", 4, 5, correlation=3),
        mark(f"{ANNOTATION}loss", 10, 20), operator("aten::sum", 12, 13, correlation=2),
        kernel(20, 40, 1), kernel(25, 39, 3), second,
    )  # fmt: skip
    found = attribute(events)
    assert found.busy_ns == {FORWARD: 20, LOSS: 20}  # two kernels of one stage at once are no residual
    assert found.residual_ns == residual_ns


def test_kernels_of_the_backward_pass_go_to_the_stage_of_their_node() -> None:
    launch = operator("aten::mm", 72, 73, correlation=5)._replace(thread=9)
    found = attribute([*TRAINING, launch, kernel(80, 110, 5)])
    assert found.busy_ns == {BACKWARD: 30}
    assert found.exposed_ns[BACKWARD] == 30 + (80 - 62)


class Raw(NamedTuple):
    """A raw event as torch gives it; on a device, or of its library, linked to an operator by that one's number."""

    called: str
    start: int
    length: int = 1
    number: int = 0
    linked: int = 0
    device: str = "DeviceType.CPU"
    marks: bool = False

    def name(self) -> str:
        return self.called

    def start_ns(self) -> int:
        return self.start

    def duration_ns(self) -> int:
        return self.length

    def start_thread_id(self) -> int:
        return 1

    def fwd_thread_id(self) -> int:
        return 0

    def sequence_nr(self) -> int:
        return -1

    def correlation_id(self) -> int:
        return self.number

    def linked_correlation_id(self) -> int:
        return self.linked

    def is_user_annotation(self) -> bool:
        return self.marks

    def device_type(self) -> str:
        return self.device


def test_a_launch_whose_number_is_by_chance_an_operator_s_takes_no_kernel_from_it() -> None:
    """Operators are counted by torch, launches by CUPTI: both from small numbers up."""
    gpu = "DeviceType.CUDA"
    events = intervals([
        Raw("ProfilerStep#0", 0, 100, marks=True),
        Raw(f"{ANNOTATION}attention", 0, 20, marks=True), Raw("aten::mm", 2, 8, number=1),
        Raw("cudaLaunchKernel", 4, number=2, linked=1),
        Raw(f"{ANNOTATION}loss", 20, 60, marks=True), Raw("aten::sum", 22, 8, number=2),
        Raw("cudaLaunchKernel", 24, number=1, linked=2),
        Raw("gemm", 30, 10, number=2, linked=1, device=gpu), Raw("reduce", 50, 5, number=1, linked=2, device=gpu),
    ])  # fmt: skip
    assert attribute(events).busy_ns == {FORWARD: 10, LOSS: 5}


def test_a_kernel_that_no_operator_launched_goes_with_what_the_host_worked_for_meanwhile() -> None:
    events = intervals([
        Raw("ProfilerStep#0", 0, 100, marks=True), Raw(f"{ANNOTATION}loss", 20, 60, marks=True),
        Raw("cudaDeviceSynchronize", 1), Raw("aten::detach", 3), Raw("memset", 30, 10, device="DeviceType.CUDA"),
    ])  # fmt: skip
    assert attribute(events).busy_ns == {LOSS: 10}


spans = st.lists(st.tuples(st.integers(0, 300), st.integers(0, 50)), max_size=25)


@given(spans)
def test_a_union_counts_every_moment_once(starts_and_lengths: list[tuple[int, int]]) -> None:
    covered = {moment for start, length in starts_and_lengths for moment in range(start, start + length)}
    assert union_ns(operator("x", start, start + length) for start, length in starts_and_lengths) == len(covered)


names = st.sampled_from(["attention", "loss", "patching"])


@given(
    st.lists(st.tuples(names, st.integers(0, 10), st.integers(0, 10)), max_size=8),
    st.lists(st.tuples(st.integers(0, 150), st.integers(1, 60), st.integers(1, 8)), max_size=8),
)
def test_every_moment_of_a_window_is_in_one_cell(
    stages: list[tuple[str, int, int]], kernels: list[tuple[int, int, int]]
) -> None:
    events, now = [], 0
    for number, (name, gap, length) in enumerate(stages, start=1):
        events += [mark(f"{ANNOTATION}{name}", now + gap, now + gap + length)]
        events += [operator("aten::mm", now + gap, now + gap + length, correlation=number)]
        now += gap + length
    events += [kernel(start, start + length, number) for start, length, number in kernels]
    found = attribute(step(*events, end_ns=max(now, 1)))
    assert sum(found.exposed_ns.values()) == found.wall_ns
    assert sum(found.busy_ns.values()) >= found.union_ns


def network(attention_steps: int, loss_steps: int, side: int = 256, device: str = "cpu") -> Callable[[], None]:
    """Return a step of two stages, each so many products of matrices."""
    weight = torch.randn(side, side, requires_grad=True, device=device)

    def products(x: Tensor, count: int) -> Tensor:
        for _ in range(count):
            x = (x @ weight).tanh()
        return x

    def step() -> None:
        x = torch.ones(64, side, requires_grad=True, device=device)
        with stage("attention") as mark:
            x = mark.output(products(mark.input(x * 1), attention_steps))
        with stage("loss") as mark:
            loss = mark.output(products(mark.input(x), loss_steps).sum())
        backpropagate(loss)

    return step


WINDOWS = 7
"""The median of so many: another program that takes the processor for a moment is seen as some stage's time."""


@pytest.mark.parametrize(("attention_steps", "loss_steps"), [(30, 10), (10, 30)])
def test_both_routes_agree_on_a_real_step(
    attention_steps: int, loss_steps: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    clock, step = StageClock(), network(attention_steps, loss_steps)
    with clock.phase("train", 1):
        for _ in range(3):
            step()
        path = tmp_path_factory.mktemp("trace") / "a.pt.trace.json.gz"
        windows = [profile_steps(step, 3, clock, path, 1) for _ in range(WINDOWS)]
    seen = [{(cell.stage, cell.direction): cell.profiler_share for cell in window.cells} for window in windows]
    for direction in ("forward", "backward"):
        ratio = median(shares["attention", direction] / shares["loss", direction] for shares in seen)
        assert ratio == pytest.approx(attention_steps / loss_steps, rel=0.5)
    assert median(window.difference for window in windows) < 0.02
    for shares in seen:
        assert sum(shares.values()) == pytest.approx(1)
