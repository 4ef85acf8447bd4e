"""How PostgreSQL searches: which index serves which search, and that an index finds what a scan finds."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from importlib import resources
from typing import Any

import numpy as np
import pytest
from msgspec import convert

from ragq.accounts.views import TenantView, Viewer
from ragq.client.rq_client import JobQueue
from ragq.errors import UnavailableError
from ragq.models import AttributeFilter, Chunk, ParsedDocument, SearchResult
from ragq.queues.running import WorkerContext
from ragq.queues.upkeep import housekeeping
from ragq.storage.database import Database
from ragq.storage.search import chunks as chunk_client
from ragq.storage.tenancy.access import TenantAccess
from ragq.storage.tenancy.shares import StoreShares
from ragq.storage.tenancy.visibility import values_of
from ragq.storage.vector_index import INDEX_LOCK, is_index_due, make_index
from ragq.storage.vector_stores import Stores
from ragq.tasks import end_tasks
from tests.ingests import TENANT, attach
from tests.receiver import eventually

FILES, FEW, CHUNKS_A_FILE = 32, 3, 100
DIRECTIONS = np.random.default_rng(0).standard_normal((12, 384), dtype=np.float32)  # texts differ in few ways
HALF = {"type": "eq", "key": "even", "value": True}
ONE_FILE = {"type": "eq", "key": "number", "value": 7}
WORDS = "common tenthh rarecaab"
IS_VALID = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('chunks_by_embedding')"
PARAMETER = re.compile(r"%\((\w+)\)s")
NEAREST = "Index Scan chunks_by_embedding"
OF_THE_INDEX = f"WHERE locktype = 'advisory' AND objid = {INDEX_LOCK}"


def make_vectors(random: np.random.Generator, count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    vectors = random.standard_normal((count, len(DIRECTIONS)), dtype=np.float32) @ DIRECTIONS
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)  # type: ignore[no-any-return]


QUESTION = make_vectors(np.random.default_rng(1), 1)[0]


async def fill(context: WorkerContext, files: int = FILES) -> str:
    """Make a store in which `common` is in each chunk, `tentha` to `tenthj` in a tenth, and `rare…` in one."""
    store = await Stores(context.database).create(TENANT, name="", description=None, metadata={})
    random = np.random.default_rng(2)
    for file in range(files):
        record = await attach(context, f"{file}", filename=f"{file}.txt", store=store.id)
        await context.store_files.set_attributes(
            TENANT, store.id, record.file_id, {"number": file, "even": file % 2 == 0}
        )
        assert await context.ingests.begin_ingest(TENANT, store.id, record.file_id, record.generation, 1)
        texts = [f"common tenth{spell(n % 10)} rare{spell(file * CHUNKS_A_FILE + n)}" for n in range(CHUNKS_A_FILE)]
        chunks = [Chunk(text, n, n + len(text), None, None, 3) for n, text in enumerate(texts)]
        vectors = make_vectors(random, CHUNKS_A_FILE)
        assert await context.ingests.complete_ingest(
            record, 1, ParsedDocument(" ".join(texts)), chunks, vectors, language="en"
        )
    async with context.database.for_all().connection() as connection:
        await connection.execute("VACUUM ANALYZE")
    return store.id


def spell(number: int) -> str:
    """Write a number in letters, so that it is one word."""
    return "".join("abcdefghij"[int(digit)] for digit in str(number))


async def search(
    context: WorkerContext, store: str, text: str, filters: dict[str, Any] | None, viewer: Viewer = TENANT
) -> list[SearchResult]:
    scope = await context.chunks.find_scope(
        viewer, [store], text, convert(filters, AttributeFilter) if filters else None
    )
    return await context.chunks.search(scope, QUESTION, limit=10)


async def plan(
    context: WorkerContext, store: str, filters: dict[str, Any] | None, viewer: Viewer = TENANT
) -> tuple[dict[str, Any], str]:
    """The plan of a search, and the words it finds by."""
    plans, found_by = [], []

    async def records(
        access: TenantAccess, _: type[SearchResult], query: str, *, plan: str, **parameters: Any
    ) -> list[SearchResult]:
        del plan
        async with access.transaction() as connection:
            # So that these few thousand are as many to the planner.
            await connection.execute("SET LOCAL hnsw.ef_search = 40")
            explained = await connection.execute(
                f"EXPLAIN (FORMAT JSON) {query}", parameters | values_of(access._viewer)
            )
            ((tree,),) = await explained.fetchall()
        plans.append(tree[0]["Plan"])
        found_by.append(parameters["found_by"])
        return []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TenantAccess, "records", records)
        await search(context, store, WORDS, filters, viewer)
    return plans[0], found_by[0]


async def explain(
    context: WorkerContext, store: str, filters: dict[str, Any] | None, viewer: Viewer = TENANT
) -> tuple[set[str], str]:
    """Name the indexes of the chunks that a search uses, but for the fetching of its results, and the words it finds by."""
    tree, found_by = await plan(context, store, filters, viewer)
    return set(used_indexes(tree, ranking=False)), found_by


def used_indexes(node: dict[str, Any], *, ranking: bool) -> list[str]:
    ranking = ranking or str(node.get("Alias")) in {"c", "c_1"}
    found = [f"{node['Node Type']} {node['Index Name']}"] if ranking and "Index Name" in node else []
    return found + [name for inner in node.get("Plans", []) for name in used_indexes(inner, ranking=ranking)]


def number_parameters(query: str) -> str:
    names = list(dict.fromkeys(PARAMETER.findall(query)))
    return PARAMETER.sub(lambda found: f"${names.index(found[1]) + 1}", query)


def walk(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for inner in node.get("Plans", []):
        yield from walk(inner)


async def test_each_search_is_served_by_its_index_and_finds_what_a_scan_finds(
    context: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await fill(context)
    cases = [(text, filters) for text in ("", "rarecaab rarebcde") for filters in (None, HALF, ONE_FILE)]
    exact = [await search(context, store, text, filters) for text, filters in cases]
    await make_index(context.database, above=0)
    assert await ask(context, IS_VALID) == (True,)
    indexes, found_by = await explain(context, store, None)
    assert NEAREST not in indexes, "a small store is scanned"
    assert found_by == "'rarecaab' | 'tenthh'"  # but not by the word that each chunk has
    monkeypatch.setattr(chunk_client, "EXACT_SEARCH_CHUNKS", 0)
    monkeypatch.setattr(chunk_client, "EXACT_SEARCH_ROOTS", 3)
    for filters in (None, HALF):
        indexes, _ = await explain(context, store, filters)
        assert {NEAREST, "Bitmap Index Scan chunks_by_word"} <= indexes, (filters, indexes)
    indexes, found_by = await explain(context, store, ONE_FILE)
    assert NEAREST not in indexes, "what a filter leaves is scanned when it is few"
    assert any(index.endswith("chunks_pkey") for index in indexes)
    assert "'common'" in found_by
    for (text, filters), expected in zip(cases, exact, strict=True):
        found = await search(context, store, text, filters)
        same = {(one.file_id, one.start) for one in found} & {(one.file_id, one.start) for one in expected}
        assert len(same) >= 9, (text, filters)  # the index of vectors is approximate
    found = await search(context, store, "common tenthb rarecaab", None)
    assert "common tenthb rarecaab" in {result.text for result in found}


async def plan_for_all_values(context: WorkerContext, store: str, filters: dict[str, Any] | None) -> dict[str, Any]:
    """How each table of a search is read, by its alias."""
    scope = await context.chunks.find_scope(TENANT, [store], WORDS, convert(filters, AttributeFilter | None))
    return await plan_generically(context, scope.write(candidates=50))


async def plan_generically(context: WorkerContext, query: str) -> dict[str, Any]:
    async with context.database.for_tenant(TENANT).transaction() as connection:
        explained = await connection.execute(f"EXPLAIN (GENERIC_PLAN, FORMAT JSON) {number_parameters(query)}")
        ((tree,),) = await explained.fetchall()
    return {node["Alias"]: json.dumps(node) for node in walk(tree[0]["Plan"]) if "Relation Name" in node}


async def test_a_plan_for_all_values_fetches_what_was_ranked_by_its_key(context: WorkerContext) -> None:
    store = await fill(context)
    for filters in (None, ONE_FILE):
        reads = await plan_for_all_values(context, store, filters)
        assert "chunks_pkey" in reads["hit"]


async def test_the_chunk_after_another_is_read_by_its_key(
    context: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, written = await fill(context), list[str]()

    async def records(_: TenantAccess, __: type[SearchResult], query: str, **___: Any) -> list[SearchResult]:
        written.append(query)
        return []

    (found,) = (await search(context, store, WORDS, None))[:1]
    monkeypatch.setattr(TenantAccess, "records", records)
    await context.chunks.read_next(TENANT, [store], found)
    reads = await plan_generically(context, written[0])
    assert "chunks_pkey" in reads["chunk"]
    assert "Index Cond" in reads["chunk"]
    assert "file_id" in json.loads(reads["chunk"])["Index Cond"]


async def test_a_plan_for_all_values_reads_one_store_of_several(context: WorkerContext) -> None:
    for _ in range(8):
        store = await fill(context, FEW)
    reads = await plan_for_all_values(context, store, None)
    assert "chunks_pkey" in reads["c_1"]


async def test_what_is_shared_is_not_planned_for_one_who_searches_the_own_store(context: WorkerContext) -> None:
    store = await fill(context, files=1)
    for filters in (None, ONE_FILE):
        tree, _ = await plan(context, store, filters)
        assert "vector_store_files" in json.dumps(tree)
        assert "store_shares" not in json.dumps(tree)


async def test_another_tenant_searches_a_shared_store_by_the_same_indexes(
    context: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, guest = await fill(context), TenantView("guest", shares=True)
    await StoreShares(context.database).create(TENANT, store, guest.id)
    exact = await search(context, store, "rarecaab", None, guest)
    await make_index(context.database, above=0)
    monkeypatch.setattr(chunk_client, "EXACT_SEARCH_CHUNKS", 0)
    monkeypatch.setattr(chunk_client, "EXACT_SEARCH_ROOTS", 3)
    indexes, _ = await explain(context, store, None, guest)
    assert {NEAREST, "Bitmap Index Scan chunks_by_word"} <= indexes, indexes
    found = await search(context, store, "rarecaab", None, guest)
    assert len({one.start for one in found} & {one.start for one in exact}) >= 9
    assert "rarecaab" in found[0].text


async def test_one_who_may_not_read_all_is_served_by_the_same_index_and_finds_as_much(
    context: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, anyone = await fill(context), TenantView(TENANT)
    texts = ("", "rarecaab rarebcde", "common tenthb")
    unlimited = await context.chunks.find_scope(anyone, [store], WORDS)
    assert unlimited.write(candidates=1).count("vector_store_files") == 1, (
        "a search where no document has readers reads no list of them"
    )
    exact = [await search(context, store, text, HALF) for text in texts]
    await give_readers(context, store, "attributes -> 'even' = 'false'")
    await make_index(context.database, above=0)
    monkeypatch.setattr(chunk_client, "EXACT_SEARCH_CHUNKS", 0)
    monkeypatch.setattr(chunk_client, "EXACT_SEARCH_ROOTS", 3)
    indexes, _ = await explain(context, store, None, anyone)
    assert {NEAREST, "Bitmap Index Scan chunks_by_word"} <= indexes
    for text, expected in zip(texts, exact, strict=True):
        found = await search(context, store, text, None, anyone)
        assert len(found) == len(expected) == 10
        assert not [one for one in found if not one.attributes["even"]]
        same = {(one.file_id, one.start) for one in found} & {(one.file_id, one.start) for one in expected}
        assert len(same) >= 9, text  # the index of vectors is approximate
    reader = TenantView(TENANT, groups=("other", "readers"))
    of_reader = await context.chunks.find_scope(reader, [store], WORDS)
    assert of_reader.write(candidates=1).count("vector_store_files") == 1, "one who may read all is not restricted"
    await give_readers(context, store, "attributes -> 'number' <> '7'")
    indexes, _ = await explain(context, store, None, anyone)
    assert NEAREST not in indexes, "the little that one may read is scanned"
    assert {one.attributes["number"] for one in await search(context, store, WORDS, None, anyone)} == {7}


async def give_readers(context: WorkerContext, store: str, condition: str) -> None:
    """Give readers to the files of a store that match a condition, and to no others."""
    async with context.database.for_all().connection() as connection:
        await connection.execute(
            f"UPDATE vector_store_files SET readers = CASE WHEN {condition} THEN '{{readers}}'::text[] END"
            " WHERE vector_store_id = %s",
            [store],
        )
        await connection.execute("VACUUM ANALYZE vector_store_files")


async def test_the_vectors_are_indexed_once_when_a_tenant_has_many(context: WorkerContext) -> None:
    await fill(context, FEW)
    await drop_index(context)
    assert not await make_index(context.database, above=FEW * CHUNKS_A_FILE)
    assert await ask(context, IS_VALID) is None
    assert await make_index(context.database, above=FEW * CHUNKS_A_FILE - 1)
    assert await ask(context, IS_VALID) == (True,)
    assert not await make_index(context.database, above=0), "it is there"


async def test_housekeeping_indexes_the_vectors_on_its_own(
    context: WorkerContext, queue: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(context, FEW)
    await drop_index(context)
    monkeypatch.setattr(housekeeping, "is_index_due", partial(is_index_due, above=0))
    monkeypatch.setattr(housekeeping, "make_index", partial(make_index, above=0))
    task = asyncio.create_task(housekeeping.index_forever(replace(context, queue=queue)))
    await eventually(lambda: ask(context, f"{IS_VALID} AND indisvalid"))
    assert not task.done()
    await end_tasks([task])


@pytest.mark.parametrize("how", ["cancelled", "killed"])
async def test_an_index_of_vectors_whose_making_was_cut_short_is_made_anew(context: WorkerContext, how: str) -> None:
    store = await fill(context, FEW)
    await drop_index(context)
    async with context.database.for_all().connection() as other, other.transaction():
        await other.execute("UPDATE chunks SET page = 1")  # the maker waits for whoever writes
        making = asyncio.create_task(make_index(context.database, above=0))
        await eventually(lambda: ask(context, IS_VALID))  # a row that says False
        assert not await make_index(context.database, above=0), "another makes it"
        if how == "cancelled":
            making.cancel()
        else:
            await ask(context, f"SELECT pg_terminate_backend(pid) FROM pg_locks {OF_THE_INDEX}")
        with pytest.raises(asyncio.CancelledError if how == "cancelled" else UnavailableError):
            await making
    assert await ask(context, IS_VALID) == (False,)
    assert len(await search(context, store, "rarecab", None)) == 10
    assert await eventually(lambda: make_index(context.database, above=0))
    assert await ask(context, IS_VALID) == (True,)


async def test_whoever_made_the_index_leaves_its_connection_as_it_was(
    context: WorkerContext, database_url: str
) -> None:
    await fill(context, FEW)
    await drop_index(context)
    settings = "SELECT current_setting('statement_timeout'), current_setting('maintenance_work_mem')"
    database = await Database.open(context.settings, database_url, connections=1)
    async with database.for_all().connection() as connection:
        before = await (await connection.execute(settings)).fetchone()
    assert await make_index(database, above=0)
    async with database.for_all().connection() as connection:
        assert await (await connection.execute(settings)).fetchone() == before
    for _ in range(100):  # the connection that held the lock is closed; its backend ends a moment later
        if await ask(context, f"SELECT pid FROM pg_locks {OF_THE_INDEX}") is None:
            break
        await asyncio.sleep(0.02)
    assert await ask(context, f"SELECT pid FROM pg_locks {OF_THE_INDEX}") is None
    await database.close()


@pytest.mark.parametrize(("chunks", "stays"), [(20_000, False), (20_001, True)])
async def test_the_migration_leaves_the_index_to_many_chunks(context: WorkerContext, chunks: int, stays: bool) -> None:
    await fill(context, FEW)
    await make_index(context.database, above=0)
    migration = resources.files("ragq.storage") / "migrations" / "0009_index_when_large.sql"
    async with context.database.for_all().connection() as connection, connection.transaction(force_rollback=True):
        await connection.execute(
            "UPDATE vector_store_files SET chunk_count = CASE file_id WHEN min THEN %s ELSE 0 END FROM (SELECT min(file_id) FROM vector_store_files) AS first",
            [chunks],
        )
        await connection.execute(migration.read_bytes())
        row = await (await connection.execute(IS_VALID)).fetchone()
    assert (row is not None) == stays


async def ask(context: WorkerContext, question: str) -> Any:
    async with context.database.for_all().connection() as connection:
        return await (await connection.execute(question)).fetchone()


async def drop_index(context: WorkerContext) -> None:
    async with context.database.for_all().connection() as connection:
        await connection.execute("DROP INDEX IF EXISTS chunks_by_embedding")
