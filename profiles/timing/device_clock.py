"""The stage clock of a GPU: device events recorded in-stream at the marks, read later, never waited for in a phase.

The time between two events belongs to the stage that was current on the host between them, so a device left idle by a
slow host is charged to the stage that kept it waiting (spec section 9). Events are read once the device has passed
them, so charges come late, but in order.
"""

from collections import deque
from collections.abc import Callable
from time import perf_counter_ns
from typing import Generic, Protocol, TypeVar

import torch

from profiles.timing.clock import Charged, StageClock
from profiles.timing.times import Cell

SETTLE_AT = 512
"""Events outstanding before those that the device has passed are read: a few steps' worth."""

E = TypeVar("E")


class Timer(Protocol[E]):
    """The device's timeline; tests inject their own."""

    def record(self) -> E:
        """Put an event behind everything the device was given."""

    def between_ns(self, earlier: E, later: E) -> int | None:
        """Return the nanoseconds between two events, or nothing while the device has not come to the later one."""

    def recycle(self, event: E) -> None:
        """Take back an event that is no longer needed."""

    def drain(self) -> None:
        """Wait until the device has finished everything it was given."""


class CudaTimer:
    """CUDA events, used again and again: making one costs more than recording it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._spare: list[torch.cuda.Event] = []

    def record(self) -> torch.cuda.Event:
        """Record an event on the current stream."""
        event = self._spare.pop() if self._spare else torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        return event

    def between_ns(self, earlier: torch.cuda.Event, later: torch.cuda.Event) -> int | None:
        """Return the nanoseconds between two events, to the half microsecond that CUDA resolves."""
        return round(earlier.elapsed_time(later) * 1e6) if later.query() else None  # type: ignore[no-untyped-call]

    def recycle(self, event: torch.cuda.Event) -> None:
        """Keep *event* for another moment."""
        self._spare.append(event)

    def drain(self) -> None:
        """Synchronise."""
        torch.cuda.synchronize(self._device)


class DeviceClock(StageClock, Generic[E]):
    """A stage clock whose charges are the device's time.

    Device and host each measure a phase from drained to drained. What they disagree by, and what passes between the
    drains and the first and last event, is `unattributed`, and kept as the phase's residual.

    Args:
        timer: the device's timeline.
        now_ns: a monotonic host clock, for the phase's wall time.
        charged: told of every charge, in order, on the host's clock: the phase's start plus the device time since.

    """

    def __init__(
        self, timer: Timer[E], now_ns: Callable[[], int] = perf_counter_ns, charged: Charged | None = None
    ) -> None:
        super().__init__(now_ns, timer.drain, charged)
        self._timer = timer
        self._pending: deque[tuple[E, Cell]] = deque()
        self._last: E | None = None

    def _begin(self, started_ns: int) -> None:
        super()._begin(started_ns)
        self._last = self._timer.record()

    def _mark(self, cell: Cell) -> None:
        """Put an event where the time of *cell* ends."""
        self._pending.append((self._timer.record(), cell))

    def _charge(self) -> None:
        """Charge what has ended on the device, where enough may have."""
        if len(self._pending) >= SETTLE_AT:
            self._settle()

    def _settle(self) -> None:
        """Charge, up to the first event that the device has not passed."""
        while self._pending:
            event, cell = self._pending[0]
            assert self._last is not None  # noqa: S101 - `_begin` recorded it
            duration_ns = self._timer.between_ns(self._last, event)
            if duration_ns is None:
                return
            self._pending.popleft()
            self._give(cell, self._since_ns + duration_ns)
            self._timer.recycle(self._last)
            self._last = event

    def read(self) -> dict[Cell, int]:
        """Drain the device and return what every cell of the phase was charged so far, nanoseconds."""
        self._mark(self._stack[-1])
        self.drain()
        self._settle()
        assert self._times is not None  # noqa: S101 - asked inside a phase
        return dict(self._times.exposed_ns)

    def _end(self, ended_ns: int) -> None:
        self._settle()
        assert self._times is not None and self._last is not None and not self._pending  # noqa: PT018, S101 - drained
        self._times.residual_ns = (self._times.residual_ns or 0) + ended_ns - self._since_ns
        super()._end(ended_ns)
        self._timer.recycle(self._last)
        self._last = None
