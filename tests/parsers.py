"""One parser for all tests of a file, as a worker has one for all its documents."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from ragq.parsing.parser import Parser

PYTHON = sys.executable


@dataclass(frozen=True)
class _Known:
    """A parser, and the children that this process had before it."""

    parser: Parser
    others: set[int]


_shared: dict[asyncio.AbstractEventLoop, _Known] = {}


def list_children(pid: int | None = None) -> list[int]:
    pid = pid or os.getpid()
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextlib.asynccontextmanager
async def _opened() -> AsyncIterator[_Known]:
    """Open a parser, close it at the end, and see that it leaves no process."""
    known = _Known(Parser(), set(list_children()))
    try:
        yield known
    finally:
        await known.parser.close()
        assert set(list_children()) == known.others


@contextlib.asynccontextmanager
async def sharing_parser() -> AsyncIterator[None]:
    """Let `some_parser` give the same parser in this event loop."""
    loop = asyncio.get_running_loop()
    async with _opened() as known:
        _shared[loop] = known
        yield
        del _shared[loop]


@contextlib.asynccontextmanager
async def some_parser() -> AsyncIterator[Parser]:
    """The shared parser, or one for this block if there is none or a test replaced Python; see that no child is left."""
    async with contextlib.AsyncExitStack() as stack:
        known = _shared.get(asyncio.get_running_loop()) if sys.executable == PYTHON else None
        if known is None:
            known = await stack.enter_async_context(_opened())
        yield known.parser
        forkers = set(list_children()) - known.others
        assert not [child for forker in forkers for child in list_children(forker)]
