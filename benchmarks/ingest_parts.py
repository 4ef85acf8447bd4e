"""The parts of `benchmarks.ingest` that run in separate processes."""

from __future__ import annotations

import asyncio
import hashlib
import io
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import aiohttp
import numpy as np
from pydantic import SecretStr
from tokenizers import Tokenizer

from ragq.client.embedding_client import LocalEmbeddingClient, Progress, load_tokenizer
from ragq.client.minilm.model import MiniLM
from ragq.parsing.parser import Parser
from ragq.queues.documents import document_job_id
from ragq.queues.retrieval import DEFAULT_CHUNK_SHARE
from ragq.queues.running import RunningJob, WorkerContext
from ragq.queues.worker import DEFAULT_OVERLAP_SHARE, process_document
from ragq.rag.split import split
from ragq.records import DocumentArguments
from ragq.settings import Settings
from ragq.storage.store_files import StoreFileRecord
from ragq.storage.vector_stores import Stores
from tests.ingests import open_context, put_in

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray

CEILING_ROUNDS = 3
UPLOADS_AT_ONCE = 8
LOOK_SECONDS = 0.2
LONGEST_SECONDS = 1200
TENANT = "default"


def collect_chunks(paths: list[Path]) -> list[str]:
    """Split documents into the texts that ragq embeds."""
    return asyncio.run(_collect_chunks(paths))


async def _collect_chunks(paths: list[Path]) -> list[str]:
    size = int(LocalEmbeddingClient.window_tokens * DEFAULT_CHUNK_SHARE)
    texts, parser = [], Parser()
    for path in paths:
        document = await parser.parse(path, path.name, timeout_seconds=30, memory_bytes=1 << 30)
        overlap = int(size * DEFAULT_OVERLAP_SHARE)
        chunks = split(document, load_tokenizer(), max_tokens=size, overlap_tokens=overlap)
        texts += [f"{chunk.heading}\n{chunk.text}" if chunk.heading else chunk.text for chunk in chunks]
    await parser.close()
    return texts


def embed_alone(texts: list[str]) -> float:
    """Texts per second through the model as ragq uses it, one thread and one text a call: the best of some rounds."""
    model = MiniLM(load_tokenizer())
    model.embed(texts[0])
    seconds = []
    for _ in range(CEILING_ROUNDS):
        started = time.perf_counter()
        for text in texts:
            model.embed(text)
        seconds.append(time.perf_counter() - started)
    return len(texts) / min(seconds)


def upload(url: str, paths: list[Path]) -> tuple[float, float]:
    """Upload files into a new store and wait until all are searchable; returns the seconds to that and to the last upload."""
    return asyncio.run(_upload(url, paths))


async def _upload(url: str, paths: list[Path]) -> tuple[float, float]:
    async with aiohttp.ClientSession(url) as session:
        store = (await _post(session, "/v1/vector_stores", json={"name": "bench"}))["id"]
        started = time.monotonic()
        waiting = iter(paths)

        async def work() -> None:
            for path in waiting:
                form = aiohttp.FormData({"purpose": "assistants"})
                form.add_field("file", path.read_bytes(), filename=path.name)
                file = await _post(session, "/v1/files", data=form)
                await _post(session, f"/v1/vector_stores/{store}/files", json={"file_id": file["id"]})

        await asyncio.gather(*(work() for _ in range(UPLOADS_AT_ONCE)))
        uploaded = time.monotonic() - started
        async with asyncio.timeout(LONGEST_SECONDS):
            while True:
                async with session.get(f"/v1/vector_stores/{store}") as reply:
                    counts = (await reply.json())["file_counts"]
                assert not counts["failed"], counts
                if counts["completed"] == len(paths):
                    return time.monotonic() - started, uploaded
                await asyncio.sleep(LOOK_SECONDS)


async def _post(session: aiohttp.ClientSession, path: str, **body: Any) -> dict[str, Any]:
    async with session.post(path, **body) as reply:
        assert reply.status == 200, await reply.text()
        return cast("dict[str, Any]", await reply.json())


@dataclass(slots=True)
class Given:
    """An embedding client that takes vectors from a list; the rest of the ingest is unchanged."""

    vectors: NDArray[float32]
    model: str = LocalEmbeddingClient.model
    dimensions: int = LocalEmbeddingClient.dimensions
    window_tokens: int = LocalEmbeddingClient.window_tokens
    taken: int = 0

    @property
    def tokenizer(self) -> Tokenizer:
        return load_tokenizer()

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def embed_query(self, text: str) -> NDArray[float32]:
        raise NotImplementedError(text)

    async def embed_documents(
        self, texts: Sequence[str], progress: Progress | None = None, *, tenant_id: str = ""
    ) -> NDArray[float32]:
        del progress, tenant_id
        rows = (self.taken + np.arange(len(texts))) % len(self.vectors)
        self.taken += len(texts)
        return self.vectors[rows]


def run_without_embedding(
    data_dir: Path, database_url: str, paths: list[Path], vectors: Path, at_once: int
) -> dict[str, Any]:
    """Run a document worker's own function over files, with given vectors; the first file is not measured.

    Args:
        at_once: Documents in flight; 0 for as many as a document worker holds.
    """
    settings = Settings(data_dir=data_dir, database_url=SecretStr(database_url))
    return asyncio.run(_run_without_embedding(settings, paths, vectors, at_once or settings.document_concurrency))


async def _run_without_embedding(settings: Settings, paths: list[Path], vectors: Path, at_once: int) -> dict[str, Any]:
    assert settings.database_url
    context = await open_context(settings, settings.database_url.get_secret_value())
    await context.embedding.close()
    context = replace(context, embedding=Given(np.load(vectors)))
    store = (await Stores(context.database).create(TENANT, name="bench", description=None, metadata={})).id
    records = [await _attach(context, path, store) for path in paths]
    await _process(context, records[0])
    waiting, totals = iter(records[1:]), Counter[str]()

    async def work() -> None:
        for record in waiting:
            totals.update(await _process(context, record))

    started = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(at_once)))
    seconds = time.perf_counter() - started
    await context.close()
    stages = {stage: totals[f"{stage}_ms"] / 1000 for stage in ("parse", "split", "store")}
    return {"seconds": seconds, "chunks": totals["chunks"], "stages": stages}


async def _attach(context: WorkerContext, path: Path, store: str) -> StoreFileRecord:
    """Upload a file, as the routes do, but queue nothing."""
    data = path.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    async with context.files.locked_bytes(sha256):
        await context.blobs.put(sha256, io.BytesIO(data))
        file = await context.files.create(
            TENANT, filename=path.name, purpose="assistants", size=len(data), sha256=sha256
        )
    return await put_in(context.database, store, file.id, attributes={})


async def _process(context: WorkerContext, record: StoreFileRecord) -> dict[str, int]:
    """Ingest one file; returns its chunks and the ms of its stages."""
    deadline = asyncio.get_running_loop().time() + 60
    job = RunningJob(document_job_id(record), 1, TENANT, deadline)
    arguments = DocumentArguments(record.vector_store_id, record.file_id, record.generation)
    done = await process_document(job, context, arguments)
    assert done.chunks is not None, done
    stages = ("parse_ms", "split_ms", "embed_ms", "store_ms")
    return {**{name: getattr(job.meta, name) for name in stages}, "chunks": done.chunks}
