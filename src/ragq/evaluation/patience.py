"""Try again what a busy server asks to send later."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ragq.errors import TransientError

T = TypeVar("T")
PAUSES_SECONDS = (0.5, 1, 2, 4, 8, 15, 30)


async def patiently(call: Callable[[], Awaitable[T]]) -> T:
    """Make a call, and make it again after a pause if the server is busy; it is refused in the end as it was last.

    Raises:
        RagqError: As the call.
    """
    for pause in PAUSES_SECONDS:
        try:
            return await call()
        except TransientError:
            await asyncio.sleep(pause)
    return await call()
