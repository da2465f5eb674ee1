"""Ceilings of pipelines whose stages' costs are known: with a loader that works ahead and without, to 3 %."""

import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles.turns import (
    AHEAD,
    Extent,
    Opened,
    Step,
    bursts,
    compare,
    gain,
    most_settling,
    settle,
    turn,
    within,
)

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


class Played:
    """A `DataLoader` on a clock of its own: workers two batches ahead each, who share processors with the step.

    Times are in nanoseconds of a processor's work; a step runs on as many *threads*.
    """

    def __init__(self, loading: float, step: float, workers: int, processors: int, threads: int = 1) -> None:
        self.now = 0.0
        self.loading = loading
        self.working = step
        self.workers = workers
        self.processors = processors
        self.threads = threads
        self.taken = 0
        self.ready: set[int] = set()
        self.dealt = [deque(range(worker, AHEAD * workers, workers)) for worker in range(workers)]
        self.left = [loading] * workers

    def clock_ns(self) -> int:
        return round(self.now)

    def pass_time(self, working: float, longest: float = math.inf) -> float:
        """Let time pass until someone is done; return what is left of *working*."""
        busy = [worker for worker in range(self.workers) if self.dealt[worker]]
        rate = min(1.0, self.processors / max(1, len(busy) + (self.threads if working else 0)))
        done = min([longest * rate, *(self.left[worker] for worker in busy), *([working] if working else [])])
        self.now += done / rate
        for worker in busy:
            self.left[worker] -= done
            if self.left[worker] < 1:
                self.ready.add(self.dealt[worker].popleft())
                self.left[worker] = self.loading
        return working - done if working - done >= 1 else 0.0

    def idle(self, seconds: float) -> None:
        end = self.now + seconds * 1e9
        while end - self.now >= 1:
            self.pass_time(0.0, end - self.now)

    def wait(self) -> None:
        while self.taken not in self.ready:
            self.pass_time(0.0)

    def drop(self) -> None:
        self.wait()
        self.ready.remove(self.taken)
        self.dealt[self.taken % self.workers].append(self.taken + AHEAD * self.workers)
        self.taken += 1

    def step(self) -> None:
        self.drop()
        working = self.working
        while working:
            working = self.pass_time(working)

    def opened(self) -> Opened:
        """Return the way of taking its step, once it is even."""

        @contextmanager
        def way() -> Iterator[Step]:
            self.wait()
            settle(self.step, self.drop, self.clock_ns(), self.workers, self.idle, self.clock_ns)
            yield self.step

        return way


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("processors", [1, 2, 16])
@pytest.mark.parametrize("threads", [1, 2])
def test_steps_are_timed_when_the_queue_before_them_is_as_full_as_in_the_long_run(
    workers: int, processors: int, threads: int
) -> None:
    extent, errors = Extent(0, bursts(4, workers)), []
    for loading_ms in range(50, 4000, 100):
        shape = (loading_ms * 1e6, 1e9, workers, processors, threads)
        endless, pipeline = Played(*shape), Played(*shape)
        long_ns = turn(endless.opened(), Extent(100, 50 * workers), lambda: None, endless.clock_ns)()
        found_ns = turn(pipeline.opened(), extent, lambda: None, pipeline.clock_ns)()
        errors.append(abs(found_ns / extent.timed / (long_ns / 50 / workers) - 1))
    assert max(errors) < 0.08
    assert sum(error > 0.03 for error in errors) <= 0.1 * len(errors)


def test_one_step_settles_what_is_held_up_by_itself_and_many_what_waits_for_its_loader() -> None:
    for loading_ns, taken in ((0, 1), (5e7, 1), (1e9, most_settling(2) - AHEAD * 2)):
        pipeline = Played(max(loading_ns, 1.0), 1e8, workers=2, processors=2)
        with pipeline.opened()():
            assert pipeline.taken == taken


@pytest.mark.alone
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


def test_there_are_as_many_rounds_as_asked_for_even_where_time_is_up() -> None:
    pipeline = Virtual({LOADING: 1_000_000, "loss": 1_000_000}, ahead=0)
    ways = {"full": pipeline.without(None), "loss": pipeline.without("loss")}
    found = compare(ways, EXTENT, lambda: None, precision=0.01, limit_s=0.0, least=7, clock_ns=pipeline.clock_ns)
    assert found.times_ns == {"full": [16_000_000] * 7, "loss": [8_000_000] * 7}
    assert found.ratios["loss"].high == pytest.approx(0.5)
    assert found.ended_by == "time"


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
