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

MAPPED = """
import ctypes
import torch
from harness.pipelines.memory import kept_memory

class Counts(ctypes.Structure):  # of <malloc.h>: struct mallinfo2
    _fields_ = [(name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "rest")]
    _fields_ += [(f"more{place}", ctypes.c_size_t) for place in range(5)]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Counts

def mapped(mebibytes):
    before = libc.mallinfo2().hblks
    block = torch.empty(mebibytes * 2**20, dtype=torch.uint8)
    return libc.mallinfo2().hblks - before

with kept_memory():
    pass
print(*(mapped(size) for size in (1, 8, 30, 100)))
"""

needs_glibc = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="not glibc 2.33 or later")


@needs_glibc
def test_freed_memory_stays_inside_the_block_and_only_there() -> None:
    """In a process of its own: how an allocator is set outlives a test."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True)
    usual, kept, after = map(int, done.stdout.split())
    assert usual < 10
    assert kept >= 95
    assert after < 10


@needs_glibc
def test_blocks_are_afterwards_mapped_on_their_own_from_the_size_on_that_glibc_would_have_learned() -> None:
    done = subprocess.run([sys.executable, "-c", MAPPED], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["0", "0", "0", "1"]


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
