"""What every process does with its tasks and its memory."""

from __future__ import annotations

import asyncio
import ctypes
import gc
from collections.abc import Iterable
from typing import Any


async def end_tasks(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks until they have ended: a library that waits with a time limit may swallow a cancellation."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=1)


def spare_long_lived() -> None:
    """Have the garbage collector pass over all that lives by now: else it stops a process for about 60 ms at times."""
    gc.collect()
    gc.freeze()


def give_back_memory() -> None:
    """Have the C library return what is free to the system; after a document that was 50 MB, for 3 ms. glibc only."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
