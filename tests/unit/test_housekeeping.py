"""The start of the housekeeping."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from ragq.queues.upkeep import housekeeping
from ragq.tasks import end_tasks


async def test_the_loops_start_one_after_the_other_so_that_they_share_a_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    context: Any = SimpleNamespace(queue=None, settings=None, webhooks=None)
    started: dict[str, float] = {}

    async def note(_part: Callable[[], Awaitable[None]], name: str) -> None:
        started[name] = asyncio.get_running_loop().time()

    monkeypatch.setattr(housekeeping, "restart_on_error", note)
    tasks = housekeeping.start_housekeeping(context)
    try:
        async with asyncio.timeout(10):
            await asyncio.gather(*tasks)
    finally:
        await end_tasks(tasks)
    assert list(started) == [task.get_name() for task in tasks]
    pauses = [after - before for before, after in itertools.pairwise(started.values())]
    assert sum(pauses) >= 0.9 * len(pauses) * housekeeping.START_SECONDS > 0
