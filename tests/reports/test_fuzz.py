"""Runs' directories, damaged in every way: `bench report` and `bench compare` tell what they hold, or why not."""

import contextlib
import io
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_runs import Spec, environment, manifest, metered, pair, write_cell, write_telemetry

import bench
from tests.damage import edited, edited_json, edited_table, inputs

pytestmark = [
    pytest.mark.fuzz,
    pytest.mark.filterwarnings(
        "ignore:Generating overly large repr"
    ),  # of a record damaged twice, and so twice as long
]

CODES = {0, 1, 2, 3, 4, 5}


@pytest.fixture(scope="module")
def whole() -> Iterator[Path]:
    """Return a run with whatever a run can hold, not to be changed."""
    folder = Path(tempfile.mkdtemp())
    specs = [
        *map(metered, pair("carpet", 100.0, 107.0)),
        Spec(seed=1, status="failed", error="x"),
        Spec(pipeline="thesis"),
    ]
    (folder / "whole").mkdir()
    for name, model in (("manifest.json", manifest(specs)), ("environment.json", environment())):
        (folder / "whole" / name).write_text(model.model_dump_json(), encoding="utf-8")
    (folder / "whole" / "config.toml").write_text('suite = "mvtec-epoch"\n', encoding="utf-8")
    for spec in specs:
        write_cell(folder / "whole", spec)
    write_telemetry(folder / "whole", specs[0], rows=40)
    yield folder / "whole"
    shutil.rmtree(folder)


def command(*words: object) -> tuple[int, str]:
    """Run a command in this process, as the shell would; return its exit code and what it told on stderr."""
    told = io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["bench", *map(str, words)]),
        contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO(), encoding="utf-8")),
        contextlib.redirect_stderr(told),
        pytest.raises(SystemExit) as ended,
    ):
        bench.main()
    return int(ended.value.code or 0), told.getvalue()


def damage(data: st.DataObject, run: Path) -> None:
    """Damage one file of a run."""
    files = sorted(path for path in run.rglob("*") if path.is_file())
    path = data.draw(st.sampled_from(files), label="file")
    content = path.read_bytes()
    form: dict[str, Callable[[bytes], st.SearchStrategy[bytes]]] = {".json": edited_json, ".csv": edited_table}
    ways = ["edit", "cut", "gone", "folder", "empty", "other", "link", "inside", "inside", "inside", "inside"]
    way = data.draw(st.sampled_from(ways), label="way")
    if way == "inside" and path.suffix in form and content:
        with contextlib.suppress(ValueError):  # damaged already, so that it has no inside
            path.write_bytes(data.draw(form[path.suffix](content), label="content"))
    elif way in {"edit", "inside"}:
        path.write_bytes(data.draw(edited([content]), label="content"))
    elif way == "cut":
        path.write_bytes(content[: data.draw(st.integers(0, len(content)), label="length")])
    elif way == "other":
        path.write_bytes(data.draw(st.sampled_from(files), label="another").read_bytes())
    else:
        path.unlink()
        if way == "folder":
            path.mkdir()
        elif way == "empty":
            path.touch()
        elif way == "link":
            path.symlink_to(path.name)


@inputs(0.08)
@given(data=st.data())
def test_a_damaged_run_is_reported_and_compared_or_refused_in_a_line(whole: Path, data: st.DataObject) -> None:
    run = whole.parent / "damaged"
    shutil.copytree(whole, run)
    try:
        for _ in range(data.draw(st.integers(1, 3), label="damages")):
            damage(data, run)
        for words in (("report", run, "--out", run / "report"), ("compare", whole, run), ("compare", run, whole)):
            code, told = command(*words)
            assert code in CODES
            assert (code in {1, 2, 5}) == told.startswith("bench: ")
            assert told.count("\n") <= 1
    finally:
        shutil.rmtree(run)
