import ctypes
import subprocess
import sys

import pytest

from harness.pipelines.memory import kept_memory

PROGRAM = """
import torch
from harness.pipelines.memory import kept_memory
from profiles.memory import resident_bytes

def freed():
    before = resident_bytes()
    block = torch.ones(100 * 2**20, dtype=torch.uint8)
    del block
    return resident_bytes() - before

usual = freed()
with kept_memory():
    kept = freed()
after = freed()
print(usual // 2**20, kept // 2**20, after // 2**20)
"""

needs_glibc = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="not glibc")


@needs_glibc
def test_freed_memory_stays_inside_the_block_and_only_there() -> None:
    """In a process of its own: how an allocator is set outlives a test."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True)
    usual, kept, after = map(int, done.stdout.split())
    assert usual < 10
    assert kept >= 95
    assert after < 10


def test_where_the_c_library_cannot_be_told_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.pipelines.memory.ctypes.CDLL", lambda _: object())
    with kept_memory():
        pass


@needs_glibc
def test_a_refusal_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing:
        def mallopt(self, _parameter: int, _value: int) -> int:
            return 0

        def malloc_trim(self, _pad: int) -> int:
            return 0

    monkeypatch.setattr("harness.pipelines.memory.ctypes.CDLL", lambda _: Refusing())
    with pytest.raises(RuntimeError, match="was refused"), kept_memory():
        pass
