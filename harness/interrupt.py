"""Stopping on request, or when the time is up: it is noted, and acted upon where the state is whole."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from types import FrameType

from profiles.errors import BudgetSpentError, InterruptedRunError


class Interrupt:
    """Whether someone asked the run to stop, or its time is up.

    Args:
        budget_s: seconds from now that the run may take; absent: as many as it needs.

    """

    def __init__(self, budget_s: float | None = None) -> None:
        self.requested_by: str | None = None
        self._ends_at = None if budget_s is None else monotonic() + budget_s

    def is_requested(self) -> bool:
        """Whether to stop."""
        return self.requested_by is not None or (self._ends_at is not None and monotonic() >= self._ends_at)

    def check(self) -> None:
        """Stop here if asked to.

        Raises:
            InterruptedRunError: someone asked.
            BudgetSpentError: the time is up.

        """
        if self.requested_by is not None:
            message = f"interrupted by {self.requested_by}"
            raise InterruptedRunError(message)
        if self._ends_at is not None and monotonic() >= self._ends_at:
            message = "the budget is spent"
            raise BudgetSpentError(message)


@contextmanager
def listening(budget_s: float | None = None) -> Iterator[Interrupt]:
    """Note SIGINT and SIGTERM instead of dying of them; a second one acts as it always does."""
    interrupt = Interrupt(budget_s)
    signals = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.getsignal(number) for number in signals}

    def note(number: int, _: FrameType | None) -> None:
        interrupt.requested_by = signal.Signals(number).name
        for each in signals:
            signal.signal(each, previous[each])

    for number in signals:
        signal.signal(number, note)
    try:
        yield interrupt
    finally:
        for number in signals:
            signal.signal(number, previous[number])
