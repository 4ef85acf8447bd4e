"""What the job functions of a worker are given: its connections and models, and the job in flight."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ragq import tracing
from ragq.accounts.usage import JobUsage
from ragq.client.embedding_client import EmbeddingClient, create_embedding_client
from ragq.client.minilm.cross_encoder import CrossEncoder
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
from ragq.storage.search.replica import CHECK_CONNECTIONS, MOST_CONNECTIONS
from ragq.tasks import MemoryTrimmer, Turns

if TYPE_CHECKING:
    from ragq.client.llm_client import LlmClient
    from ragq.client.rerank_client import RerankClient
from ragq.accounts.views import TenantView, Viewer


@dataclass(kw_only=True)
class WorkerContext(Context):
    """The connections and models that all jobs of a worker share.

    Attributes:
        replica: None without `RAGQ_DATABASE_READ_URL`; all searches then run on the primary.
        replica_checks: Connections to it that are never busy with a search.
        llm: None without `RAGQ_LLM_BASE_URL`; answers are then extractive.
        reranker: None without `RAGQ_RERANK_BASE_URL`; a search then keeps its order.
    """

    replica: Database | None = None
    replica_checks: Database | None = None
    chunks: Chunks
    embedding: EmbeddingClient
    llm: LlmClient | None
    reranker: RerankClient | None = None
    parser: Parser = field(default_factory=Parser)
    cross_encoder: CrossEncoder = field(default_factory=CrossEncoder)
    turns: Turns = field(default_factory=Turns)
    trimmer: MemoryTrimmer = field(default_factory=MemoryTrimmer)

    @classmethod
    async def open(cls, settings: Settings, queue: JobQueue, database_url: str) -> WorkerContext:
        """Open all except the queue, which the caller opened."""
        blobs, embedding = (
            BlobStore(settings),
            create_embedding_client(settings),
        )  # first, because they may refuse the settings
        llm = _open_llm(settings) if settings.llm_base_url else None
        reranker = _open_reranker(settings) if settings.rerank_base_url else None
        database = await Database.open(settings, database_url)
        replica, checks = await _open_replica(settings)
        return cls(
            settings=settings,
            queue=queue,
            database=database,
            blobs=blobs,
            replica=replica,
            replica_checks=checks,
            chunks=Chunks(settings, database, replica, checks),
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
        await self.cross_encoder.close()
        for replica in (self.replica, self.replica_checks):
            if replica:
                await replica.close()
        await self.database.close()


@dataclass(slots=True)
class RunningJob:
    """A job in flight, as its function sees it.

    Attributes:
        deadline: `loop.time()` at which the job fails.
        view: What the asker of a question may see; None for a job of the service itself.
        meta: Timings in ms, and progress; stored with the next heartbeat and with the result.
        pending_events: Stream events that are not in the job's event log yet.
        entries: How many entries this attempt has logged.
        usage: What this attempt cost so far.
    """

    id: str
    attempt: int
    tenant_id: str
    deadline: float
    meta: Meta = field(default_factory=Meta)
    meta_changed: bool = False
    pending_events: list[Event] = field(default_factory=list)
    entries: int = 0
    usage: JobUsage = field(default_factory=JobUsage)
    view: TenantView | None = None

    @property
    def viewer(self) -> Viewer:
        """For whom documents are read."""
        return self.view or self.tenant_id

    def note(self, **meta: Any) -> None:
        """Set fields of `meta`."""
        for name, value in meta.items():
            setattr(self.meta, name, value)
        self.meta_changed = True

    def take_events(self) -> tuple[str, int, int, list[Event]]:
        """Take the pending events as an entry of the log: id, attempt, number of the entry, events."""
        events, self.pending_events = self.pending_events, []
        self.entries += 1
        return self.id, self.attempt, self.entries, events

    def note_progress(self, stage: Literal["parse", "embed", "store"]) -> Callable[[int, int], None]:
        """Make a callback that stores the progress of a stage in `meta`."""
        return lambda done, total: self.note(progress=Progress(stage, done, total))

    @contextlib.contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Store the duration of a stage in `meta`."""
        started = time.monotonic()
        with tracing.span(stage):
            yield
        self.note(**{f"{stage}_ms": ms_since(started)})


async def _open_replica(settings: Settings) -> tuple[Database, Database] | tuple[None, None]:
    """Open the read replica for searches, and for checks of it, if the settings name one."""
    if not settings.database_read_url:
        return None, None
    url = settings.database_read_url.get_secret_value()
    return (
        await Database.open(settings, url, connections=MOST_CONNECTIONS, repeats_reads=False),
        await Database.open(settings, url, connections=CHECK_CONNECTIONS, repeats_reads=False),
    )


def _open_llm(settings: Settings) -> LlmClient:
    from ragq.client.llm_client import LlmClient  # noqa: PLC0415  (only the processes that need it pay for it)

    return LlmClient(settings)


def _open_reranker(settings: Settings) -> RerankClient:
    from ragq.client.rerank_client import RerankClient  # noqa: PLC0415  (only the processes that need it pay for it)

    return RerankClient(settings)


def ms_since(started: float) -> int:
    """Whole milliseconds since a `time.monotonic()`."""
    return round((time.monotonic() - started) * 1000)
