"""Boards behind the driver's own binary interface, through the real binding. See `boards.py` and `nvml_stand_in.c`."""

import os
import re
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pynvml
import pytest

from profiles.energy import nvml, processes
from profiles.energy.meter import DeviceMeter
from profiles.energy.readings import Reading
from profiles.record import TelemetryRow
from tests.profiles.energy.conftest import Play

S = 1_000_000_000
RAMP_J = 100 * (15.678 - 3.234) + 200 / 20 / 2 * (15.678**2 - 3.234**2)  # from 100 W to 300 W in 20 s


@pytest.mark.parametrize("driver", ["new", "old"])
@pytest.mark.parametrize(("counter_ms", "method"), [(100, "counter"), (20, "counter"), (0, "trapezoid")])
def test_the_energy_of_a_ramp_is_its_integral(play: Play, counter_ms: int, method: str, driver: str) -> None:
    script = f"clock=virtual power=100:300:20 counter_ms={counter_ms}"
    (row,) = play(script, "phases", 3.234, 15.678, driver=driver)["rows"]
    off = row["energy_j"] / RAMP_J - 1
    print(
        f"{driver} driver, counter of {counter_ms} ms, {method}: {row['energy_j']:.2f} J of {RAMP_J:.2f} J, "
        f"off by {off:+.2%}, stated error {row['error_j']:.1f} J"
    )
    assert row["method"] == method
    assert row["energy_j"] == pytest.approx(RAMP_J, rel=0.01)
    assert abs(row["energy_j"] - RAMP_J) <= row["error_j"]


def test_a_phase_shorter_than_the_counters_period_is_known_to_one_update(play: Play) -> None:
    (row,) = play("clock=virtual power=200", "phases", 5.02, 5.05)["rows"]
    assert abs(row["energy_j"] - 200 * 0.03) <= row["error_j"]
    assert 0 < row["error_j"] <= 2 * 200 * 0.1


@pytest.mark.parametrize("counter_ms", [60, 100, 250])
def test_the_counters_period_is_found(play: Play, counter_ms: int) -> None:
    played = play(f"clock=virtual power=150 counter_ms={counter_ms}", "phases", 4, 30)
    assert played["period_ns"] == pytest.approx(counter_ms * 1e6, rel=0.03)
    assert played["polls"] < 31 * (10 + 5 * 1000 / counter_ms) + 500  # it is not simply watched all the time


def test_a_waking_is_one_call_and_all_other_questions_twelve_a_second(play: Play) -> None:
    first, second = (play("clock=virtual power=150 pids=own", "phases", 4, end_s) for end_s in (10, 110))
    calls, polls = second["calls"] - first["calls"], second["polls"] - first["polls"]
    assert calls < polls + 100 * 12


def test_what_kind_of_power_it_is_is_recorded(play: Play, tmp_path: Path) -> None:
    for script, driver, source in (
        ("", "new", "instant"),
        ("instant=0", "new", "average"),
        ("instant=0 capability=8.6", "new", "average"),
        ("instant=0 capability=8.0", "new", "instant"),
        ("capability=7.0", "old", "instant"),
        ("", "old", "average"),
    ):
        (tmp_path / "telemetry.csv").unlink(missing_ok=True)
        play(f"clock=virtual power=150 {script}", "phases", 1, 2, driver=driver)
        table = pd.read_csv(tmp_path / "telemetry.csv")
        assert set(table["power_source"]) == {source}
        assert set(table["power_w"]) == {150}


def test_every_column_is_filled_by_a_board_that_knows_all(play: Play, tmp_path: Path) -> None:
    play("clock=virtual power=150 throttle=68 pids=own,77", "phases", 1, 2)
    first = pd.read_csv(tmp_path / "telemetry.csv").iloc[0].to_dict()
    assert first == {
        "time_s": 0,
        "device": "cuda:0",
        "power_w": 150,
        "utilization_pct": 50,
        "memory_bytes": 7 << 30,
        "temperature_c": 61,
        "sm_clock_mhz": 1700,
        "throttle": "power_cap+thermal_hardware",
        "memory_clock_mhz": 9000,
        "power_source": "instant",
        "energy_j": 1000,
        "power_limit_w": 300,
        "clock_limit_mhz": 2100,
        "pcie_rx_bytes_per_s": 1_234_000,
        "pcie_tx_bytes_per_s": 1_234_000,
        "foreign_processes": 1,
        "samples": 1,
        "unavailable": pytest.approx(float("nan"), nan_ok=True),
    }
    assert list(first) == list(TelemetryRow._fields)


def by_stage(played: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {part["stage"]: part for part in played["stages"]}


@pytest.mark.parametrize(("turn_ms", "lag_ms"), [(370, 0), (370, 40), (170, 10), (1300, 85), (130, 62)])
def test_two_stages_are_told_apart_within_their_error_bars(play: Play, turn_ms: int, lag_ms: int) -> None:
    played = play(f"clock=virtual square=250:100:{turn_ms}", "stages", turn_ms, 60, lag_ms)
    parts, times_s = by_stage(played), played["exposed_s"]
    for stage, watts, time_s in (("attention", 250, times_s[0]), ("loss", 100, times_s[1])):
        print(
            f"turns of {turn_ms} ms, lag {lag_ms} ms, {stage}: {parts[stage]['energy_j']:.1f} J of "
            f"{watts * time_s:.1f} J, error bar {parts[stage]['error_j']:.1f} J"
        )
        assert parts[stage]["energy_j"] == pytest.approx(watts * time_s, abs=parts[stage]["error_j"])
        assert parts[stage]["error_j"] < 0.15 * parts[stage]["energy_j"]
        assert parts[stage]["tag"] == "estimated"
    assert sum(part["energy_j"] for part in played["stages"]) == pytest.approx(played["total"]["energy_j"], rel=1e-12)


@pytest.mark.parametrize(("turn_ms", "lag_ms"), [(7, 0), (13, 0), (30, 33), (37, 37), (50, 0), (100, 0)])
def test_stages_that_follow_faster_than_the_meter_tells_are_not_guessed(play: Play, turn_ms: int, lag_ms: int) -> None:
    played = play(f"clock=virtual square=250:100:{turn_ms}", "stages", turn_ms, 60, lag_ms)
    parts, times_s = by_stage(played), played["exposed_s"]
    for stage, watts, time_s in (("attention", 250, times_s[0]), ("loss", 100, times_s[1])):
        part = parts[stage]
        assert part["tag"] == "unavailable" or part["energy_j"] == pytest.approx(watts * time_s, abs=part["error_j"])
        assert (part["energy_j"] is None) == (part["reason"] is not None)
    assert any(part["energy_j"] is None for part in played["stages"])
    known_j = sum(part["energy_j"] for part in played["stages"] if part["energy_j"] is not None)
    assert known_j == pytest.approx(played["total"]["energy_j"], rel=1e-12)


def test_too_few_samples_are_no_estimate(play: Play) -> None:
    parts = by_stage(play("clock=virtual square=250:100:370", "stages", 370, 3))
    assert parts["attention"]["energy_j"] is None
    assert "intervals of the meter lie within the phase; 48 are needed" in parts["attention"]["reason"]
    assert parts["unresolved"]["energy_j"] > 0


@pytest.mark.parametrize("kind", ["", "instant=0", "instant=0 capability=8.0"])
def test_without_a_counter_power_tells_the_total_and_no_stage(play: Play, kind: str) -> None:
    played = play(f"clock=virtual square=250:100:1300 counter_ms=0 {kind}", "stages", 1300, 60)
    parts = by_stage(played)
    for stage in ("attention", "loss"):
        reason = "the board has no energy counter, and power sampled now and then is of no stage"
        assert (parts[stage]["energy_j"], parts[stage]["reason"]) == (None, reason)
    assert played["total"]["method"] == "trapezoid"
    assert parts["unresolved"]["energy_j"] == played["total"]["energy_j"]
    assert played["polls"] < 10 * 86  # nothing is watched for movements


def test_a_board_is_lost_in_the_middle(play: Play) -> None:
    played = play("clock=virtual power=150 lost_after=700", "phases", 2, 5, 6, 40, 41, 42)
    first, second, third = played["rows"]
    assert first["energy_j"] == pytest.approx(450, abs=first["error_j"])
    for row in (second, third):
        assert row["energy_j"] is None
        assert row["reason"] == "NVML: GPU is lost"
    said = next(said for said in played["caveats"] if "GPU is lost" in said)
    assert {"energy_j", "power_w", "throttle"} < set(
        said.removeprefix("cuda:0: ").split(" unavailable at times")[0].split(", ")
    )


def test_a_board_that_comes_back_is_measured_again(play: Play, tmp_path: Path) -> None:
    played = play("clock=virtual power=150 lost_after=700 back_after=1500", "phases", 2, 5, 30, 33, 60, 70)
    before, lost, after = played["rows"]
    assert (lost["energy_j"], lost["reason"]) == (None, "NVML: GPU is lost")
    for row, energy_j in ((before, 450), (after, 1500)):
        assert row["energy_j"] == pytest.approx(energy_j, abs=row["error_j"])
    assert after["caveats"] == ""
    table = pd.read_csv(tmp_path / "telemetry.csv")
    told = table["unavailable"].dropna()
    assert "GPU is lost" in told.iloc[0]
    assert told.iloc[-1] == "all known again"
    assert set(table["power_w"].dropna()) == {150}


@pytest.mark.parametrize("calls", [0, 150])
def test_a_driver_that_hangs_holds_up_nothing_for_long(play: Play, calls: int) -> None:
    started = time.monotonic()
    played = play(f"power=150 hang_after={calls}", "threads", 1, 0.5)
    assert time.monotonic() - started < 60
    assert played["rows"][-1]["energy_j"] is None
    assert "did not answer in time" in played["rows"][-1]["reason"]
    assert "cuda:0: the driver did not answer in time; its thread was left behind" in played["caveats"]


@pytest.mark.parametrize(
    ("script", "driver", "reason"),
    [
        ("driver=0", "new", "NVML: Driver Not Loaded"),
        ("", "none", "NVML: NVML Shared Library Not Found"),
        ("boards=0", "new", "NVML: Not Found"),
        ("mig=1 mig_told=0", "new", "the board is cut into MIG instances, and NVML tells it of the whole board only"),
        ("mig=1", "new", "the board is cut into MIG instances, and NVML tells it of the whole board only"),
        ("mig=2", "new", "the board is cut into MIG instances, and NVML tells it of the whole board only"),
        ("mig=2 mig_told=0", "new", "NVML: Unknown Error"),
        ("counter_ms=0 garbage=1", "new", "NVML: Not Supported; the board says 4.29497e+06 W, which is not within 0"),
    ],
)
def test_what_cannot_be_known_is_unavailable_with_its_reason_and_never_0(
    play: Play, tmp_path: Path, script: str, driver: str, reason: str
) -> None:
    played = play(script, "threads", 1, 0.1, driver=driver)
    for row in played["rows"]:
        assert row["energy_j"] is None
        assert row["reason"].startswith(reason)
    assert played["idle_w"] == {"cuda:0": None}
    assert any(reason.rpartition("; ")[2] in said for said in played["caveats"])
    table = pd.read_csv(tmp_path / "telemetry.csv")
    assert table["power_w"].isna().all()
    assert table["energy_j"].isna().all()
    assert reason.partition("; ")[0] in table["unavailable"][0]


@pytest.mark.parametrize("counter_ms", [60, 100, 250])
def test_a_garbled_power_does_not_touch_the_counter_which_tells_power_where_it_moves(
    play: Play, tmp_path: Path, counter_ms: int
) -> None:
    (row,) = play(f"clock=virtual power=150 garbage=1 counter_ms={counter_ms}", "phases", 2, 12)["rows"]
    assert row["method"] == "counter"
    assert row["energy_j"] == pytest.approx(1500, abs=row["error_j"])
    table = pd.read_csv(tmp_path / "telemetry.csv")
    moved = table["energy_j"].diff().gt(0)
    assert table["power_w"].notna().equals(moved & (moved.cumsum() > 1))
    assert table["power_w"].dropna().gt(0).all()
    assert table["power_w"].mean() == pytest.approx(150, rel=0.05)
    assert set(table["power_source"].dropna()) == {"counter"}


def test_an_instance_tells_its_memory_and_its_boards_clocks(play: Play, tmp_path: Path) -> None:
    play("mig=1", "threads", 1, 0.1)
    first = pd.read_csv(tmp_path / "telemetry.csv").iloc[0]
    assert first["memory_bytes"] == 7 << 30
    assert first["sm_clock_mhz"] == 1700


def test_an_instance_found_as_its_board_is_not_charged_the_boards_memory_load_or_processes(
    play: Play, tmp_path: Path
) -> None:
    (row,) = play("clock=virtual mig=2 pids=77", "phases", 5, 10)["rows"]
    table = pd.read_csv(tmp_path / "telemetry.csv")
    for column in ("energy_j", "power_w", "memory_bytes", "utilization_pct", "foreign_processes"):
        assert table[column].isna().all(), column
    assert set(table["sm_clock_mhz"]) == {1700}
    assert row["energy_j"] is None
    assert row["caveats"].startswith("not guarded against: foreign processes (the board is cut into MIG instances")


@pytest.mark.parametrize("init_ms", [0, 400])
def test_idle_power_is_known_however_long_the_driver_takes_to_open(play: Play, init_ms: int) -> None:
    played = play(f"power=150 utilization=0 init_ms={init_ms}", "threads", 1, 0.1)
    assert played["idle_w"]["cuda:0"] == pytest.approx(150, rel=0.01)
    assert played["caveats"] == []


def test_each_board_has_its_own_rows(play: Play, tmp_path: Path) -> None:
    played = play("boards=2 power=150", "threads", 2, 0.3)
    rows = {(row["device"], row["epoch"]): row["energy_j"] for row in played["rows"]}
    assert set(rows) == {("cuda:0", 1), ("cuda:0", 2), ("cuda:1", 1), ("cuda:1", 2)}
    assert None not in rows.values()
    devices = pd.read_csv(tmp_path / "telemetry.csv")["device"].value_counts()
    assert set(devices.index) == {"cuda:0", "cuda:1"}
    assert devices["cuda:1"] < devices["cuda:0"] / 3  # beside the device whose stages are charged, once a second


def test_throttling_strangers_and_a_changed_limit_are_caveats_of_the_phases_they_touch(play: Play) -> None:
    (row,) = play("clock=virtual throttle=8 pids=own,77,78 limit_w=300:7:250", "phases", 5, 10)["rows"]
    assert row["caveats"].split("; ") == [
        "throttled (hardware_slowdown) in 5 of 5 readings",
        "2 foreign process(es) on the device",
        "power limit changed from 300 W to 250 W",
    ]
    (row,) = play("clock=virtual clock_mhz=2100:7:1500", "phases", 5, 10)["rows"]
    assert row["caveats"] == "clock limit changed from 2100 MHz to 1500 MHz"
    (row,) = play("clock=virtual throttle=3 pids=own", "phases", 8, 10)["rows"]
    assert row["caveats"] == ""  # idle, or set to a clock, is not throttled


@pytest.mark.parametrize(
    ("throttle", "caveats"),
    [
        ("0:7:2", "clock limit changed: a set clock holds"),
        ("2:7:0", "clock limit changed: a set clock no longer holds"),
        ("2:7:1", ""),  # idle: whether a set clock would hold it does not show
        ("2:7:6", "throttled (power_cap) in 3 of 5 readings"),
    ],
)
def test_a_clock_that_is_set_in_the_middle_is_a_changed_limit(play: Play, throttle: str, caveats: str) -> None:
    (row,) = play(f"clock=virtual throttle={throttle} pids=own", "phases", 5, 10)["rows"]
    assert row["caveats"] == caveats


def test_a_change_between_two_readings_is_told_of_both_phases_that_it_may_have_touched(play: Play) -> None:
    for change_s in (6.1, 6.5, 6.9, 7.1, 7.5):
        script = f"clock=virtual limit_w=300:{change_s}:250 pids=own:{change_s}:own,77"
        first, second = play(script, "phases", 5, 7, 7, 9)["rows"]
        print(change_s, first["caveats"], second["caveats"], sep="; ")
        if change_s < 7:
            assert "power limit changed from 300 W to 250 W" in first["caveats"]
            assert "1 foreign process(es) on the device" in first["caveats"]
        assert "1 foreign process(es) on the device" in second["caveats"]
        assert ("around its end" in first["caveats"]) == ("changed" in second["caveats"])


def test_throttling_before_a_phase_is_none_of_a_phase_that_has_readings_of_its_own(play: Play) -> None:
    capped, after = play("clock=virtual throttle=4:7:0 pids=own", "phases", 5, 7, 7, 10)["rows"]
    assert "throttled (power_cap) in 2 of 2 readings" in capped["caveats"]
    assert after["caveats"] == ""


def test_throttling_is_a_caveat_also_of_a_phase_in_which_nobody_asked(play: Play) -> None:
    (row,) = play("clock=virtual throttle=8 pids=own", "phases", 5.2, 5.25)["rows"]
    assert row["caveats"] == "throttled (hardware_slowdown) in 1 of 1 readings"


def test_what_a_silent_driver_told_last_is_of_no_later_phase() -> None:
    meter = DeviceMeter("cuda:0", S)
    meter.sampled(S, Reading(power_w=1.0, throttle=("power_cap",), foreign_processes=1))
    for start_s in (2, 5):
        meter.phase_begins("train", start_s, start_s * S)
        meter.phase_ends(start_s * S + S // 2)
    meter.give_up("the driver did not answer in time")
    soon, late = meter.take_settled()
    assert soon.caveats == "throttled (power_cap) in 1 of 1 readings; 1 foreign process(es) on the device"
    assert late.caveats == ""


@pytest.mark.parametrize(
    ("ms", "caveats"),
    [
        (400, "slowed (thermal) between readings"),
        (0, ""),
    ],
)
def test_throttling_that_no_reading_meets_is_told_by_what_the_board_counts(play: Play, ms: int, caveats: str) -> None:
    before, row, after = play(f"clock=virtual slowed=75:7.3:{ms} pids=own", "phases", 3, 5, 5, 10, 10, 12)["rows"]
    assert (before["caveats"], row["caveats"], after["caveats"]) == ("", caveats, "")


def test_throttling_that_a_reading_meets_is_told_once(play: Play) -> None:
    (row,) = play("clock=virtual slowed=75:0:1e6 throttle=64 pids=own", "phases", 5, 10)["rows"]
    assert row["caveats"] == "throttled (thermal_hardware) in 5 of 5 readings"
    (row,) = play("clock=virtual slowed=75:0:1e6 throttle=4 pids=own", "phases", 5, 10)["rows"]
    assert row["caveats"] == "throttled (power_cap) in 5 of 5 readings; slowed (thermal) between readings"


def test_a_board_that_counts_no_slowing_says_so_and_answers_the_rest(play: Play) -> None:
    played = play("clock=virtual power=150 slowed=0:0:0 pids=own", "phases", 5, 10)
    assert played["caveats"] == ["cuda:0: slowed_ns unavailable (NVML: Not Supported)"]
    assert played["rows"][0]["caveats"] == ""


@pytest.mark.parametrize("set_mhz", ["", "set_mhz=1400"])
@pytest.mark.parametrize(
    "function",
    [
        "nvmlDeviceGetApplicationsClock",
        "nvmlDeviceGetEnforcedPowerLimit",
        "nvmlDeviceGetMaxClockInfo",
    ],
)
def test_a_question_that_fails_once_is_no_change_of_a_limit(play: Play, function: str, set_mhz: str) -> None:
    played = play(f"clock=virtual limit_w=250 {set_mhz} fail={function}:6 pids=own", "phases", 3, 10)
    (row,) = played["rows"]
    assert row["caveats"] == ""
    assert ("unavailable at times (NVML: Unknown Error)" in " ".join(played["caveats"])) == (
        {"nvmlDeviceGetApplicationsClock": bool(set_mhz), "nvmlDeviceGetMaxClockInfo": not set_mhz}.get(function, True)
    )


def test_a_clock_that_applications_are_set_to_is_the_limit(play: Play, tmp_path: Path) -> None:
    (row,) = play("clock=virtual set_mhz=1400:7:1200 pids=own", "phases", 5, 10)["rows"]
    assert row["caveats"] == "clock limit changed from 1400 MHz to 1200 MHz"
    assert pd.read_csv(tmp_path / "telemetry.csv")["clock_limit_mhz"].iloc[0] == 1400


def test_a_driver_that_fails_in_passing_is_asked_again(play: Play) -> None:
    played = play("clock=virtual power=150 init_fails=4", "phases", 1, 2, 10, 20)
    lost, known = played["rows"]
    assert (lost["energy_j"], lost["reason"]) == (None, "NVML: Unknown Error")
    assert known["energy_j"] == pytest.approx(1500, abs=known["error_j"])
    assert "cuda:0: device unavailable at times (NVML: Unknown Error)" in played["caveats"]


def test_settings_of_a_device_are_read_and_never_changed() -> None:
    asked = set(re.findall(r"pynvml\.(nvml[A-Z]\w+)\(", Path(nvml.__file__).read_text(encoding="utf-8")))
    assert len(asked) > 10
    assert {name for name in asked if not name.startswith(("nvmlDeviceGet", "nvmlSystemGet"))} == {"nvmlInit"}


@pytest.mark.parametrize(
    ("sees_all", "others", "own", "foreign"),
    [
        (True, {77, 78}, True, 2),
        (True, {77}, False, 1),
        (True, set(), True, 0),
        (False, {77, 78}, True, 2),
        (False, {77, 78}, False, 1),
        (False, set(), True, None),  # processes outside are not seen
        (False, set(), False, None),
        (False, {77}, False, None),  # it may be this one, under its number outside
    ],
)
def test_of_processes_those_that_are_not_this_one_are_foreign(
    monkeypatch: pytest.MonkeyPatch, *, sees_all: bool, others: set[int], own: bool, foreign: int | None
) -> None:
    monkeypatch.setattr(processes, "_sees_all_processes", lambda: sees_all)
    assert processes.foreign(others | ({os.getpid()} if own else set())) == foreign


def test_a_container_that_shows_no_stranger_is_not_guarded_against_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "foreign", lambda _: None)
    listed = "nvmlDeviceGetComputeRunningProcesses"
    monkeypatch.setattr(pynvml, listed, lambda _: [])
    with pytest.raises(nvml._UnusableError, match="processes outside this container are not seen"):
        nvml.NvmlBoard("cuda:0", "0")._foreign_processes()


def test_a_stranger_that_leaves_taints_no_phase_after_it(play: Play) -> None:
    script = "clock=virtual pids=own,77:7.5:own container=1"
    first, second, third = play(script, "phases", 5, 7, 7, 9, 10, 12)["rows"]
    unseen = "not guarded against: foreign processes (processes outside this container are not seen)"
    assert first["caveats"] == "1 foreign process(es) on the device"
    assert second["caveats"].split("; ") == ["1 foreign process(es) on the device around its beginning", unseen]
    assert third["caveats"] == unseen


def test_a_stranger_is_a_caveat_also_of_a_phase_in_which_nobody_asked(play: Play) -> None:
    (row,) = play("clock=virtual pids=own,77", "phases", 5.2, 5.9)["rows"]
    assert row["caveats"] == "1 foreign process(es) on the device"


def test_a_limit_that_changed_before_a_phase_is_told_of_the_next(play: Play) -> None:
    (row,) = play("clock=virtual limit_w=300:3:250", "phases", 5, 10)["rows"]
    assert row["caveats"] == "power limit changed from 300 W to 250 W"
    (row,) = play("clock=virtual limit_w=300:30:250", "phases", 5, 10)["rows"]
    assert row["caveats"] == ""


def test_a_counter_that_stands_still_is_not_waited_for(play: Play) -> None:
    (row,) = play("clock=virtual power=150 counter_ms=1e9", "phases", 5, 10, driver="new")["rows"]
    assert row["method"] == "trapezoid"
    assert row["energy_j"] == pytest.approx(750, rel=0.01)
