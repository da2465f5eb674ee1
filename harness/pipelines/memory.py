"""Memory that a step frees is kept for the next step.

glibc returns large blocks to the system as soon as they are freed, and the system clears the pages it hands out again:
a training step of the thesis's model on a CPU spends a tenth of its time on that in float32, a quarter in bfloat16
(`docs/decisions/fast-step.md`).
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4  # of <malloc.h>
NEVER = -1
NO_BLOCKS, DEFAULT_BLOCKS = 0, 65536
USUAL_BLOCK_BYTES, USUAL_TRIM_BYTES = 32 * 2**20, 64 * 2**20
"""Where glibc's own thresholds end up, which grow with what is freed: the largest block it learns from, and twice that.

They grow no more once any of them was set, so whoever sets one has to set them all: or else every block of 128 KiB
would be asked of the system anew, for as long as the process lives.
"""


@contextmanager
def kept_memory() -> Iterator[None]:
    """Let the block keep what it frees, and give it back at the end; where the C library is not glibc, do nothing."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt") or not hasattr(libc, "malloc_trim"):
        yield
        return
    _set(libc, NO_BLOCKS, NEVER)
    try:
        yield
    finally:
        _set(libc, DEFAULT_BLOCKS, USUAL_TRIM_BYTES)
        libc.malloc_trim(0)


def _set(libc: ctypes.CDLL, blocks: int, trim_bytes: int) -> None:
    """Set how many blocks may be mapped on their own, from what size on, and how much free memory is too much."""
    for parameter, value in ((MMAP_MAX, blocks), (MMAP_THRESHOLD, USUAL_BLOCK_BYTES), (TRIM_THRESHOLD, trim_bytes)):
        if not libc.mallopt(parameter, value):
            message = f"mallopt({parameter}, {value}) was refused"
            raise RuntimeError(message)
