"""The second route from time to stages: raw intervals of a profiler window, joined by autograd sequence number.

A forward operator lies in the range that its stage opened in the trace. A backward node carries the sequence number
of the forward operator that created it, and so belongs to that operator's stage; a node without number (it adds up a
weight's gradient) goes with the node before it. Nothing of the stage clock's backward nodes is used, so that the two
routes check each other. Sums are unions of raw intervals, never a profiler's own totals.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

from profiles.timing.clock import ANNOTATION, BACKWARD_PASS
from profiles.timing.times import BACKWARD, FORWARD, REMAINDER, REMAINDER_BACKWARD, Cell

NODE = "autograd::engine::evaluate_function: "
STEP = "ProfilerStep#"


class Interval(NamedTuple):
    """One raw event of a profiler.

    `sequence` is an operator's autograd sequence number, -1 where it has none; `forward_thread` is 0 but for backward
    nodes. `correlation` is an operator's own number, and for work on a device that of the operator which launched it;
    0 where there is none. The calls of a device's library, such as a launch, have none here: theirs are numbers of
    another count, which would be taken for those of operators.
    """

    name: str
    start_ns: int
    end_ns: int
    thread: int = 0
    on_device: bool = False
    annotation: bool = False
    sequence: int = -1
    forward_thread: int = 0
    correlation: int = 0


class Attributed(NamedTuple):
    """What a window says: exposed and busy nanoseconds per cell, its wall time, and the union of all that was busy.

    On a device, busy is the union of its kernels and copies; on a CPU, of operators.
    """

    exposed_ns: dict[Cell, int]
    busy_ns: dict[Cell, int]
    wall_ns: int
    union_ns: int

    @property
    def residual_ns(self) -> int:
        """What the cells' busy times sum to beyond the union: 0, unless work for two cells ran at once."""
        return sum(self.busy_ns.values()) - self.union_ns


class KinetoEvent(Protocol):
    """What is read of torch's raw events; times in nanoseconds."""

    def name(self) -> str: ...  # noqa: D102 - torch's own names
    def start_ns(self) -> int: ...  # noqa: D102
    def duration_ns(self) -> int: ...  # noqa: D102
    def start_thread_id(self) -> int: ...  # noqa: D102
    def fwd_thread_id(self) -> int: ...  # noqa: D102
    def sequence_nr(self) -> int: ...  # noqa: D102
    def correlation_id(self) -> int: ...  # noqa: D102
    def linked_correlation_id(self) -> int: ...  # noqa: D102
    def is_user_annotation(self) -> bool: ...  # noqa: D102
    def device_type(self) -> object: ...  # noqa: D102


def intervals(events: Iterable[KinetoEvent]) -> list[Interval]:
    """Read torch's raw events; its parsed ones take a hundred times as long and ten times the memory."""
    read = []
    for event in events:
        start_ns, on_device = event.start_ns(), not str(event.device_type()).endswith("CPU")
        read.append(
            Interval(
                name=event.name(),
                start_ns=start_ns,
                end_ns=start_ns + event.duration_ns(),
                thread=event.start_thread_id(),
                on_device=on_device,
                annotation=event.is_user_annotation(),
                sequence=event.sequence_nr(),
                forward_thread=event.fwd_thread_id(),
                correlation=_correlation(event, on_device=on_device),
            )
        )
    return read


def _correlation(event: KinetoEvent, *, on_device: bool) -> int:
    """Return an operator's number; a call of a device's library is linked to the operator that made it, as a kernel."""
    linked = event.linked_correlation_id()
    if on_device:
        return linked
    return 0 if linked else event.correlation_id()


class Timeline:
    """Which cell the host worked for at every moment: the cells in order, each from its start to the next one's."""

    def __init__(self, starts_ns: list[int], cells: list[Cell]) -> None:
        self._starts_ns = starts_ns
        self._cells = cells

    def at(self, moment_ns: int) -> Cell:
        """Return the cell at a moment."""
        place = bisect_right(self._starts_ns, moment_ns) - 1
        return self._cells[place] if place >= 0 else REMAINDER

    def within(self, start_ns: int, end_ns: int) -> Iterator[tuple[Cell, int]]:
        """Yield the cells between two moments, with the nanoseconds of each."""
        place, cursor_ns = bisect_right(self._starts_ns, start_ns), start_ns
        while cursor_ns < end_ns:
            until_ns = self._starts_ns[place] if place < len(self._starts_ns) else end_ns
            until_ns = min(until_ns, end_ns)
            if until_ns > cursor_ns:
                yield (self._cells[place - 1] if place else REMAINDER), until_ns - cursor_ns
            place, cursor_ns = place + 1, until_ns


def timeline(events: list[Interval]) -> Timeline:
    """Return what the host worked for, by the stages' ranges and by the backward nodes."""
    forward = _sweep([(event, None) for event in events if _is_range(event)])
    causes = _causes(events, forward)
    nodes = [
        (event, _gradient_of(causes.get((event.forward_thread, event.sequence))))
        for event in events
        if event.name.startswith(NODE)
    ]
    return _sweep([*((event, None) for event in events if _is_range(event)), *nodes])


def _is_range(event: Interval) -> bool:
    mine = event.name.startswith(ANNOTATION) or event.name == BACKWARD_PASS
    return event.annotation and not event.on_device and mine


def _causes(events: list[Interval], forward: Timeline) -> dict[tuple[int, int], Cell]:
    """Return the cell of each sequence number: that of the last operator that saw it, which made the node.

    The number counts up when a node is made, so operators before that saw it too, perhaps in the stage before.
    """
    seen = [event for event in events if event.sequence >= 0 and event.forward_thread == 0 and not event.annotation]
    seen.sort(key=lambda event: event.start_ns)
    return {(event.thread, event.sequence): forward.at(event.start_ns) for event in seen}


def _gradient_of(cell: Cell | None) -> Cell | None:
    """Return where the gradient of a cell's work is charged; nothing for a node that no operator made."""
    return None if cell is None else BACKWARD.get(cell.stage, REMAINDER_BACKWARD)


def _sweep(items: list[tuple[Interval, Cell | None]]) -> Timeline:
    """Cut the host's time at the borders of nested ranges and nodes; the innermost says whose it is.

    Backward, what lies between two nodes goes with the first, and so does what lies before a pass's first one: the walk
    over the graph. The thread that waits for the backward pass and the one that runs it are one timeline: the former
    does nothing else.
    """
    borders: list[tuple[int, int, int, Interval, Cell | None]] = []
    for number, (event, cell) in enumerate(items):
        length_ns = event.end_ns - event.start_ns
        if length_ns == 0:
            continue  # it would close before it opens, and holds no time
        borders.append((event.start_ns, 1, -length_ns, event, cell))
        borders.append((event.end_ns, 0, number, event, cell))
    borders.sort(key=lambda border: border[:3])
    stack: list[tuple[Interval, Cell]] = []
    starts_ns: list[int] = []
    cells: list[Cell] = []
    opened_last: Interval | None = None  # the pass that has run no node yet
    for moment_ns, opens, _, event, known in borders:
        if opens:
            cell = _cell(event, known, stack)
            if event.name.startswith(NODE) and cells and stack and stack[-1][0] is opened_last:
                cells[-1] = cell
            stack.append((event, cell))
            opened_last = event if event.name == BACKWARD_PASS else None
        else:
            opened_last = None
            closed = next(place for place in reversed(range(len(stack))) if stack[place][0] is event)
            cell = stack.pop(closed)[1]
            if event.name.startswith(NODE) and stack and stack[-1][0].name == BACKWARD_PASS:
                stack[-1] = stack[-1][0], cell
        starts_ns.append(moment_ns)
        cells.append(stack[-1][1] if stack else REMAINDER)
    return Timeline(starts_ns, cells)


def _cell(event: Interval, known: Cell | None, stack: list[tuple[Interval, Cell]]) -> Cell:
    """Return the cell of a range or node that opens inside *stack*."""
    if event.name == BACKWARD_PASS:
        return REMAINDER_BACKWARD
    if event.name.startswith(NODE):
        return known or (stack[-1][1] if stack else REMAINDER_BACKWARD)
    stage = event.name.removeprefix(ANNOTATION)
    repeated = FORWARD[stage].direction == "forward" and any(around.name == BACKWARD_PASS for around, _ in stack)
    return BACKWARD[stage] if repeated else FORWARD[stage]


def attribute(events: list[Interval]) -> Attributed:
    """Divide a window's time among stages.

    Args:
        events: of a window whose steps are ranges named `ProfilerStep#…`; at least one.

    """
    steps = [event for event in events if event.annotation and not event.on_device and event.name.startswith(STEP)]
    start_ns, end_ns = min(step.start_ns for step in steps), max(step.end_ns for step in steps)
    host = timeline(events)
    kernels = _kernels(events, host)
    worked = kernels or _operators(events, host)
    exposed_ns: dict[Cell, int] = defaultdict(int)
    if not kernels:
        for cell, duration_ns in host.within(start_ns, end_ns):
            exposed_ns[cell] += duration_ns
    else:
        end_ns = max(end_ns, *(kernel.end_ns for kernel, _ in kernels))
        for cell, duration_ns in _device_time(kernels, host, start_ns, end_ns):
            exposed_ns[cell] += duration_ns
    by_cell: dict[Cell, list[Interval]] = defaultdict(list)
    for event, cell in worked:
        by_cell[cell].append(event)
    return Attributed(
        dict(exposed_ns),
        {cell: union_ns(of_cell) for cell, of_cell in by_cell.items()},
        end_ns - start_ns,
        union_ns(event for event, _ in worked),
    )


def _kernels(events: list[Interval], host: Timeline) -> list[tuple[Interval, Cell]]:
    """Return the device's work in order, each with the cell for which it was launched."""
    launched_ns = {
        event.correlation: event.start_ns
        for event in events
        if event.correlation and not event.on_device and not event.annotation
    }
    kernels = sorted(
        (event for event in events if event.on_device and not event.annotation), key=lambda event: event.start_ns
    )
    return [(kernel, host.at(launched_ns.get(kernel.correlation, kernel.start_ns))) for kernel in kernels]


def _operators(events: list[Interval], host: Timeline) -> list[tuple[Interval, Cell]]:
    """Return the operators of a CPU, which have a name space and are no machinery of autograd."""
    return [
        (event, host.at(event.start_ns))
        for event in events
        if not event.annotation and "::" in event.name and not event.name.startswith("autograd::")
    ]


def _device_time(
    kernels: list[tuple[Interval, Cell]], host: Timeline, start_ns: int, end_ns: int
) -> Iterator[tuple[Cell, int]]:
    """Divide the device's time: a kernel's to its cell, an idle moment's to what the host worked for just then."""
    cursor_ns = start_ns
    for kernel, cell in kernels:
        yield from host.within(cursor_ns, min(kernel.start_ns, end_ns))
        cursor_ns = max(cursor_ns, kernel.start_ns)
        if kernel.end_ns > cursor_ns:
            yield cell, kernel.end_ns - cursor_ns
            cursor_ns = kernel.end_ns
    yield from host.within(cursor_ns, end_ns)


def union_ns(events: Iterable[Interval]) -> int:
    """Return the length of the union of intervals."""
    total_ns, covered_ns = 0, 0
    for event in sorted(events, key=lambda event: event.start_ns):
        total_ns += max(0, event.end_ns - max(event.start_ns, covered_ns))
        covered_ns = max(covered_ns, event.end_ns)
    return total_ns
