"""What the job functions of a worker are given: its connections and models, and the job in flight."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from ragq.client.embedding_client import EmbeddingClient, create_embedding_client
from ragq.client.llm_client import LlmClient
from ragq.client.rerank_client import RerankClient
from ragq.client.rq_client import JobQueue
from ragq.context import Context
from ragq.parsing.parser import Parser
from ragq.records import (
    Event,
    Meta,
    Progress,
)
from ragq.settings import Settings
from ragq.storage.blobs import BlobStore
from ragq.storage.database import Database
from ragq.storage.search.chunks import Chunks
from ragq.tasks import Turns


@dataclass(kw_only=True)
class WorkerContext(Context):
    """The connections and models that all jobs of a worker share.

    Attributes:
        llm: None without `RAGQ_LLM_BASE_URL`; answers are then extractive.
        reranker: None without `RAGQ_RERANK_BASE_URL`; a search then keeps its order.
    """

    chunks: Chunks
    embedding: EmbeddingClient
    llm: LlmClient | None
    reranker: RerankClient | None = None
    parser: Parser = field(default_factory=Parser)
    turns: Turns = field(default_factory=Turns)

    @classmethod
    async def open(cls, settings: Settings, queue: JobQueue, database_url: str) -> WorkerContext:
        """Open all except the queue, which the caller opened."""
        blobs, embedding = (
            BlobStore(settings),
            create_embedding_client(settings),
        )  # first, because they may refuse the settings
        llm = LlmClient(settings) if settings.llm_base_url else None
        reranker = RerankClient(settings) if settings.rerank_base_url else None
        database = await Database.open(settings, database_url)
        return cls(
            settings=settings,
            queue=queue,
            database=database,
            blobs=blobs,
            chunks=Chunks(settings, database),
            embedding=embedding,
            llm=llm,
            reranker=reranker,
        )

    async def close(self) -> None:
        """Close all except the queue."""
        if self.llm:
            await self.llm.close()
        if self.reranker:
            await self.reranker.close()
        await self.parser.close()
        await self.embedding.close()
        await self.database.close()


@dataclass(slots=True)
class RunningJob:
    """A job in flight, as its function sees it.

    Attributes:
        deadline: `loop.time()` at which the job fails.
        meta: Timings in ms, and progress; stored with the next heartbeat and with the result.
        pending_events: Stream events that are not in the job's event log yet.
    """

    id: str
    attempt: int
    tenant_id: str
    deadline: float
    meta: Meta = field(default_factory=Meta)
    meta_changed: bool = False
    pending_events: list[Event] = field(default_factory=list)

    def note(self, **meta: Any) -> None:
        """Set fields of `meta`."""
        for name, value in meta.items():
            setattr(self.meta, name, value)
        self.meta_changed = True

    def note_progress(self, stage: Literal["parse", "embed", "store"]) -> Callable[[int, int], None]:
        """Make a callback that stores the progress of a stage in `meta`."""
        return lambda done, total: self.note(progress=Progress(stage, done, total))

    @contextlib.contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Store the duration of a stage in `meta`."""
        started = time.monotonic()
        yield
        self.note(**{f"{stage}_ms": ms_since(started)})


def ms_since(started: float) -> int:
    """Whole milliseconds since a `time.monotonic()`."""
    return round((time.monotonic() - started) * 1000)
