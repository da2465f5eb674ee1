"""Ceilings of pipelines whose stages' costs are known: with a loader that works ahead and without, to 3 %."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles.turns import Extent, Opened, Step, compare, gain, turn, within

LOADING = "data_loading"
TOLERANCE = 0.03
EXTENT = Extent(warm=4, timed=8)


class Virtual:
    """A pipeline on a clock of its own: stages take as long as told; a loader may work *ahead* by batches."""

    def __init__(self, costs_ns: dict[str, int], ahead: int) -> None:
        self.now_ns = 0
        self.costs_ns = costs_ns
        self.ahead = ahead

    def clock_ns(self) -> int:
        return self.now_ns

    def without(self, removed: str | None) -> Opened:
        costs_ns = {stage: 0 if stage == removed else cost for stage, cost in self.costs_ns.items()}

        @contextmanager
        def opened() -> Iterator[Step]:
            taken_ns: list[int] = []
            ready_ns = self.now_ns

            def step() -> None:
                nonlocal ready_ns
                if self.ahead:
                    free_ns = taken_ns[-self.ahead] if len(taken_ns) >= self.ahead else 0
                    ready_ns = max(ready_ns, free_ns) + costs_ns[LOADING]
                    self.now_ns = max(self.now_ns, ready_ns)
                else:
                    self.now_ns += costs_ns[LOADING]
                taken_ns.append(self.now_ns)
                self.now_ns += sum(cost for stage, cost in costs_ns.items() if stage != LOADING)

            yield step
            self.now_ns += 10**9  # to close takes long, and counts for nothing

        return opened

    def step_ns(self, removed: str | None) -> int:
        """Return what a step takes in the long run."""
        costs_ns = {stage: 0 if stage == removed else cost for stage, cost in self.costs_ns.items()}
        loading_ns = costs_ns.pop(LOADING)
        worked_ns = sum(costs_ns.values())
        return max(loading_ns, worked_ns) if self.ahead else loading_ns + worked_ns


def ceilings(pipeline: Virtual) -> dict[str, float]:
    ways = {"full": pipeline.without(None), **{stage: pipeline.without(stage) for stage in pipeline.costs_ns}}
    found = compare(ways, EXTENT, lambda: None, precision=0.01, limit_s=1e6, clock_ns=pipeline.clock_ns)
    return {stage: gain(ratio).value for stage, ratio in found.ratios.items()}


cost = st.integers(1_000_000, 100_000_000)


@given(st.tuples(cost, cost, cost, cost), st.sampled_from([0, 1, 2, 4]))
def test_a_ceiling_is_what_the_step_gains_in_the_long_run_whether_or_not_work_overlaps(
    costs_ns: tuple[int, ...], ahead: int
) -> None:
    pipeline = Virtual(dict(zip((LOADING, "attention", "loss", "optimizer"), costs_ns, strict=True)), ahead)
    for stage, found in ceilings(pipeline).items():
        assert found == pytest.approx(1 - pipeline.step_ns(stage) / pipeline.step_ns(None), abs=TOLERANCE)


def test_what_hides_behind_the_loader_gains_nothing_however_large_its_share() -> None:
    hidden = Virtual({LOADING: 10_000_000, "attention": 8_000_000, "loss": 1_000_000}, ahead=2)
    found = ceilings(hidden)
    assert found["attention"] == pytest.approx(0.0, abs=1e-6)
    assert found[LOADING] == pytest.approx(0.1, abs=1e-6)


class Threaded:
    """The same with sleeps, and a loader in a thread of its own that is ended when its turn is over."""

    def __init__(self, costs_s: dict[str, float], *, overlapping: bool) -> None:
        self.costs_s = costs_s
        self.overlapping = overlapping

    def without(self, removed: str | None) -> Opened:
        costs_s = {stage: 0.0 if stage == removed else cost for stage, cost in self.costs_s.items()}

        def work() -> None:
            for stage, cost_s in costs_s.items():
                if stage != LOADING:
                    time.sleep(cost_s)

        @contextmanager
        def opened() -> Iterator[Step]:
            if not self.overlapping:
                yield lambda: (time.sleep(costs_s[LOADING]), work())
                return
            batches: queue.Queue[int] = queue.Queue(2)
            ended = threading.Event()
            loader = threading.Thread(target=load, args=(batches, costs_s[LOADING], ended))
            loader.start()
            try:
                yield lambda: (batches.get(), work())
            finally:
                ended.set()
                loader.join()

        return opened


def load(batches: "queue.Queue[int]", cost_s: float, ended: threading.Event) -> None:
    while not ended.is_set():
        time.sleep(cost_s)
        while not ended.is_set():
            try:
                batches.put(0, timeout=0.01)
                break
            except queue.Full:
                continue


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overlapping", "expected"),
    [
        (False, {LOADING: 0.4, "attention": 0.4, "loss": 0.2}),
        (True, {LOADING: 0.0, "attention": 1 / 3, "loss": 1 / 3}),
    ],
)
def test_ceilings_of_sleeping_stages_are_right_within_3_percent(
    overlapping: bool,  # noqa: FBT001 - a parameter of the test
    expected: dict[str, float],
) -> None:
    pipeline = Threaded({LOADING: 0.02, "attention": 0.02, "loss": 0.01}, overlapping=overlapping)
    ways = {"full": pipeline.without(None), **{stage: pipeline.without(stage) for stage in expected}}
    found = compare(ways, Extent(3, 6), lambda: None, precision=0.01, limit_s=8.0)
    for stage, share in expected.items():
        assert gain(found.ratios[stage]).value == pytest.approx(share, abs=TOLERANCE)


def test_everything_is_timed_once_and_nothing_twice_where_time_is_up() -> None:
    pipeline = Virtual({LOADING: 1_000_000, "loss": 1_000_000}, ahead=0)
    ways = {"full": pipeline.without(None), "loss": pipeline.without("loss")}
    found = compare(ways, EXTENT, lambda: None, precision=0.01, limit_s=0.0, clock_ns=pipeline.clock_ns)
    assert found.times_ns == {"full": [16_000_000], "loss": [8_000_000]}
    assert found.ended_by == "time"
    assert pipeline.now_ns == 2 * 10**9 + 4 * 3_000_000 + 24_000_000


def test_a_turn_times_the_steps_that_count_between_two_idle_devices() -> None:
    told: list[str] = []

    def noted(word: str) -> Callable[[], None]:
        return lambda: told.append(word)

    @contextmanager
    def opened() -> Iterator[Step]:
        told.append("open")
        yield noted("step")
        told.append("close")

    def clock_ns() -> int:
        told.append("clock")
        return len(told)

    turn(opened, Extent(1, 2), noted("drain"), clock_ns)()
    assert " ".join(told) == "open step drain clock step step drain clock close"
    told.clear()

    @contextmanager
    def phase() -> Iterator[None]:
        told.append("phase")
        yield
        told.append("end")

    timed: Callable[[], AbstractContextManager[None]] = phase
    within(opened, Extent(1, 2), timed)
    assert " ".join(told) == "open step phase step step end close"
