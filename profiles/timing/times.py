"""The times of one phase: every nanosecond of its wall time in one cell, and none in two.

A cell is a stage in one direction. What the loader's resource worked, in this process or in others, stands beside.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

from profiles.record import UNATTRIBUTED, Direction, LoaderRow, Phase, StageRow, Tag
from profiles.stages import LEADING, STAGES, LoaderPart, Stage

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

    `parts_ns` are the wall times of the phase's parts that have ended: one, but for interruptions and what is saved
    within it; `exposed_ns` then sums to their sum. `loader_ns` is CPU time of
    loading by part, wherever it was spent; it is none of the wall time. `residual_ns` is what device events and host
    clock, which each measure the phase, disagree by, a part of `unattributed`; with one clock it is absent.
    """

    phase: Phase
    epoch: int
    tag: Tag = "measured"
    parts_ns: list[int] = field(default_factory=list)
    exposed_ns: dict[Cell, int] = field(default_factory=dict)
    calls: dict[Cell, int] = field(default_factory=dict)
    loader_ns: dict[LoaderPart, int] = field(default_factory=dict)
    residual_ns: int | None = None

    @property
    def wall_ns(self) -> int:
        """Return the phase's wall time."""
        return sum(self.parts_ns)

    def charge(self, cell: Cell, duration_ns: int) -> None:
        """Add to what *cell* took."""
        self.exposed_ns[cell] = self.exposed_ns.get(cell, 0) + duration_ns

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
        """Return plain values, fit for a checkpoint, which a phase that goes on leaves as they are; see `check`."""
        self.check()
        return {
            **vars(self),
            "parts_ns": list(self.parts_ns),
            "loader_ns": dict(self.loader_ns),
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
        exposed_ns = dict.fromkeys((FORWARD[stage] for stage in LEADING), 0) | self.exposed_ns
        return [
            StageRow(
                phase=self.phase,
                epoch=self.epoch,
                stage=cell.stage,
                direction=cell.direction,
                exposed_s=exposed_ns[cell] / 1e9,
                busy_s=self._busy_s(cell),
                share=exposed_ns[cell] / self.wall_ns if self.wall_ns else 0.0,
                calls=self.calls.get(cell, 0),
                tag=self.tag,
            )
            for cell in sorted(exposed_ns, key=_place)
        ]

    def _busy_s(self, cell: Cell) -> float | None:
        """Return what the loader worked; what other stages' resources did, only a profiler sees."""
        return sum(self.loader_ns.values()) / 1e9 if cell.stage == "data_loading" and self.loader_ns else None

    def loader_rows(self) -> list[LoaderRow]:
        """Return one row per part of loading."""
        return [LoaderRow(self.phase, self.epoch, part, ns / 1e9) for part, ns in self.loader_ns.items()]


FORWARD: dict[str, Cell] = {stage: Cell(stage, "none" if stage in WITHOUT_GRADIENT else "forward") for stage in STAGES}
"""Where a stage's own work is charged, as opposed to its gradient's."""

BACKWARD: dict[str, Cell] = {stage: Cell(stage, "backward") for stage in STAGES}
"""Where the work of a stage's gradient is charged."""

REMAINDER = Cell(UNATTRIBUTED, "none")
REMAINDER_BACKWARD = Cell(UNATTRIBUTED, "backward")


def _place(cell: Cell) -> tuple[int, bool]:
    """Order cells as every table does: by stage, forward before backward."""
    names = (*STAGES, UNATTRIBUTED)
    return names.index(cell.stage), cell.direction == "backward"
