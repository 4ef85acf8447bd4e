"""Any documents, readers and viewers: what the storage shows is what a model of the rules says."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragq.accounts.views import TenantView
from ragq.errors import NotFoundError
from ragq.models import Chunk, ParsedDocument, SearchResult
from ragq.queues.running import WorkerContext
from ragq.storage.ingests import Attachment
from ragq.storage.paging import Page
from tests.ingests import TENANT

STORES = 2
ABROAD = STORES  # the store of another tenant
OTHER = "other"
KEYS = st.sampled_from(["key_a", "key_b"])
GROUPS = st.sets(st.sampled_from(["red", "green", "blue"]))
READERS = st.one_of(st.none(), st.sets(st.sampled_from(["red", "green", "blue"]), min_size=1))
TEXT = "common words"
CHUNKS = [Chunk("common", 0, 6, None, None, 1), Chunk("words", 7, 12, None, None, 1)]
VECTORS = np.eye(2, 384, dtype=np.float32)
NUMBERS = itertools.count()
WHOLE = Page(limit=100)


@dataclass(frozen=True)
class File:
    """A file: who uploaded it, and its readers in each store that it is in; None for all."""

    uploaded_by: str
    inside: dict[int, set[str] | None]


@dataclass(frozen=True)
class Viewer:
    """A caller: the stores and groups of its key, None for all; and whether its tenant is shared the store of another one."""

    key: str
    stores: set[int] | None
    groups: set[str] | None
    own_only: bool
    shares: bool


FILES = st.builds(File, KEYS, st.dictionaries(st.integers(0, STORES - 1), READERS))
FOREIGN = st.builds(File, KEYS, st.dictionaries(st.just(ABROAD), READERS, min_size=1))
VIEWERS = st.builds(
    Viewer,
    KEYS,
    st.one_of(st.none(), st.sets(st.integers(0, STORES - 1))),
    st.one_of(st.none(), GROUPS),
    st.booleans(),
    st.booleans(),
).filter(lambda one: one.groups is not None or (one.stores is None and not one.own_only))  # an admin has no limits


def may_read(viewer: Viewer, store: int, readers: set[str] | None) -> bool:
    """Whether someone may read a document of a store."""
    if store == ABROAD:
        return viewer.shares and viewer.stores is None and readers is None
    if viewer.stores is not None and store not in viewer.stores:
        return False
    return readers is None or viewer.groups is None or bool(readers & viewer.groups)


def may_open(viewer: Viewer, file: File) -> bool:
    """Whether someone may open a file."""
    if viewer.groups is None and ABROAD not in file.inside:
        return True
    if not file.inside:
        return not viewer.own_only or file.uploaded_by == viewer.key
    return any(may_read(viewer, store, readers) for store, readers in file.inside.items())


async def put(context: WorkerContext, file: File, stores: list[str]) -> str:
    """Upload a file and put it into its stores; returns its id."""
    number, tenant = next(NUMBERS), OTHER if ABROAD in file.inside else TENANT
    record = await context.files.create(
        TenantView(tenant, file.uploaded_by),
        filename=f"{number}.txt",
        purpose="assistants",
        size=9,
        sha256=f"{number:064}",
    )
    for store, readers in file.inside.items():
        attachment = Attachment(record.id, readers=None if readers is None else list(readers))
        await context.ingests.attach_many(tenant, stores[store], [attachment])
        found = await context.store_files.get(tenant, stores[store], record.id)
        assert await context.ingests.begin_ingest(tenant, stores[store], record.id, found.generation, 1)
        assert await context.ingests.complete_ingest(found, 1, ParsedDocument(TEXT), CHUNKS, VECTORS, language="en")
    return record.id


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=st.lists(st.one_of(FILES, FILES, FOREIGN), min_size=1, max_size=6), viewer=VIEWERS)
async def test_the_storage_shows_what_the_rules_allow(
    context: WorkerContext, files: list[File], viewer: Viewer
) -> None:
    stores = await make_stores(context, shares=viewer.shares)
    ids = [await put(context, file, stores) for file in files]
    limits = None if viewer.stores is None else tuple(stores[one] for one in viewer.stores)
    groups = None if viewer.groups is None else tuple(viewer.groups)
    view = TenantView(TENANT, viewer.key, limits, groups, viewer.own_only, viewer.shares)
    opened = {id_ for id_, file in zip(ids, files, strict=True) if may_open(viewer, file)}
    own = {id_ for id_, file in zip(ids, files, strict=True) if ABROAD not in file.inside}
    assert await list_files(context, view) == opened & own
    assert {id_ for id_ in ids if await shows_file(context, view, id_)} == opened
    read = [
        {
            id_
            for id_, file in zip(ids, files, strict=True)
            if store in file.inside and may_read(viewer, store, file.inside[store])
        }
        for store in range(STORES + 1)
    ]
    seen = [store for store in range(STORES) if viewer.stores is None or store in viewer.stores]
    seen += [ABROAD] if viewer.shares and viewer.stores is None else []
    counts = {one.id: one.completed for one in await context.stores.list_stores(view, WHOLE)}
    assert counts == {stores[store]: len(read[store]) for store in seen}
    for store, store_id in enumerate(stores):
        listed = await context.store_files.list_files(view, store_id, WHOLE, None)
        assert {one.file_id for one in listed} == read[store]
        assert {id_ for id_ in ids if await shows_document(context, view, store_id, id_)} == read[store]
        assert await search(context, view, [store_id]) == read[store]
        assert {id_ for id_ in ids if await shows_next(context, view, [store_id], id_)} == read[store]
    assert {id_ for id_ in ids if await shows_next(context, view, stores, id_)} == set().union(*read)
    assert {id_ for id_ in ids if await shows_passage(context, view, id_)} == set().union(*read)
    assert await search(context, view, stores) == set().union(*read)


async def make_stores(context: WorkerContext, *, shares: bool) -> list[str]:
    """Make empty stores: those of the tenant, and that of another one."""
    async with context.database.for_all().connection() as connection:
        await connection.execute("TRUNCATE files, vector_stores, chunks CASCADE")
        await connection.execute("INSERT INTO tenants (id) VALUES (%s) ON CONFLICT DO NOTHING", [OTHER])
    tenants = [*[TENANT] * STORES, OTHER]
    made = [await context.stores.create(tenant, name="", description=None, metadata={}) for tenant in tenants]
    if shares:
        await context.store_shares.create(OTHER, made[ABROAD].id, TENANT)
    return [store.id for store in made]


async def list_files(context: WorkerContext, view: TenantView) -> set[str]:
    return {one.id for one in await context.files.list_files(view, WHOLE, None)}


async def shows_file(context: WorkerContext, view: TenantView, file_id: str) -> bool:
    try:
        return bool(await context.files.get(view, file_id))
    except NotFoundError:
        return False


async def shows_document(context: WorkerContext, view: TenantView, store_id: str, file_id: str) -> bool:
    try:
        await context.store_files.get(view, store_id, file_id)
    except NotFoundError:
        assert await context.store_files.get_excerpt(view, store_id, file_id, characters=9) is None
        return False
    assert await context.store_files.get_text(view, store_id, file_id) == TEXT
    return True


async def shows_passage(context: WorkerContext, view: TenantView, file_id: str) -> bool:
    try:
        return (await context.store_files.get_passage(view, file_id, 0, 6, around=0)).quote == TEXT[:6]
    except NotFoundError:
        return False


async def shows_next(context: WorkerContext, view: TenantView, stores: list[str], file_id: str) -> bool:
    passage = SearchResult(file_id, "", "common", 0, 6, None, None, 1, score=1.0)
    found = await context.chunks.read_next(view, stores, passage)
    return found is not None and found.text == "words"


async def search(context: WorkerContext, view: TenantView, stores: list[str]) -> set[str]:
    scope = await context.chunks.find_scope(view, stores, TEXT)
    return {one.file_id for one in await context.chunks.search(scope, VECTORS[0], limit=50)}
