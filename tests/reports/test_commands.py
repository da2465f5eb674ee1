"""`bench report` as its user meets it."""

from pathlib import Path

import pytest
import typer
from report_runs import Build, Spec, pair
from typer.testing import CliRunner

from profiles.errors import NothingMeasuredError, RunDirectoryError
from reports import commands
from reports.commands import report

app = typer.Typer()
app.command("report")(report)
FILES = {
    "index.html",
    "summary.md",
    "benchmark-smaller.json",
    "benchmark-bigger.json",
    *(f"{name}.csv" for name in ("auroc", "timing", "stages", "energy", "claims", "published")),
    *(
        f"{name}.csv"
        for name in (
            "loader",
            "verdicts",
            "closure",
            "steps",
            "windows",
            "routes",
            "phase_energy",
            "stage_energy",
            "work",
        )
    ),
}


def test_a_report_goes_into_the_run_and_is_told_in_two_lines(build: Build) -> None:
    run = build(*pair("carpet", 100.0, 107.0), Spec(seed=1, status="failed", error="x"))
    result = CliRunner().invoke(app, [str(run)])
    assert result.exit_code == 0
    assert result.stdout == f"report: {run / 'report' / 'index.html'}\ncells: 2 done, 1 failed\n"
    assert {path.name for path in (run / "report").iterdir()} == FILES


def test_out_names_another_folder(build: Build, tmp_path: Path) -> None:
    run = build(Spec())
    assert CliRunner().invoke(app, [str(run), "--out", str(tmp_path / "a" / "b")]).exit_code == 0
    assert (tmp_path / "a" / "b" / "index.html").is_file()
    assert not (run / "report").exists()


def test_open_shows_the_page(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(commands.webbrowser, "open", opened.append)
    run = build(Spec())
    report(run, open_page=True)
    assert opened == [(run / "report" / "index.html").resolve().as_uri()]


def test_help_has_an_example_and_hides_what_is_for_readers_of_code() -> None:
    text = CliRunner().invoke(app, ["--help"]).stdout
    assert "bench report runs/smoke" in text
    assert "Raises" not in text


def test_a_run_without_a_finished_cell_has_nothing_to_report(build: Build) -> None:
    run = build(Spec(status="failed", error="CUDA out of memory"), Spec(seed=1, status="pending"), status="failed")
    with pytest.raises(NothingMeasuredError) as caught:
        report(run)
    assert caught.value.exit_code == 5
    assert str(caught.value) == (
        f"{run}: no finished record among 2 cells (1 failed, 1 pending); carpet/msa-fast/seed0: CUDA out of memory; "
        "fix: let the run finish a cell"
    )
    assert not (run / "report").exists()


def test_a_run_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="expected a run's directory; fix: name what `bench run --out` wrote"):
        report(tmp_path)


def test_a_folder_that_cannot_be_made_is_refused(build: Build, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(RunDirectoryError, match="expected a folder to write; fix: name another with --out"):
        report(build(Spec()), tmp_path / "file")


def test_reports_never_load_torch() -> None:
    import subprocess  # noqa: PLC0415 - a fresh interpreter is the point
    import sys  # noqa: PLC0415

    code = "import sys, reports.commands; print([m for m in ('torch', 'harness', 'models') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
