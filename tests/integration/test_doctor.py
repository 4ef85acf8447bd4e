"""`ragq doctor`: what it says of a healthy service, of each thing that is missing, and of each kind of orphan."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from pydantic import SecretStr

from ragq import doctor
from ragq.client import queue_audit
from ragq.client.job import Outcome, lanes_of
from ragq.client.queue_audit import audit_queue
from ragq.client.rq_client import JobQueue
from ragq.models import Orphan, QueueName
from ragq.queues.documents import document_job_id, enqueue_document
from ragq.queues.running import WorkerContext
from ragq.settings import Settings
from ragq.storage.blobs import BlobStore
from ragq.storage.store_files import StoreFileRecord
from ragq.tasks import end_tasks
from tests.fake_llm import Behaviour, running_fake_llm
from tests.ingests import CRASHED, TENANT, attach, fail, ingest, make_older
from tests.queue_steps import BAD, DONE, new_job
from tests.servers import Ragq, Valkey, command, environment, run

QUERIES = lanes_of(QueueName.QUERIES)


@pytest.fixture
def configured(settings: Settings, valkey: Valkey, database_url: str, tmp_path: Path) -> Settings:
    """Settings as a whole service has them."""
    return settings.model_copy(
        update={
            "valkey_url": SecretStr(valkey.url),
            "database_url": SecretStr(database_url),
            "data_dir": tmp_path,
        }
    )


async def examine(settings: Settings) -> dict[str, doctor.Finding]:
    return {finding.check: finding for finding in await doctor.examine(settings)}


# Checks


async def test_a_healthy_service_passes_every_check(
    configured: Settings, queue: JobQueue, context: WorkerContext
) -> None:
    for name in QueueName:
        await queue.monitor.register_worker(f"worker of {name}", {"queues": name, "in_flight": 0}, [name])
    async with running_fake_llm() as fake:
        llm = {"llm_base_url": fake.base_url, "llm_model": "fake"}
        found = await examine(configured.model_copy(update=llm))
    assert [finding for finding in found.values() if not finding.ok] == []
    assert found["llm"].message == "The endpoint lists its models."
    assert await context.blobs.list_names() == []


async def test_a_queue_without_a_worker_fails_and_names_the_command(
    configured: Settings, queue: JobQueue, context: WorkerContext
) -> None:
    assert context
    await queue.monitor.register_worker("w1", {"queues": "queries", "in_flight": 3}, ["queries"])
    found = await examine(configured)
    assert found["queries workers"] == doctor.Finding("queries workers", ok=True, message="1 alive, 3 jobs in flight.")
    assert not found["documents workers"].ok
    assert "`ragq worker documents`" in found["documents workers"].message


async def test_servers_that_are_away_fail_each_alone(configured: Settings, queue: JobQueue, tmp_path: Path) -> None:
    assert queue
    away = f"unix://{tmp_path}/nowhere.sock"
    found = await examine(configured.model_copy(update={"valkey_url": SecretStr(away)}))
    assert "correct RAGQ_VALKEY_URL" in found["valkey"].message
    assert {name for name, finding in found.items() if not finding.ok} == {
        "valkey",
        "queries workers",
        "documents workers",
    }
    nowhere = SecretStr(f"postgresql:///ragq?host={tmp_path}")
    found = await examine(configured.model_copy(update={"database_url": nowhere}))
    assert "correct RAGQ_DATABASE_URL" in found["postgresql"].message
    assert found["valkey"].ok


async def test_an_unsafe_valkey_fails_with_what_to_change(
    configured: Settings, queue: JobQueue, valkey: Valkey
) -> None:
    assert queue
    with valkey.connect() as connection:
        connection.config_set("appendfsync", "everysec")
        try:
            found = await examine(configured)
        finally:
            connection.config_set("appendfsync", "always")
    assert "appendfsync is everysec, not always" in found["valkey"].message


async def test_a_database_without_migrations_fails_with_the_command(
    configured: Settings, context: WorkerContext, queue: JobQueue
) -> None:
    assert queue
    async with context.database.for_all().connection() as connection:
        await connection.execute("DELETE FROM migrations WHERE name = '0003_poison.sql'")
        try:
            found = await examine(configured)
        finally:
            await connection.execute("INSERT INTO migrations VALUES ('0003_poison.sql')")
    assert "`ragq migrate`" in found["postgresql"].message


async def test_a_blob_store_that_takes_nothing_fails(configured: Settings, queue: JobQueue, tmp_path: Path) -> None:
    assert queue
    BlobStore(configured)
    (tmp_path / "files").rmdir()
    (tmp_path / "files").write_text("a file where a folder should be")
    found = await examine(configured)
    assert not found["blob store"].ok
    assert "RAGQ_BLOB_URL" in found["blob store"].message


@pytest.mark.parametrize(
    ("path", "words"), [("/v1", "lists"), ("", "often ends in /v1"), ("refused", "RAGQ_LLM_BASE_URL")]
)
async def test_the_llm_endpoint_is_asked_for_its_models(
    configured: Settings, queue: JobQueue, path: str, words: str
) -> None:
    assert queue
    async with running_fake_llm(Behaviour()) as fake:
        base = "http://127.0.0.1:9" if path == "refused" else fake.base_url.removesuffix("/v1") + path
        found = await examine(configured.model_copy(update={"llm_base_url": base, "llm_model": "fake"}))
    assert found["llm"].ok == (path == "/v1")
    assert words in found["llm"].message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "vectors of 384 numbers"),
        ({"embedding_dimensions": 256}, "RAGQ_EMBEDDING_DIMENSIONS=384"),
        ({"embedding_model": "fake?status=401"}, "RAGQ_EMBEDDING_API_KEY"),
        ({"embedding_base_url": "http://127.0.0.1:9/v1"}, "RAGQ_EMBEDDING_BASE_URL"),
        ({"embedding_base_url": "127.0.0.1"}, "RAGQ_EMBEDDING_BASE_URL"),
    ],
)
async def test_the_embedding_endpoint_embeds_a_probe(
    configured: Settings, queue: JobQueue, changes: dict[str, object], words: str
) -> None:
    assert queue
    async with running_fake_llm(Behaviour()) as fake:
        endpoint = {"embedding_base_url": fake.base_url, "embedding_model": "fake"}
        found = await examine(configured.model_copy(update=endpoint | changes))
    assert found["embedding"].ok == (not changes)
    assert words in found["embedding"].message


# Orphans in Valkey


async def enqueue(queue: JobQueue, job_id: str) -> None:
    await queue.enqueue(new_job(job_id))


async def claim(queue: JobQueue) -> int:
    """Claim one job; returns its attempt."""
    return (await queue.claim("w1", [(QUERIES[1], 1)], in_flight=0)).jobs[0].attempt


@pytest.fixture
async def busy(queue: JobQueue, valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[redis.Redis]:
    """A queue with a job in each state, named by it, and a connection to it."""
    monkeypatch.setattr(queue_audit, "RECHECK_SECONDS", 0.1)
    for job_id in ("finished", "failed", "scheduled", "started"):
        await enqueue(queue, job_id)
        attempt = await claim(queue)
        if job_id == "finished":
            await queue.commit("w1", [Outcome(job_id, attempt, DONE)])
        elif job_id == "failed":
            await queue.commit("w1", [Outcome(job_id, attempt, BAD)])
        elif job_id == "scheduled":
            await queue.retry_later(job_id, attempt, delay_seconds=60)
    await enqueue(queue, "queued")
    with valkey.connect() as connection:
        yield connection


async def test_a_queue_in_order_has_no_orphans(busy: redis.Redis, settings: Settings, valkey: Valkey) -> None:
    assert busy
    assert await audit_queue(settings, valkey.url) == []


PLANTED: list[tuple[str, str, Callable[[redis.Redis], object]]] = [
    ("queued_in_no_list", "queued", lambda valkey: valkey.delete("ragq:queue:queries")),
    ("stale_list_entry", "gone", lambda valkey: valkey.rpush("ragq:queue:queries", "gone")),
    ("stale_list_entry", "finished", lambda valkey: valkey.rpush("ragq:queue:queries", "finished")),
    ("started_without_lease", "started", lambda valkey: valkey.zrem("ragq:leases", "started")),
    ("stale_lease", "finished", lambda valkey: valkey.zadd("ragq:leases", {"finished": 1})),
    ("stale_lease", "gone", lambda valkey: valkey.zadd("ragq:leases", {"gone": 1})),
    ("scheduled_not_delayed", "scheduled", lambda valkey: valkey.zrem("ragq:delayed", "scheduled")),
    ("stale_in_flight_entry", "failed:1", lambda valkey: valkey.zadd("ragq:wip:queries", {"failed:1": 1})),
    ("stale_in_flight_entry", "started:7", lambda valkey: valkey.zadd("ragq:wip:queries", {"started:7": 1})),
    ("stale_bytes", "failed", lambda valkey: valkey.hset("ragq:bytes", "failed", "0:queries")),
    ("stale_bytes", "gone", lambda valkey: valkey.hset("ragq:bytes", "gone", "0:queries")),
    ("wrong_queued_bytes", "queries", lambda valkey: valkey.hincrby("ragq:queued_bytes", "queries", -1)),
    ("wrong_queued_bytes", "queries.flex", lambda valkey: valkey.hset("ragq:queued_bytes", "queries.flex", 1)),
    ("list_without_turn", "queries", lambda valkey: valkey.delete("ragq:ring:queries")),
    ("turn_without_jobs", "queries.flex", lambda valkey: valkey.zadd("ragq:ring:queries.flex", {"queries.flex": 0})),
    ("uneven_turns", "queries default", lambda valkey: valkey.zadd("ragq:ring:queries.flex", {"queries.flex": 5})),
    ("finished_without_one_result", "finished", lambda valkey: valkey.delete("ragq:results:finished")),
    ("finished_without_one_result", "finished", lambda valkey: valkey.xadd("ragq:results:finished", {"type": 1})),
    (
        "unreadable_job",
        "queued",
        lambda valkey: valkey.delete("ragq:job:queued") and valkey.set("ragq:job:queued", "x"),
    ),
]


@pytest.mark.parametrize(("kind", "orphan_id", "plant"), PLANTED)
async def test_an_orphan_in_valkey_is_found_and_named(
    busy: redis.Redis,
    settings: Settings,
    valkey: Valkey,
    kind: str,
    orphan_id: str,
    plant: Callable[[redis.Redis], object],
) -> None:
    before = {key: busy.dump(key) for key in busy.scan_iter()}
    assert await audit_queue(settings, valkey.url) == []
    assert {key: busy.dump(key) for key in busy.scan_iter()} == before
    plant(busy)
    found = await audit_queue(settings, valkey.url)
    assert (kind, orphan_id) in [(orphan.kind, orphan.id) for orphan in found]
    assert {orphan.kind for orphan in found} <= {kind, "stale_list_entry", "turn_without_jobs"}
    assert all(orphan.harmless == orphan.meaning.startswith("Harmless: ") for orphan in found)


def test_every_kind_of_orphan_in_valkey_is_planted() -> None:
    assert {kind for kind, _, _ in PLANTED} == set(queue_audit.KINDS)


async def test_a_list_whose_tenant_is_full_needs_no_turn_while_a_job_of_it_runs(
    busy: redis.Redis, queue: JobQueue, settings: Settings, valkey: Valkey
) -> None:
    await queue.tenant_jobs.set_shares({"acme": (1, 1)})
    for job_id in ("first", "second"):
        await queue.enqueue(new_job(job_id, tenant_id="acme"))
    (job,) = [job for job in (await queue.claim("w1", [(QUERIES[1], 9)], in_flight=1)).jobs if job.tenant_id == "acme"]
    assert busy.zscore("ragq:ring:queries", "queries@acme") is None
    assert await audit_queue(settings, valkey.url) == []
    busy.zrem("ragq:wip:queries@acme", f"{job.id}:{job.attempt}")
    assert ("list_without_turn", "queries@acme") in [
        (orphan.kind, orphan.id) for orphan in await audit_queue(settings, valkey.url)
    ]


async def test_an_answer_after_a_requeued_failure_is_one_answer(
    busy: redis.Redis, settings: Settings, valkey: Valkey
) -> None:
    busy.xadd("ragq:results:finished", {"type": 2})
    assert await audit_queue(settings, valkey.url) == []


async def test_a_queue_that_moves_all_the_time_audits_clean(
    queue: JobQueue, settings: Settings, valkey: Valkey
) -> None:
    moved = 0

    async def move() -> None:
        nonlocal moved
        while True:
            for number in range(moved, moved + 30):
                await enqueue(queue, f"moving{number}")
            jobs = (await queue.claim("w1", [(QUERIES[1], 60)], in_flight=0)).jobs
            await queue.release([(job.id, job.attempt) for job in jobs[:5]])
            await queue.commit("w1", [Outcome(job.id, job.attempt, DONE) for job in jobs[5:]])
            moved += 30

    moving = asyncio.create_task(move())
    found: list[Orphan] = []
    for _ in range(3):
        found += await audit_queue(settings, valkey.url)
    assert not moving.done(), moving
    await end_tasks([moving])
    assert found == []
    assert moved > 100


# Orphans in PostgreSQL and the blob store


async def lose_bytes(context: WorkerContext, _: JobQueue, record: StoreFileRecord) -> str:
    await context.blobs.delete(record.sha256)
    return record.file_id


async def leave_bytes(context: WorkerContext, _: JobQueue, record: StoreFileRecord) -> str:
    await context.files.delete(TENANT, record.file_id)
    return record.sha256


async def lose_a_chunk(context: WorkerContext, _: JobQueue, record: StoreFileRecord) -> str:
    async with context.database.for_all().connection() as connection:
        await connection.execute("DELETE FROM chunks WHERE file_id = %s", [record.file_id])
    return f"{record.vector_store_id}/{record.file_id}"


async def lose_the_enqueue(context: WorkerContext, _: JobQueue, _record: StoreFileRecord) -> str:
    record = await attach(context, "other words", filename="other.txt")
    await make_older(context)
    return f"{record.vector_store_id}/{record.file_id}"


async def cancel_the_job(context: WorkerContext, queue: JobQueue, _record: StoreFileRecord) -> str:
    record = await attach(context, "other words", filename="other.txt")
    await enqueue_document(queue, context.settings, record)
    await queue.cancel(document_job_id(record))
    await make_older(context)
    return f"{record.vector_store_id}/{record.file_id}"


@pytest.mark.parametrize(
    ("kind", "plant"),
    [
        ("bytes_missing", lose_bytes),
        ("bytes_without_file", leave_bytes),
        ("wrong_chunk_count", lose_a_chunk),
        ("ingest_without_job", lose_the_enqueue),
        ("ingest_without_job", cancel_the_job),
    ],
)
async def test_an_orphan_in_postgresql_or_the_blob_store_is_found_and_named(
    configured: Settings, context: WorkerContext, queue: JobQueue, kind: str, plant: Any
) -> None:
    record = await attach(context, "words")
    assert await ingest(context, record) == "completed"
    waiting = await attach(context, "waiting words", filename="waiting.txt")
    await enqueue_document(queue, context.settings, waiting)
    (configured.data_dir / "files" / "foreign").write_text("not ours")
    await make_older(context)
    assert await doctor.find_orphans(configured) == []
    orphan_id = await plant(context, queue, record)
    assert [(orphan.kind, orphan.id) for orphan in await doctor.find_orphans(configured)] == [(kind, orphan_id)]


async def test_uploads_and_deletes_that_go_on_are_no_orphans(
    configured: Settings, context: WorkerContext, queue: JobQueue
) -> None:
    assert queue

    async def come_and_go() -> None:
        number = 0
        while True:
            number += 1
            text = f"words {number}"
            record = await attach(context, text, filename=f"{number}.txt")
            async with context.files.locked_bytes(record.sha256):
                await context.files.delete(TENANT, record.file_id)
                await context.blobs.delete(record.sha256)

    moving = asyncio.create_task(come_and_go())
    found = [await doctor.find_orphans(configured) for _ in range(10)]
    assert not moving.done(), moving
    await end_tasks([moving])
    assert found == [[]] * 10


# The command


def test_a_service_that_has_worked_is_healthy_and_audits_clean(ragq: Ragq) -> None:
    assert "noon" in ragq.run("ask", "When does the ferry leave?").stdout
    done = ragq.run("doctor", "--audit", "--json")
    assert done.returncode == 0, done.stdout
    shown = json.loads(done.stdout)
    assert shown["orphans"] == []
    assert {check["check"] for check in shown["checks"]} == {
        *("settings", "valkey", "postgresql", "tenant wall", "blob store", "queries workers", "documents workers"),
        *("llm", "embedding", "reranker", "ocr", "audit"),
    }


def test_an_orphan_fails_the_command_and_a_harmless_one_does_not(ragq: Ragq) -> None:
    stray = ragq.folder / "files" / ("0" * 64)
    stray.write_text("bytes that no file names")
    done = ragq.run("doctor", "--audit")
    stray.unlink()
    assert done.returncode == 1
    assert f"FAIL  bytes_without_file {'0' * 64}: No file uses these bytes" in done.stdout
    with redis.Redis.from_url(ragq.services["valkey_url"]) as connection:
        connection.zadd("ragq:wip:queries", {"gone:1": 1})
        done = ragq.run("doctor", "--audit")
        connection.zrem("ragq:wip:queries", "gone:1")
    assert done.returncode == 0, done.stdout
    assert "note  stale_in_flight_entry gone:1: Harmless: " in done.stdout


def test_without_a_service_the_settings_fail_with_what_to_do(tmp_path: Path) -> None:
    done = run(*command("doctor"), env=environment(RAGQ_DATA_DIR=tmp_path), cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout.startswith("FAIL  settings: No ragq runs in the data folder")


async def test_forgive_lifts_poison_and_only_poison(
    configured: Settings, context: WorkerContext, queue: JobQueue, valkey: Valkey, database_url: str
) -> None:
    assert queue
    record = await attach(context, "poison")
    await fail(context, record, CRASHED)
    variables = environment(
        RAGQ_VALKEY_URL=valkey.url, RAGQ_DATABASE_URL=database_url, RAGQ_DATA_DIR=configured.data_dir
    )

    def forgive(sha256: str) -> subprocess.CompletedProcess[str]:
        return run(*command("doctor", "--forgive", sha256), env=variables)

    assert (await asyncio.to_thread(forgive, record.sha256)).returncode == 0
    assert (await attach(context, "poison")).status == "in_progress"
    again = await asyncio.to_thread(forgive, record.sha256)
    assert (again.returncode, "nothing to forgive" in again.stderr) == (4, True)
