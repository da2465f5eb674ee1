"""Stopping on request: a signal is noted, and acted upon where the state is whole."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from profiles.errors import InterruptedRunError


class Interrupt:
    """Whether someone asked the run to stop."""

    def __init__(self) -> None:
        self.requested_by: str | None = None

    def check(self) -> None:
        """Stop here if asked to.

        Raises:
            InterruptedRunError: someone asked.

        """
        if self.requested_by is not None:
            message = f"interrupted by {self.requested_by}"
            raise InterruptedRunError(message)


@contextmanager
def listening() -> Iterator[Interrupt]:
    """Note SIGINT and SIGTERM instead of dying of them; a second one acts as it always does."""
    interrupt = Interrupt()
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
