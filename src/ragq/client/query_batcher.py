"""Batch the embedding of questions: those that wait at the same time go into one call, equal ones once."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import TYPE_CHECKING, cast

from ragq.client.model_faults import RefusedInputError
from ragq.errors import UnavailableError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

CACHED_QUERIES = 4096
BATCH_SIZE = 32  # text-embeddings-inference's default limit


class QueryBatcher:
    """Embeds waiting questions in batches, and caches recent vectors."""

    def __init__(self, embed: Callable[[list[str]], Awaitable[Vectors]], *, concurrency: int) -> None:
        self._embed = embed
        self._concurrency = concurrency
        self._cache: OrderedDict[str, Vectors] = OrderedDict()
        self._futures: dict[str, asyncio.Future[Vectors]] = {}
        self._pending: list[str] = []
        self._runners: set[asyncio.Task[None]] = set()

    async def get(self, text: str) -> Vectors:
        if text in self._cache:
            self._cache.move_to_end(text)
            return self._cache[text]
        future = self._futures.get(text)
        if future is None:
            future = self._futures[text] = asyncio.get_running_loop().create_future()
            self._pending.append(text)
            if len(self._runners) < self._concurrency:
                runner = asyncio.create_task(self._run(), context=Context())  # it serves other questions, too
                self._runners.add(runner)
                runner.add_done_callback(self._runners.discard)
        return await asyncio.shield(future)  # cancelling one caller must not cancel the others

    async def _run(self) -> None:
        while self._pending:
            batch, self._pending = self._pending[:BATCH_SIZE], self._pending[BATCH_SIZE:]
            outcomes = await self._embed_each(batch)
            for text, outcome in zip(batch, outcomes, strict=True):
                self._deliver(text, outcome)
        # Now, not in the done callback: a question that arrives before the callback would wait forever.
        self._runners.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    async def _embed_each(self, batch: list[str]) -> list[Vectors | Exception]:
        try:
            return list(await self._embed(batch))
        except RefusedInputError as error:
            if len(batch) == 1:
                return [error]
            middle = len(batch) // 2  # perhaps only one text is bad: find it by bisection
            return [*await self._embed_each(batch[:middle]), *await self._embed_each(batch[middle:])]
        except Exception as error:  # noqa: BLE001  (raised again in every caller)
            return [error] * len(batch)

    def _deliver(self, text: str, outcome: Vectors | Exception) -> None:
        future = self._futures.pop(text)
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
            future.exception()  # mark it retrieved, in case no caller is left
            return
        vector = outcome.copy()  # a view would keep the whole batch alive
        vector.flags.writeable = False  # shared by all callers
        future.set_result(vector)
        self._cache[text] = vector
        if len(self._cache) > CACHED_QUERIES:
            self._cache.popitem(last=False)

    async def close(self) -> None:
        """Stop; questions still waiting fail as unavailable."""
        for runner in self._runners:
            runner.cancel()
        await asyncio.gather(*self._runners, return_exceptions=True)
        self._pending.clear()
        for text in list(self._futures):
            self._deliver(text, UnavailableError("The embedding client was closed: ask again."))
