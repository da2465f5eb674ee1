"""Looking closely at a few steps of an epoch that no statistic counts: what the instruments cost, and a window.

Steps without any instrument alternate with steps under the stage clock; then comes a profiler window; then steps
under the clock again, to see whether what the profiler slowed down stays slow.
"""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter_ns
from typing import NamedTuple

from profiles.memory import PeakMemory
from profiles.record import Observation, ProfilerWindow, StepState, StepTime
from profiles.spread import spread
from profiles.stages import unheard
from profiles.timing.clock import Charged, StageClock
from profiles.tracing.window import (
    ProfilerConfig,
    ProfilerRefusedError,
    affordable_steps,
    count_events,
    held_bytes,
    profile_steps,
)

MOST_PAIRS = 16
FEWEST_PAIRS = 3
"""However long a step takes, if the epoch has as many: of fewer no spread can be told."""

FEWEST_STEPS = 6
"""A pair, the step whose events are counted, one of a window, two after it of which the first is not timed."""

REHEARSED_PART = 64
"""The part of a step's windows on which events are counted first, and then twice as many."""

Step = Callable[[], None]


class Rehearsal(NamedTuple):
    """A training step's windows, and what computes the gradient of so many of them and leaves no trace.

    The events of a step grow by as many for each window, where a pipeline works window by window: so many that counting
    them on a whole step would take more memory than any window may.
    """

    windows: int
    gradient: Callable[[int], None]

    def events(self) -> int:
        """Return how many events a step would make, its optimizer apart, counted on a few windows and twice as many."""
        few = max(1, self.windows // REHEARSED_PART)
        once, twice = (count_events(partial(self.gradient, windows)) for windows in (few, 2 * few))
        return once + (twice - once) * (self.windows - few) // few


class Observer(NamedTuple):
    """Looks at steps: by which clock, under which budgets, where traces go, and whose peak memory it must not count.

    `on_device` is whether a device computes: what a profiler sees must then be its kernels. `unheeded` is told of the
    charges in the place of who listens to the clock, and costs as much, so that what the clock costs includes telling.
    """

    clock: StageClock
    config: ProfilerConfig
    traces: Path
    memory: PeakMemory
    on_device: bool = False
    unheeded: Charged | None = None

    def observe(self, step: Step, epoch: int, most_steps: int, rehearsal: Rehearsal | None = None) -> Observation:
        """Run some steps and return what was seen of them; no one heeds their stages, for some bear no mark.

        Args:
            step: runs one training step, inside a phase of the clock.
            epoch: which epoch they are of; 0 is none: they come after the few steps that are measured.
            most_steps: how many steps there are to run.
            rehearsal: by which to tell whether a step has too many events to be counted; without it, all are counted.

        """
        if most_steps < FEWEST_STEPS:
            return Observation(epoch=epoch, reason=f"{most_steps} steps are too few to look at")
        with self.clock.untold(self.unheeded):
            return self._observe(step, epoch, most_steps, rehearsal)

    def _observe(self, step: Step, epoch: int, most_steps: int, rehearsal: Rehearsal | None) -> Observation:
        most_pairs = min(MOST_PAIRS, (most_steps - FEWEST_STEPS) // 3 + 1)  # as many again come after the window
        bare_ns, clocked_ns = self._compare(step, most_pairs)
        with self.memory.unwatched():
            window, inside_ns, reason = self._window(step, epoch, most_steps - 3 * len(bare_ns) - 2, rehearsal)
        step()  # memory was given back to the system after the window: this one has to ask for it again
        after_ns = [self._timed(step) for _ in bare_ns]
        steps: dict[StepState, list[int]] = {
            "bare": bare_ns,
            "clock": clocked_ns,
            "window": inside_ns,
            "after": after_ns,
        }
        return Observation(epoch=epoch, steps=_times(steps), window=window, reason=reason)

    def _window(
        self, step: Step, epoch: int, most_steps: int, rehearsal: Rehearsal | None
    ) -> tuple[ProfilerWindow | None, list[int], str | None]:
        """Profile as many steps as are affordable; return the window and its steps' times, or why there is none."""
        try:
            if rehearsal is not None:
                self._afford(rehearsal.events())
            return self._profiled(step, epoch, most_steps)
        except ProfilerRefusedError as error:
            return None, [], str(error)

    def _profiled(self, step: Step, epoch: int, most_steps: int) -> tuple[ProfilerWindow, list[int], None]:
        before_bytes = held_bytes()
        steps = min(most_steps, self._afford(count_events(step)))
        inside_ns: list[int] = []
        path = self.traces / f"epoch{epoch:04d}.pt.trace.json.gz"
        window = profile_steps(
            lambda: inside_ns.append(self._timed(step)),
            steps,
            self.clock,
            path,
            epoch,
            before_bytes=before_bytes,
            on_device=self.on_device,
        )
        return window, inside_ns, None

    def _afford(self, events: int) -> int:
        """Return how many steps of so many events a window may have.

        Raises:
            ProfilerRefusedError: not even one.

        """
        if (steps := affordable_steps(self.config, events)) < 1:
            budget = f"{self.config.memory_mb} MB of memory and {self.config.file_mb} MB of trace"
            message = f"a step has {events} profiler events, too many for a window of {budget}"
            raise ProfilerRefusedError(message)
        return steps

    def thinned(self, observations: list[Observation], kept: int) -> list[Observation]:
        """Delete all traces but the first and the last ones, *kept* in all; return the observations without them."""
        with_trace = [seen.epoch for seen in observations if seen.window and seen.window.trace]
        excess = set(with_trace[1 : max(1, len(with_trace) - kept + 1)])
        return [self._without_trace(seen) if seen.epoch in excess else seen for seen in observations]

    def _without_trace(self, seen: Observation) -> Observation:
        assert seen.window is not None and seen.window.trace is not None  # noqa: PT018, S101 - `thinned` chose it
        (self.traces / seen.window.trace).unlink(missing_ok=True)
        return seen.model_copy(update={"window": seen.window.model_copy(update={"trace": None})})

    def _compare(self, step: Step, most_pairs: int) -> tuple[list[int], list[int]]:
        """Time steps without instrument and with the clock, in turn, now the one first and now the other."""
        bare_ns: list[int] = []
        clocked_ns: list[int] = []
        while len(bare_ns) < most_pairs and (
            len(bare_ns) < FEWEST_PAIRS or sum(bare_ns) + sum(clocked_ns) < self.config.compare_s * 1e9
        ):
            for bare in (True, False) if len(bare_ns) % 2 == 0 else (False, True):
                (bare_ns if bare else clocked_ns).append(self._timed(step, bare=bare))
        return bare_ns, clocked_ns

    def _timed(self, step: Step, *, bare: bool = False) -> int:
        """Run one step from drained to drained; return the nanoseconds it took."""
        self.clock.drain()
        started_ns = perf_counter_ns()
        with unheard() if bare else nullcontext():
            step()
        self.clock.drain()
        return perf_counter_ns() - started_ns


def _times(durations_ns: dict[StepState, list[int]]) -> tuple[StepTime, ...]:
    return tuple(_step_time(state, values) for state, values in durations_ns.items() if values)


def _step_time(state: StepState, durations_ns: list[int]) -> StepTime:
    durations_s = [duration_ns / 1e9 for duration_ns in durations_ns]
    return StepTime(
        state=state,
        n=len(durations_ns),
        median_s=median(durations_s),
        spread_s=spread(durations_s),
    )
