"""The clock of a device that runs behind the host, on a device that is simulated: a queue of work of known length."""

import itertools
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles.stages import STAGES, stage
from profiles.timing.device_clock import SETTLE_AT, DeviceClock
from profiles.timing.times import FORWARD, Cell

LOADING, ATTENTION, LOSS = Cell("data_loading", "none"), Cell("attention", "forward"), Cell("loss", "forward")
REST = Cell("unattributed", "none")


@dataclass
class Event:
    """A moment on the device, in its own nanoseconds."""

    at_ns: int = 0


@dataclass
class Device:
    """A host whose time passes when told, and a device that works through what it was given, in order."""

    host_ns: int = 0
    free_ns: int = 0
    drains: int = 0
    made: int = 0
    epoch_ns: int = 10**9  # the device counts from another moment than the host
    _spare: list[Event] = field(default_factory=list)

    def now_ns(self) -> int:
        return self.host_ns

    def host_works(self, duration_ns: int) -> None:
        self.host_ns += duration_ns

    def launch(self, duration_ns: int) -> None:
        """Give the device work; it begins when the device is free, and not before now."""
        self.free_ns = max(self.free_ns, self.host_ns) + duration_ns

    def record(self) -> Event:
        if not self._spare:
            self.made += 1
        event = self._spare.pop() if self._spare else Event()
        event.at_ns = max(self.free_ns, self.host_ns) + self.epoch_ns
        return event

    def between_ns(self, earlier: Event, later: Event) -> int | None:
        return later.at_ns - earlier.at_ns if later.at_ns - self.epoch_ns <= self.host_ns else None

    def recycle(self, event: Event) -> None:
        assert all(event is not spare for spare in self._spare)
        self._spare.append(event)

    def drain(self) -> None:
        self.drains += 1
        self.host_ns = max(self.host_ns, self.free_ns)


def charges(device: Device) -> tuple[DeviceClock[Event], list[tuple[Cell, int, int]]]:
    """Return a clock of *device*, and the charges it will tell of."""
    told: list[tuple[Cell, int, int]] = []
    return DeviceClock(device, device.now_ns, lambda *charge: told.append(charge)), told


def test_the_device_s_own_time_is_charged_and_not_that_of_launching() -> None:
    device = Device()
    clock, _ = charges(device)
    with clock.phase("train", 1) as times:
        for name, duration_ns in (("attention", 1000), ("loss", 300)):
            with stage(name):
                device.host_works(5)
                device.launch(duration_ns)
    assert times.exposed_ns[ATTENTION] == 5 + 1000  # idle while the host launched, then busy
    assert times.exposed_ns[LOSS] == 300  # launched while the device was still busy
    assert times.wall_ns == 1305
    assert times.residual_ns == 0


def test_a_device_left_idle_is_charged_to_the_stage_that_kept_it_waiting() -> None:
    device = Device()
    clock, _ = charges(device)
    with clock.phase("train", 1) as times:
        with stage("attention"):
            device.launch(1000)
        with stage("data_loading"):
            device.host_works(4000)
        with stage("loss"):
            device.launch(10)
    assert times.exposed_ns == {REST: 0, ATTENTION: 1000, LOADING: 3000, LOSS: 10}


def test_nothing_waits_for_the_device_inside_a_phase() -> None:
    device = Device()
    clock, _ = charges(device)
    with clock.phase("train", 1):
        before = device.drains
        for _ in range(10 * SETTLE_AT):
            with stage("attention"):
                device.launch(100)
        assert device.drains == before
    assert device.drains == 2
    assert device.host_ns == 10 * SETTLE_AT * 100


def test_events_are_used_again() -> None:
    device = Device()
    clock, _ = charges(device)
    with clock.phase("train", 1) as times:
        for _ in range(10 * SETTLE_AT):
            with stage("attention"):
                device.launch(100)
                device.host_works(100)
    assert device.made <= SETTLE_AT + 2
    assert times.calls[ATTENTION] == 10 * SETTLE_AT


def test_charges_are_told_in_order_and_without_gap_on_the_host_s_clock() -> None:
    device = Device(host_ns=77)
    clock, told = charges(device)
    with clock.phase("train", 1) as times:
        for _ in range(SETTLE_AT):
            with stage("attention"):
                device.launch(30)
            device.host_works(10)
    assert told[0][1] == 77
    assert all(earlier[2] == later[1] for earlier, later in itertools.pairwise(told))
    assert told[-1][2] - told[0][1] == times.wall_ns
    assert sum(end_ns - start_ns for cell, start_ns, end_ns in told if cell == ATTENTION) == times.exposed_ns[ATTENTION]


def test_a_phase_can_be_read_in_the_middle() -> None:
    device = Device()
    clock, _ = charges(device)
    with clock.phase("train", 1) as times:
        with stage("attention"):
            device.launch(1000)
        assert clock.read()[ATTENTION] == 1000
        with stage("attention"):
            device.launch(500)
    assert times.exposed_ns[ATTENTION] == 1500


@pytest.mark.parametrize("drift_ns", [40, -40])
def test_what_two_clocks_disagree_by_is_unattributed_and_said(drift_ns: int) -> None:
    class Drifting(Device):
        def between_ns(self, earlier: Event, later: Event) -> int | None:
            true_ns = super().between_ns(earlier, later)
            return true_ns - drift_ns if true_ns is not None and true_ns >= 1000 else true_ns

    device = Drifting()
    clock, _ = charges(device)
    with clock.phase("train", 1) as times, stage("attention"):
        device.launch(1000)
    assert times.exposed_ns[ATTENTION] == 1000 - drift_ns
    assert times.residual_ns == times.exposed_ns[REST] == drift_ns
    times.check()


def test_an_exception_leaves_the_clock_whole() -> None:
    device = Device()
    clock, _ = charges(device)
    with pytest.raises(ValueError, match="oops"), clock.phase("train", 1) as times, stage("loss"):
        device.launch(50)
        message = "oops"
        raise ValueError(message)
    assert times.exposed_ns[LOSS] == 50
    with clock.phase("train", 2) as again, stage("loss"):
        device.launch(60)
    assert again.exposed_ns[LOSS] == 60


steps = st.lists(st.tuples(st.sampled_from(STAGES), st.integers(0, 500), st.integers(0, 2000)), max_size=40)


@given(steps)
def test_no_device_time_is_lost_or_counted_twice(program: list[tuple[Any, int, int]]) -> None:
    device = Device()
    clock, told = charges(device)
    expected_ns: dict[Cell, int] = {}
    cursor_ns = 0
    with clock.phase("train", 1) as times:
        for name, host_ns, device_ns in program:
            with stage(name):
                device.host_works(host_ns)
                device.launch(device_ns)
            end_ns = max(device.free_ns, device.host_ns)
            expected_ns[FORWARD[name]] = expected_ns.get(FORWARD[name], 0) + end_ns - cursor_ns
            cursor_ns = end_ns
    times.check()
    assert {cell: ns for cell, ns in times.exposed_ns.items() if ns} == {c: ns for c, ns in expected_ns.items() if ns}
    assert times.wall_ns == cursor_ns
    assert sum(end_ns - start_ns for _, start_ns, end_ns in told) == times.wall_ns
