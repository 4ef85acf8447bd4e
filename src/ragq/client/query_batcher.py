"""Embed the questions that wait at one moment together, and each of them once."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, cast

from ragq.client.model_faults import RefusedInputError
from ragq.errors import UnavailableError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

CACHED_QUERIES = 4096
BATCH_SIZE = 32  # as many as text-embeddings-inference takes when it is not told otherwise


class QueryBatcher:
    """Embed all questions that wait in one batch, equal ones once, and remember the recent ones."""

    def __init__(self, embed: Callable[[list[str]], Awaitable[Vectors]], *, concurrency: int) -> None:
        self._embed = embed
        self._concurrency = concurrency
        self._remembered: OrderedDict[str, Vectors] = OrderedDict()
        self._futures: dict[str, asyncio.Future[Vectors]] = {}
        self._pending: list[str] = []
        self._runners: set[asyncio.Task[None]] = set()

    async def get(self, text: str) -> Vectors:
        """Return the vector of a question, computing it at most once."""
        if text in self._remembered:
            self._remembered.move_to_end(text)
            return self._remembered[text]
        future = self._futures.get(text)
        if future is None:
            future = self._futures[text] = asyncio.get_running_loop().create_future()
            self._pending.append(text)
            if len(self._runners) < self._concurrency:
                runner = asyncio.create_task(self._run())
                self._runners.add(runner)
                runner.add_done_callback(self._runners.discard)
        return await asyncio.shield(future)  # one asker's cancellation must not take the others' vector

    async def _run(self) -> None:
        while self._pending:
            batch, self._pending = self._pending[:BATCH_SIZE], self._pending[BATCH_SIZE:]
            outcomes = await self._embed_each(batch)
            for text, outcome in zip(batch, outcomes, strict=True):
                self._deliver(text, outcome)
        # At once, not when the task is seen to be done: a question that comes in between would wait for ever.
        self._runners.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    async def _embed_each(self, batch: list[str]) -> list[Vectors | Exception]:
        try:
            return list(await self._embed(batch))
        except RefusedInputError as error:
            if len(batch) == 1:
                return [error]
            middle = len(batch) // 2  # all but one text may be sound: find it, by halves
            return [*await self._embed_each(batch[:middle]), *await self._embed_each(batch[middle:])]
        except Exception as error:  # noqa: BLE001  (raised again by every asker)
            return [error] * len(batch)

    def _deliver(self, text: str, outcome: Vectors | Exception) -> None:
        future = self._futures.pop(text)
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
            future.exception()  # seen, even when every asker is gone
            return
        vector = outcome.copy()  # not a view that keeps its whole batch alive
        vector.flags.writeable = False  # shared by every asker
        future.set_result(vector)
        self._remembered[text] = vector
        if len(self._remembered) > CACHED_QUERIES:
            self._remembered.popitem(last=False)

    async def close(self) -> None:
        """Stop; questions still waiting fail as unavailable."""
        for runner in self._runners:
            runner.cancel()
        await asyncio.gather(*self._runners, return_exceptions=True)
        self._pending.clear()
        for text in list(self._futures):
            self._deliver(text, UnavailableError("The embedding client was closed: ask again."))
