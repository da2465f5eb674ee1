"""The attention surface: what is timed, from where on linear attention wins, and what the command writes."""

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import bench
from harness.kernels import sweep
from harness.whatif import surface, surface_command
from harness.whatif.surface import overtakes, point
from models.attention import library
from models.attention.sizes import Sizes
from models.attention.table import VARIANTS, Variant
from profiles.errors import ConfigError
from profiles.ratio import Rounds
from profiles.record import read_model
from profiles.whatif import SurfaceRecord, SurfaceRow

CPU = torch.device("cpu")
runner = CliRunner()


def row(side: int, ratio: float, half: float, width: int = 64) -> SurfaceRow:
    return SurfaceRow(side, side**2, width, 1, 1, 1.0, ratio, ratio, ratio - half, ratio + half, 9)


def test_a_point_is_the_time_of_linear_attention_by_that_of_softmax(monkeypatch: pytest.MonkeyPatch) -> None:
    def rounds(works: dict[str, Callable[[], int]], **_: Any) -> Rounds:
        assert list(works) == ["msa", "mlsa"]
        assert all(work() > 0 for work in works.values())  # forward and backward, of both
        return Rounds({"msa": [200] * 9, "mlsa": [300] * 9}, "precision")

    monkeypatch.setattr(surface, "interleave", rounds)
    monkeypatch.setattr(surface, "TOKENS", {"cpu": 40})
    found = point(3, 128, CPU, 0.0)
    assert found == SurfaceRow(3, 9, 128, 2, 4, 2e-7, 3e-7, pytest.approx(1.5), *([pytest.approx(1.5)] * 2), 9)


def test_linear_attention_wins_from_where_on_every_larger_window_says_so() -> None:
    assert overtakes([row(3, 1.2, 0.1), row(5, 0.9, 0.05), row(7, 0.8, 0.05)], 64) == 5
    assert overtakes([row(3, 0.9, 0.05), row(5, 0.97, 0.05), row(7, 0.8, 0.05)], 64) == 7
    assert overtakes([row(3, 0.5, 0.1), row(7, 1.0, 0.1)], 64) is None
    assert overtakes([row(3, 0.5, 0.1)._replace(high=None)], 64) is None
    assert overtakes([row(3, 0.5, 0.1), row(7, 1.5, 0.1, width=128)], 64) == 3


def test_the_command_writes_a_record_its_csv_and_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surface, "TOKENS", {"cpu": 40})
    out = tmp_path / "surface.json"
    words = ["surface", "--sides", "2,3", "--widths", "64,128", "--budget", "0", "--device", "cpu", "--out", str(out)]
    result = runner.invoke(bench.app, words)
    assert result.exit_code == 0, result.output
    record = read_model(SurfaceRecord, out)
    assert [(row.window_side, row.width) for row in record.rows] == [(2, 64), (3, 64), (2, 128), (3, 128)]
    with out.with_suffix(".csv").open(newline="", encoding="utf-8") as file:
        assert [line["ratio"] for line in csv.DictReader(file)] == [str(row.ratio) for row in record.rows]
    picture = out.with_suffix(".svg").read_text()
    assert picture.count("width 64") == picture.count("width 128") == 1
    assert "width 128: too few rounds to tell" in result.output


@pytest.mark.parametrize(("rows", "told"), [
    ([row(3, 1.2, 0.1), row(5, 0.9, 0.05)], "mlsa is faster from a window of 5 x 5 on"),
    ([row(3, 1.2, 0.1), row(5, 1.0, 0.05)], "mlsa is faster at no side, for sure"),
    ([row(3, 1.2, 0.1)._replace(high=None), row(5, 0.9, 0.05)], "too few rounds to tell; --budget gives more"),
])  # fmt: skip
def test_from_where_on_linear_attention_wins_is_told_if_it_is_known(
    rows: list[SurfaceRow], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    surface_command._show(rows)
    assert f"width 64: {told}" in capsys.readouterr().out


def test_a_point_gets_time_by_what_there_is_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[tuple[int, int], float] = {}

    def noted(side: int, width: int, _: torch.device, limit_s: float, __: str) -> SurfaceRow:
        given[side, width] = limit_s
        return row(side, 1.0, 0.0, width)

    monkeypatch.setattr(surface, "point", noted)
    list(surface.surface(CPU, 60.0, (1, 64), (64, 128)))
    assert sum(given.values()) == pytest.approx(60.0)
    assert given[64, 64] / given[1, 64] == pytest.approx((4 * 64 + 2 * 4096) / (4 * 64 + 2))
    assert given[1, 128] > 3 * given[1, 64]


def test_what_was_measured_is_written_even_where_someone_stops_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = [row(3, 1.2, 0.1)]

    def stopped(*_: Any) -> Iterator[SurfaceRow]:
        yield from measured
        raise KeyboardInterrupt

    monkeypatch.setattr(surface_command, "surface", stopped)
    out = tmp_path / "surface.json"
    runner.invoke(bench.app, ["surface", "--sides", "3,7", "--widths", "64", "--device", "cpu", "--out", str(out)])
    assert list(read_model(SurfaceRecord, out).rows) == measured
    assert len(out.with_suffix(".csv").read_text().splitlines()) == 2


def test_a_batch_at_the_window_of_the_thesis_has_as_many_tokens_as_the_kernels_sweep() -> None:
    assert surface.TOKENS == sweep.TOKENS


def test_the_library_of_the_thesis_is_timed_where_it_is_asked_for_and_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surface, "TOKENS", {"cpu": 40})
    built: list[str] = []

    def building(name: str) -> Callable[[Sizes], torch.nn.Module]:
        def build(sizes: Sizes) -> torch.nn.Module:
            built.append(name)
            return VARIANTS[name].attention["native"](sizes)

        return build

    theirs = {name: Variant({"fast-transformers": building(name)}) for name in ("msa", "mlsa")}
    monkeypatch.setattr(surface, "VARIANTS", theirs)
    monkeypatch.setattr(library, "unusable", lambda: None)
    out = tmp_path / "surface.json"
    words = ["surface", "--sides", "2", "--widths", "64", "--budget", "0", "--device", "cpu", "--out", str(out)]
    result = runner.invoke(bench.app, [*words, "--backend", "fast-transformers"])
    assert result.exit_code == 0, result.output
    assert built == ["msa", "mlsa"]
    assert read_model(SurfaceRecord, out).backend == "fast-transformers"
    assert "fast-transformers attention alone" in out.with_suffix(".svg").read_text()
    monkeypatch.setattr(library, "unusable", lambda: "No module named 'fast_transformers'")
    result = runner.invoke(bench.app, [*words, "--backend", "fast-transformers"])
    assert "--backend: got fast-transformers (No module named" in str(result.exception)


@pytest.mark.parametrize(("words", "message"), [
    (["--sides", "3,x"], "--sides: got '3,x'; expected whole numbers from 1 on"),
    (["--widths", "100"], "--widths: got '100'; expected multiples of 64, the width of a head"),
    (["--out", "/no/such/folder/x.json"], "--out: got /no/such/folder/x.json"),
])  # fmt: skip
def test_wrong_use_is_one_line(words: list[str], message: str) -> None:
    result = runner.invoke(bench.app, ["surface", "--budget", "0", *words])
    assert isinstance(result.exception, ConfigError)
    assert str(result.exception).startswith(message)
