"""A local server, and small archives as MVTec's are: folders of categories."""

import hashlib
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from harness.data.transfer import Patience
from harness.progress import Reporter
from tests.harness.data.server import Server


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def said() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def reporter(said: io.StringIO) -> Reporter:
    return Reporter(Console(file=said, width=1000))


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def patience(waits: list[float]) -> Patience:
    return Patience(timeout_s=5.0, attempts=3, wait=waits.append)


def packed(folder: Path, names: list[str], kind: str = "w:xz") -> bytes:
    """Return an archive of the *names* in *folder*."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=kind) as tar:
        for name in names:
            tar.add(folder / name, arcname=name)
    return stream.getvalue()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
