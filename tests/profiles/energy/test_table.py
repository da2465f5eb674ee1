from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from profiles.energy import thinning
from profiles.energy.table import TelemetryTable
from profiles.energy.thinning import merge
from profiles.record import TelemetryRow


def row(at_s: float, device: str = "cuda:0", **columns: object) -> TelemetryRow:
    known = {"samples": 1, "unavailable": "", **columns}
    rest = {name: None for name in TelemetryRow._fields if name not in {"time_s", "device", *known}}
    return TelemetryRow(time_s=at_s, device=device, **rest, **known)


def test_rows_are_in_the_file_once_added(tmp_path: Path) -> None:
    path = tmp_path / "telemetry.csv"
    table = TelemetryTable(path, 100)
    assert path.read_text().splitlines() == [",".join(TelemetryRow._fields)]
    table.add([row(1.5, power_w=100.25, memory_bytes=7, throttle="none"), row(2.4)])
    assert path.read_text().splitlines() == [
        ",".join(TelemetryRow._fields),
        "1.5,cuda:0,100.25,,7,,,none,,,,,,,,,1,",
        "2.4,cuda:0,,,,,,,,,,,,,,,1,",
    ]


@pytest.mark.parametrize("at_once", [1, 30, 99, 250])
def test_however_many_rows_come_at_once_the_table_has_room(tmp_path: Path, at_once: int) -> None:
    table = TelemetryTable(tmp_path / "telemetry.csv", 100)
    for first in range(0, 10 * at_once, at_once):
        table.add([row(second) for second in range(first, first + at_once)])
        assert len(pd.read_csv(tmp_path / "telemetry.csv")) <= 100
    table.close()
    assert pd.read_csv(tmp_path / "telemetry.csv")["samples"].sum() == 10 * at_once


def test_rows_stay_in_the_order_in_which_they_came_when_a_reboot_set_the_clock_back(tmp_path: Path) -> None:
    path = tmp_path / "telemetry.csv"
    for booted_s in (5000, 7):
        table = TelemetryTable(path, 100)
        table.add([row(booted_s + second, device) for second in range(40) for device in ("cuda:0", "cpu")])
        table.close()
    times_s = pd.read_csv(path).query("device == 'cuda:0'")["time_s"].tolist()
    assert times_s == [*range(5001, 5040, 2), *range(8, 47, 2)]


def test_the_table_never_grows_beyond_its_rows_and_forgets_no_sample(tmp_path: Path) -> None:
    table = TelemetryTable(tmp_path / "telemetry.csv", 100)
    largest = 0
    for sample in range(10_000):
        for device in ("cuda:0", "cpu"):
            table.add([row(sample / 10, device, power_w=float(sample), temperature_c=float(sample % 77))])
        if sample % 100 == 0:
            largest = max(largest, len((tmp_path / "telemetry.csv").read_text().splitlines()) - 1)
    table.close()
    read = pd.read_csv(tmp_path / "telemetry.csv")
    assert 50 < largest <= 100
    for _, mine in read.groupby("device"):
        assert mine["samples"].sum() == 10_000
        assert (mine["power_w"] * mine["samples"]).sum() == pytest.approx(sum(range(10_000)))
        assert mine["temperature_c"].max() == 76
        assert mine["time_s"].is_monotonic_increasing
        assert mine["time_s"].iloc[-1] == 999.9


def test_no_one_waits_for_all_of_a_full_table_to_be_thinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, merged, most = TelemetryTable(tmp_path / "telemetry.csv", 1000), [0], 0

    def counted(rows: Sequence[TelemetryRow]) -> TelemetryRow:
        merged[0] += 1
        return merge(rows)

    monkeypatch.setattr(thinning, "merge", counted)
    for sample in range(5000):
        before = merged[0]
        table.add([row(sample)])
        most = max(most, merged[0] - before)
    table.close()
    assert merged[0] > 1500
    assert most <= 2
    assert [path.name for path in tmp_path.iterdir()] == ["telemetry.csv"]


def test_a_table_that_may_have_fewer_rows_than_it_has_is_thinned_to_them(tmp_path: Path) -> None:
    path = tmp_path / "telemetry.csv"
    table = TelemetryTable(path, 1000)
    table.add([row(second) for second in range(900)])
    table = TelemetryTable(path, 100)  # the one before was killed
    table.add([row(second) for second in range(900, 1000)])
    table.close()
    read = pd.read_csv(path)
    assert len(read) <= 100
    assert read["samples"].sum() == 1000


def test_a_merged_row_keeps_what_its_columns_say() -> None:
    merged = merge([
        row(1, power_w=100.0, memory_bytes=9, throttle="none", energy_j=5.0, samples=3, unavailable="power: why"),
        row(2, power_w=200.0, memory_bytes=4, throttle="b+a", energy_j=8.0),
        row(3, throttle="c", foreign_processes=2),
    ])  # fmt: skip
    assert merged == row(
        3, power_w=125.0, memory_bytes=9, throttle="a+b+c", energy_j=8.0, foreign_processes=2, samples=5,
        unavailable="power: why",
    )  # fmt: skip
    assert merge([row(1, throttle="none"), row(2, throttle="none")]).throttle == "none"
    assert merge([row(1), row(2)]).throttle is None
    assert merge([row(1), row(2)]).power_w is None


def test_a_table_cut_off_by_a_kill_is_continued_without_its_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "telemetry.csv"
    table = TelemetryTable(path, 100)
    for second in range(250):
        table.add([row(second, power_w=1.0)])
    before = pd.read_csv(path)
    with path.open("a") as file:
        file.write("251.0,cuda:0,1")  # what a kill leaves
    again = TelemetryTable(path, 100)
    assert pd.read_csv(path).equals(before)
    for second in range(300, 300 + 8):
        again.add([row(second, power_w=1.0)])
    again.close()
    assert pd.read_csv(path)["samples"].tolist()[-2:] == [4, 4]  # as coarse as it had become


@pytest.mark.parametrize(
    "damage", [b"2.0,cuda:0,1", b"\0" * 40, b"2.0,cuda:0,\xff" + b"," * 15, b'2.0,"cuda:0,1', b"2.0,cuda:0" + b"," * 16]
)
def test_a_table_damaged_in_the_middle_is_continued_from_what_is_whole_before_and_says_so(
    tmp_path: Path, damage: bytes
) -> None:
    path = tmp_path / "telemetry.csv"
    table = TelemetryTable(path, 100)
    table.add([row(second, power_w=1.0) for second in range(9)])
    assert table.damage == ""
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:4], damage + b"\n", *lines[5:]]))
    again = TelemetryTable(path, 100)
    assert again.damage == "telemetry.csv was damaged: its last 6 row(s) were left out"
    again.add([row(20)])
    again.close()
    assert pd.read_csv(path)["time_s"].tolist() == [0, 1, 2, 20]


def test_a_full_disk_ends_the_table_and_not_the_run(tmp_path: Path) -> None:
    path = tmp_path / "telemetry.csv"
    table = TelemetryTable(path, 100)
    path.unlink()
    path.symlink_to("/dev/full")
    table.add([row(1)])
    table.add([row(2)])
    assert table.why_broken == "telemetry.csv ends early: No space left on device"
    table.add([row(2)])
