"""Delete a tenant of many documents and answers from a `ragq up` of its own, and look for anything that is left.

The tenant gets an object of each kind over the API, then documents, answers, conversations and entries of the audit log in bulk, through
the tables that the API fills, and at last questions that wait in the queue while it is deleted. Its name is in every text, so that it can be
looked for in every column of every table, every key of Valkey and all bytes, without ragq's own list of what a tenant has.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import io
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import Report, arguments
from ragq.client.job import NewJob
from ragq.client.rq_client import JobQueue
from ragq.context import Context
from ragq.models import Answer, JobStatus, Question, QueueName, new_id
from ragq.records import Job, QueryArguments, QueryResult, Request
from ragq.settings import Settings
from ragq.storage.blobs import BlobStore
from ragq.storage.database import Database
from ragq.storage.tenancy.audit_log import SERVICE, Entry
from tests.servers import KEY, Ragq
from tests.tenants import Caller, make_objects
from tests.traces import rows_with, valkey_lives

CHUNKS = 10  # of a document
STEP = 500  # answers or documents stored at once
STILL_KNOWN = "audit_log"  # the operator's own entries: that there was a tenant of this name, and that it was deleted
CLOSED = "ragq:closed"  # the names whose jobs are refused for an hour
PATIENCE_SECONDS = 600

_CHUNKS = """
    INSERT INTO chunks (vector_store_id, file_id, ordinal, tenant_id, start_offset, end_offset, token_count, text, embedding)
    SELECT %(store)s, f, n, %(tenant)s, 0, 5, 2, 'A passage of ' || %(tenant)s, array_fill(0.1::real, ARRAY[384])::vector::halfvec
    FROM unnest(%(files)s::text[]) f, generate_series(0, %(chunks)s - 1) n"""
_COMPLETED = """
    UPDATE vector_store_files SET status = 'completed', chunk_count = %(chunks)s, text = 'The text of ' || %(tenant)s
    WHERE vector_store_id = %(store)s AND file_id = ANY(%(files)s)"""


@dataclass(frozen=True)
class Traces:
    """Where a tenant's name is found."""

    rows: dict[str, int]
    keys: list[str]
    blobs: int

    @property
    def is_empty(self) -> bool:
        return not (self.rows or self.keys or self.blobs)


class Filler:
    """Gives a tenant what it has."""

    def __init__(self, context: Context, tenant: str) -> None:
        self._context = context
        self._tenant = tenant

    async def put_documents(self, number: int) -> None:
        """Files with their bytes, in a store, with their text and chunks."""
        context, tenant = self._context, self._tenant
        store = await context.stores.create(tenant, name=f"The store of {tenant}", description=None, metadata={})
        for numbers in _steps(number):
            files = await asyncio.gather(*(self._put_file(n) for n in numbers))
            values = {"store": store.id, "tenant": tenant, "files": files, "chunks": CHUNKS}
            async with context.database.for_all().connection() as connection:
                await connection.execute(
                    """INSERT INTO vector_store_files (vector_store_id, file_id, tenant_id)
                       SELECT %(store)s, f, %(tenant)s FROM unnest(%(files)s::text[]) f""",
                    values,
                )
                await connection.execute(_CHUNKS, values)
                await connection.execute(_COMPLETED, values)

    async def _put_file(self, number: int) -> str:
        data = f"Document {number} of {self._tenant}".encode()
        sha256 = hashlib.sha256(data).hexdigest()
        await self._context.blobs.put(sha256, io.BytesIO(data))
        name = f"{self._tenant}-{number}.md"
        files = self._context.files
        return (await files.create(self._tenant, filename=name, purpose="assistants", size=len(data), sha256=sha256)).id

    async def put_answers(self, number: int) -> None:
        """Archived responses; every tenth is in a conversation, and every hundredth has an entry of the audit log."""
        context, tenant = self._context, self._tenant
        conversation = await context.conversations.create(tenant, metadata={"of": tenant}, items=[])
        for numbers in _steps(number):
            await context.archive.store([self._answer(n) for n in numbers])
            items = [(new_id("msg_"), {"type": "message", "content": f"{tenant} {n}"}) for n in numbers if n % 10 == 0]
            await context.conversations.add_items(tenant, conversation.id, items)
            for n in numbers:
                if n % 100 == 0:
                    await context.audit_log.add(Entry(SERVICE, "file.created", tenant, f"{tenant}-{n}"))

    def _answer(self, number: int) -> Job:
        asked = f"Question {number} of {self._tenant}"
        result = QueryResult(
            asked, Answer(text=f"Answer {number} for {self._tenant}", citations=[], kind="extractive"), []
        )
        now = time.time()
        return Job(
            new_id("resp_"),
            self._tenant,
            JobStatus.FINISHED,
            1,
            now,
            now,
            now,
            request=Request(input=asked),
            result=result,
        )

    async def put_questions(self, number: int) -> None:
        """Questions that wait, run and end while the tenant is deleted; every tenth has its text in the blob store."""
        for n in range(number):
            text = f"Question {n} of {self._tenant}? " * (1 if n % 10 else 2000)
            job = NewJob(
                id=new_id("resp_"),
                arguments=QueryArguments(Question(text, [])),
                queue=QueueName.QUERIES,
                tenant_id=self._tenant,
                deadline_seconds=600,
                request=Request(input=text),
                archive=True,
            )
            await self._context.queue.enqueue(job)


def _steps(number: int) -> Iterator[range]:
    for start in range(0, number, STEP):
        yield range(start, min(number, start + STEP))


def find_traces(service: Ragq, tenant: str) -> Traces:
    """Look for the tenant's name everywhere."""
    rows = {table: len(words) for table, words in rows_with(service.services["database_url"], tenant).items()}
    keys = [key for key in valkey_lives(service.services["valkey_url"], tenant) if key != CLOSED]
    blobs = [path for path in (service.folder / "files").rglob("*") if path.is_file()]
    return Traces(rows, keys, sum(tenant.encode() in path.read_bytes() for path in blobs))


async def fill(service: Ragq, tenant: str, key: str, given: argparse.Namespace) -> None:
    """Give the tenant everything."""
    await asyncio.to_thread(make_objects, Caller(service.url, key))
    settings = Settings(_env_file=None, data_dir=service.folder)
    database = await Database.open(settings, service.services["database_url"])
    queue = JobQueue(settings, service.services["valkey_url"])
    try:
        filler = Filler(Context(settings=settings, queue=queue, database=database, blobs=BlobStore(settings)), tenant)
        await filler.put_documents(given.documents)
        await filler.put_answers(given.answers)
        await filler.put_questions(given.questions)
    finally:
        await queue.close()
        await database.close()


def delete(root: Caller, tenant: str) -> float:
    """Delete the tenant; returns the seconds until it is gone."""
    begun = time.monotonic()
    assert root.call("DELETE", f"/v1/admin/tenants/{tenant}").status_code == 200
    while root.call("GET", f"/v1/admin/tenants/{tenant}").status_code == 200:
        if time.monotonic() - begun > PATIENCE_SECONDS:
            raise TimeoutError(f"The tenant is still there after {PATIENCE_SECONDS} s.")
        time.sleep(0.5)
    return time.monotonic() - begun


def run(report: Report, given: argparse.Namespace, folder: Path) -> None:
    """Fill, delete and look."""
    tenant = f"erase-{secrets.token_hex(4)}"
    service = Ragq(folder / "data", RAGQ_API_KEY=KEY, RAGQ_MAX_WAIT_SECONDS=0).start()
    try:
        root = Caller(service.url, KEY)
        root.post("/v1/admin/tenants", {"id": tenant})
        key = root.post("/v1/admin/keys", {"name": f"of {tenant}", "role": "admin", "tenant": tenant})["value"]
        asyncio.run(fill(service, tenant, key, given))
        before = find_traces(service, tenant)
        seconds = delete(root, tenant)
        after = find_traces(service, tenant)
        audit = service.run("doctor", "--audit", "--tenant", tenant)
        operators = root.call("GET", f"/v1/admin/audit_log?resource_ids={tenant}").json()["data"]
    finally:
        service.stop()
    kept = after.rows.pop(f"public.{STILL_KNOWN}", 0)
    report.figures = {
        "given": {"documents": given.documents, "answers": given.answers, "questions": given.questions},
        "seconds": round(seconds, 1),
        "before": _figures(before),
        "after": _figures(after),
        "audit": audit.stdout.splitlines()[-1],
        "entries_of_the_operator": [entry["type"] for entry in operators],
    }
    report.checks = {
        "everything was there": len(before.rows) > 10 and before.blobs >= given.documents and bool(before.keys),
        "no row, key or byte is left": after.is_empty,
        "ragq doctor --audit --tenant finds nothing": f"Left of the tenant '{tenant}': 0." in audit.stdout,
        "the operator's own entries are all that names it": kept == 1
        and sorted(one["type"] for one in operators) == ["tenant.created", "tenant.deleted", "tenant.removed"],
    }


def _figures(traces: Traces) -> dict[str, Any]:
    return {"tables": sorted(traces.rows), "keys": len(traces.keys), "blobs": traces.blobs}


def main() -> None:
    """Read the command line and run."""
    parser = arguments("erase", __doc__)
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--answers", type=int, default=10_000)
    parser.add_argument("--questions", type=int, default=1000, help="that wait in the queue")
    given = parser.parse_args()
    report = Report("erase")
    with tempfile.TemporaryDirectory(prefix="ragq-erase-") as folder, report.watching():
        run(report, given, Path(folder))
    sys.exit(report.publish(given.out))


if __name__ == "__main__":
    main()
