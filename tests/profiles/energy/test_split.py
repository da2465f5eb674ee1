"""Energy per stage, from meters whose truth is known because they are made up here."""

import numpy as np
import pytest

from profiles.energy.curve import Joules
from profiles.energy.split import stage_energies
from profiles.energy.stage_power import CELLS, CHARGES, PENDING, Cell, Interval, StagePower
from profiles.record import StageEnergy

MS = 1_000_000
PERIOD_NS = 100 * MS
WATTS: dict[Cell, float] = {
    ("data_loading", "none"): 60.0,
    ("attention", "forward"): 250.0,
    ("attention", "backward"): 310.0,
    ("optimizer", "none"): 140.0,
}


class Work:
    """Stages that follow one another for as long as they like, and a meter that moves every 100 ms."""

    def __init__(self, seed: int, noise_j: float = 0.0, lag_ms: int = 0) -> None:
        self.power, self.exposed_s = StagePower(), dict.fromkeys(WATTS, 0.0)
        self._generator = np.random.default_rng(seed)
        self._noise_j, self._lag_ns = noise_j, lag_ms * MS
        self._borders_ns, self._watts = [0], [0.0]

    def do(self, seconds: float, shortest_ms: int = 20, longest_ms: int = 700) -> "Work":
        """Work, charging every stage."""
        end_ns, cells = self._borders_ns[-1] + seconds * 1e9, list(WATTS)
        while self._borders_ns[-1] < end_ns:
            cell = cells[self._generator.integers(len(cells))]
            start_ns = self._borders_ns[-1]
            self._borders_ns.append(start_ns + int(self._generator.integers(shortest_ms, longest_ms)) * MS)
            self._watts.append(WATTS[cell])
            self.power.charged("train", cell, start_ns, self._borders_ns[-1])
            self.exposed_s[cell] += (self._borders_ns[-1] - start_ns) / 1e9
        return self

    def metered(self, within_ns: int = 0) -> "Work":
        """Let the meter tell all of it, the moments at which it moves known no better than *within_ns*."""
        summed_j = np.cumsum(np.array(self._watts) * np.diff([0, *self._borders_ns]) / 1e9)
        moves_ns = np.arange(0, self._borders_ns[-1] - self._lag_ns, PERIOD_NS)
        noise_j = self._generator.normal(0, self._noise_j, len(moves_ns))
        seen_ns = moves_ns + self._generator.integers(-within_ns, within_ns + 1, len(moves_ns))
        told_j = np.interp(moves_ns, self._borders_ns, summed_j)
        for i in range(1, len(moves_ns)):
            start_ns, end_ns = (int(at_ns) + self._lag_ns for at_ns in seen_ns[i - 1 : i + 1])
            energy_j = float(told_j[i] - told_j[i - 1] + noise_j[i])
            self.power.observe(Interval(start_ns, end_ns, energy_j, within_ns), PERIOD_NS)
            if i % (PENDING // 2) == 0:
                self.power.settle()
        self.power.settle()
        return self

    @property
    def total(self) -> Joules:
        return Joules(sum(WATTS.get(cell, 100.0) * s for cell, s in self.exposed_s.items()), 5.0, "counter")

    def split(self) -> dict[Cell, StageEnergy]:
        rows = stage_energies(self.power, "train", "cuda:0", self.exposed_s, self.total, 40.0)
        return {(row.stage, row.direction): row for row in rows}


@pytest.mark.parametrize("lag_ms", [0, 35, 90])
def test_error_bars_cover_the_truth(lag_ms: int) -> None:
    inside = 0
    for seed in range(10):
        work = Work(seed, noise_j=1.0, lag_ms=lag_ms).do(120)
        parts = work.metered().split()
        for cell, watts in WATTS.items():
            energy_j, error_j = parts[cell].energy_j, parts[cell].error_j
            assert energy_j is not None
            assert error_j is not None
            truth_j = watts * work.exposed_s[cell]
            assert error_j < 0.15 * truth_j
            inside += abs(energy_j - truth_j) <= error_j
    assert inside >= 36  # of 40; at 95 % fewer would be 1 chance in 20 even without the other parts of the bar


def test_error_bars_cover_the_truth_where_the_meters_moments_are_blurred() -> None:
    inside = 0
    for seed in range(10):
        work = Work(seed).do(240, longest_ms=200)
        parts = work.metered(within_ns=10 * MS).split()
        for cell, watts in WATTS.items():
            energy_j, error_j = parts[cell].energy_j, parts[cell].error_j
            assert energy_j is not None
            assert error_j is not None
            inside += abs(energy_j - watts * work.exposed_s[cell]) <= error_j
    assert inside >= 36  # of 40


def test_stages_sum_to_the_total_and_with_idle_taken_off_to_the_rest() -> None:
    work = Work(1, noise_j=2.0).do(60)
    parts = work.metered().split().values()
    assert sum(part.energy_j or 0 for part in parts) == pytest.approx(work.total.energy_j, rel=1e-12)
    idle_j = 40 * sum(work.exposed_s.values())
    above_j = sum(part.above_idle_j or 0 for part in parts)
    assert above_j + idle_j == pytest.approx(work.total.energy_j, rel=1e-12)


def test_a_stage_that_always_runs_beside_another_is_not_told_from_it() -> None:
    power, exposed_s = StagePower(), {("head", "forward"): 0.0, ("embedding", "forward"): 0.0, ("loss", "forward"): 0.0}
    cells: list[Cell] = [("head", "forward"), ("embedding", "forward"), ("loss", "forward")]
    generator, now_ns = np.random.default_rng(0), 0
    for _ in range(3000):  # in each interval head and embedding are as long as one another
        half_ns = int(generator.integers(1, 49)) * MS
        for cell, length_ns in zip(cells, (half_ns, half_ns, PERIOD_NS - 2 * half_ns), strict=True):
            power.charged("train", cell, now_ns, now_ns + length_ns)
            exposed_s[cell] += length_ns / 1e9
            now_ns += length_ns
        energy_j = (2 * half_ns * 200 + (PERIOD_NS - 2 * half_ns) * 90) / 1e9
        power.observe(Interval(now_ns - PERIOD_NS, now_ns, energy_j, 0), 40)  # no lag to speak of
    power.charged("train", cells[0], now_ns, now_ns + PERIOD_NS)
    power.settle()
    total_j = 200 * (exposed_s[cells[0]] + exposed_s[cells[1]]) + 90 * exposed_s[cells[2]]
    rows = stage_energies(power, "train", "cuda:0", exposed_s, Joules(total_j, 1.0, "counter"), None)
    head, embedding, loss, unresolved = rows
    assert head.energy_j is None
    assert embedding.energy_j is None
    assert head.reason == embedding.reason == "it always ran beside another stage"
    assert loss.energy_j == pytest.approx(90 * exposed_s[cells[2]], rel=0.01)
    assert unresolved.stage == "unresolved"
    assert unresolved.energy_j == pytest.approx(200 * (exposed_s[cells[0]] + exposed_s[cells[1]]), rel=0.01)
    assert unresolved.exposed_s == pytest.approx(exposed_s[cells[0]] + exposed_s[cells[1]])


def test_a_stage_seldom_met_is_not_guessed() -> None:
    work = Work(2, noise_j=1.0).do(60)
    start_ns = work._borders_ns[-1]
    work.power.charged("train", ("checkpoint", "none"), start_ns, start_ns + 30 * MS)
    work._borders_ns.append(start_ns + 30 * MS)
    work._watts.append(100.0)
    work.do(60).metered()
    work.exposed_s[("checkpoint", "none")] = 0.03
    total_j = sum({**WATTS, ("checkpoint", "none"): 100.0}[cell] * time_s for cell, time_s in work.exposed_s.items())
    rows = stage_energies(work.power, "train", "cuda:0", work.exposed_s, Joules(total_j, 5.0, "counter"), None)
    part = next(row for row in rows if row.stage == "checkpoint")
    assert part.energy_j is None
    assert part.reason == "it ran in too few intervals of the meter"
    assert next(row for row in rows if row.stage == "unresolved").energy_j == pytest.approx(0.03 * 100, abs=10)


def test_what_is_left_below_0_says_why() -> None:
    work = Work(2).do(60).metered()
    work.exposed_s["checkpoint", "none"] = 0.03
    told = {}
    for off_j in (0.0, -20.0):
        total = Joules(work.total.energy_j + off_j, 5.0, "counter")
        told[off_j] = stage_energies(work.power, "train", "cuda:0", work.exposed_s, total, None)[-1]
    assert told[0.0].energy_j > 0
    assert "less than 0" not in told[0.0].method
    assert told[-20.0].energy_j < 0
    assert told[-20.0].method.endswith("; less than 0, as the estimates of the other stages sum to more than the phase")


@pytest.mark.parametrize("after_ms", [45, 65, 95])
def test_a_stage_met_only_at_the_edge_of_the_last_interval_is_not_guessed(after_ms: int) -> None:
    work, scoring = Work(1, noise_j=1.0, lag_ms=60).do(25), ("scoring", "none")
    before_ms = 27_400 - 5 - after_ms - work._borders_ns[-1] // MS  # 272 intervals, of which none is left out: 17 * 16
    for cell, length_ms in ((("optimizer", "none"), before_ms), (scoring, 5), (("optimizer", "none"), after_ms)):
        start_ns = work._borders_ns[-1]
        work._borders_ns.append(start_ns + length_ms * MS)
        work._watts.append(140.0)
        work.power.charged("train", cell, start_ns, work._borders_ns[-1])
        work.exposed_s[cell] = work.exposed_s.get(cell, 0.0) + length_ms / 1e3
    total_j = sum({**WATTS, scoring: 140.0}[cell] * time_s for cell, time_s in work.exposed_s.items())
    total = Joules(total_j, 5.0, "counter")
    rows = stage_energies(work.metered().power, "train", "cuda:0", work.exposed_s, total, None)
    parts = {row.stage: row for row in rows}
    assert parts["scoring"].reason == "it ran in too few intervals of the meter"
    assert parts["attention"].energy_j is not None
    assert sum(part.energy_j or 0.0 for part in rows) == pytest.approx(total_j)


def test_an_unknown_total_has_no_parts() -> None:
    work = Work(3).do(30).metered()
    rows = stage_energies(work.power, "train", "cpu", work.exposed_s, Joules(None, None, None, "no counter"), None)
    assert {(row.tag, row.reason, row.energy_j) for row in rows} == {("unavailable", "no counter", None)}
    assert len(rows) == len(WATTS)


def test_a_phase_never_seen_has_no_parts() -> None:
    rows = stage_energies(
        StagePower(), "validation", "cpu", {("loss", "forward"): 1.0}, Joules(5.0, 1.0, "counter"), 2.0
    )
    assert rows[0].reason == "0 whole intervals of the meter lie within the phase; 48 are needed"
    assert (rows[1].stage, rows[1].energy_j, rows[1].above_idle_j) == ("unresolved", 5.0, 3.0)


def test_intervals_over_a_phases_border_count_for_neither() -> None:
    power = StagePower()
    power.charged("train", ("loss", "forward"), 0, 250 * MS)
    power.charged("validation", ("loss", "forward"), 250 * MS, 600 * MS)
    for start_ms in range(0, 500, 100):
        power.observe(Interval(start_ms * MS, (start_ms + 100) * MS, 1.0, 0), 20)
    power.settle()
    train, validation = power.sums("train"), power.sums("validation")
    assert train is not None
    assert validation is not None
    assert (train.intervals, validation.intervals) == (1, 2)  # the first has no time before it to lag behind


def test_memory_does_not_grow_with_time() -> None:
    work = Work(4).do(3600)
    work.metered()
    sums = work.power.sums("train")
    assert sums is not None
    assert sums.intervals > 35_000
    assert len(work.power._charges_n3) < 20
    assert sums.products_blaa.shape[-1] == CELLS + 1
    assert len(sums.blocks()) >= 16
    assert not work.power._buffer


def test_memory_does_not_grow_while_the_meter_is_silent() -> None:
    power = StagePower()
    power.observe(Interval(0, 1, 1.0, 0), 20)
    for charge in range(CHARGES + 1000):
        power.charged("train", ("loss", "forward"), charge, charge + 1)
    assert len(power._buffer) == 3 * CHARGES
    for start_ns in range(0, 3 * CHARGES, CHARGES // 2):
        for charge in range(start_ns, start_ns + CHARGES // 2):
            power.charged("train", ("loss", "forward"), charge, charge + 1)
        power.settle()
        assert len(power._charges_n3) <= CHARGES


def test_without_a_meter_only_the_last_charges_are_kept() -> None:
    power = StagePower()
    for second in range(3):
        for charge in range(10 * second, 10 * second + 10):
            power.charged("train", ("loss", "forward"), charge, charge + 1)
        power.settle()
        assert len(power._charges_n3) == 10


@pytest.mark.slow
@pytest.mark.parametrize(("noise_j", "lag_ms"), [(0.0, 0), (1.0, 0), (1.0, 35), (1.0, 90), (3.0, 57)])
def test_the_error_bars_cover_the_truth_as_often_as_they_say(noise_j: float, lag_ms: int) -> None:
    covered = stated = 0
    for seed in range(1000, 1060):
        work = Work(seed, noise_j, lag_ms).do(120)
        for cell, part in work.metered().split().items():
            if part.energy_j is not None:
                stated += 1
                covered += abs(part.energy_j - WATTS[cell] * work.exposed_s[cell]) <= part.error_j
    print(f"noise {noise_j} J, lag {lag_ms} ms: {covered} of {stated} error bars cover the truth")
    assert stated > 200  # of 240
    assert covered / stated > 0.90  # four standard errors below 0.95 would be 0.89
