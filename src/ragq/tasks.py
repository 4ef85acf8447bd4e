"""What every process does with its tasks and its memory."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import time
from collections.abc import Generator, Iterable
from typing import Any, TypeVar

T = TypeVar("T")

M_ARENA_MAX = -8  # from malloc.h
LOT = 10_000  # objects made, beyond those freed, from which on the garbage collector looks through them
SLICE_SECONDS = 0.002  # for which long work may keep the event loop from everybody else


async def end_tasks(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks until they have ended: a library that waits with a time limit may swallow a cancellation."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=1)


def spare_long_lived() -> None:
    """Have the garbage collector pass over all that lives by now: else it stops a process for about 60 ms at times.

    What comes later it looks through in larger lots: each of them passes over what is in use at that moment again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(LOT)


def share_one_heap() -> None:
    """Have all threads allocate from one heap: of two, each keeps what only it may use again. Before threads; glibc only."""
    if set_option := getattr(ctypes.CDLL(None), "mallopt", None):
        set_option(M_ARENA_MAX, 1)


def give_back_memory() -> None:
    """Have the C library return what is free to the system; after a document that was 50 MB, for 3 ms. glibc only."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


class Turns:
    """Lets one piece of long work at a time go on in an event loop, a slice in each turn, however much of it there is."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def take(self) -> None:
        """Wait until everybody else had a turn."""
        async with self._lock:
            await asyncio.sleep(0)

    async def run(self, steps: Generator[None, None, T]) -> T:
        """Run a generator to its end, in slices of `SLICE_SECONDS`; returns what it returns."""
        while True:
            ends_at = time.perf_counter() + SLICE_SECONDS
            try:
                while time.perf_counter() < ends_at:
                    next(steps)
            except StopIteration as end:
                result: T = end.value
                return result
            await self.take()


def run_through(steps: Generator[None, None, T]) -> T:
    """Run a generator to its end at once; returns what it returns."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
