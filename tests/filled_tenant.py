"""A tenant that has an object of each kind, and everything in the storage that works for one tenant."""

from __future__ import annotations

import inspect
import pkgutil
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
import pytest

import ragq.storage
from ragq.accounts.limits import KeyLimits, Limits
from ragq.accounts.usage import JobUsage, UsageEntry
from ragq.accounts.views import TenantView
from ragq.errors import DocumentError
from ragq.models import DEFAULT_STORE_NAME, Chunk, JobStatus, ParsedDocument, SearchResult
from ragq.records import BatchRequest, Job, Request
from ragq.storage.archive import Archive
from ragq.storage.batches import Batches, BatchRecord, EndedLine
from ragq.storage.console.job_actions import JobActions
from ragq.storage.console.jobs import row_of
from ragq.storage.console.selection import Selection
from ragq.storage.conversations import Conversations
from ragq.storage.database import Database
from ragq.storage.feedback import Feedback, FeedbackFilter
from ragq.storage.file_batches import FileBatches
from ragq.storage.files import Files
from ragq.storage.ingests import Attachment, Ingests
from ragq.storage.paging import Page
from ragq.storage.search.chunks import Chunks
from ragq.storage.store_files import StoreFiles
from ragq.storage.tenancy.api_keys import ApiKeys
from ragq.storage.tenancy.audit_log import Actor, AuditLog, Entry, EntryFilter
from ragq.storage.tenancy.export import PARTS
from ragq.storage.tenancy.limits import LimitStore
from ragq.storage.tenancy.sessions import Person, Sessions
from ragq.storage.tenancy.shares import StoreShares
from ragq.storage.tenancy.tenant_data import TenantData
from ragq.storage.tenancy.tenants import Tenants
from ragq.storage.tenancy.usage import Budget, UsageStore
from ragq.storage.uploads import Uploads
from ragq.storage.vector_stores import Stores
from ragq.storage.webhooks import Event, Webhooks, add_deliveries
from tests.rows import empty_tables

OURS, FOREIGN = "default", "acme"
SECRET = "Quorra"
GUEST = "umbrella"  # with whom the foreign tenant shares a store
CALLER = TenantView(FOREIGN, key_id="key_a", groups=("staff",), own_only=True, shares=True)
LATER = datetime.now(UTC) + timedelta(days=1)
VECTOR = np.full(384, 384**-0.5, dtype=np.float32)
PROTECTED = """
    SELECT relname::text FROM pg_class
    WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r' AND relrowsecurity ORDER BY relname"""


def today() -> date:
    """The day of usage that is noted now; the tests may run past midnight."""
    return datetime.now(UTC).date()


class Method(NamedTuple):
    """A method of a class of the storage that works for one tenant, or a function.

    Attributes:
        values: Of its parameters, before all others.
    """

    owner: type | None
    name: str
    function: Callable[..., Any]
    values: dict[str, Any]

    @property
    def label(self) -> str:
        return f"{self.owner.__name__}.{self.name}" if self.owner else self.name


def modules() -> Iterator[Any]:
    for found in pkgutil.walk_packages(ragq.storage.__path__, "ragq.storage."):
        yield import_module(found.name)


def find_methods() -> list[Method]:
    """All that names a tenant, or takes a record that does: for the service, and for a caller that may see part of the tenant."""
    found = list[tuple[type | None, str, Callable[..., Any]]]()
    for module in modules():
        found += [
            (None, name, function) for name, function in members(module) if function.__module__ == module.__name__
        ]
        for _, owner in inspect.getmembers(module, inspect.isclass):
            if owner.__module__ == module.__name__ and "database" in inspect.signature(owner).parameters:
                found += [(owner, name, function) for name, function in members(owner)]
    methods = []
    for of, name, function in found:
        parameters = inspect.signature(function).parameters.keys()
        if of in {Tenants, TenantData} or name == "count_rows_of":  # the operator's, for all tenants
            continue
        if "tenant" in parameters:
            methods += [Method(of, name, function, {"tenant": viewer}) for viewer in (FOREIGN, CALLER)]
        elif "part" in parameters:
            methods += [Method(of, name, function, {"part": part}) for part in PARTS]
        elif parameters & {"tenant_id", "record", "batch", "scope", "budget", "selection", "row"}:
            methods.append(Method(of, name, function, {}))
    return methods


def members(of: object) -> list[tuple[str, Callable[..., Any]]]:
    """The public functions that use the database."""
    return [
        (name, function)
        for name, function in inspect.getmembers(of, inspect.isfunction)
        if not name.startswith("_")
        and (inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function))
        and inspect.signature(function).parameters.keys() & {"self", "database"}
    ]


class Filled:
    """A tenant that has an object of each kind, and values for the methods' parameters that name them."""

    def __init__(self, database: Database, make: Callable[[type], Any]) -> None:
        self.database = database
        self.make = make
        self.values: dict[str, Any] = {}

    async def fill(self) -> None:
        await empty(self.database, OURS, FOREIGN, GUEST)
        await self._fill_documents()
        await self._fill_accounts()
        await self._fill_others()

    async def _fill_documents(self) -> None:
        stores, files, store_files = self.make(Stores), self.make(Files), self.make(StoreFiles)
        ingests = self.make(Ingests)
        await stores.default_id(FOREIGN)
        store = await stores.create(FOREIGN, name=SECRET, description=None, metadata={})
        document = [
            await files.create(CALLER, filename=f"{SECRET}{n}", purpose="assistants", size=3, sha256=str(n) * 64)
            for n in range(4)
        ]
        batch_id = await self.make(FileBatches).create(
            FOREIGN, store.id, [Attachment(file.id) for file in document[:2]]
        )
        records = [await store_files.get(FOREIGN, store.id, file.id) for file in document[:2]]
        chunks, vectors = [Chunk(SECRET, 0, 6, None, None, 1)], VECTOR[None]
        for record in records:
            assert await ingests.begin_ingest(FOREIGN, store.id, record.file_id, record.generation, 1)
        parsed = ParsedDocument(SECRET)
        assert await ingests.complete_ingest(records[0], 1, parsed, chunks, vectors, language="en")
        await ingests.attach_many(FOREIGN, store.id, [Attachment(document[3].id, readers=["others"])])
        self.values |= {
            "store_id": store.id, "store_ids": [store.id], "file_ids": [file.id for file in document[:2]],
            "file_id": document[0].id, "Ingests.file_id": document[1].id, "FileBatches.batch_id": batch_id,
            "StoreFiles.batch_id": batch_id, "attachments": [Attachment(document[2].id)], "record": records[1],
            "generation": records[1].generation, "document": parsed, "chunks": chunks, "vectors": vectors,
            "Uploads.file_id": document[2].id, "Stores.resolve.store_id": DEFAULT_STORE_NAME,
            "Stores.resolve.tenant": TenantView(FOREIGN, stores=(store.id,)),
            "scope": await self.make(Chunks).find_scope(CALLER, [store.id], SECRET),
            "passage": SearchResult(document[0].id, "", "", -1, 0, None, None, 0, score=1.0),
        }  # fmt: skip

    async def _fill_accounts(self) -> None:
        keys, limits = self.make(ApiKeys), self.make(LimitStore)
        key, _ = await keys.create(FOREIGN, name=SECRET, role="user", expires_at=None)
        await limits.change_tenant(FOREIGN, lambda _: Limits(documents=7))
        await self.make(StoreShares).create(FOREIGN, self.values["store_id"], GUEST)
        await self.make(Sessions).create(
            Person("", "subject", SECRET), tenant_id=FOREIGN, role="user", expires_at=LATER
        )
        await self.make(AuditLog).add(Entry(Actor("operator", OURS), "key.created", FOREIGN, object_id=key.id))
        usage = UsageEntry((int(time.time() * 1000), 1), FOREIGN, key.id, JobUsage(model=SECRET, input_tokens=1))
        await self.make(UsageStore).add("test", [usage], {})
        self.values |= {"key_id": key.id}

    async def _fill_others(self) -> None:
        batches, conversations, uploads = self.make(Batches), self.make(Conversations), self.make(Uploads)
        batch = await self._fill_batch(batches)
        new_batch = await batches.create(CALLER, **BATCH)
        conversation = await conversations.create(CALLER, metadata={}, items=[("msg_a", {"text": SECRET})])
        await conversations.open_response(FOREIGN, conversation.id, "resp_open")
        upload = await uploads.create(CALLER, filename=SECRET, purpose="assistants", size=30, file_seconds=None)
        await uploads.add_part(FOREIGN, upload.id, "part_a", 3)
        endpoint = await self.make(Webhooks).create_endpoint(
            FOREIGN, url=f"https://{SECRET}", events=[], description=None
        )
        job = Job(
            "resp_a",
            FOREIGN,
            JobStatus.FINISHED,
            1,
            1e9,
            ended_at=2e9,
            request=Request(model=SECRET, key_id=CALLER.key_id),
        )
        await self.make(Archive).store([job])
        await self.make(Feedback).put(FOREIGN, "resp_a", rating="up", comment=SECRET)
        action = await self.make(JobActions).begin(FOREIGN, "delete", Selection(tenant=FOREIGN), total=1)
        async with self.database.for_all().connection() as connection:
            await connection.execute(
                "INSERT INTO poison (sha256, code, reason) VALUES (%s, 'damaged', 'bad')", ["3" * 64]
            )
            await add_deliveries(connection, [Event(FOREIGN, "response.completed", "resp_a", 1.0)])
            await connection.execute("""INSERT INTO responses (id, tenant_id, key_id, created_at, ended_at, job, metadata)
                SELECT 'chatcmpl-a', tenant_id, key_id, created_at, ended_at, job, '{}' FROM responses WHERE id = 'resp_a'""")
        self.values |= {
            "batch_id": batch.id, "batch": batch, "Batches.begin.batch": new_batch, "Batches.cancel.batch_id": new_batch.id,
            "conversation_id": conversation.id, "item_id": "msg_a", "items": [("msg_b", {"text": SECRET})],
            "response_id": "resp_open", "Conversations.open_response.response_id": "resp_new", "upload_id": upload.id, "endpoint_id": endpoint.id,
            "job_id": "resp_a", "Feedback.response_id": "resp_a", "job_ids": ["resp_a"], "chat_id": "chatcmpl-a", "action_id": action.id, "row": row_of(job), "Jobs.list_jobs.after": None,
        }  # fmt: skip

    async def _fill_batch(self, batches: Batches) -> BatchRecord:
        batch = await batches.create(CALLER, **BATCH)
        request = BatchRequest(custom_id=SECRET, body="{}")
        assert await batches.begin(batch, pieces([(1, request), (2, request)]))
        await batches.asked(FOREIGN, batch.id, limit=1)
        await batches.end_lines(FOREIGN, batch.id, [EndedLine(1, "completed", SECRET)])
        await batches.asked(FOREIGN, batch.id, limit=1)
        return await batches.get(FOREIGN, batch.id)

    async def call(self, method: Method) -> Any:
        """Call a method for the foreign tenant with its objects; returns what it gives or, of a generator, a list."""
        values = ANY_VALUES | self.values | method.values
        given = {}
        for name, parameter in inspect.signature(method.function).parameters.items():
            names = [f"{method.label}.{name}", f"{method.label.split('.')[0]}.{name}", name]
            known = next((key for key in names if key in values), None)
            if name == "self" and method.owner:
                given[name] = self.make(method.owner)
            elif name == "database":
                given[name] = self.database
            elif known:
                given[name] = values[known]() if callable(values[known]) else values[known]
            elif parameter.default is parameter.empty:
                pytest.fail(f"{method.label} has a parameter {name}: give it a value in Filled or ANY_VALUES")
        result = method.function(**given)
        return [part async for part in result] if inspect.isasyncgen(result) else await result

    async def execute(self, statement: str) -> None:
        async with self.database.for_all().connection() as connection:
            await connection.execute(statement)

    async def look(self) -> dict[str, list[Any]]:
        """All rows that are the foreign tenant's, by table."""
        async with self.database.for_all().connection() as connection:
            tables = [row[0] for row in await (await connection.execute(PROTECTED)).fetchall()]
            return {
                table: await (await connection.execute(f"SELECT t::text FROM {table} t ORDER BY 1")).fetchall()
                for table in tables
            }


async def empty(database: Database, *tenants: str) -> None:
    """Leave nothing but these tenants."""
    async with database.for_all().connection() as connection, connection.transaction():
        await empty_tables(connection, "tenants", "responses", "chunks", "poison", "usage_positions")
        await connection.execute("INSERT INTO tenants (id) SELECT unnest(%s::text[])", [list(tenants)])


async def pieces(lines: list[tuple[int, BatchRequest]]) -> AsyncIterator[list[tuple[int, BatchRequest]]]:
    yield lines


BATCH: dict[str, Any] = {
    "input_file_id": "file-a", "endpoint": "/v1/responses", "completion_window": "24h", "window_seconds": 60.0, "metadata": None,
}  # fmt: skip
ANY_VALUES: dict[str, Any] = BATCH | {
    "tenant_id": FOREIGN, "filename": SECRET, "purpose": "assistants", "size": 3, "sha256": "f" * 64, "page": Page(), "status": None,
    "StoreFiles.list_files.status": None, "Batches.finish.status": "completed", "limit": 5, "after": 0, "attempt": 1,
    "error": DocumentError("bad"), "language": "en", "metadata": {"new": "value"}, "attributes": {"new": "value"},
    "lines": [EndedLine(2, "completed", SECRET)], "pieces": lambda: pieces([(1, BatchRequest(custom_id=SECRET, body="{}"))]),
    "start": 0, "end": 3, "around": 3, "characters": 3, "name": "new", "description": None, "days": 3, "part_id": "part_b",
    "file_seconds": None, "url": "https://new.example", "events": [], "role": "user", "expires_at": None, "grace_seconds": 0,
    "text": SECRET, "vector": VECTOR, "model": None, "StoredChats.list_chats.metadata": {}, "Batches.create.metadata": None,
    "param": "id", "Archive.find_mentions.text": "resp_a", "StoreShares.create.with_tenant_id": "else", "with_tenant_id": GUEST,
    "readers": ["staff"], "person": Person("", "other", SECRET), "Sessions.create.expires_at": LATER, "subject": "subject",
    "wanted": EntryFilter(), "Feedback.list_rated.wanted": FeedbackFilter(), "rating": "down", "comment": "new", "older_than_seconds": 0, "LimitStore.change_tenant.change": lambda: lambda _: Limits(documents=8),
    "LimitStore.change_key.change": lambda: lambda _: KeyLimits(queued=8), "first": today, "last": today, "day": today, "by": ["day"], "percent": 80,
    "action": "delete", "selection": Selection(tenant=FOREIGN), "total": 1, "seconds": 60, "budget": Budget(FOREIGN, Decimal(1), 1, 1.0, today()), "vector_store_ids": None, "groups": ["new"], "reach": {"groups": ["new"]},
}  # fmt: skip
