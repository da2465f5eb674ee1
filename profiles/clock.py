"""The stage clock: one timeline cut at every mark, so that no time is lost or counted twice.

At each mark the time since the last one is charged to the stage that was current; a nested stage is thereby
subtracted from its parent, and the charges add up to the phase's wall time by construction. Backward work is charged
to the stage whose forward work caused it: identity autograd nodes at a stage's inputs and outputs are marks too.

Times are of a monotonic host clock, exact on a CPU. On a GPU they say when work was launched, not when it ran.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import Any, NamedTuple, Self

from torch import Tensor
from torch.autograd import Function

from profiles.record import UNATTRIBUTED, Direction, Phase, StageRow, Tag
from profiles.stages import LEADING, STAGES, Stage, recording

WITHOUT_GRADIENT: frozenset[Stage] = frozenset(
    {"data_loading", "patching", "transfer", "optimizer", "scoring", "checkpoint", "anomaly_map"}
)
"""Stages whose work autograd never sees: their direction is `none`."""


class Cell(NamedTuple):
    """One cell of a phase's table: what the work was for and which way it went."""

    stage: str
    direction: Direction


@dataclass
class PhaseTimes:
    """Exposed nanoseconds and entries per stage and direction of one phase of one epoch.

    `wall_ns` is the phase's wall time; once the phase has ended, `exposed_ns` sums to it.
    """

    phase: Phase
    epoch: int
    tag: Tag = "measured"
    wall_ns: int = 0
    exposed_ns: dict[Cell, int] = field(default_factory=dict)
    calls: dict[Cell, int] = field(default_factory=dict)

    def check(self) -> None:
        """Check that no time is lost or counted twice.

        Raises:
            AssertionError: the stages do not sum to the wall time: it was, or the phase has not ended.

        """
        total_ns = sum(self.exposed_ns.values())
        if total_ns != self.wall_ns:
            message = f"{self.phase} {self.epoch}: stages sum to {total_ns} ns, wall time is {self.wall_ns} ns"
            raise AssertionError(message)

    def to_state(self) -> dict[str, Any]:
        """Return plain values, fit for a checkpoint; see `check`."""
        self.check()
        return {
            **vars(self),
            "exposed_ns": [(*cell, value) for cell, value in self.exposed_ns.items()],
            "calls": [(*cell, value) for cell, value in self.calls.items()],
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Read back what `to_state` returned."""
        tables = {
            name: {Cell(stage, direction): value for stage, direction, value in state[name]}
            for name in ("exposed_ns", "calls")
        }
        return cls(**{**state, **tables})

    def rows(self) -> list[StageRow]:
        """Return one row per stage and direction: the leading five, used or not, the others used, `unattributed` last.

        See `check`.
        """
        self.check()
        exposed_ns = dict.fromkeys((forward_cell(stage) for stage in LEADING), 0) | self.exposed_ns
        return [
            StageRow(
                phase=self.phase,
                epoch=self.epoch,
                stage=cell.stage,
                direction=cell.direction,
                exposed_s=exposed_ns[cell] / 1e9,
                busy_s=None,
                share=exposed_ns[cell] / self.wall_ns if self.wall_ns else 0.0,
                calls=self.calls.get(cell, 0),
                tag=self.tag,
            )
            for cell in sorted(exposed_ns, key=_place)
        ]


def forward_cell(stage: Stage) -> Cell:
    """Return where a stage's own work is charged, as opposed to its gradient's."""
    return Cell(stage, "none" if stage in WITHOUT_GRADIENT else "forward")


def _place(cell: Cell) -> tuple[int, bool]:
    """Order cells as every table does: by stage, forward before backward."""
    names = (*STAGES, UNATTRIBUTED)
    return names.index(cell.stage), cell.direction == "backward"


class StageClock:
    """A recorder that charges host time to stages, one phase at a time.

    Args:
        now_ns: a monotonic clock in nanoseconds; tests inject their own.
        drain: waits until the device has finished everything it was given; called at both ends of a phase.
        tag: what the rows are: `estimated` where host time is not the device's.

    """

    def __init__(
        self,
        now_ns: Callable[[], int] = perf_counter_ns,
        drain: Callable[[], None] = lambda: None,
        tag: Tag = "measured",
    ) -> None:
        self._now_ns = now_ns
        self._drain = drain
        self._tag = tag
        self._times: PhaseTimes | None = None
        self._stack: list[Cell] = []
        self._since_ns = 0
        self._backward_base: int | None = None

    @contextmanager
    def phase(self, phase: Phase, epoch: int, carried: PhaseTimes | None = None) -> Iterator[PhaseTimes]:
        """Listen to the marks and time one phase.

        Args:
            phase: which phase.
            epoch: the epoch it belongs to.
            carried: the part of this phase that ran before an interruption; it is added to.

        """
        times = carried or PhaseTimes(phase, epoch, self._tag)
        with recording(self):
            self._drain()
            self._times, self._stack = times, [Cell(UNATTRIBUTED, "none")]
            started_ns = self._since_ns = self._now_ns()
            try:
                yield times
            finally:
                self._drain()
                self._charge()
                times.wall_ns += self._since_ns - started_ns
                self._times = None

    def _charge(self) -> None:
        """Give the time since the last mark to the current cell."""
        assert self._times is not None  # noqa: S101 - only phase() installs the clock, so marks come inside a phase
        cell, now_ns = self._stack[-1], self._now_ns()
        self._times.exposed_ns[cell] = self._times.exposed_ns.get(cell, 0) + now_ns - self._since_ns
        self._since_ns = now_ns

    def _push(self, cell: Cell) -> None:
        assert self._times is not None  # noqa: S101
        self._charge()
        self._stack.append(cell)
        self._times.calls[cell] = self._times.calls.get(cell, 0) + 1

    def _cut(self, height: int) -> None:
        """Leave every stage above *height*."""
        self._charge()
        del self._stack[height:]

    def enter(self, stage: Stage) -> None:
        """Forward work of *stage* begins."""
        self._push(forward_cell(stage))

    def leave(self) -> None:
        """End the stage entered last."""
        self._cut(len(self._stack) - 1)

    def enter_backward(self) -> None:
        """Start a backward pass; until a gradient enters a stage, its time is unattributed."""
        self._push(Cell(UNATTRIBUTED, "backward"))
        self._backward_base = len(self._stack)

    def leave_backward(self) -> None:
        """End the backward pass, and with it every stage whose inputs needed no gradient."""
        assert self._backward_base is not None  # noqa: S101
        self._cut(self._backward_base - 1)
        self._backward_base = None

    def mark_output(self, stage: Stage, x: Tensor) -> Tensor:
        """Return *x*; when its gradient arrives, backward work of *stage* begins."""
        depth = len(self._stack) - 2  # how many stages are around this one
        return _identity(x, lambda: self._gradient_enters(stage, depth))

    def mark_input(self, stage: Stage, x: Tensor) -> Tensor:  # noqa: ARG002 - the Recorder protocol's signature
        """Return *x*; when its gradient is complete, backward work of *stage* ends."""
        depth = len(self._stack) - 2
        return _identity(x, lambda: self._gradient_leaves(depth))

    def _gradient_enters(self, stage: Stage, depth: int) -> None:
        if self._times is not None and self._backward_base is not None:
            self._cut(self._backward_base + depth)
            self._push(Cell(stage, "backward"))

    def _gradient_leaves(self, depth: int) -> None:
        if self._times is not None and self._backward_base is not None:
            self._cut(self._backward_base + depth)


class _Boundary(Function):
    """The identity, with something to call when the gradient comes by."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, passed: Callable[[], None]) -> Tensor:  # noqa: ANN401 - torch's context
        ctx.passed = passed
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        ctx.passed()
        return gradients[0], None


def _identity(x: Tensor, passed: Callable[[], None]) -> Tensor:
    if not x.requires_grad:
        return x
    marked: Tensor = _Boundary.apply(x, passed)  # type: ignore[no-untyped-call]
    return marked
