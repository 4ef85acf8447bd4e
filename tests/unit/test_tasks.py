from __future__ import annotations

import asyncio
import ctypes
import gc
import time
import weakref
from pathlib import Path

import pytest

from ragq.tasks import MemoryTrimmer, freeze_heap, give_back_memory, importing

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


async def test_memory_goes_back_once_for_all_work_of_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    trimmed: list[float] = []
    monkeypatch.setattr("ragq.tasks.TRIM_SECONDS", 0.05)
    monkeypatch.setattr("ragq.tasks.give_back_memory", lambda: trimmed.append(time.monotonic()))
    trimmer = MemoryTrimmer()
    for _ in range(2):
        begun = time.monotonic()
        for _ in range(3):
            trimmer.trim_soon()
        await asyncio.sleep(0.2)
        assert len(trimmed) == 1
        assert trimmed.pop() - begun >= 0.05


def test_what_was_made_while_importing_is_collected_afterwards() -> None:
    class Cycle:
        me: Cycle

    thresholds = gc.get_threshold()
    try:
        with importing():
            assert not gc.isenabled()
            cycle = Cycle()
            cycle.me, made = cycle, weakref.ref(cycle)
            del cycle
        assert gc.isenabled()
        gc.collect()
        assert made() is not None  # it is frozen
        freeze_heap()
        assert made() is None
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)
