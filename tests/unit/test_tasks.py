import ctypes
import gc
import subprocess
import sys
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


def test_importing_numpy_in_a_thread_leaves_the_environment_alone() -> None:
    code = """
import os, threading
from ragq.tasks import prepare_for_numpy
prepare_for_numpy()
changed = []
os.putenv = os.unsetenv = lambda *names: changed.append(names)
thread = threading.Thread(target=__import__, args=["ragq.client.minilm"])
thread.start()
thread.join()
assert not changed, changed
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
