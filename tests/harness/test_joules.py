"""From rows of energy to metrics and totals: what is unknown stays unknown, with its reason."""

from pathlib import Path

import pytest

from harness.joules import energy_doubts, energy_metrics, energy_totals
from harness.summary import Tables
from profiles.record import EnergyRow, EpochRow, Metric, Phase, StageRow
from tests.harness.test_summary import Rows

MEASURED = Metric(name="time_per_epoch", value=10.0, unit="s", n=3, tag="measured")


def row(phase: Phase, epoch: int, energy_j: float | None, device: str = "cuda:0", caveats: str = "") -> EnergyRow:
    """Return what a phase of 8 s cost, give or take 3 J; an unknown one is of a lost device."""
    known = energy_j is not None
    return EnergyRow(phase, epoch, device, 0.0, 8.0, energy_j, 3.0 if known else None, "counter" if known else None,
                     60.0, "" if known else "the GPU is lost", caveats)  # fmt: skip


def tables(root: Path, *energy: EnergyRow) -> Tables:
    """Return the tables of three epochs, of which the second has steps that were looked at closely."""
    stages = [StageRow("train", epoch, "loss", "forward", 8.0, None, 1.0, 1, "measured") for epoch in (1, 2, 3)]
    epochs = [EpochRow(epoch, 1.0, 1.0, 16.0, 60, epoch == 1, epoch == 2) for epoch in (1, 2, 3)]
    return Rows(stages, epochs, [], energy).written(root)


def metrics(tables: Tables, time_per_epoch: Metric = MEASURED, *others: str) -> dict[str, Metric]:
    return {metric.name: metric for metric in energy_metrics(tables, {"cuda:0", *others}, time_per_epoch)}


KNOWN = [row("train", epoch, 1000.0 + epoch) for epoch in (0, 1, 2, 3)] + [
    row("validation", epoch, 100.0) for epoch in (1, 2, 3)
]  # fmt: skip


def test_an_epoch_costs_its_training_and_validation_and_profiled_ones_do_not_count(tmp_path: Path) -> None:
    found = metrics(tables(tmp_path, *KNOWN, row("train", 1, 7.0, "cpu"), row("evaluation", 3, 5000.0)))
    assert (found["energy_per_epoch"].value, found["energy_per_epoch"].n) == (1102.0, 2)
    assert found["energy_per_epoch"].spread == pytest.approx(1.0)
    assert found["training_energy"].value == pytest.approx(
        4006.0 + 300.0
    )  # epoch 0 and the profiled one were spent too
    assert found["training_energy"].tag == "measured"
    assert (found["cell_energy"].value, found["cell_energy"].tag) == (pytest.approx(4306.0 + 5000.0), "measured")


def test_a_device_lost_in_the_middle_leaves_the_epochs_before_it_and_no_total(tmp_path: Path) -> None:
    lost = [*KNOWN[:3], row("train", 3, None), *KNOWN[4:6], row("validation", 3, None)]
    found = metrics(tables(tmp_path, *lost, row("calibration", 3, None), row("evaluation", 3, None)))
    assert (found["energy_per_epoch"].value, found["energy_per_epoch"].n) == (1101.0, 1)
    assert found["training_energy"].value is None
    assert found["training_energy"].reason == "2 of 7 stretches are unknown: the GPU is lost"
    assert found["cell_energy"].value is None
    assert found["cell_energy"].reason == "4 of 9 stretches are unknown: the GPU is lost"


def test_a_calibration_that_is_unknown_leaves_the_training_known_and_the_cell_unknown(tmp_path: Path) -> None:
    found = metrics(tables(tmp_path, *KNOWN, row("calibration", 3, None), row("evaluation", 3, 5000.0)))
    assert found["training_energy"].value == pytest.approx(4306.0)
    assert found["cell_energy"].value is None
    assert found["cell_energy"].reason == "1 of 9 stretches are unknown: the GPU is lost"


def test_where_nothing_is_known_nothing_is_said_but_why(tmp_path: Path) -> None:
    found = metrics(tables(tmp_path, row("train", 1, None), row("validation", 1, None)))
    for metric in found.values():
        assert (metric.value, metric.tag) == (None, "unavailable")
        assert metric.reason is not None
        assert metric.reason.endswith("the GPU is lost")
    assert metrics(tables(tmp_path))["energy_per_epoch"].reason == "no epoch that counts was run"


def test_a_few_measured_steps_are_extended_as_their_time_is(tmp_path: Path) -> None:
    estimated = Metric(name="time_per_epoch", value=1600.0, unit="s", n=8, tag="estimated")
    found = metrics(tables(tmp_path, row("train", 1, 1000.0), row("validation", 1, 200.0)), estimated)
    assert found["energy_per_epoch"].value == pytest.approx(1200.0 / 16.0 * 1600.0)
    assert (found["energy_per_epoch"].tag, found["energy_per_epoch"].n) == ("estimated", 8)
    assert found["training_energy"].reason == "not trained to the stopping rule (training.measured_steps)"
    assert (found["cell_energy"].value, found["cell_energy"].tag) == (1200.0, "measured")  # as it ran


def test_energy_of_all_ranks_devices_is_summed_and_extended_by_the_time_of_one(tmp_path: Path) -> None:
    beside = [each._replace(device="cuda:1", energy_j=2 * each.energy_j) for each in KNOWN if each.energy_j is not None]
    alone = [row("evaluation", 3, 5000.0), row("evaluation", 3, 60.0, "cuda:1")]
    found = metrics(tables(tmp_path, *KNOWN, *beside, *alone), MEASURED, "cuda:1")
    assert found["energy_per_epoch"].value == 3 * 1102.0
    assert found["training_energy"].value == pytest.approx(3 * 4306.0)
    assert found["cell_energy"].value == pytest.approx(3 * 4306.0 + 5060.0)
    estimated = MEASURED.model_copy(update={"tag": "estimated", "value": 1600.0})
    short = [row("train", 1, 1000.0), row("train", 1, 500.0, "cuda:1")]
    extended = metrics(tables(tmp_path, *short), estimated, "cuda:1")["energy_per_epoch"].value
    assert extended == pytest.approx(1500.0 / 8.0 * 1600.0)


def test_a_phase_in_two_stretches_is_one_epoch_and_both_energies(tmp_path: Path) -> None:
    found = tables(tmp_path, row("train", 1, 300.0), row("train", 1, 700.0), row("train", 3, 1000.0))
    (total,) = energy_totals(found)
    assert (total.energy_j, total.epochs, total.idle_w) == (2000.0, 2, 60.0)
    assert total.error_j == pytest.approx(3 * 3**0.5)  # independent errors add in squares
    assert metrics(found)["energy_per_epoch"].value == pytest.approx(1000.0)


def test_each_phase_and_device_has_its_own_total(tmp_path: Path) -> None:
    found = {(each.phase, each.device): each for each in energy_totals(
        tables(tmp_path, *KNOWN, row("calibration", 3, None), row("train", 1, None, "cpu"))
    )}  # fmt: skip
    assert found["train", "cuda:0"].energy_j == pytest.approx(1001 + 1003)
    assert found["calibration", "cuda:0"].energy_j is None
    assert found["train", "cpu"].reason == "1 of 1 stretches are unknown: the GPU is lost"


def test_a_caveat_names_the_epochs_it_touches(tmp_path: Path) -> None:
    throttled = [
        row("train", epoch, 1.0, caveats=f"throttled (power_cap) in {epoch} of 80 readings") for epoch in range(7)
    ]
    other = row(
        "validation", 1, 1.0, caveats="throttled (power_cap) in 1 of 9 readings; 2 foreign process(es) on the device"
    )
    said = list(energy_doubts(tables(tmp_path, *throttled, other)))
    assert said == [
        "cuda:0: throttled (power_cap) (train 0, train 1, train 2, train 3, train 4 and 3 more; see energy.csv)",
        "cuda:0: 2 foreign process(es) on the device (validation 1)",
    ]
