"""`ragq doctor`: check everything that ragq needs, and audit the stored data."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import click

from ragq.client.embedding_client import create_embedding_client
from ragq.client.llm_client import LlmClient
from ragq.client.queue_audit import audit_queue, find_keys_of
from ragq.client.rerank_client import RerankClient
from ragq.client.rq_client import JobQueue
from ragq.errors import RagqError, UnavailableError
from ragq.http.exposure import check_exposure
from ragq.models import Orphan, QueueName, new_id
from ragq.parsing.ocr import choose_languages, find_tesseract, list_languages
from ragq.queues.upkeep.expiry import find_left_requests, find_unused_requests
from ragq.queues.upkeep.sweeper import find_abandoned
from ragq.rag.synonyms.table import check_synonyms
from ragq.settings import Settings
from ragq.storage.archive import Archive
from ragq.storage.audit import audit_store, count_rows_of, list_unowned_bytes
from ragq.storage.blobs import BlobStore
from ragq.storage.database import Database
from ragq.storage.files import Files
from ragq.storage.store_files import StoreFiles

CHECK_SECONDS = 15.0
MODEL_SECONDS = 5.0
RECHECK_SECONDS = 1.0
LEFT = {
    "row_of_tenant": "PostgreSQL has so many rows of the tenant in this table.",
    "key_of_tenant": "Valkey has this key or entry, which names the tenant or has lost its job.",
    "bytes_without_owner": "No row and no job names these bytes of the blob store. They may have been the tenant's.",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a check; unless `ok`, `message` says what to do."""

    check: str
    ok: bool
    message: str


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All results of the doctor."""

    checks: list[Finding]
    orphans: list[Orphan]

    @property
    def is_healthy(self) -> bool:
        return all(finding.ok for finding in self.checks) and all(orphan.harmless for orphan in self.orphans)


async def diagnose(read: Callable[[], Settings], *, audit: bool, tenant_id: str | None = None) -> Diagnosis:
    """Run all checks and, with `audit`, the audit. Problems are returned as findings, never raised.

    Args:
        read: Reads the settings; its error becomes the first finding.
        tenant_id: Audit what is left of this tenant instead.
    """
    try:
        settings = read()
        check_exposure(settings)
        check_synonyms(settings.synonyms)
    except RagqError as error:
        return Diagnosis([Finding("settings", ok=False, message=str(error))], [])
    checks = [Finding("settings", ok=True, message="They are valid."), *await examine(settings)]
    if not audit:
        return Diagnosis(checks, [])
    try:
        orphans = await (find_orphans(settings) if tenant_id is None else find_left_of(settings, tenant_id))
    except RagqError as error:
        return Diagnosis([*checks, Finding("audit", ok=False, message=f"Not possible. {error}")], [])
    what = "Orphans" if tenant_id is None else f"Left of the tenant '{tenant_id}'"
    done = Finding("audit", ok=True, message=f"Done. {what}: {len(orphans)}.")
    return Diagnosis([*checks, done], orphans)


def format_diagnosis(diagnosis: Diagnosis) -> str:
    """Format a line for each finding and each orphan."""
    bad = click.style("FAIL", fg="red")
    lines = [
        f"{click.style('ok  ', fg='green') if one.ok else bad}  {one.check}: {one.message}" for one in diagnosis.checks
    ]
    lines += [f"{'note' if one.harmless else bad}  {one.kind} {one.id}: {one.meaning}" for one in diagnosis.orphans]
    return "\n".join(lines)


async def examine(settings: Settings) -> list[Finding]:
    """Run all checks concurrently; a failed check does not stop the others."""
    async with _connected(settings) as (queue, database):
        return await asyncio.gather(
            _check("valkey", _check_valkey(settings, queue)),
            _check("postgresql", _check_postgresql(database)),
            _check("tenant wall", _check_wall(database)),
            _check("blob store", _check_blobs(settings)),
            *(_check(f"{name} workers", _check_workers(queue, name)) for name in QueueName),
            _check("llm", _check_llm(settings)),
            _check("embedding", _check_embedding(settings)),
            _check("reranker", _check_reranker(settings)),
            _check("ocr", _check_ocr(settings)),
        )


async def find_orphans(settings: Settings) -> list[Orphan]:
    """Find orphans in Valkey, PostgreSQL and the blob store. Read-only.

    Raises:
        UnavailableError: A server does not answer.
    """
    assert settings.valkey_url
    async with _connected(settings) as (queue, database):
        store_files = StoreFiles(database)
        found = await asyncio.gather(
            audit_queue(settings, settings.valkey_url.get_secret_value()),
            audit_store(Files(database), store_files, BlobStore(settings)),
            find_abandoned(store_files, queue),
            find_left_requests(queue, Archive(database)),
        )
    return [orphan for part in found for orphan in part]


async def find_left_of(settings: Settings, tenant_id: str) -> list[Orphan]:
    """Find everything of a tenant in Valkey and PostgreSQL, and bytes of which nothing tells whose they are. Read-only.

    Such bytes, and keys in Valkey, may be on their way to a row, so they are looked for twice, a second apart.

    Raises:
        UnavailableError: A server does not answer.
    """
    assert settings.valkey_url
    url = settings.valkey_url.get_secret_value()
    async with _connected(settings) as (queue, database):
        blobs, archive = BlobStore(settings), Archive(database)

        async def look() -> tuple[set[str], set[str]]:
            unowned = await list_unowned_bytes(database, blobs) | await find_unused_requests(queue, archive)
            return await find_keys_of(settings, url, tenant_id), unowned

        keys, unowned = await look()
        if keys or unowned:
            await asyncio.sleep(RECHECK_SECONDS)
            keys, unowned = (before & now for before, now in zip((keys, unowned), await look(), strict=True))
        rows = await count_rows_of(database, tenant_id)
    left = [Orphan("row_of_tenant", f"{table}: {count}", LEFT["row_of_tenant"]) for table, count in rows.items()]
    left += [Orphan("key_of_tenant", key, LEFT["key_of_tenant"]) for key in sorted(keys)]
    return left + [Orphan("bytes_without_owner", name, LEFT["bytes_without_owner"]) for name in sorted(unowned)]


async def forgive(settings: Settings, sha256: str) -> None:
    """Allow poison to be read again.

    Raises:
        NotFoundError: The bytes are not poison.
    """
    async with _connected(settings) as (_, database):
        await Files(database).forgive_poison(sha256)


@contextlib.asynccontextmanager
async def _connected(settings: Settings) -> AsyncIterator[tuple[JobQueue, Database]]:
    assert settings.valkey_url
    assert settings.database_url
    queue = JobQueue(settings, settings.valkey_url.get_secret_value())
    database = await Database.open(settings, settings.database_url.get_secret_value(), connections=4)
    try:
        yield queue, database
    finally:
        await database.close()
        await queue.close()


async def _check(name: str, check: Coroutine[Any, Any, str]) -> Finding:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return Finding(name, ok=True, message=await check)
    except RagqError as error:
        return Finding(name, ok=False, message=str(error))
    except TimeoutError:
        return Finding(name, ok=False, message=f"No answer within {CHECK_SECONDS:g} s: is it overloaded?")


async def _check_valkey(settings: Settings, queue: JobQueue) -> str:
    try:
        await queue.ping()
    except UnavailableError as error:
        raise _advised(error, "Start Valkey, or correct RAGQ_VALKEY_URL.") from error
    await queue.check_server()
    if settings.allow_unsafe_valkey:
        return "It answers. Its durability was not checked, because RAGQ_ALLOW_UNSAFE_VALKEY is set."
    if settings.valkey_durability == "vouched":
        return "It answers and evicts nothing. RAGQ_VALKEY_DURABILITY vouches that it keeps acknowledged writes."
    return "It answers, writes every change to disk at once and evicts nothing."


async def _check_postgresql(database: Database) -> str:
    try:
        await database.check_suitable()
        await database.check_ready()
    except UnavailableError as error:
        away = error.code == "database_unavailable"
        advice = "Start PostgreSQL, or correct RAGQ_DATABASE_URL." if away else "Run `ragq migrate`."
        raise _advised(error, advice) from error
    return "It answers, and all migrations have run."


async def _check_wall(database: Database) -> str:
    if problem := await database.check_wall():
        raise UnavailableError(
            f"Only ragq's own SQL keeps tenants apart; row-level security is not in force. {problem}"
        )
    return "Row-level security keeps tenants apart, besides ragq's own SQL."


async def _check_blobs(settings: Settings) -> str:
    name, content = new_id("ragq-doctor-"), b"a probe of ragq doctor"
    try:
        blobs = BlobStore(settings)
        await blobs.put(name, io.BytesIO(content))
        try:
            found = b"".join([piece async for piece in blobs.stream(name)])
        finally:
            await blobs.delete(name)
    except UnavailableError as error:
        raise _advised(error, "Check RAGQ_BLOB_URL or RAGQ_DATA_DIR, and the right to write there.") from error
    if found != content:
        raise UnavailableError("The blob store returned other bytes than were written. Do not use it.")
    return "A probe was written, read and deleted."


async def _check_workers(queue: JobQueue, name: QueueName) -> str:
    workers = [worker for worker in (await queue.monitor.describe()).workers if name in worker.queues]
    if not workers:
        raise UnavailableError(f"No worker serves {name}: start one with `ragq worker {name}`.")
    in_flight = sum(worker.in_flight for worker in workers)
    return f"{len(workers)} alive, {in_flight} jobs in flight."


async def _check_llm(settings: Settings) -> str:
    if settings.llm_base_url is None:
        return "None is configured, so answers are extractive."
    client = LlmClient(settings)
    try:
        await client.check(timeout_seconds=MODEL_SECONDS)
    except RagqError as error:
        raise _advised(error, "Check RAGQ_LLM_BASE_URL, which often ends in /v1, and RAGQ_LLM_API_KEY.") from error
    finally:
        await client.close()
    return "The endpoint lists its models."


async def _check_embedding(settings: Settings) -> str:
    if settings.embedding_base_url is None:
        return "The local model is used."
    client = create_embedding_client(settings)
    try:
        async with asyncio.timeout(MODEL_SECONDS):
            await client.embed_query("a probe of ragq doctor")
    except TimeoutError as error:
        raise UnavailableError(f"The embedding endpoint gave no answer within {MODEL_SECONDS:g} s.") from error
    except RagqError as error:
        raise _advised(
            error, "Check RAGQ_EMBEDDING_BASE_URL, which often ends in /v1, and RAGQ_EMBEDDING_API_KEY."
        ) from error
    finally:
        await client.close()
    return f"The endpoint makes vectors of {client.dimensions} numbers."


async def _check_reranker(settings: Settings) -> str:
    if settings.rerank_base_url is None:
        return "None is configured, so a search keeps its order."
    client = RerankClient(settings)
    try:
        await client.score("a probe of ragq doctor", ["one passage", "another"])
    except RagqError as error:
        raise _advised(
            error, "Check RAGQ_RERANK_BASE_URL, the part before /rerank, and RAGQ_RERANK_API_KEY."
        ) from error
    finally:
        await client.close()
    return "The endpoint scores passages."


async def _check_ocr(settings: Settings) -> str:
    program = find_tesseract()
    if not program:
        return "tesseract is not installed, so scanned pages and pictures are not read: install tesseract-ocr."
    installed = await asyncio.to_thread(list_languages, program)
    languages = choose_languages(settings.ocr_languages, installed)
    if not languages:
        raise UnavailableError(
            f"tesseract has none of the languages in RAGQ_OCR_LANGUAGES={settings.ocr_languages!r}; "
            f"installed: {', '.join(installed) or 'none'}."
        )
    turned = "" if "osd" in installed else " Pages that are turned are not read: tesseract's osd data is missing."
    return f"Scanned pages and pictures are read in {', '.join(languages)}.{turned}"


def _advised(error: RagqError, advice: str) -> RagqError:
    return UnavailableError(f"{error} {advice}")
