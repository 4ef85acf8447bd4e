"""A thread that many tenants share: their work is cut into steps, and they take turns."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from ragq.tasks import end_tasks

T = TypeVar("T")

LEAD = 16  # steps; a page takes two or three
# Steps of one work of an owner before the next one of the same owner has a turn. So two short documents do not end at the
# same time, after which the thread would have nothing to do until others are read.
AT_A_TIME = 16


class TurnThread:
    """Runs generators step by step in one thread. The next step is of the owner that has had the fewest.

    Owners who always have work get equal numbers of steps. One who had none for a while is up to `LEAD` steps ahead of
    the others, so that short work does not wait for long work, but not more: nobody saves up turns. Works of one owner
    take turns of `AT_A_TIME` steps.
    """

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(1, name)
        self._waiting: dict[str, deque[_Work]] = {}  # of equal owners, the first is next
        self._had: dict[str, int] = {}  # steps of an owner, which begins behind `LEAD` of the others'
        self._least = 0  # steps of the owner that was next most recently; never falls
        self._runner: asyncio.Task[None] | None = None

    async def run(self, owner: str, steps: Generator[None, None, T]) -> T:
        """Run a generator to its end, and return what it returns. If the caller is cancelled, it ends after its step."""
        work = _Work(steps, asyncio.get_running_loop().create_future())
        self._waiting.setdefault(owner, deque()).append(work)
        if self._runner is None:
            self._runner = asyncio.create_task(self._run())
        result: T = await work.result
        return result

    async def _run(self) -> None:
        while self._waiting:
            owner = min(self._waiting, key=self._count)
            work = self._waiting[owner][0]
            if not work.result.done():
                self._note_step(owner)
                await self._take_step(work)
            others = self._waiting.pop(owner)  # to the end, behind owners that have had as many
            others.popleft()
            if not work.result.done():
                work.steps_taken += 1
                (others.appendleft if work.steps_taken % AT_A_TIME else others.append)(work)
            if others:
                self._waiting[owner] = others
        self._runner = None

    def _note_step(self, owner: str) -> None:
        count = self._count(owner)
        self._least = max(self._least, count)
        self._had[owner] = count + 1
        self._had = {one: had for one, had in self._had.items() if had > self._least - LEAD}

    def _count(self, owner: str) -> int:
        return max(self._had.get(owner, 0), self._least - LEAD)

    async def _take_step(self, work: _Work) -> None:
        try:
            has_ended, result = await asyncio.get_running_loop().run_in_executor(self._thread, _step, work.steps)
        except Exception as error:  # noqa: BLE001  (raised again in the caller)
            if not work.result.done():
                work.result.set_exception(error)
            return
        if has_ended and not work.result.done():
            work.result.set_result(result)

    async def close(self) -> None:
        """Cancel what waits, and end the thread after the step that it is at."""
        if self._runner:
            await end_tasks([self._runner])
            self._runner = None
        for work in (one for waiting in self._waiting.values() for one in waiting):
            work.result.cancel()
        await asyncio.to_thread(self._thread.shutdown)


@dataclass(slots=True)
class _Work:
    steps: Generator[None, None, Any]
    result: asyncio.Future[Any]
    steps_taken: int = 0


def _step(steps: Generator[None, None, T]) -> tuple[bool, T | None]:
    """Take one step; returns whether it was the last, and the result then."""
    try:
        next(steps)
    except StopIteration as end:
        return True, end.value
    return False, None
