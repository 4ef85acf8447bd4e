"""Which process removes a deleted tenant, and that a new tenant of the same name is left alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import datetime
from pathlib import Path

import pytest
from pydantic import SecretStr

from ragq.client.rq_client import JobQueue
from ragq.context import Context
from ragq.errors import TransientError
from ragq.queues.upkeep.tenant_removal import remove_tenant
from ragq.settings import Settings
from ragq.storage.blobs import BlobStore
from ragq.storage.database import Database
from ragq.storage.tenancy import tenant_data
from tests.integration.test_tenant_removal import ACME, left, save
from tests.queue_steps import new_job
from tests.servers import Valkey


@pytest.fixture
async def full(
    settings: Settings, valkey: Valkey, database: Database, database_url: str, tmp_path: Path
) -> AsyncIterator[Context]:
    """A service with the tenant acme, which has a file."""
    with valkey.connect() as connection:
        connection.flushall()
    urls = {"valkey_url": SecretStr(valkey.url), "database_url": SecretStr(database_url), "data_dir": tmp_path}
    settings = settings.model_copy(update=urls)
    queue = JobQueue(settings, valkey.url)
    context = Context(settings=settings, queue=queue, database=database, blobs=BlobStore(settings))
    async for _ in remove_tenant(context, ACME):  # of other tests
        pass
    await context.tenants.create(ACME)
    await queue.tenant_jobs.open(ACME)
    await save(context, ACME, b"of the old tenant")
    yield context
    await queue.close()


async def delete(context: Context) -> datetime:
    """Mark the tenant deleted; returns when that was."""
    deleted_at = (await context.tenants.mark_deleted(ACME)).deleted_at
    assert deleted_at
    return deleted_at


async def test_one_process_at_a_time_removes_a_tenant(full: Context) -> None:
    deleted_at = await delete(full)
    async with aclosing(remove_tenant(full, ACME, deleted_at)) as steps:
        await anext(steps)
        assert [removed async for removed in remove_tenant(full, ACME, deleted_at)] == []
        assert [removed async for removed in steps]
    assert await left(full) == []


async def test_a_late_removal_leaves_a_new_tenant_of_the_same_name_alone(full: Context) -> None:
    deleted_at = await delete(full)
    assert [removed async for removed in remove_tenant(full, ACME, deleted_at)]
    await full.tenants.create(ACME)
    await full.queue.tenant_jobs.open(ACME)
    file_id = await save(full, ACME, b"of the new tenant")
    assert [removed async for removed in remove_tenant(full, ACME, deleted_at)] == []
    await full.queue.enqueue(new_job("new", tenant_id=ACME))
    assert (await full.files.get(ACME, file_id)).id == file_id
    assert not (await full.tenants.get(ACME)).suspended_at

    await delete(full)
    assert [removed async for removed in remove_tenant(full, ACME, deleted_at)] == []
    assert await full.files.get(ACME, file_id)


async def test_a_removal_ends_when_the_tenant_is_another(full: Context) -> None:
    """As when PostgreSQL has ended the connection that kept others from it."""
    deleted_at = await delete(full)
    async with aclosing(remove_tenant(full, ACME, deleted_at)) as steps:
        await anext(steps)
        async with full.database.for_all().connection() as connection:
            await connection.execute("UPDATE tenants SET deleted_at = NULL WHERE id = %s", [ACME])
        before = await left(full)
        assert [removed async for removed in steps] == []
    assert await left(full) == before


async def test_a_removal_does_not_stand_still_behind_a_transaction_that_lasts(
    full: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tenant_data, "LOCK_SECONDS", 0.2)
    deleted_at = await delete(full)
    async with full.database.session() as connection, connection.transaction():
        await connection.execute("SELECT FROM vector_stores WHERE tenant_id = %s FOR UPDATE", [ACME])
        with pytest.raises(TransientError, match="PostgreSQL cancelled a statement"):
            [removed async for removed in remove_tenant(full, ACME, deleted_at)]
    assert [removed async for removed in remove_tenant(full, ACME, deleted_at)]
    assert await left(full) == []
