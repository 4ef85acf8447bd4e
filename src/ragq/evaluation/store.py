"""The store that the questions are asked of: one of their own, filled and deleted again, or one that is there."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from ragq.api_client import ApiClient
from ragq.errors import RagqError
from ragq.evaluation.dataset import Dataset, Document
from ragq.evaluation.patience import patiently

POLL_SECONDS = 0.3
PAGE = 100
PURPOSE = "user_data"  # so that none is the same file as one that `ragq ingest` or the page put in

Advance = Callable[[int], None]
"""Called with the number of documents or questions that were done since the last call."""


@dataclass(slots=True)
class EvaluatedStore:
    """A store.

    Attributes:
        names: Of its files.
        faults: (name, reason) of each document that cannot be searched.
    """

    id: str
    names: frozenset[str]
    faults: list[tuple[str, str]] = field(default_factory=list)


async def open_existing(client: ApiClient, store: str) -> EvaluatedStore:
    """List the files of a store that is there."""
    found = await client.call("GET", f"/v1/vector_stores/{store}")
    files = await _list_files(client, found["id"])
    return EvaluatedStore(found["id"], frozenset(file["filename"] for file in files))


@asynccontextmanager
async def fill_store(
    client: ApiClient, dataset: Dataset, *, keep: bool, concurrency: int, advance: Advance
) -> AsyncIterator[EvaluatedStore]:
    """Put the documents into a new store, and remove both at the end unless they are to be kept."""
    body: dict[str, Any] = {"name": f"ragq eval: {dataset.name}"[:256]}
    if not keep:
        body["expires_after"] = {"anchor": "last_active_at", "days": 1}  # if this process is killed
    store = await client.call("POST", "/v1/vector_stores", json=body)
    uploaded: list[dict[str, Any]] = []
    try:
        await asyncio.sleep(1)  # what is uploaded from now on is younger than the store: `created_at` is whole seconds
        faults = await _fill(client, store["id"], dataset.documents, uploaded, concurrency, advance)
        yield EvaluatedStore(store["id"], frozenset(document.name for document in dataset.documents), faults)
    finally:
        if not keep:
            # A file that was there before belongs to somebody: the same bytes under the same name are the same file.
            own = [file["id"] for file in uploaded if file["created_at"] > store["created_at"]]
            await _remove(client, store["id"], own)


async def _fill(
    client: ApiClient,
    store: str,
    documents: Sequence[Document],
    uploaded: list[dict[str, Any]],
    concurrency: int,
    advance: Advance,
) -> list[tuple[str, str]]:
    waiting, faults = deque(documents), list[tuple[str, str]]()

    async def put_all() -> None:
        while waiting:
            document = waiting.popleft()
            try:
                await _put(client, store, document, uploaded)
            except (RagqError, OSError) as error:
                faults.append((document.name, str(error)))

    putting = [asyncio.create_task(put_all()) for _ in range(concurrency)]
    try:
        await _follow(client, store, putting, faults, advance)
    finally:
        waiting.clear()
        await asyncio.wait(putting)  # of an interrupted run, too: what is uploaded is known, and so removed
    failed = await _list_files(client, store, filter="failed")
    return faults + [(file["filename"], file["last_error"]["message"]) for file in failed]


async def _put(client: ApiClient, store: str, document: Document, uploaded: list[dict[str, Any]]) -> None:
    content = await asyncio.to_thread(document.read)
    file = await patiently(lambda: client.upload(content, document.name, purpose=PURPOSE))
    uploaded.append(file)
    await patiently(lambda: client.call("POST", f"/v1/vector_stores/{store}/files", json={"file_id": file["id"]}))


async def _follow(
    client: ApiClient,
    store: str,
    putting: Sequence[asyncio.Task[None]],
    faults: Sequence[tuple[str, str]],
    advance: Advance,
) -> None:
    """Wait until all documents are put in, and none is in progress."""
    done = 0
    while True:
        are_put = all(task.done() for task in putting)
        counts = (await patiently(lambda: client.call("GET", f"/v1/vector_stores/{store}")))["file_counts"]
        now = len(faults) + counts["total"] - counts["in_progress"]
        advance(now - done)
        done = now
        if are_put and not counts["in_progress"]:
            break
        await asyncio.sleep(POLL_SECONDS)
    await asyncio.gather(*putting)  # raises what one of them ended with


async def _list_files(client: ApiClient, store: str, **query: str) -> list[dict[str, Any]]:
    files: list[dict[str, Any]] = []
    after: dict[str, str] = {}
    while True:
        params = {"limit": str(PAGE)} | query | after
        page = await client.call("GET", f"/v1/vector_stores/{store}/files", params=params)
        files += page["data"]
        if not page["has_more"]:
            return files
        after = {"after": page["last_id"]}


async def _remove(client: ApiClient, store: str, files: Sequence[str]) -> None:
    await client.call("DELETE", f"/v1/vector_stores/{store}")
    for file in files:
        await client.call("DELETE", f"/v1/files/{file}")
