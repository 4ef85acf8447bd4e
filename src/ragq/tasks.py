"""Tasks and memory: settings and helpers that every process uses."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
import time
from collections.abc import Awaitable, Generator, Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")

M_ARENA_MAX = -8  # from malloc.h
GC_THRESHOLD = 10_000  # net allocations before a collection of the youngest generation
TRIM_SECONDS = 1.0
SLICE_SECONDS = 0.002  # longest time that long work may block the event loop


async def end_tasks(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks repeatedly until they end, because a library's time limit may swallow a cancellation."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=1)


async def run_all(calls: Iterator[Awaitable[object]], *, at_once: int) -> None:
    """Await all calls, up to `at_once` at a time; the first error is raised, and the rest is not called."""

    async def run() -> None:
        for call in calls:
            await call

    try:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(at_once):
                tasks.create_task(run())
    except ExceptionGroup as group:
        raise group.exceptions[0] from group


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Import in the block without collections: they find next to nothing, and take a seventh of the API's imports.

    What was imported stays frozen until `freeze_heap`, so that no collection in between traverses it either.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def freeze_heap() -> None:
    """Freeze all live objects (gc.freeze), so that collections do not pause the process for about 60 ms.

    What importing and starting left free, some 7 MB, goes back to the system first. Later collections run after more
    allocations than by default, since each also traverses the objects in use.
    """
    gc.unfreeze()  # what `importing` froze
    gc.collect()
    give_back_memory()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)


def prepare_for_numpy() -> None:
    """Set the environment variables that numpy's import sets, so that the import does not change them.

    The embedding model imports numpy in a thread. Changing the environment there can crash a getenv in another thread,
    such as libpq's while it connects.
    """
    os.environ.setdefault("OPENBLAS_MAIN_FREE", "1")


def share_one_heap() -> None:
    """Let all threads allocate from one heap (M_ARENA_MAX, glibc only): memory freed in one can be reused in another.

    Call it before the first thread starts.
    """
    if set_option := getattr(ctypes.CDLL(None), "mallopt", None):
        set_option(M_ARENA_MAX, 1)


def give_back_memory() -> None:
    """Return free heap memory to the system (malloc_trim, glibc only). After a document this frees about 50 MB in 3 ms."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


class MemoryTrimmer:
    """Returns free memory a moment after work, once for all work of that moment: the next would need it again at once."""

    def __init__(self) -> None:
        self._timer: asyncio.TimerHandle | None = None

    def trim_soon(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TRIM_SECONDS, self._trim)

    def _trim(self) -> None:
        self._timer = None
        asyncio.get_running_loop().run_in_executor(None, give_back_memory)


class Turns:
    """Shares an event loop: pieces of long work run one at a time, one slice in each turn of the loop."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def take(self) -> None:
        """Wait until other tasks have run."""
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
