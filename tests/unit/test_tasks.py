import ctypes
import gc
from pathlib import Path

import pytest

from ragq.tasks import give_back_memory

PIECES, PIECE = 1000, 64 << 10


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "malloc_trim"),
    reason="this C library, not glibc, has no malloc_trim: there is nothing to test",
)
def test_memory_that_is_free_goes_back_to_the_system() -> None:
    pieces = [bytearray(PIECE) for _ in range(PIECES)]
    last = pieces.pop()  # keeps the heap from shrinking by itself
    pieces.clear()
    gc.collect()
    before = resident()
    give_back_memory()
    assert before - resident() > PIECES * PIECE / 2
    assert len(last) == PIECE
