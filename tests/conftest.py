"""What tests share: where real images are, and data that is generated once."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from harness.synthesize import SyntheticConfig, synthesize

settings.register_profile("steady", deadline=None)  # a test asserts no duration
settings.load_profile("steady")

# Models of a few thousand parameters gain nothing from threads, and two processes' threads wait for one another.
os.environ["OMP_NUM_THREADS"] = "1"  # for the commands that tests start
torch.set_num_threads(1)

# A shell's background jobs ignore Ctrl-C, and so would every command that tests start to be stopped by it.
signal.signal(signal.SIGINT, signal.default_int_handler)

DATA_VARIABLE = "BENCH_TEST_DATA"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let what takes long begin first, so that no process is left alone with it at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder that holds `mvtec` and `mvtec-256`; skip where there is none."""
    folder = os.environ.get(DATA_VARIABLE)
    if not folder:
        pytest.skip(f"no real images: {DATA_VARIABLE} names no folder")
    return Path(folder)


@pytest.fixture(scope="session")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data set of two small generated categories, not to be changed."""
    root = tmp_path_factory.mktemp("generated")
    for category in ("weave", "chip"):
        synthesize(root, category, SyntheticConfig(side=64, train=6, test_good=2, test_per_defect=1), seed=0)
    return root


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Return a folder that is a disk of its own, of half a megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", folder], check=False).returncode != 0:
        pytest.skip("only root may mount a disk")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.fixture(autouse=True)
def _default_generator() -> None:
    """Make tests independent of their order."""
    torch.manual_seed(0)
