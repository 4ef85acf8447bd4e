"""How long what a tenant has is kept: as the settings say, or for days of its own."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ragq.errors import GoneError, NotFoundError
from ragq.models import Answer, JobStatus
from ragq.queues.running import WorkerContext
from ragq.queues.upkeep.expiry import expire_files_and_stores
from ragq.records import Job, QueryResult
from ragq.storage.archive import EXPIRE, Archive
from ragq.storage.database import Database
from ragq.storage.tenancy.tenants import Tenants
from tests.ingests import attach
from tests.servers import KEY, Ragq
from tests.tenants import Caller

DAY = 86_400
SERVICE_DAYS = 30


@pytest.fixture
async def tenants(database: Database) -> Tenants:
    """Tenants that keep things for shorter, for longer, and as the settings say."""
    tenants = Tenants(database)
    async with database.for_all().connection() as connection:
        await connection.execute(
            "INSERT INTO tenants (id) VALUES ('short'), ('long'), ('plain') ON CONFLICT DO NOTHING"
        )
    await tenants.update("short", {"keep_responses_days": 2})
    await tenants.update("long", {"keep_responses_days": 100})
    await tenants.update("plain", {"keep_responses_days": None})
    return tenants


def response(tenant: str, days: float) -> Job:
    ended = time.time() - days * DAY
    result = QueryResult("Who?", Answer(text="Nobody.", citations=[], kind="extractive"), [])
    return Job(f"resp_{tenant}_{days:g}", tenant, JobStatus.FINISHED, 1, ended, ended, ended, result=result)


async def kept(archive: Archive, tenant: str, days: float) -> bool:
    try:
        return await archive.fetch(f"resp_{tenant}_{days:g}", tenant) is not None
    except GoneError:
        return False


async def test_each_tenants_responses_are_kept_for_its_own_days(database: Database, tenants: Tenants) -> None:
    archive, ages = Archive(database), (1, 3, 29, 31, 99, 101)
    await archive.store([response(tenant, days) for tenant in ("short", "long", "plain") for days in ages])
    assert await archive.expire(SERVICE_DAYS * DAY) == 5 + 1 + 3
    for tenant, most in (("short", 2), ("long", 100), ("plain", SERVICE_DAYS)):
        assert [days for days in ages if await kept(archive, tenant, days)] == [days for days in ages if days < most]
    await tenants.update("long", {"keep_responses_days": None})
    assert await archive.expire(SERVICE_DAYS * DAY) == 2
    assert await archive.expire(SERVICE_DAYS * DAY) == 0


async def test_only_answers_that_expire_are_read_for_it(database: Database, tenants: Tenants) -> None:
    await tenants.update("short", {"keep_responses_days": 2})
    async with database.for_all().connection() as connection, connection.transaction():
        # One for each hour of 208 days; kept are 2 days of 'short', 100 of 'long' and 30 of the others.
        await connection.execute(
            """INSERT INTO responses (id, tenant_id, created_at, ended_at, job)
               SELECT tenant || n, tenant, now(), now() - n * interval '1 hour', '{}'
               FROM unnest(ARRAY['short', 'long', 'plain', 'gone']) AS tenant, generate_series(1, 5000) AS n"""
        )
        await connection.execute("ANALYZE responses")
        await connection.execute("SET LOCAL enable_seqscan = off")
        query = f"EXPLAIN (ANALYZE, FORMAT JSON) {EXPIRE}"
        ((tree,),) = await (await connection.execute(query, [SERVICE_DAYS * DAY, 100_000])).fetchall()
        counts = await connection.execute("SELECT tenant_id, count(job) FROM responses GROUP BY 1")
        kept = dict(await counts.fetchall())
    scans = [node for node in nodes(tree[0]["Plan"]) if node.get("Index Name") == "responses_of_tenants_to_expire"]
    assert kept == {"short": 48, "long": 2400, "plain": 720, "gone": 720}
    read = sum(scan["Actual Rows"] * scan["Actual Loops"] for scan in scans)
    # A scan of a bitmap counts the index's dead entries, too: those that the tests before this one left.
    assert read == pytest.approx(20_000 - sum(kept.values()), abs=100)
    assert not any(scan.get("Rows Removed by Filter") for scan in scans)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", []):
        yield from nodes(inner)


async def test_files_that_are_older_than_their_tenant_keeps_them_are_deleted(context: WorkerContext) -> None:
    database, tenants = context.database, Tenants(context.database)
    old, young = await attach(context, "An old text", filename="old.txt"), await attach(context, "A young text")
    async with database.for_all().connection() as connection:
        await connection.execute("UPDATE files SET created_at = now() - interval '5 days' WHERE id = %s", [old.file_id])
    sha256 = (await context.files.get("default", old.file_id)).sha256
    try:
        await expire_files_and_stores(context.files, context.stores, context.blobs)
        assert await context.blobs.exists(sha256)
        await tenants.update("default", {"keep_files_days": 4})
        with pytest.raises(NotFoundError):
            await context.files.delete("default", young.file_id, if_expired=True)
        await expire_files_and_stores(context.files, context.stores, context.blobs)
    finally:
        await tenants.update("default", {"keep_files_days": None})
    assert not await context.blobs.exists(sha256)
    with pytest.raises(NotFoundError):
        await context.files.get("default", old.file_id)
    assert (await context.files.get("default", young.file_id)).id == young.file_id


def test_the_operator_sets_the_days_of_a_tenant(plain_ragq: Ragq, root: Caller) -> None:
    root.post("/v1/admin/tenants", {"id": "iris"})

    def keep(*arguments: str) -> dict[str, int | None]:
        done = plain_ragq.run("tenants", "set", "iris", *arguments, RAGQ_URL=root.url, RAGQ_API_KEY=KEY)
        assert done.returncode == 0, done.stderr
        shown = root.call("GET", "/v1/admin/tenants/iris").json()
        return {name: days for name, days in shown.items() if name.startswith("keep_")}

    days = keep("--keep-responses-days", "7", "--keep-logs-days", "90")
    assert days == {"keep_responses_days": 7, "keep_files_days": None, "keep_logs_days": 90}
    assert keep("--keep-logs-days", "0", "--keep-files-days", "1") == {
        "keep_responses_days": 7,
        "keep_files_days": 1,
        "keep_logs_days": None,
    }
    entries = root.call("GET", "/v1/admin/audit_log?event_types=tenant.updated&resource_ids=iris").json()["data"]
    assert json.dumps(entries[0]["data"], sort_keys=True) == '{"keep_files_days": 1, "keep_logs_days": null}'
    assert root.call("POST", "/v1/admin/tenants/iris", json={"keep_files_days": 0}).status_code == 400
    assert root.call("POST", "/v1/admin/tenants/nobody", json={"keep_files_days": 1}).status_code == 404
