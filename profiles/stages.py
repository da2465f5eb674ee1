"""The stage mark: says what work is for, at the seam where it happens.

A mark is inert until a recorder is installed. Spec section 9 defines the words.

    with stage("attention") as mark:
        x_btd = mark.input(x_btd)
        x_btd = mark.output(self.norm(x_btd + self.attention(x_btd)))

`mark.input` and `mark.output` name the tensors by which a gradient leaves and enters the stage, so that a recorder
can attribute backward work to the stage whose forward work caused it.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Literal, Protocol, Self, get_args

import torch
from torch import Tensor

Stage = Literal[
    "data_loading",
    "patching",
    "attention",
    "loss",
    "anomaly_map",
    "transfer",
    "embedding",
    "feed_forward",
    "head",
    "optimizer",
    "scoring",
    "checkpoint",
]
"""What work is for."""

STAGES: tuple[Stage, ...] = get_args(Stage)

LEADING = STAGES[:5]
"""The five that lead every table, used or not."""

LoaderPart = Literal["decode", "resize", "copy"]
"""What loading consists of."""


class Recorder(Protocol):
    """What listens to the marks."""

    def enter(self, stage: Stage) -> None:
        """Forward work of *stage* begins, inside whatever stage is current."""

    def leave(self) -> None:
        """End the stage entered last."""

    def mark_input(self, stage: Stage, x: Tensor) -> Tensor:
        """Return *x*, with a node whose backward says that the gradient leaves *stage*."""

    def mark_output(self, stage: Stage, x: Tensor) -> Tensor:
        """Return *x*, with a node whose backward says that the gradient enters *stage*."""

    def enter_backward(self, loss: Tensor) -> None:
        """Start the backward pass of *loss*."""

    def leave_backward(self) -> None:
        """End the backward pass."""

    def worked(self, loader_ns: Mapping[LoaderPart, int]) -> None:
        """Add CPU nanoseconds that loading took, wherever they were spent."""


_recorder: Recorder | None = None


def recorder() -> Recorder | None:
    """Return what listens now."""
    return _recorder


class recording(AbstractContextManager[None]):  # noqa: N801 - reads as a keyword: `with recording(clock):`
    """Install *recorder* for the marks met inside the block; recordings do not nest."""

    def __init__(self, recorder: Recorder) -> None:
        self._mine = recorder

    def __enter__(self) -> None:
        global _recorder  # noqa: PLW0603 - the one global the mark tests; a parameter would thread through every model
        if _recorder is not None:
            message = "a recorder is already installed"
            raise RuntimeError(message)
        _recorder = self._mine

    def __exit__(self, *_: object) -> None:
        global _recorder  # noqa: PLW0603
        _recorder = None


class unheard(AbstractContextManager[None]):  # noqa: N801 - reads as a keyword: `with unheard():`
    """Let no recorder hear the marks met inside the block, as if there were none."""

    def __enter__(self) -> None:
        global _recorder
        self._theirs, _recorder = _recorder, None

    def __exit__(self, *_: object) -> None:
        global _recorder  # noqa: PLW0603
        _recorder = self._theirs


class stage:  # noqa: N801 - reads as a keyword: `with stage("loss") as mark:`
    """Mark the block as work for *name*; with no recorder installed, or under `torch.compile`, do nothing."""

    __slots__ = ("_active", "_name")

    def __init__(self, name: Stage) -> None:
        self._name = name
        self._active: Recorder | None = None

    def __enter__(self) -> Self:
        # is_compiling() first: reading the global under compile would guard on it and recompile on every recording.
        if not torch.compiler.is_compiling() and _recorder is not None:
            self._active = _recorder
            _recorder.enter(self._name)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._active is not None:
            self._active.leave()

    def input(self, x: Tensor) -> Tensor:
        """Name a tensor by which work of this stage begins; its gradient leaves the stage here."""
        return x if self._active is None else self._active.mark_input(self._name, x)

    def output(self, x: Tensor) -> Tensor:
        """Name a tensor that this stage hands on; its gradient enters the stage here."""
        return x if self._active is None else self._active.mark_output(self._name, x)


def backpropagate(loss: Tensor) -> None:
    """Run the backward pass of *loss*, telling the recorder, if any, where it begins and ends."""
    if _recorder is None:
        loss.backward()  # type: ignore[no-untyped-call]
        return
    _recorder.enter_backward(loss)
    try:
        loss.backward()  # type: ignore[no-untyped-call]
    finally:
        _recorder.leave_backward()
