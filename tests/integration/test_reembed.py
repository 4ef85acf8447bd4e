"""`ragq reembed`: another embedding model while searches go on, through kills, ingests, deletes and another change."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest

from ragq.storage.vector_index import write_index
from tests.servers import FakeLlm, Ragq, stop, wait_until

CHUNKS = 300
DIMENSIONS = 48

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeLlm]:
    """An embedding endpoint with vectors of another length, slow enough to be met in the middle."""
    with FakeLlm(tmp_path_factory.mktemp("model"), dimensions=DIMENSIONS, latency=1.0) as fake:
        yield fake


@pytest.fixture(scope="module")
def served(endpoint: FakeLlm) -> dict[str, object]:
    """The settings of the new model."""
    return {
        "RAGQ_EMBEDDING_BASE_URL": endpoint.base_url,
        "RAGQ_EMBEDDING_MODEL": "served",
        "RAGQ_EMBEDDING_DIMENSIONS": DIMENSIONS,
        "RAGQ_EMBEDDING_DOCUMENT_PREFIX": "passage: ",
    }


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Ragq]:
    """A service on the built-in model with a document of `CHUNKS` chunks."""
    service = Ragq(tmp_path / "data", RAGQ_EMBEDDING_FLOOR=0).start()
    with httpx2.Client(base_url=service.url, timeout=60) as http:
        put(http, "harbour.md", "The lighthouse of Quorra is 61 metres tall.\n")
    with psycopg.connect(service.services["database_url"]) as connection:  # as quickly as no model embeds them
        connection.execute(
            """INSERT INTO chunks (vector_store_id, file_id, ordinal, tenant_id, start_offset, end_offset, token_count,
                                   text, embedding, text_search)
               SELECT vector_store_id, file_id, number, tenant_id, start_offset, end_offset, token_count, text, embedding,
                      text_search
               FROM chunks, generate_series(1, %s) AS number""",
            [CHUNKS - 1],
        )
        connection.execute("UPDATE vector_store_files SET chunk_count = %s", [CHUNKS])
    query(service, write_index())
    yield service
    service.end()


def put(http: httpx2.Client, name: str, text: str) -> str:
    """Put a document into the default store and wait until it is searchable; returns its id."""
    file_id: str = http.post("/v1/files", files={"file": (name, text.encode())}, data={"purpose": "assistants"}).json()[
        "id"
    ]
    http.post("/v1/vector_stores/default/files", json={"file_id": file_id}).raise_for_status()

    def is_done() -> bool:
        status = http.get(f"/v1/vector_stores/default/files/{file_id}").json()["status"]
        assert status in ("in_progress", "completed")
        return bool(status == "completed")

    wait_until(is_done, seconds=60, what=name)
    return file_id


def search(http: httpx2.Client, text: str) -> list[dict[str, Any]]:
    response = http.post("/v1/vector_stores/default/search", json={"query": text})
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["data"]
    return found


def query(service: Ragq, statement: str) -> Any:
    """Run a statement; returns the first value of the first row, if any."""
    with psycopg.connect(service.services["database_url"], autocommit=True) as connection:
        done = connection.execute(statement)
        row = done.fetchone() if done.description else None
    return row[0] if row else None


def unfilled(service: Ragq) -> int:
    return int(query(service, "SELECT count(*) FROM chunks WHERE embedding_2 IS NULL"))


def has_begun(service: Ragq) -> bool:
    is_there = (
        "SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'chunks'::regclass AND attname = 'embedding_2')"
    )
    return bool(query(service, is_there)) and unfilled(service) < int(query(service, "SELECT count(*) FROM chunks"))


class Searcher:
    """Searches without a pause in a thread of its own until it is stopped."""

    def __init__(self, url: str) -> None:
        self.answers: list[int] = []
        self.failures: list[str] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, args=[url])
        self._thread.start()

    def _run(self, url: str) -> None:
        with httpx2.Client(base_url=url, timeout=60) as http:
            while not self._stopped.wait(0.05):
                try:
                    self.answers.append(len(search(http, "How tall is the lighthouse of Quorra?")))
                except (AssertionError, httpx2.HTTPError) as error:
                    self.failures.append(repr(error))

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(60)


def test_searches_go_on_while_all_chunks_are_embedded_again(service: Ragq, served: dict[str, object]) -> None:
    searcher = Searcher(service.url)
    try:
        first = service.spawn("reembed", **served)
        wait_until(lambda: has_begun(service), seconds=60, what="the first vectors")
        first.kill()
        first.wait()
        left = unfilled(service)
        assert 0 < left < CHUNKS

        second = service.spawn("reembed", "--json", **served)
        wait_until(lambda: unfilled(service) < left, seconds=60, what="the run to go on")
        second.send_signal(signal.SIGSTOP)  # so that what follows happens before its end
        assert "Another `ragq reembed`" in service.run("reembed", **served).stderr
        with httpx2.Client(base_url=service.url, timeout=60) as http:
            late = put(http, "late.md", "The ferry to Quorra leaves at noon.\n")
            gone = put(http, "gone.md", "The ferry to Marrow leaves at dusk.\n")
            assert second.poll() is None
            http.delete(f"/v1/files/{gone}").raise_for_status()
            # A worker with the new settings may start before the switch: it waits, and takes over.
            worker = service.spawn("worker", **served)
            second.send_signal(signal.SIGCONT)
            assert second.wait(120) == 0
            assert search(http, "When does the ferry leave?")[0]["file_id"] == late
        searcher.stop()
        stop(worker)
    finally:
        searcher.stop()

    assert not searcher.failures
    assert len(searcher.answers) > 10
    assert min(searcher.answers) > 0
    check_switched(service)
    assert service.stop() == 0

    check_after_restart(Ragq(service.folder, **served).start(), served, there=late, gone=gone)


def check_after_restart(again: Ragq, served: dict[str, object], *, there: str, gone: str) -> None:
    """Check what a service with the new settings finds, and end it."""
    try:
        with httpx2.Client(base_url=again.url, timeout=60) as http:
            assert search(http, "When does the ferry leave?")[0]["file_id"] == there
            assert {one["file_id"] for one in search(http, "ferry to Marrow at dusk")}.isdisjoint({gone})
        assert "Nothing to do" in again.run("reembed", **served).stdout
    finally:
        again.end()


def check_switched(service: Ragq) -> None:
    """Check that the new vectors are the only ones."""
    assert query(service, "SELECT value FROM facts WHERE name = 'embedding_model'") == "served"
    assert query(service, "SELECT count(*) FROM facts WHERE starts_with(name, 'next_')") == 0
    assert query(service, "SELECT array_agg(DISTINCT vector_dims(embedding_2)) FROM chunks") == [DIMENSIONS]
    assert (
        query(
            service, "SELECT count(*) FROM pg_attribute WHERE attrelid = 'chunks'::regclass AND attname = 'embedding'"
        )
        == 0
    )
    index = "SELECT indexdef FROM pg_indexes WHERE indexname = 'chunks_by_embedding'"
    assert "hnsw (embedding_2 " in query(service, index)
