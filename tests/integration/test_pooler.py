"""PostgreSQL behind a real PgBouncer, which gives a connection for a transaction alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx2
import psycopg
import pytest
from openai import OpenAI
from pydantic import SecretStr

from ragq.errors import ConfigurationError
from ragq.queues.running import WorkerContext
from ragq.settings import Settings, read_settings
from ragq.storage.batches import Batches
from ragq.storage.database import Database
from ragq.storage.vector_index import make_index
from tests.ingests import attach, ingest, open_context
from tests.pooler import PgBouncer
from tests.servers import Ragq, wait_until


@pytest.fixture(scope="module")
def direct_url(database_url: str) -> Iterator[str]:
    """An empty database of this module's own."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS pooled")
        connection.execute("CREATE DATABASE pooled")
    parts = urlsplit(database_url)
    yield urlunsplit(parts._replace(path="/pooled"))
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("DROP DATABASE pooled WITH (FORCE)")


@pytest.fixture(scope="module")
def pooler(direct_url: str) -> Iterator[PgBouncer]:
    """Few connections to the server, so that each serves many clients in turn."""
    with PgBouncer(direct_url, pool_mode="transaction", default_pool_size=3) as pooler:
        yield pooler


@pytest.fixture
def pooled(settings: Settings, direct_url: str, tmp_path: Path) -> Settings:
    changed: dict[str, Any] = {"database_pooled": True, "database_direct_url": SecretStr(direct_url)}
    return settings.model_copy(update=changed | {"data_dir": tmp_path})


@pytest.fixture
async def context(pooler: PgBouncer, pooled: Settings) -> AsyncIterator[WorkerContext]:
    context = await open_context(pooled, pooler.url)
    await context.database.migrate(embedding_model=pooled.embedding_name)
    yield context
    await context.close()


async def test_each_transaction_has_its_settings_whichever_connection_serves_it(context: WorkerContext) -> None:
    async def look() -> tuple[str, ...]:
        async with context.database.for_all().connection() as connection:
            names = "statement_timeout", "hnsw.iterative_scan", "hnsw.ef_search"
            shown = await connection.execute("SELECT " + ", ".join(f"current_setting('{name}')" for name in names))
            found: tuple[str, ...] = await shown.fetchone() or ()
            await connection.execute("SELECT pg_sleep(0.01)")
            return found

    assert set(await asyncio.gather(*[look() for _ in range(60)])) == {("1min", "relaxed_order", "400")}


async def test_each_transaction_has_its_tenant_whichever_connection_serves_it(context: WorkerContext) -> None:
    who = "SELECT current_user::text AS role, current_setting('ragq.tenant', true) AS tenant, pg_sleep(0.01)::text AS slept"
    tenants = [f"tenant_{number}" for number in range(20)]
    found = await asyncio.gather(*[context.database.for_tenant(tenant).row(who) for tenant in tenants])
    assert found == [{"role": "ragq_tenant", "tenant": tenant, "slept": ""} for tenant in tenants]
    owners = await asyncio.gather(*[context.database.for_all().row(who) for _ in tenants])
    assert owners == [{"role": "ragq", "tenant": owner and owner["tenant"], "slept": ""} for owner in owners]

    async def fail() -> None:
        async with context.database.for_tenant("default").transaction() as connection:
            await connection.execute("INSERT INTO vector_stores (id, tenant_id) VALUES ('vs_undone', 'default')")
            await connection.execute("SELECT 1 / 0")

    with pytest.raises(psycopg.errors.DivisionByZero):
        await fail()
    assert await context.database.for_all().row("SELECT FROM vector_stores WHERE id = 'vs_undone'") is None


async def test_documents_are_ingested_and_found_and_the_index_is_built(context: WorkerContext) -> None:
    record = await attach(context, "The tide tables of Brightsea are printed each March.\n")
    assert await ingest(context, record) == "completed"
    store = record.vector_store_id
    scope = await context.chunks.find_scope("default", [store], "tide tables", None)
    vector = await context.embedding.embed_query("tide tables")
    found = await asyncio.gather(*[context.chunks.search(scope, vector, limit=3) for _ in range(30)])
    assert all("Brightsea" in results[0].text for results in found)
    assert await make_index(context.database, above=0)
    async with context.database.session() as connection:
        valid = await connection.execute(
            "SELECT indisvalid FROM pg_index WHERE indexrelid = 'chunks_by_embedding'::regclass"
        )
        assert await valid.fetchone() == (True,)


async def test_only_one_process_works_on_a_batch(context: WorkerContext) -> None:
    batches = Batches(context.database)
    async with (
        batches.lock("batch_1") as is_ours,
        batches.lock("batch_1") as is_theirs,
        batches.lock("batch_2") as other,
    ):
        assert (is_ours, is_theirs, other) == (True, False, True)
    async with batches.lock("batch_1") as again:
        assert again


@pytest.mark.parametrize("options", [{}, {"ignore_startup_parameters": "options"}], ids=["refuses", "ignores"])
async def test_a_pooler_that_was_not_named_is_noticed(
    settings: Settings, direct_url: str, options: dict[str, Any]
) -> None:
    with PgBouncer(direct_url, pool_mode="transaction", **options) as pooler:
        database = await Database.open(settings, pooler.url, connections=1)
        try:
            with pytest.raises(ConfigurationError, match="RAGQ_DATABASE_POOLED=true"):
                await database.migrate(embedding_model=settings.embedding_name)
        finally:
            await database.close()


def test_a_pooler_without_a_direct_url_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGQ_DATABASE_POOLED", "true")
    read_settings.cache_clear()
    with pytest.raises(ConfigurationError, match="RAGQ_DATABASE_DIRECT_URL"):
        read_settings()
    read_settings.cache_clear()


@pytest.mark.timeout(120)
def test_a_whole_service_works_behind_it(direct_url: str, tmp_path: Path) -> None:
    with PgBouncer(direct_url, pool_mode="transaction", default_pool_size=40) as pooler:
        ragq = Ragq(
            tmp_path / "data",
            RAGQ_DATABASE_URL=pooler.url,
            RAGQ_DATABASE_POOLED="true",
            RAGQ_DATABASE_DIRECT_URL=direct_url,
        ).start()
        try:
            client = OpenAI(base_url=f"{ragq.url}/v1", api_key="unused")
            store = client.vector_stores.create()
            note = ("note.txt", b"The lighthouse of Brightsea was built in 1873.\n")
            added = client.vector_stores.files.upload_and_poll(vector_store_id=store.id, file=note)
            assert added.status == "completed", added.last_error
            tools: Any = [{"type": "file_search", "vector_store_ids": [store.id]}]
            asked = [
                client.responses.create(
                    model="ragq", input="When was the lighthouse built?", tools=tools, background=True
                )
                for _ in range(20)
            ]

            def is_answered(id_: str) -> bool:
                found = client.responses.retrieve(id_)
                return found.status == "completed" and "1873" in found.output_text

            wait_until(lambda: all(is_answered(one.id) for one in asked), seconds=30, what="20 answers")
            assert httpx2.get(f"{ragq.url}/readyz").status_code == 200
        finally:
            ragq.stop()
