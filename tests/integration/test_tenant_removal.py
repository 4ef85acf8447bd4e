"""Deleting a tenant: nothing of it is left anywhere, others keep everything, and a removal that was killed is completed."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
import redis
from pydantic import SecretStr

from ragq import doctor
from ragq.client.job import Outcome
from ragq.client.rq_client import JobQueue
from ragq.context import Context
from ragq.errors import InvalidRequestError, NotFoundError, OverloadedError
from ragq.models import DEFAULT_TENANT, Lane, Question, QueueName, new_id
from ragq.queues.questions import ask
from ragq.queues.upkeep.housekeeping import archive_ended
from ragq.queues.upkeep.tenant_removal import Removed, remove_tenant
from ragq.records import Request, TextAdded
from ragq.settings import Settings
from ragq.storage.blobs import BlobStore
from ragq.storage.database import Database
from ragq.storage.ingests import Attachment
from ragq.storage.paging import Page
from ragq.storage.tenancy.audit_log import SERVICE, Entry, EntryFilter
from ragq.storage.uploads import blob_of
from ragq.storage.webhooks import Event, add_deliveries
from tests.queue_steps import BAD, claim, finish, new_job
from tests.servers import KEY, FakeLlm, Ragq, Valkey, environment, run, wait_until

ACME = "acme"
SHARED = b"# Shared\n\nBoth tenants have these bytes.\n"
LARGE = "why? " * 10_000
CHUNK = """
    INSERT INTO chunks (vector_store_id, file_id, ordinal, tenant_id, start_offset, end_offset, token_count, text, embedding)
    VALUES (%s, %s, 0, %s, 0, 5, 2, 'words', array_fill(0.1::real, ARRAY[384])::vector::halfvec)"""
KILLED = """
import asyncio, os, signal, sys
from pydantic import SecretStr
from ragq.client.rq_client import JobQueue
from ragq.context import Context
from ragq.queues.upkeep.tenant_removal import remove_tenant
from ragq.settings import Settings
from ragq.storage.blobs import BlobStore
from ragq.storage.database import Database

async def main(valkey_url, database_url, data_dir, steps):
    settings = Settings(_env_file=None, data_dir=data_dir)
    database = await Database.open(settings, database_url)
    context = Context(
        settings=settings, queue=JobQueue(settings, valkey_url), database=database, blobs=BlobStore(settings)
    )
    async for _ in remove_tenant(context, "acme"):
        steps -= 1
        if steps == 0:
            os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main(*sys.argv[1:4], int(sys.argv[4])))
"""


@pytest.fixture
def configured(settings: Settings, valkey: Valkey, database_url: str, tmp_path: Path) -> Settings:
    """Settings as a whole service has them."""
    urls = {"valkey_url": SecretStr(valkey.url), "database_url": SecretStr(database_url), "data_dir": tmp_path}
    return settings.model_copy(update=urls)


@pytest.fixture
async def context(
    configured: Settings, valkey: Valkey, database: Database, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Context]:
    """An empty Valkey, database and blob store, with the tenant acme."""
    monkeypatch.setattr(doctor, "RECHECK_SECONDS", 0.01)
    with valkey.connect() as connection:
        connection.flushall()
    queue = JobQueue(configured, valkey.url)
    await add_tenant(database)
    yield Context(settings=configured, queue=queue, database=database, blobs=BlobStore(configured))
    await queue.close()


async def add_tenant(database: Database) -> None:
    async with database.for_all().connection() as connection:
        await connection.execute("INSERT INTO tenants (id) VALUES (%s) ON CONFLICT DO NOTHING", [ACME])


async def save(context: Context, tenant: str, data: bytes) -> str:
    """Upload a file and put it into the tenant's default store, with one chunk; returns its id."""
    sha256 = hashlib.sha256(data).hexdigest()
    async with context.files.locked_bytes(sha256):
        await context.blobs.put(sha256, io.BytesIO(data))
        file = await context.files.create(tenant, filename="a.md", purpose="assistants", size=len(data), sha256=sha256)
    store = await context.stores.default_id(tenant)
    await context.file_batches.create(tenant, store, [Attachment(file.id)])
    async with context.database.for_all().connection() as connection:
        await connection.execute(CHUNK, [store, file.id, tenant])
        await connection.execute("UPDATE vector_store_files SET chunk_count = 1 WHERE file_id = %s", [file.id])
        await connection.execute("INSERT INTO poison VALUES (%s, 'x', 'x') ON CONFLICT DO NOTHING", [sha256])
    return file.id


async def put_jobs(context: Context, tenant: str) -> None:
    """Jobs in every state; those that have ended last are not in the archive yet."""
    queue = context.queue
    for n, state in enumerate(("archived", "finished", "failed", "scheduled", "canceled", "started")):
        how = {"tenant_id": tenant, "archive": True, "request": Request(input=LARGE if n % 2 else "why?")}
        await queue.enqueue(new_job(f"{state}-of-{tenant}s", **how))
        if state == "canceled":
            await queue.cancel(f"{state}-of-{tenant}s")
            continue
        job = next(job for job in await claim(queue) if job.id == f"{state}-of-{tenant}s")
        await queue.append([(job.id, job.attempt, 1, [TextAdded("one ")])])
        if state in ("archived", "finished"):
            await finish(queue, job)
        elif state == "failed":
            await queue.commit("w1", [Outcome(job.id, job.attempt, BAD)])
        elif state == "scheduled":
            await queue.retry_later(job.id, job.attempt, delay_seconds=60)
        if state == "archived":
            await archive_ended(context)
    for lane in Lane:
        how = {"tenant_id": tenant, "lane": lane, "fingerprint": "f" * 64, "is_repeat": False}
        await queue.enqueue(new_job(f"{lane}-of-{tenant}s", **how))
    await queue.enqueue(new_job(f"document-of-{tenant}s", tenant_id=tenant, queue=QueueName.DOCUMENTS))


async def put_rows(context: Context, tenant: str) -> None:
    """Something in every table, and bytes of every kind in the blob store."""
    await save(context, tenant, SHARED)
    file_id = await save(context, tenant, tenant.encode())
    upload = await context.uploads.create(tenant, filename="b.md", purpose="assistants", size=3, file_seconds=None)
    await context.blobs.put(blob_of(upload.id, "part_1" + tenant), io.BytesIO(b"abc"))
    await context.uploads.add_part(tenant, upload.id, "part_1" + tenant, 3)
    conversation = await context.conversations.create(
        tenant, metadata={}, items=[(new_id("msg_"), {"type": "message"})]
    )
    await context.conversations.open_response(tenant, conversation.id, f"resp_of_{tenant}")
    batch = await context.batches.create(
        tenant,
        input_file_id=file_id,
        endpoint="/v1/responses",
        completion_window="24h",
        window_seconds=60,
        metadata=None,
    )
    await context.webhooks.create_endpoint(tenant, url="http://127.0.0.1:9", events=[], description=None)
    async with context.database.for_all().connection() as connection:
        await connection.execute("INSERT INTO batch_lines (batch_id, line, request) VALUES (%s, 1, '{}')", [batch.id])
        await connection.execute(
            "INSERT INTO api_keys (id, tenant_id, name, role, sha256, hint) VALUES (%s, %s, 'k', 'user', %s, 'k')"
            " ON CONFLICT DO NOTHING",
            [f"key_of_{tenant}", tenant, tenant.encode()],
        )
        await context.audit_log.add(Entry(SERVICE, "key.created", tenant, f"key_of_{tenant}"))
        await add_deliveries(connection, [Event(tenant, "response.completed", f"resp_of_{tenant}", 1.0)])


@pytest.fixture
async def full(context: Context) -> Context:
    """Two tenants that have the same of everything."""
    for tenant in (DEFAULT_TENANT, ACME):
        await put_rows(context, tenant)
        await put_jobs(context, tenant)
    return context


async def remove(context: Context) -> list[Removed]:
    return [removed async for removed in remove_tenant(context, ACME)]


async def left(context: Context, tenant: str = ACME) -> list[tuple[str, str]]:
    return [(orphan.kind, orphan.id) for orphan in await doctor.find_left_of(context.settings, tenant)]


def without_log(found: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(kind, id_) for kind, id_ in found if not id_.startswith("audit_log:")]


async def test_nothing_of_a_tenant_is_left_and_the_other_keeps_everything(full: Context) -> None:
    async with full.database.for_all().connection() as connection:
        rows = await (await connection.execute("SELECT table_name FROM information_schema.tables")).fetchall()
    tables = {row[0] for row in rows}
    before, other = await left(full), without_log(await left(full, DEFAULT_TENANT))
    counted = {id_.partition(":")[0] for kind, id_ in before if kind == "row_of_tenant"}
    assert counted >= {name for name in tables if name.startswith(("vector_", "webhook", "batch", "upload", "convers"))}
    assert counted >= {"tenants", "api_keys", "audit_log", "files", "chunks", "responses"}
    keys = {id_ for kind, id_ in before if kind == "key_of_tenant"}
    assert {"ragq:queue:queries@acme", f"ragq:recent:acme:{'f' * 64}", "ragq:job:started-of-acmes"} <= keys
    bytes_before = set(await full.blobs.list_names())

    await remove(full)

    assert await left(full) == []
    assert without_log(await left(full, DEFAULT_TENANT)) == other
    entries = await full.audit_log.list_entries(DEFAULT_TENANT, Page(limit=1), EntryFilter())
    assert [(entry.action, entry.object_id) for entry in entries[:1]] == [("tenant.removed", ACME)]
    await remove(full)
    assert await full.audit_log.list_entries(DEFAULT_TENANT, Page(limit=1), EntryFilter()) == entries, "once"
    gone = bytes_before - set(await full.blobs.list_names())
    assert len(gone) == 5, "a file's bytes, a part of an upload and three large requests"
    assert hashlib.sha256(ACME.encode()).hexdigest() in gone
    assert hashlib.sha256(SHARED).hexdigest() not in gone
    assert await full.files.find_poison(hashlib.sha256(SHARED).hexdigest())
    assert await full.files.find_poison(hashlib.sha256(ACME.encode()).hexdigest()) is None


async def test_a_removal_may_be_repeated_and_the_default_tenant_is_refused(full: Context) -> None:
    await remove(full)
    assert await remove(full) == []
    with pytest.raises(InvalidRequestError, match="cannot be deleted"):
        await anext(remove_tenant(full, DEFAULT_TENANT))
    assert await left(full, DEFAULT_TENANT)


@pytest.mark.parametrize("steps", [1, 3, 5, 9, 14])
async def test_a_removal_that_is_killed_is_completed_by_the_next(
    full: Context, valkey: Valkey, database_url: str, steps: int
) -> None:
    where = [valkey.url, database_url, str(full.settings.data_dir), str(steps)]
    done = await asyncio.to_thread(run, sys.executable, "-c", KILLED, *where, env=environment())
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert "tenants" in {id_.partition(":")[0] for _, id_ in await left(full)}
    await wait_for_claim(full)
    await remove(full)
    assert await left(full) == []


async def wait_for_claim(context: Context) -> None:
    """Wait until PostgreSQL has noticed that the process is gone which removed the tenant."""
    async with context.database.for_all().connection() as connection:
        await connection.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", [f"removal of {ACME}"])
        await connection.execute("SELECT pg_advisory_unlock_all()")


async def test_what_is_done_while_a_removal_runs_leaves_nothing(full: Context) -> None:
    await full.queue.enqueue(new_job("late", tenant_id=ACME, archive=True))
    job = next(job for job in await claim(full.queue) if job.id == "late")
    await full.queue.commit("w1", [Outcome(job.id, job.attempt, BAD)])
    ended = await full.queue.unarchived(100)
    started = await full.queue.fetch("started-of-acmes", ACME)
    assert started
    assert ACME in {job.tenant_id for job in ended}
    steps = remove_tenant(full, ACME)
    await anext(steps)
    assert not (await full.queue.commit("w1", [Outcome(started.id, started.attempt, BAD)]))[0]
    with pytest.raises(OverloadedError, match="is being deleted"):
        await full.queue.enqueue(new_job("new", tenant_id=ACME))
    behind = 20
    async for _ in steps:  # processes that are behind write at every step, but not for ever
        if behind := max(0, behind - 1):
            await full.archive.store(ended)
            await full.archive.delete("resp_x", ACME)
    await full.archive.store(ended)
    await full.archive.delete("resp_x", ACME)
    with pytest.raises(OverloadedError):
        await full.queue.enqueue(new_job("new", tenant_id=ACME))
    with pytest.raises(NotFoundError):
        await full.files.create(ACME, filename="a", purpose="batch", size=1, sha256="0" * 64)
    assert await left(full) == []


async def test_a_row_that_comes_in_before_the_end_is_removed_too(full: Context) -> None:
    late = list[str]()
    async for removed in remove_tenant(full, ACME):
        if removed.what == "responses" and not late:  # the last table: the files have gone
            late.append(await save(full, ACME, b"late"))
    assert late
    assert await left(full) == []


async def test_ids_of_another_tenant_reach_nothing_below_the_routes_either(full: Context) -> None:
    conversation = await full.conversations.create(ACME, metadata={}, items=[])
    await full.conversations.open_response(DEFAULT_TENANT, conversation.id, "resp_x")
    assert await full.conversations.list_open(ACME, conversation.id) == []
    upload = await full.uploads.create(ACME, filename="b.md", purpose="assistants", size=3, file_seconds=None)
    await full.uploads.add_part(ACME, upload.id, "part_x", 3)
    file_id = await save(full, DEFAULT_TENANT, b"other")
    assert await full.uploads.list_parts(DEFAULT_TENANT, upload.id) == {}
    await full.uploads.set_file(DEFAULT_TENANT, upload.id, file_id)
    assert list(await full.uploads.list_parts(ACME, upload.id)) == ["part_x"]


PLANTED = {
    "ragq:job:x": lambda valkey: valkey.hset("ragq:job:x", "tenant", ACME),
    "ragq:queue:documents.flex@acme": lambda valkey: valkey.rpush("ragq:queue:documents.flex@acme", "x"),
    "ragq:recent:acme:f": lambda valkey: valkey.set("ragq:recent:acme:f", "x"),
    "ragq:queues ragq:queue:queries@acme": lambda valkey: valkey.sadd("ragq:queues", "ragq:queue:queries@acme"),
    "ragq:ring:queries queries@acme": lambda valkey: valkey.zadd("ragq:ring:queries", {"queries@acme": 1}),
    "ragq:served queries@acme": lambda valkey: valkey.hset("ragq:served", "queries@acme", 1),
    "ragq:unknown acme": lambda valkey: valkey.set("ragq:unknown", ACME),
    "ragq:events:x": lambda valkey: valkey.xadd("ragq:events:x", {"attempt": 1}),
}


@pytest.mark.parametrize("place", PLANTED)
async def test_the_audit_finds_what_is_put_back_into_valkey(context: Context, valkey: Valkey, place: str) -> None:
    await remove(context)
    assert await left(context) == []
    with valkey.connect() as connection:
        PLANTED[place](connection)
    assert ("key_of_tenant", place) in await left(context)


@pytest.mark.parametrize("name", ["0" * 64, "uploads/upload_1.part_1", f"requests/x.{'0' * 16}.{'0' * 64}"])
async def test_the_audit_finds_bytes_without_an_owner(context: Context, name: str) -> None:
    await context.blobs.put(name, io.BytesIO(b"abc"))
    assert ("bytes_without_owner", name) in await left(context)


async def test_the_audit_finds_rows_in_a_table_that_the_removal_does_not_know(context: Context) -> None:
    await remove(context)
    async with context.database.for_all().connection() as connection:
        await connection.execute("CREATE TABLE later (tenant_id text)")
        try:
            await connection.execute("INSERT INTO later VALUES ('acme')")
            await connection.execute("INSERT INTO responses VALUES ('r', 'acme', now(), now())")
            await connection.execute(CHUNK, ["vs", "file", ACME])
            found = await left(context)
        finally:
            await connection.execute("DROP TABLE later")
    assert found == [("row_of_tenant", f"{table}: 1") for table in ("chunks", "later", "responses")]


async def test_a_service_goes_on_while_a_tenant_with_a_running_question_is_removed(tmp_path: Path) -> None:
    with FakeLlm(tmp_path, latency=30) as llm:
        service = Ragq(
            tmp_path / "data", RAGQ_API_KEY=KEY, RAGQ_LLM_BASE_URL=llm.base_url, RAGQ_LLM_MODEL="fake/model"
        ).start()
        try:
            before, after, kept, content, found = await _remove_from(service)
        finally:
            service.end()
    assert before[0] == 1
    assert after == (0, [])
    assert content == SHARED
    assert found == [kept]


Audited = tuple[int, list[dict[str, str]]]


def _audit(service: Ragq) -> Audited:
    """What `ragq doctor` finds of acme: its exit code, and what is left."""
    done = service.run("doctor", "--audit", "--tenant", ACME, "--json")
    return done.returncode, json.loads(done.stdout)["orphans"]


async def _remove_from(service: Ragq) -> tuple[Audited, Audited, str, bytes, list[str]]:
    """Remove acme while its question runs.

    Returns:
        What an audit finds before and after; of the other tenant its file, that file's bytes, and the files that a search finds.
    """
    settings = Settings(_env_file=None, data_dir=service.folder)
    database = await Database.open(settings, service.services["database_url"])
    queue = JobQueue(settings, service.services["valkey_url"])
    context = Context(settings=settings, queue=queue, database=database, blobs=BlobStore(settings))
    await add_tenant(database)
    await save(context, ACME, SHARED)
    kept = await save(context, DEFAULT_TENANT, SHARED)
    await ask(context, ACME, "resp_of_acmes", Question("why?", []), Request(input="why?"))

    def is_running() -> bool:
        with redis.Redis.from_url(service.services["valkey_url"]) as valkey:
            return bool(valkey.hget("ragq:job:resp_of_acmes", "status") == b"started")

    await asyncio.to_thread(wait_until, is_running, what="the question runs")
    before = _audit(service)
    await remove(context)
    after = _audit(service)
    async with httpx2.AsyncClient(
        base_url=f"{service.url}/v1", headers={"Authorization": f"Bearer {KEY}"}, timeout=60
    ) as http:
        content = (await http.get(f"/files/{kept}/content")).content
        found = (await http.post("/vector_stores/default/search", json={"query": "words"})).json()["data"]
    await queue.close()
    await database.close()
    return before, after, kept, content, [one["file_id"] for one in found]
