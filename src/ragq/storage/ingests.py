"""Ingests: the only module that writes the state of a file in a store, and its chunks.

Every method takes the tenant, or a record that names it, and accesses only that tenant's rows.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from psycopg import AsyncConnection, Rollback
from psycopg.types.json import Jsonb

from ragq.accounts.views import Viewer
from ragq.errors import DocumentError, PoisonError, RagqError
from ragq.models import Attributes, Chunk, Location, ParsedDocument
from ragq.storage.database import Database
from ragq.storage.files import POISON_REASON
from ragq.storage.removal import StoredFile, delete_chunks, remove_older_of_same_name
from ragq.storage.search.word_vector import index_chunk
from ragq.storage.store_files import StoreFileRecord
from ragq.storage.tenancy.visibility import HAVE_READERS, see_documents, values_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector = NDArray[np.float32]

STORE_STEP = 200  # chunks stored by one statement; with the vector index each takes 2 ms, or 10 on a busy machine

_COPY = """
    COPY chunks (vector_store_id, file_id, ordinal, tenant_id, start_offset, end_offset, page, heading, token_count, text, {vectors},
                 location, context, text_search)
    FROM STDIN (FORMAT binary)"""
# The embedding is a halfvec in pgvector's binary form: length, 0, numbers; the words are a tsvector in PostgreSQL's. Text is
# slower on both ends.
_COPY_TYPES = (
    *("text", "text", "int4", "text", "int4", "int4", "int4", "text", "int4", "text"),
    *("bytea", "jsonb", "text", "bytea"),
)

_GIVEN = "(SELECT array_agg(one ORDER BY one) FROM jsonb_array_elements_text(a.readers::jsonb) AS one)"


def _attach(viewer: Viewer) -> str:
    """Put files into a store. One that replaces others gets their readers, unless it is given its own."""
    return f"""
    INSERT INTO vector_store_files AS v (vector_store_id, file_id, tenant_id, attributes, readers, max_chunk_tokens,
                                         chunk_overlap_tokens, replace_same_name, status, error_code, error_message)
    SELECT s.id, f.id, s.tenant_id, coalesce(a.attributes::jsonb, h.attributes, '{{}}'),
           coalesce({_GIVEN}, h.readers, CASE WHEN a.replace THEN (
               SELECT o.readers FROM vector_store_files o JOIN files named ON named.id = o.file_id
               WHERE o.vector_store_id = s.id AND named.filename = f.filename AND o.readers IS NOT NULL
                 {see_documents(viewer, "o")}
               ORDER BY o.created_at DESC LIMIT 1) END),
           CASE WHEN a.keeps AND h.file_id IS NOT NULL THEN h.max_chunk_tokens ELSE a.size END,
           CASE WHEN a.keeps AND h.file_id IS NOT NULL THEN h.chunk_overlap_tokens ELSE a.overlap END, a.replace,
           CASE WHEN p.sha256 IS NULL THEN 'in_progress' ELSE 'failed' END, p.code, {POISON_REASON}
    FROM unnest(%(files)s::text[], %(attributes)s::text[], %(readers)s::text[], %(sizes)s::int[], %(overlaps)s::int[],
                %(replace)s::bool[], %(keeps)s::bool[])
         AS a (file_id, attributes, readers, size, overlap, replace, keeps)
         JOIN files f ON f.id = a.file_id AND f.tenant_id = %(tenant)s
         JOIN vector_stores s ON s.id = %(store)s AND s.tenant_id = %(tenant)s
         LEFT JOIN vector_store_files h ON (h.vector_store_id, h.file_id) = (s.id, f.id)
         LEFT JOIN poison p USING (sha256)
    ORDER BY f.id
    ON CONFLICT (vector_store_id, file_id) DO UPDATE
    SET status = excluded.status, error_code = excluded.error_code, error_message = excluded.error_message,
        generation = v.generation + 1, attempt = 0, created_at = clock_timestamp(),
        max_chunk_tokens = excluded.max_chunk_tokens, chunk_overlap_tokens = excluded.chunk_overlap_tokens,
        attributes = excluded.attributes, readers = excluded.readers,
        replace_same_name = excluded.replace_same_name OR (v.replace_same_name AND v.status IN ('failed', 'cancelled'))
    WHERE (v.status IN ('failed', 'cancelled')
           OR (v.max_chunk_tokens, v.chunk_overlap_tokens)
              IS DISTINCT FROM (excluded.max_chunk_tokens, excluded.chunk_overlap_tokens)){see_documents(viewer, "v")}
    RETURNING v.file_id
"""  # noqa: S608  (constants)


def _attach_again(viewer: Viewer) -> str:
    """Changes to an attached file that need no ingest. One that is to replace others counts as attached now."""
    return f"""
    UPDATE vector_store_files v
    SET attributes = coalesce(a.attributes::jsonb, v.attributes), readers = coalesce({_GIVEN}, v.readers),
        replace_same_name = v.replace_same_name OR a.replace,
        created_at = CASE WHEN a.replace THEN clock_timestamp() ELSE v.created_at END
    FROM unnest(%(files)s::text[], %(attributes)s::text[], %(readers)s::text[], %(replace)s::bool[])
         AS a (file_id, attributes, readers, replace)
    WHERE v.tenant_id = %(tenant)s AND v.vector_store_id = %(store)s AND v.file_id = a.file_id
      AND v.file_id <> ALL(%(ingested)s)
      AND (a.replace OR a.attributes IS NOT NULL OR a.readers IS NOT NULL){see_documents(viewer, "v")}
    RETURNING CASE WHEN a.replace AND v.status = 'completed' THEN v.file_id END
"""  # noqa: S608  (constants)


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file to put into a store, and its chunk sizes; None for the model's defaults.

    Attributes:
        attributes: None keeps the attributes that the file has in the store.
        readers: Groups that may read the document; None keeps those that it has, or gives it those of the file that it replaces.
        keeps_chunking: Keep the chunk sizes that the file has in the store; the given ones are for a new file.
        replace_same_name: When this file becomes visible, older files of the same name leave the store.
    """

    file_id: str
    attributes: Attributes | None = None
    max_chunk_tokens: int | None = None
    chunk_overlap_tokens: int | None = None
    replace_same_name: bool = False
    keeps_chunking: bool = False
    readers: Sequence[str] | None = None


_COMPLETE = """
    UPDATE vector_store_files
    SET status = 'completed', text = %s, details = %s, page_starts = '{}', chunk_count = %s, usage_bytes = %s
    WHERE vector_store_id = %s AND file_id = %s
"""
# Rarely changes anything, and so rarely waits for another ingest into the store.
_ADD_LANGUAGE = """
    UPDATE vector_stores SET languages = languages || %(language)s::text
    WHERE id = %(store)s AND NOT %(language)s = ANY(languages)
"""


class Ingests:
    """The ingest of each file into each store, by its generation and attempt."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def attach_many(self, tenant: Viewer, store_id: str, attachments: Sequence[Attachment]) -> None:
        """Attach files to a store for ingestion. For a file that is already attached, only differences are applied.

        Changed attributes and `replace_same_name` apply at once, or with the ingest in progress. A changed chunking, or a
        failed or cancelled ingest, starts a new ingest; the old version stays visible until that is done. Poison fails
        at once.
        """
        async with self._database.for_tenant(tenant).transaction() as connection:
            await attach_with(connection, tenant, store_id, attachments)

    async def begin_ingest(self, tenant_id: str, store_id: str, file_id: str, generation: int, attempt: int) -> bool:
        """Start an attempt; False if the file was deleted, is done, or has a later generation or attempt."""
        row = await self._database.for_tenant(tenant_id).row(
            """UPDATE vector_store_files SET attempt = %(attempt)s
               WHERE tenant_id = %(tenant)s AND vector_store_id = %(store)s AND file_id = %(file)s
                 AND generation = %(generation)s AND attempt <= %(attempt)s AND status = 'in_progress'
               RETURNING file_id""",
            store=store_id,
            file=file_id,
            generation=generation,
            attempt=attempt,
        )
        return row is not None

    async def restart_ingest(self, tenant_id: str, store_id: str, file_id: str, generation: int) -> int | None:
        """Restart an ingest in progress; returns its new generation, or None if this generation is over."""
        row = await self._database.for_tenant(tenant_id).row(
            """UPDATE vector_store_files SET generation = generation + 1, attempt = 0
               WHERE tenant_id = %(tenant)s AND vector_store_id = %(store)s AND file_id = %(file)s
                 AND generation = %(generation)s AND status = 'in_progress'
               RETURNING generation""",
            store=store_id,
            file=file_id,
            generation=generation,
        )
        return None if row is None else int(row["generation"])

    async def is_ingest_of(self, record: StoreFileRecord, attempt: int) -> bool:
        """Whether the file is still in its store and this attempt of this generation is the latest."""
        row = await self._database.for_tenant(record.tenant_id).row(
            """SELECT FROM vector_store_files
               WHERE tenant_id = %(tenant)s AND vector_store_id = %(store)s AND file_id = %(file)s
                 AND generation = %(generation)s AND attempt = %(attempt)s""",
            store=record.vector_store_id,
            file=record.file_id,
            generation=record.generation,
            attempt=attempt,
        )
        return row is not None

    async def complete_ingest(
        self,
        record: StoreFileRecord,
        attempt: int,
        document: ParsedDocument,
        chunks: list[Chunk],
        vectors: Vector,
        *,
        language: str,
        progress: Callable[[int, int], None] | None = None,
    ) -> bool:
        """Replace the visible version in one transaction; False if the file is no longer this attempt's.

        The chunks are stored by many statements, each well within PostgreSQL's time limit. They block no one, because
        the file's row is locked only after all are stored.

        Args:
            vectors: Float array of shape (len(chunks), dimensions), rows of length 1.
            language: ISO 639-1 code; the chunks' words are cut to stems by its rules.
            progress: Called with (chunks stored, total chunks).
        """
        copy = _COPY.format(vectors=await self._database.vector_column())
        async with self._database.for_tenant(record.tenant_id).copying() as (connection, end_copying):
            await connection.execute(
                "SET LOCAL idle_in_transaction_session_timeout = '60s'"
            )  # in case this process freezes
            for first in range(0, len(chunks), STORE_STEP):
                some = slice(first, first + STORE_STEP)
                await _copy_chunks(connection, copy, record, first, chunks[some], vectors[some], language)
                if progress:
                    progress(first + len(chunks[some]), len(chunks))
            await end_copying()
            if not await _replace_version(connection, record, attempt):
                raise Rollback
            stored = [document.text, _details(document), len(chunks), _usage_bytes(chunks, vectors)]
            await _complete(connection, record, stored, language)
            return True
        return False

    async def fail_ingest(
        self, tenant_id: str, store_id: str, file_id: str, generation: int, attempt: int, error: RagqError
    ) -> None:
        """Record why an ingest failed; the earlier version, if any, stays visible.

        A PoisonError also records the bytes as poison, in the same transaction.
        """
        await self._database.for_tenant(tenant_id).row(
            """WITH failed AS (
                   UPDATE vector_store_files SET status = 'failed', error_code = %(code)s, error_message = %(message)s
                   WHERE tenant_id = %(tenant)s AND vector_store_id = %(store)s AND file_id = %(file)s
                     AND generation = %(generation)s AND attempt <= %(attempt)s AND status = 'in_progress'
                   RETURNING file_id
               )
               INSERT INTO poison (sha256, code, reason)
               SELECT f.sha256, %(code)s, %(message)s FROM failed JOIN files f ON f.id = failed.file_id
               WHERE %(poison)s
               ON CONFLICT DO NOTHING RETURNING sha256""",
            store=store_id,
            file=file_id,
            generation=generation,
            attempt=attempt,
            code=error.code if isinstance(error, DocumentError) else "server_error",
            message=_storable(error.message),
            poison=isinstance(error, PoisonError) or error.code == "quarantined",
        )


async def attach_with(
    connection: AsyncConnection[Any], tenant: Viewer, store_id: str, attachments: Sequence[Attachment]
) -> None:
    """Put files into a store, as `Ingests.attach_many` does, in the caller's transaction."""
    wanted = list({one.file_id: one for one in attachments}.values())
    columns = {
        "files": [one.file_id for one in wanted],
        "attributes": [None if one.attributes is None else json.dumps(one.attributes) for one in wanted],
        "readers": [None if one.readers is None else json.dumps(sorted(set(one.readers))) for one in wanted],
        "sizes": [one.max_chunk_tokens for one in wanted],
        "overlaps": [one.chunk_overlap_tokens for one in wanted],
        "replace": [one.replace_same_name for one in wanted],
        "keeps": [one.keeps_chunking for one in wanted],
    }
    values = {"store": store_id, **columns, **values_of(tenant)}
    if any(one.readers for one in wanted):
        await connection.execute(HAVE_READERS, values)
    ingested = [row[0] for row in await (await connection.execute(_attach(tenant), values)).fetchall()]
    updated = await connection.execute(_attach_again(tenant), values | {"ingested": ingested})
    if replacing := [row[0] for row in await updated.fetchall() if row[0]]:
        await remove_older_of_same_name(connection, store_id, replacing)


async def cancel_batch(
    connection: AsyncConnection[Any], tenant: Viewer, store_id: str, batch_id: str
) -> list[tuple[str, int]]:
    """Cancel a batch's files in progress, in the caller's transaction; returns (file, generation) of each."""
    found = await connection.execute(
        f"""UPDATE vector_store_files v SET status = 'cancelled', generation = v.generation + 1, attempt = 0
           FROM vector_store_file_batch_files f
           WHERE f.batch_id = %(batch)s AND v.vector_store_id = f.vector_store_id AND v.file_id = f.file_id
             AND v.tenant_id = %(tenant)s AND v.vector_store_id = %(store)s AND v.status = 'in_progress'
             {see_documents(tenant, "v")}
           RETURNING v.file_id, v.generation - 1""",  # noqa: S608
        values_of(tenant) | {"batch": batch_id, "store": store_id},
    )
    return [(str(row[0]), int(row[1])) for row in await found.fetchall()]


def _storable(text: str) -> str:
    """Replace characters that PostgreSQL's text cannot hold; a hostile file may contain them."""
    return text.replace("\0", " ").encode("utf-8", "replace").decode()


def _details(document: ParsedDocument) -> Jsonb:
    """What the parser found beside the text and what the chunks say; see migration 0014."""
    return Jsonb(
        {
            "places": [asdict(place) for place in document.places],
            "title": document.title,
            "encoding": document.encoding,
            "language": document.language,
            "warnings": document.warnings,
        }
    )


def _usage_bytes(chunks: list[Chunk], vectors: Vector) -> int:
    return sum(len(chunk.text.encode()) for chunk in chunks) + vectors.nbytes


async def _replace_version(connection: AsyncConnection[Any], record: StoreFileRecord, attempt: int) -> bool:
    """Lock a file's row and delete what the new version replaces; False if the file is no longer this attempt's."""
    found = await connection.execute(
        """SELECT chunk_count, replace_same_name FROM vector_store_files
           WHERE (vector_store_id, file_id, generation, attempt, status) = (%s, %s, %s, %s, 'in_progress')
           FOR NO KEY UPDATE""",
        [record.vector_store_id, record.file_id, record.generation, attempt],
    )
    row = await found.fetchone()
    if row is None:
        return False
    await delete_chunks(connection, [StoredFile(record.vector_store_id, record.file_id, row[0])])
    if row[1]:
        await remove_older_of_same_name(connection, record.vector_store_id, [record.file_id])
    return True


async def _complete(
    connection: AsyncConnection[Any], record: StoreFileRecord, stored: list[Any], language: str
) -> None:
    """Store a file's text and what else is known of it, as the version that is visible after the transaction."""
    # The text is one value; 200 MB take seconds, up to a minute.
    await connection.execute("SET LOCAL statement_timeout = '600s'")
    await connection.execute(_COMPLETE, [*stored, record.vector_store_id, record.file_id])
    await connection.execute(_ADD_LANGUAGE, {"store": record.vector_store_id, "language": language})


async def _copy_chunks(
    connection: AsyncConnection[Any],
    statement: str,
    record: StoreFileRecord,
    first: int,
    chunks: Sequence[Chunk],
    vectors: Vector,
    language: str,
) -> None:
    where = (record.vector_store_id, record.file_id)
    indexed = await asyncio.to_thread(lambda: [index_chunk(chunk, language) for chunk in chunks])
    async with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.set_types(_COPY_TYPES)
        for ordinal, (chunk, vector) in enumerate(zip(chunks, vectors.astype(">f2"), strict=True), start=first):
            place = (ordinal, record.tenant_id, chunk.start, chunk.end, chunk.page)
            halfvec = struct.pack(">HH", len(vector), 0) + vector.tobytes()
            words = (chunk.heading, chunk.token_count, chunk.text)
            location = Jsonb(asdict(chunk.location)) if chunk.location != Location() else None
            row = (*where, *place, *words, halfvec, location, chunk.context or None, indexed[ordinal - first])
            await copy.write_row(row)
