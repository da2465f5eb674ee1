"""The fixture that builds run directories; its parts are in `report_runs`."""

from pathlib import Path

import pytest
from report_runs import Build, Spec, environment, manifest, write_cell

from profiles.record import Status


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Return what builds a run's directory from cells."""

    def build_run(*specs: Spec, status: Status = "done", name: str = "run", title: str = "demo") -> Path:
        run = tmp_path / name
        run.mkdir()
        (run / "manifest.json").write_text(manifest(specs, status, title).model_dump_json(), encoding="utf-8")
        (run / "environment.json").write_text(environment().model_dump_json(), encoding="utf-8")
        (run / "config.toml").write_text('[suite]\nname = "mvtec-epoch"\n', encoding="utf-8")
        for spec in specs:
            write_cell(run, spec)
        return run

    return build_run
