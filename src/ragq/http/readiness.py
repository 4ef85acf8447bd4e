"""Check whether the servers answer; concurrent callers share a check."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

from ragq.errors import RagqError

Check = Callable[[], Awaitable[object]]

CHECK_SECONDS = 2.0  # probes do not wait much longer
FRESH_SECONDS = 0.5  # how long a result is reused, because anyone may call without a key


class Readiness:
    """Runs one check of each server at a time."""

    def __init__(self) -> None:
        self._checks: dict[str, asyncio.Task[str | None]] = {}
        self._done_at: dict[str, float] = {}

    async def find_faults(self, checks: Mapping[str, Check]) -> dict[str, str]:
        """The servers that do not answer within `CHECK_SECONDS`, and why; a slower check continues in the background."""
        tasks = {name: self._start(name, check) for name, check in checks.items()}
        await asyncio.wait(tasks.values(), timeout=CHECK_SECONDS)
        silent = f"No answer within {CHECK_SECONDS:g} s. Run `ragq doctor` for details."
        found = {name: task.result() if task.done() else silent for name, task in tasks.items()}
        return {name: fault for name, fault in found.items() if fault}

    def _start(self, name: str, check: Check) -> asyncio.Task[str | None]:
        task = self._checks.get(name)
        if task and (not task.done() or time.monotonic() < self._done_at[name] + FRESH_SECONDS):
            return task
        task = self._checks[name] = asyncio.create_task(self._run(name, check), name=f"check {name}")
        return task

    async def _run(self, name: str, check: Check) -> str | None:
        try:
            await check()
        except RagqError as error:
            return str(error)
        finally:
            self._done_at[name] = time.monotonic()
        return None
