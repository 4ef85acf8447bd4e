"""The files of vector stores in PostgreSQL, with the state of their ingests.

A method that takes the tenant reads only what its viewer may see. The others are for the service itself, not for routes.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from ragq.accounts.views import Viewer
from ragq.errors import NotFoundError
from ragq.models import Attributes, Place, PlaceKind
from ragq.storage.database import Database
from ragq.storage.paging import Listed, Page, read_page
from ragq.storage.removal import remove_files
from ragq.storage.tenancy.visibility import HAVE_READERS, of_tenant, see_documents, values_of


@dataclass(frozen=True, slots=True)
class StoreFileRecord:
    """A file in a store; `generation` counts its ingests, `attempt` is the latest attempt of this one."""

    tenant_id: str
    vector_store_id: str
    file_id: str
    filename: str
    bytes: int
    sha256: str
    status: str
    error_code: str | None
    error_message: str | None
    attributes: Attributes
    readers: list[str] | None
    max_chunk_tokens: int | None
    chunk_overlap_tokens: int | None
    generation: int
    attempt: int
    chunk_count: int
    usage_bytes: int
    title: str
    encoding: str
    warnings: list[str]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Excerpt:
    """The beginning of a text; `characters` is the length of all of it."""

    text: str
    characters: int


_ANY_STORE_FILE = """
    SELECT v.tenant_id, v.vector_store_id, v.file_id, f.filename, f.bytes, f.sha256, v.status, v.error_code, v.error_message, v.attributes, v.readers,
           v.max_chunk_tokens, v.chunk_overlap_tokens, v.generation, v.attempt, v.chunk_count, v.usage_bytes,
           coalesce(v.details->>'title', '') AS title, coalesce(v.details->>'encoding', '') AS encoding,
           coalesce(v.details->'warnings', '[]') AS warnings, v.created_at
    FROM vector_store_files v JOIN files f ON f.id = v.file_id
"""
_STORE_FILE = _ANY_STORE_FILE + "WHERE v.tenant_id = %(tenant)s"
_OF_BATCH = "SELECT b.file_id FROM vector_store_file_batch_files b WHERE b.batch_id = %(batch)s"


def _store_files(viewer: Viewer) -> Listed:
    return Listed(
        "vector_store_files",
        f"{_ANY_STORE_FILE} WHERE {_seen(viewer, 'v')} AND v.vector_store_id = %(store)s",
        f"{_seen(viewer, 'vector_store_files')} AND vector_store_id = %(store)s",
        key="file_id",
        alias="v",
    )


def _seen(viewer: Viewer, document: str) -> str:
    own = of_tenant(viewer, f"{document}.tenant_id", f"{document}.vector_store_id")
    return own + see_documents(viewer, document)


_ONE = " AND v.vector_store_id = %(store)s AND v.file_id = %(file)s"


def _own(viewer: Viewer) -> str:
    """The condition for a file in a store that may be changed."""
    return f"v.tenant_id = %(tenant)s{_ONE}" + see_documents(viewer, "v")


class StoreFiles:
    """The files of all vector stores."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, tenant: Viewer, store_id: str, file_id: str) -> StoreFileRecord:
        """Find a file in a store.

        Raises:
            NotFoundError: The store does not have this file.
        """
        query = _store_files(tenant).query + " AND v.file_id = %(file)s"
        values = values_of(tenant) | {"store": store_id, "file": file_id}
        records = await self._database.for_tenant(tenant).records(StoreFileRecord, query, **values)
        if not records:
            raise _not_found(file_id)
        return records[0]

    async def list_files(
        self,
        tenant: Viewer,
        store_id: str,
        page: Page,
        status: str | None,
        *,
        batch_id: str | None = None,
        filename: str | None = None,
    ) -> list[StoreFileRecord]:
        """List a store's files, or those of one of its batches, by age; one more than `page.limit` if there are more.

        Args:
            filename: Part of the name, in upper or lower case.
        """
        condition = " AND v.status = %(status)s" if status else ""
        if filename:
            condition += " AND strpos(lower(f.filename), lower(%(filename)s)) > 0"
        if batch_id:
            condition += f" AND v.file_id IN ({_OF_BATCH})"
        return await read_page(
            self._database.for_tenant(tenant),
            StoreFileRecord,
            _store_files(tenant),
            page,
            condition=condition,
            store=store_id,
            status=status,
            batch=batch_id,
            filename=filename,
        )

    async def find_in_progress(self, tenant_id: str, store_id: str, file_ids: Sequence[str]) -> list[StoreFileRecord]:
        """Find those of a store's files whose ingest is not done."""
        query = _STORE_FILE + " AND v.vector_store_id = %(store)s AND v.file_id = ANY(%(files)s)"
        return await self._database.for_tenant(tenant_id).records(
            StoreFileRecord,
            query + " AND v.status = 'in_progress'",
            store=store_id,
            files=list(file_ids),
        )

    async def list_unfinished(
        self, older_than_seconds: float, *, limit: int, after: StoreFileRecord | None = None
    ) -> list[StoreFileRecord]:
        """List files of all tenants that have been in progress for longer than this, oldest first.

        Args:
            after: Last file of the previous page.
        """
        query = (
            _ANY_STORE_FILE + "WHERE v.status = 'in_progress' AND v.created_at < now() - make_interval(secs => %(age)s)"
        )
        if after:
            query += (
                " AND (v.created_at, v.vector_store_id, v.file_id) > (%(after_time)s, %(after_store)s, %(after_file)s)"
            )
        return await self._database.for_all().records(
            StoreFileRecord,
            query + " ORDER BY v.created_at, v.vector_store_id, v.file_id LIMIT %(limit)s",
            age=older_than_seconds,
            limit=limit,
            after_time=after and after.created_at,
            after_store=after and after.vector_store_id,
            after_file=after and after.file_id,
        )

    async def list_wrong_chunk_counts(self) -> list[tuple[str, str]]:
        """List (store, file) of all tenants whose chunk count is wrong."""
        async with self._database.for_all().connection() as connection:
            found = await connection.execute(
                """SELECT vector_store_id, file_id
                   FROM vector_store_files v FULL JOIN (
                       SELECT vector_store_id, file_id, count(*) AS chunks FROM chunks GROUP BY vector_store_id, file_id
                   ) AS c USING (vector_store_id, file_id)
                   WHERE coalesce(v.chunk_count, 0) <> coalesce(c.chunks, 0)
                   ORDER BY vector_store_id, file_id"""
            )
            return [(str(row[0]), str(row[1])) for row in await found.fetchall()]

    async def set_attributes(
        self, tenant: Viewer, store_id: str, file_id: str, attributes: Attributes
    ) -> StoreFileRecord:
        await self._database.for_tenant(tenant).row(
            f"UPDATE vector_store_files v SET attributes = %(attributes)s WHERE {_own(tenant)} RETURNING file_id",  # noqa: S608
            store=store_id,
            file=file_id,
            attributes=json.dumps(attributes),
        )
        return await self.get(tenant, store_id, file_id)

    async def set_readers(self, tenant: Viewer, store_id: str, file_id: str, readers: Sequence[str] | None) -> None:
        """Let only those with one of these groups read a document, from now on; None lets all of the tenant."""
        values = values_of(tenant) | {"store": store_id, "file": file_id}
        values["readers"] = None if readers is None else sorted(set(readers))
        async with self._database.for_tenant(tenant).transaction() as connection:
            if readers is not None:
                await connection.execute(HAVE_READERS, values)
            query = f"UPDATE vector_store_files v SET readers = %(readers)s WHERE {_own(tenant)}"  # noqa: S608
            if not (await connection.execute(query, values)).rowcount:
                raise _not_found(file_id)

    async def detach(self, tenant: Viewer, store_id: str, file_id: str) -> None:
        """Remove a file and its chunks from a store; an ingest in progress then writes nothing."""
        values = values_of(tenant) | {"store": store_id, "file": file_id}
        async with self._database.for_tenant(tenant).transaction() as connection:
            if not await remove_files(connection, _own(tenant), values):
                raise _not_found(file_id)

    async def get_text(self, tenant: Viewer, store_id: str, file_id: str) -> str | None:
        """The text to which citation offsets refer; None before the file is ingested."""
        row = await self._database.for_tenant(tenant).row(
            f"SELECT text FROM vector_store_files v WHERE {_seen(tenant, 'v')}{_ONE}",  # noqa: S608
            store=store_id,
            file=file_id,
        )
        if row is None:
            raise _not_found(file_id)
        text: str | None = row["text"]
        return text

    async def get_passage(self, tenant: Viewer, file_id: str, start: int, end: int, *, around: int) -> Passage:
        """Read `text[start:end]` of a document in any store, and up to `around` characters on both sides.

        Raises:
            NotFoundError: No store has the document, or it is not ingested.
        """
        row = await self._database.for_tenant(tenant).row(
            f"""SELECT f.filename, substr(v.text, %(first)s + 1, %(start)s - %(first)s) AS before,
                      substr(v.text, %(start)s + 1, %(end)s - %(start)s) AS quote,
                      substr(v.text, %(end)s + 1, %(around)s) AS after,
                      coalesce(v.details->'places', '[]') AS places, v.page_starts
               FROM vector_store_files v JOIN files f ON f.id = v.file_id
               WHERE {_seen(tenant, "v")} AND v.file_id = %(file)s AND v.text IS NOT NULL
               ORDER BY v.created_at DESC LIMIT 1""",  # noqa: S608
            file=file_id,
            first=max(0, start - around),
            start=start,
            end=end,
            around=around,
        )
        if row is None:
            raise _not_found(file_id)
        places = msgspec.convert(row.pop("places"), list[Place])
        for number, page_start in enumerate(row.pop("page_starts"), 1):  # of what an earlier version ingested
            places.append(Place(page_start, PlaceKind.PAGE, number))
        position = bisect_right(places, start, key=lambda place: place.start)
        return Passage(**row, place=places[position - 1] if position else None)

    async def get_excerpt(self, tenant: Viewer, store_id: str, file_id: str, *, characters: int) -> Excerpt | None:
        """The beginning of a file's text; None before the file is ingested."""
        excerpts = await self._database.for_tenant(tenant).records(
            Excerpt,
            f"""SELECT left(text, %(characters)s) AS text, length(text) AS characters FROM vector_store_files v
                WHERE {_seen(tenant, "v")}{_ONE} AND text IS NOT NULL""",  # noqa: S608
            store=store_id,
            file=file_id,
            characters=characters,
        )
        return excerpts[0] if excerpts else None


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage of a document, with what stands around it."""

    filename: str
    before: str
    quote: str
    after: str
    place: Place | None

    @property
    def page(self) -> int | None:
        """The page that it begins on; None where the format has none."""
        return self.place.number if self.place and self.place.kind is PlaceKind.PAGE else None


def _not_found(file_id: str) -> NotFoundError:
    return NotFoundError(f"No vector store file found with id '{file_id[:80]}'.", param="vector_store_file_id")
