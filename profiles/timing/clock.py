"""The stage clock: one timeline cut at every mark, so that no time is lost or counted twice.

At each mark the time since the last one is charged to the stage that was current; a nested stage is thereby
subtracted from its parent, and the charges add up to the phase's wall time by construction. Backward work is charged
to the stage whose forward work caused it: identity autograd nodes at a stage's inputs and outputs are marks too. What
a checkpointed activation computes again is backward work: only the gradient needs it.

What a mark itself costs is its stage's: the clock is read first where a stage begins and last where it ends. So the
time of a stage that has ended is charged, and told to who listens, only when the next one has begun.

This clock reads the host's monotonic clock, exact on a CPU; `profiles.timing.device_clock` has the one for a GPU.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter_ns

import torch
from torch import Tensor
from torch.profiler import record_function

from profiles.record import Phase
from profiles.stages import LoaderPart, Stage, recording
from profiles.timing.loader import take
from profiles.timing.times import BACKWARD, FORWARD, REMAINDER, REMAINDER_BACKWARD, Cell, PhaseTimes

ANNOTATION = "stage::"
"""What the name of a stage's range in a trace begins with."""

BACKWARD_PASS = "backward pass"  # noqa: S105 - not that kind of pass
"""The name of a backward pass's range in a trace."""

Charged = Callable[[Cell, int, int], None]
"""Told of every charge: the cell, and from when to when by the host's monotonic clock, nanoseconds."""


class StageClock:
    """A recorder that charges time to stages, one phase at a time.

    Args:
        now_ns: a monotonic clock in nanoseconds; tests inject their own.
        drain: waits until the device has finished everything it was given; called at both ends of a phase.
        charged: told of every charge, in order.

    """

    def __init__(
        self,
        now_ns: Callable[[], int] = perf_counter_ns,
        drain: Callable[[], None] = lambda: None,
        charged: Charged | None = None,
    ) -> None:
        self._now_ns = now_ns
        self._drain = drain
        self._charged = charged
        self._times: PhaseTimes | None = None
        self._stack: list[Cell] = []
        self._ended: list[tuple[Cell, int]] = []  # and when, not yet charged
        self._since_ns = 0
        self._backward_base: int | None = None
        self._handed_on: tuple[Tensor, int, Stage] | None = None
        self._ranges: list[record_function] | None = None

    @contextmanager
    def phase(self, phase: Phase, epoch: int, carried: PhaseTimes | None = None) -> Iterator[PhaseTimes]:
        """Listen to the marks and time one phase.

        Args:
            phase: which phase.
            epoch: the epoch it belongs to.
            carried: the part of this phase that ran before an interruption; it is added to.

        """
        times = carried or PhaseTimes(phase, epoch)
        with recording(self):
            self.drain()
            take()  # what was loaded before is no part of this phase
            self._times, self._stack = times, [REMAINDER]
            started_ns = self._now_ns()
            self._begin(started_ns)
            try:
                yield times
            finally:
                self._mark(self._stack[-1])
                self.worked(take())
                self.drain()
                ended_ns = self._now_ns()
                self._end(ended_ns)
                times.parts_ns.append(ended_ns - started_ns)
                self._times = self._handed_on = None

    def drain(self) -> None:
        """Wait until the device has finished everything it was given."""
        self._drain()

    def read(self) -> dict[Cell, int]:
        """Drain the device and return what every cell of the phase was charged so far, nanoseconds."""
        assert self._times is not None  # noqa: S101 - asked inside a phase
        self.drain()
        self._mark(self._stack[-1])
        self._charge()
        return dict(self._times.exposed_ns)

    @contextmanager
    def untold(self, instead: Charged | None = None) -> Iterator[None]:
        """Tell the charges made inside a part of a phase to *instead*, which costs as much, and not to who listens."""
        self.read()
        charged, self._charged = self._charged, instead
        try:
            yield
            self.read()
        finally:
            self._charged = charged

    def _begin(self, started_ns: int) -> None:
        """Start charging."""
        self._since_ns = started_ns

    def _end(self, ended_ns: int) -> None:
        """Charge what the last drain took, so that the charges add up to the phase's wall time."""
        self._charge()
        self._give(REMAINDER, ended_ns)

    def _mark(self, cell: Cell) -> None:
        """Note that the time of *cell* ends now."""
        self._ended.append((cell, self._now_ns()))

    def _charge(self) -> None:
        """Charge what has ended."""
        for cell, ended_ns in self._ended:
            self._give(cell, ended_ns)
        self._ended.clear()

    def _give(self, cell: Cell, now_ns: int) -> None:
        assert self._times is not None  # noqa: S101 - only phase() installs the clock, so marks come inside a phase
        self._times.charge(cell, now_ns - self._since_ns)
        if self._charged is not None:
            self._charged(cell, self._since_ns, now_ns)
        self._since_ns = now_ns

    def _enter(self, cell: Cell) -> None:
        """Have *cell* be the current one, inside those that are, now that the clock was read."""
        assert self._times is not None  # noqa: S101
        self._stack.append(cell)
        calls = self._times.calls
        calls[cell] = calls.get(cell, 0) + 1
        self._charge()

    def _raise_to(self, height: int) -> None:
        """Stand in for stages around the next one that no gradient has entered: they name no output."""
        self._stack += [self._stack[-1]] * (height - len(self._stack))

    def _leave_to(self, height: int) -> None:
        """Leave every stage above *height*."""
        cell = self._stack[-1]
        del self._stack[height:]
        self._mark(cell)

    def enter(self, stage: Stage) -> None:
        """Forward work of *stage* begins, or is repeated for a gradient."""
        self._mark(self._stack[-1])
        cell = FORWARD[stage]
        repeated = self._backward_base is not None and cell.direction == "forward"
        self._enter(BACKWARD[stage] if repeated else cell)
        if self._ranges is not None:
            self._open_range(f"{ANNOTATION}{stage}")

    def leave(self) -> None:
        """End the stage entered last."""
        self._close_range()
        self._mark(self._stack.pop())

    def enter_backward(self, loss: Tensor) -> None:
        """Start the backward pass of *loss*: in the stage that handed it on, as this is where its gradient enters.

        Where none did, time is unattributed until a gradient enters a stage.
        """
        self._mark(self._stack[-1])
        self._enter(REMAINDER_BACKWARD)
        self._backward_base = len(self._stack)
        if self._handed_on is not None and self._handed_on[0] is loss:
            _, depth, stage = self._handed_on
            self._raise_to(self._backward_base + depth)
            self._stack.append(BACKWARD[stage])
        if self._ranges is not None:
            self._open_range(BACKWARD_PASS)

    def leave_backward(self) -> None:
        """End the backward pass, and with it every stage whose inputs needed no gradient."""
        assert self._backward_base is not None  # noqa: S101
        self._close_range()
        outside = self._backward_base - 1
        self._backward_base = self._handed_on = None  # or it would hold the graph until the next mark
        self._leave_to(outside)

    def mark_output(self, stage: Stage, x: Tensor) -> Tensor:
        """Return *x*; when its gradient arrives, backward work of *stage* begins."""
        depth = self._depth()
        marked = _identity(x, lambda _: self._gradient_enters(stage, depth))
        self._handed_on = (marked, depth, stage) if marked is not x else None
        return marked

    def mark_input(self, stage: Stage, x: Tensor) -> Tensor:  # noqa: ARG002 - the Recorder protocol's signature
        """Return *x*; when its gradient is complete, backward work of *stage* ends.

        Where the stage before handed on that very tensor, its node already says so.
        """
        depth = self._depth()
        if self._handed_on is not None and self._handed_on[0] is x and self._handed_on[1] == depth:
            return x
        return _identity(x, lambda _: self._gradient_leaves(depth))

    def worked(self, loader_ns: Mapping[LoaderPart, int]) -> None:
        """Add CPU time that loading took, wherever it was spent."""
        assert self._times is not None  # noqa: S101
        for part, duration_ns in loader_ns.items():
            self._times.loader_ns[part] = self._times.loader_ns.get(part, 0) + duration_ns

    @contextmanager
    def annotating(self) -> Iterator[None]:
        """Also open a range in the profiler's trace for every stage entered inside the block."""
        self._ranges = []
        try:
            yield
        finally:
            self._ranges = None

    def _open_range(self, name: str) -> None:
        assert self._ranges is not None  # noqa: S101 - asked where ranges are opened
        self._ranges.append(record_function(name))
        self._ranges[-1].__enter__()  # type: ignore[no-untyped-call]

    def _close_range(self) -> None:
        if self._ranges:
            self._ranges.pop().__exit__(None, None, None)

    def _depth(self) -> int:
        """Return how many stages are around the current one, in this pass."""
        return len(self._stack) - 1 - (self._backward_base or 1)

    def _gradient_enters(self, stage: Stage, depth: int) -> None:
        if self._times is not None and self._backward_base is not None:
            self._mark(self._stack[-1])
            height = self._backward_base + depth
            self._raise_to(height)
            del self._stack[height:]
            self._enter(BACKWARD[stage])

    def _gradient_leaves(self, depth: int) -> None:
        if self._times is not None and self._backward_base is not None:
            self._leave_to(self._backward_base + depth)


def _identity(x: Tensor, passed: Callable[[object], None]) -> Tensor:
    """Return *x* behind a node that calls *passed* before a gradient goes through it; where none will, *x* itself."""
    if not (x.requires_grad and torch.is_grad_enabled()):
        return x
    marked = x.view_as(x)
    assert marked.grad_fn is not None  # noqa: S101 - its gradient is wanted
    marked.grad_fn.register_prehook(passed)
    return marked
