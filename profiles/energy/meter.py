"""What one device is asked and answers, turned into joules per phase, power per stage and caveats.

Two threads meet here: the sampling thread brings readings, the training says where phases begin and end and what ran.
What was read waits in a queue and is digested, in order, before anything begins, ends or is asked, by whoever does so;
neither thread asks the device while it holds the lock, so a driver that hangs holds up no training.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Lock

from profiles.energy.curve import EnergyCurve, Joules, Moment
from profiles.energy.guards import CHANGES, Standing, Tally
from profiles.energy.moves import MeterWatch, Move
from profiles.energy.readings import Reading
from profiles.energy.split import stage_energies
from profiles.energy.stage_power import Cell, Interval, StagePower
from profiles.record import EnergyRow, Phase, StageEnergy

GIVE_UP_NS = 2_000_000_000
"""A meter that is silent or stands still for so long is not waited for."""

NO_COUNTER = "the board has no energy counter, and power sampled now and then is of no stage"

BUSY_PCT = 5
"""Above this, a device is not idle."""


class Stretch:
    """A time whose energy is asked for: a phase, or as much of it as ran at once; or the idle time before the run."""

    def __init__(self, start_ns: int, curves: tuple[EnergyCurve, ...], tally: Tally) -> None:
        self.start_ns = start_ns
        self.end_ns: int | None = None
        self.tally = tally
        self.followed = False  # by a reading that may still tell a change before its end
        self._curves = curves
        self._starts = [curve.ask(start_ns) for curve in curves]
        self._ends: list[Moment] = []

    def end(self, end_ns: int) -> None:
        """Ask for the energy at its end."""
        self.end_ns = end_ns
        self.tally.end()
        self._ends = [curve.ask(end_ns) for curve in self._curves]

    def joules(self) -> Joules | None:
        """Return what it cost by the best method that knows, or nothing as long as one may still answer."""
        why = []
        for curve, start, end in zip(self._curves, self._starts, self._ends, strict=bool(self._ends)):
            if not (start.settled and end.settled):
                return None
            joules = curve.between(start, end)
            if joules.energy_j is not None:
                return joules
            why.append(joules.reason)
        return Joules(None, None, None, "; ".join(dict.fromkeys(why))) if self._ends else None


class DeviceMeter:
    """The energy side of one device.

    Args:
        device: what it is called in tables.
        period_ns: between two samples.

    """

    def __init__(self, device: str, period_ns: int) -> None:
        self.device = device
        self.why: dict[str, str] = {}
        self.power = StagePower()
        self.answered = False
        self._lock = Lock()
        self._period_ns = period_ns
        self._watch = MeterWatch()
        self._counter = EnergyCurve("counter")
        self._trapezoid = EnergyCurve("trapezoid", max(10 * period_ns, GIVE_UP_NS // 2))
        self._heard: deque[tuple[int, Reading, Move | None, bool]] = deque()
        self._counts = False
        self._moved_ns: int | None = None  # or first seen
        self._sampled_ns: int | None = None
        self._move: Move | None = None
        self._known: set[str] = set()
        self._answers = False
        self._standing = Standing()
        self._between: list[str] = []
        self._current: Stretch | None = None
        self._current_name: tuple[Phase, int] | None = None
        self._idle: Stretch | None = None
        self._ended: deque[tuple[Phase, int, Stretch]] = deque()

    @property
    def period_ns(self) -> int | None:
        """How often the counter moves, once that is known."""
        return self._watch.period_ns

    def looked(self, now_ns: int, reading: Reading) -> None:
        """Take a quick look at the meter; the sampling thread calls this, and never waits in it."""
        self._heard.append((now_ns, reading, self._moved(now_ns, reading), False))

    def sampled(self, now_ns: int, reading: Reading) -> None:
        """Take a whole sample, likewise."""
        self._heard.append((now_ns, reading, self._moved(now_ns, reading), True))
        self.answered = self.answered or reading.power_w is not None or reading.energy_j is None

    def digest(self) -> None:
        """Make of what was heard what it means: every two seconds, and before anything begins, ends or is asked."""
        with self._digested():
            self.power.settle()

    def next_look_ns(self) -> int | None:
        """Return when the counter may move, where a look then is worth it."""
        return self._watch.next_look_ns()

    def idle_begins(self, start_ns: int) -> None:
        """Begin to measure the idle device."""
        with self._digested():
            self._current = self._idle = self._begun(start_ns)

    def idle_ends(self, end_ns: int) -> None:
        """End it."""
        with self._digested():
            assert self._idle is not None  # noqa: S101 - begun before
            self._idle.end(end_ns)
            self._current = None

    def idle_w(self) -> float | None:
        """Return the power of the idle device, once its last reading has come."""
        with self._digested():
            return self._idle_w()

    def phase_begins(self, phase: Phase, epoch: int, start_ns: int) -> None:
        """Begin a phase, or what is left of it after an interruption."""
        with self._digested():
            self._current = self._begun(start_ns)
            self._current_name = phase, epoch

    def phase_ends(self, end_ns: int) -> None:
        """End the phase."""
        with self._digested():
            assert self._current is not None  # noqa: S101 - begun before
            assert self._current_name is not None  # noqa: S101
            self._current.end(end_ns)
            self._ended.append((*self._current_name, self._current))
            self._current = self._current_name = None

    def waits(self) -> bool:
        """Whether something has ended of which a reading may still tell the energy, or a doubt."""
        with self._digested():
            idle = self._idle is not None and self._idle.joules() is None
            return idle or any(not ended.followed or ended.joules() is None for *_, ended in self._ended)

    def take_settled(self) -> list[EnergyRow]:
        """Return the phases of which all is known by now, or known not to be; each once, in order."""
        rows = []
        with self._digested():
            while self._ended and self._ended[0][2].followed and (joules := self._ended[0][2].joules()) is not None:
                rows.append(self._row(*self._ended.popleft(), joules))
        return rows

    def stage_energies(self, phase: Phase, exposed_s: Mapping[Cell, float], total: Joules) -> tuple[StageEnergy, ...]:
        """Estimate what each stage of a phase cost; see `split.stage_energies`."""
        why_not = "" if self._counts else NO_COUNTER
        with self._digested():
            self.power.settle()
            return stage_energies(self.power, phase, self.device, exposed_s, total, self._idle_w(), why_not)

    def caveats(self) -> list[str]:
        """Return what a reader of every number of this device must know."""
        names: dict[tuple[str, str], list[str]] = {}
        for name, why in self.why.items():
            known = name in self._known or (name == "device" and self._answers)
            names.setdefault((" at times" if known else "", why), []).append(name)
        said = [f"{self.device}: {', '.join(of)} unavailable{when} ({why})" for (when, why), of in names.items()]
        if self._idle is None or not self._known & {"energy_j", "power_w"}:
            return said  # no power at all: nothing more can be said of that of the idle device
        idle = self._idle.joules()
        if idle is not None and idle.energy_j is None:
            said.append(f"{self.device}: idle power unavailable ({idle.reason})")
        busy_pct = self._idle.tally.utilization_pct()
        if busy_pct is not None and busy_pct > BUSY_PCT:
            said.append(f"{self.device}: {busy_pct:.0f} % busy while its idle power was measured")
        return said

    def give_up(self, why: str) -> None:
        """Wait for no reading any more."""
        with self._digested():
            self._counter.give_up(why)
            self._trapezoid.give_up(why)
            for *_, ended in self._ended:
                ended.followed = True

    def _begun(self, start_ns: int) -> Stretch:
        changes, self._between = self._between, []
        return Stretch(start_ns, (self._counter, self._trapezoid), Tally(self._standing.at(start_ns), changes))

    def _idle_w(self) -> float | None:
        if self._idle is None or self._idle.end_ns is None or (joules := self._idle.joules()) is None:
            return None
        span_s = (self._idle.end_ns - self._idle.start_ns) / 1e9
        return None if joules.energy_j is None else joules.energy_j / span_s

    def _row(self, phase: Phase, epoch: int, stretch: Stretch, joules: Joules) -> EnergyRow:
        assert stretch.end_ns is not None  # noqa: S101 - it has ended
        return EnergyRow(
            phase=phase,
            epoch=epoch,
            device=self.device,
            start_s=stretch.start_ns / 1e9,
            wall_s=(stretch.end_ns - stretch.start_ns) / 1e9,
            energy_j=joules.energy_j,
            error_j=joules.error_j,
            method=joules.method,
            idle_w=self._idle_w(),
            reason=joules.reason,
            caveats="; ".join(stretch.tally.caveats()),
        )

    def _moved(self, now_ns: int, reading: Reading) -> Move | None:
        if reading.energy_j is not None:
            self._counts = True
            move = self._watch.look(now_ns, reading.energy_j)
            self.answered = self.answered or move is not None  # energy is told from a first movement on
            return move
        self._watch.missed()
        return None

    @contextmanager
    def _digested(self) -> Iterator[None]:
        """Hold the lock, with everything digested that was heard."""
        with self._lock:
            self._digest()
            yield

    def _digest(self) -> None:
        while self._heard:
            now_ns, reading, move, whole = self._heard.popleft()
            if move is not None:
                self._observe_counter(move)
            if move is not None or (self._moved_ns is None and reading.energy_j is not None):
                self._moved_ns = now_ns
            if whole:
                self._digest_sample(now_ns, reading)

    def _digest_sample(self, now_ns: int, reading: Reading) -> None:
        if reading.power_w is not None:
            self._sampled_ns = now_ns
            self._trapezoid.sampled(now_ns, reading.power_w)
        self._give_up(now_ns, reading)
        self.why |= reading.why
        self._answers = self._answers or "device" not in reading.why
        self._known |= {name for name, value in zip(Reading._fields, reading, strict=True) if value is not None}
        if reading.fresh:
            self._guard(now_ns, reading)

    def _guard(self, now_ns: int, reading: Reading) -> None:
        """Note what makes phases doubtful: of the one that runs, and of those that have ended since the last time."""
        changes = self._standing.changes(now_ns, reading)
        for *_, ended in self._ended:
            if reading.guarded and not ended.followed:
                ended.tally.follow(reading, changes)
                ended.followed = True
        if self._current is not None:
            self._current.tally.add(reading, changes)
        else:
            self._between = (self._between + changes)[:CHANGES]

    def _observe_counter(self, move: Move) -> None:
        self._counter.counted(*move)
        period_ns = self._watch.period_ns
        if not (move.sharp or self._watch.fluent):
            return  # an interval ends where a movement was looked for
        last, self._move = self._move, move
        if last is not None and period_ns is not None and last.at_ns < move.at_ns and last.value <= move.value:
            within_ns = max(last.within_ns, move.within_ns)
            self.power.observe(Interval(last.at_ns, move.at_ns, move.value - last.value, within_ns), period_ns)

    def _give_up(self, now_ns: int, reading: Reading) -> None:
        """Answer what waits for a meter that stands still, does not speak, or never did."""
        for curve, since_ns, column in (
            (self._counter, self._moved_ns, "energy_j"),
            (self._trapezoid, self._sampled_ns, "power_w"),
        ):
            if since_ns is None or now_ns - since_ns > GIVE_UP_NS:
                curve.give_up(reading.why.get(column) or reading.why.get("device") or "the meter tells nothing new")
