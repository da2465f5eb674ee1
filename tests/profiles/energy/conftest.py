"""A stand-in for the driver's library, built once, and a way to play scenes on it through the real binding."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Play = Callable[..., dict[str, Any]]

ROOT = Path(__file__).parents[3]
SOURCE = Path(__file__).with_name("nvml_stand_in.c")


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Build the stand-in, as a new driver and as an old one; return their folders, and one whose library is none."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (cc) to build the stand-in for the driver's library")
    folders = {}
    for name, extra in (("new", []), ("old", ["-DOLD_DRIVER"])):
        folders[name] = tmp_path_factory.mktemp(name)
        out = folders[name] / "libnvidia-ml.so.1"
        subprocess.run([compiler, "-shared", "-fPIC", "-Wall", "-Wextra", *extra, "-o", out, SOURCE], check=True)
    folders["none"] = tmp_path_factory.mktemp("none")
    (folders["none"] / "libnvidia-ml.so.1").touch()  # also hides a driver that this machine has
    return folders


@pytest.fixture
def play(libraries: dict[str, Path], tmp_path: Path) -> Play:
    """Return a function that plays a scene of `boards.py` on a board that follows a script."""

    def play(script: str, scene: str, *arguments: object, driver: str = "new") -> dict[str, Any]:
        library = {"LD_LIBRARY_PATH": str(libraries[driver])}
        command = [sys.executable, "-W", "error", "-m", "tests.profiles.energy.boards", scene, tmp_path, *arguments]
        environment = {**os.environ, **library, "NVML_STAND_IN": script, "PYTHONPATH": str(ROOT)}
        words = [str(word) for word in command]
        done = subprocess.run(
            words, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        assert not done.stderr
        return json.loads(done.stdout)

    return play
