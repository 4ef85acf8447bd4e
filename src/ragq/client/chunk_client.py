"""Chunks and their search in PostgreSQL with pgvector.

Every method takes the tenant and sees that tenant's rows alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from psycopg import AsyncConnection

from ragq.client.database import Database
from ragq.client.filters import compile_filter
from ragq.client.store_file_client import StoreFileRecord
from ragq.errors import DocumentError, PoisonError, RagqError
from ragq.models import DEFAULT_STORE_NAME, Chunk, ParsedDocument, SearchResult
from ragq.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector = NDArray[np.float32]

EXACT_SEARCH_CHUNKS = 20_000  # up to here a scan of the store is as fast as the index, and exact
CANDIDATES = 50  # taken from each of the two rankings before they are fused
RANK_CONSTANT = 60  # of reciprocal rank fusion (Cormack, Clarke, Büttcher 2009)

# Two rankings of the chunks of the given stores, fused by reciprocal rank: by meaning and by words
# (any of the question's words, rarer matches and shorter chunks first). `among` keeps to the files that a filter matches.
_SEARCH = """
    WITH question AS MATERIALIZED (
        SELECT %(vector)s::vector AS vector,
               replace(plainto_tsquery(%(config)s::regconfig, %(text)s)::text, ' & ', ' | ')::tsquery AS words
    ), by_meaning AS (
        SELECT file_id, vector_store_id, ordinal, row_number() OVER (ORDER BY distance) AS rank
        FROM (
            SELECT file_id, vector_store_id, ordinal, {distance} AS distance
            FROM chunks
            WHERE tenant_id = %(tenant)s AND vector_store_id = ANY(%(stores)s){among}
            ORDER BY {distance} LIMIT %(candidates)s
        ) AS nearest
    ), by_words AS (
        SELECT file_id, vector_store_id, ordinal, row_number() OVER (ORDER BY weight DESC) AS rank
        FROM (
            SELECT file_id, vector_store_id, ordinal, ts_rank(text_search, question.words, 1) AS weight
            FROM chunks, question
            WHERE tenant_id = %(tenant)s AND vector_store_id = ANY(%(stores)s) AND text_search @@ question.words{among}
            ORDER BY weight DESC LIMIT %(candidates)s
        ) AS matching
    ), fused AS (
        SELECT file_id, vector_store_id, ordinal, sum(1.0 / (%(constant)s + rank)) AS score
        FROM (SELECT * FROM by_meaning UNION ALL SELECT * FROM by_words) AS both_rankings
        GROUP BY file_id, vector_store_id, ordinal
        ORDER BY score DESC LIMIT %(limit)s
    )
    SELECT c.file_id, f.filename, c.text, c.start_offset AS start, c.end_offset AS end, c.page, c.heading, c.token_count,
           (fused.score * (%(constant)s + 1) / 2)::float8 AS score,
           (1 - (c.embedding <=> %(vector)s::vector))::float8 AS similarity, v.attributes
    FROM fused JOIN chunks c USING (file_id, vector_store_id, ordinal)
         JOIN files f ON f.id = c.file_id
         JOIN vector_store_files v USING (file_id, vector_store_id)
    ORDER BY fused.score DESC, c.file_id, c.ordinal
"""
_AMONG = """ AND (vector_store_id, file_id) IN (
    SELECT vector_store_id, file_id FROM vector_store_files
    WHERE tenant_id = %(tenant)s AND vector_store_id = ANY(%(stores)s) AND {condition})"""
# A store that is searched is active; noted once a minute, and never waited for.
_STORES = """
    WITH named AS (
        SELECT id FROM vector_stores
        WHERE tenant_id = %(tenant)s AND (id = ANY(%(names)s) OR is_default AND %(default)s = ANY(%(names)s))
    ), touched AS (
        UPDATE vector_stores
        SET last_active_at = now(), expires_at = now() + expires_after_days * interval '24 hours'
        WHERE id IN (
            SELECT id FROM vector_stores
            WHERE id IN (SELECT id FROM named) AND last_active_at < now() - interval '1 minute'
              AND (expires_at IS NULL OR expires_at > now())
            FOR NO KEY UPDATE SKIP LOCKED
        )
    )
    SELECT (SELECT coalesce(array_agg(id), '{{}}') FROM named) AS ids, coalesce(sum(chunk_count), 0) AS chunks
    FROM vector_store_files
    WHERE tenant_id = %(tenant)s AND vector_store_id IN (SELECT id FROM named) AND {condition}"""
_EXACT = "(embedding <=> %(vector)s::vector) + 0"  # an expression no index serves
_BY_INDEX = "embedding <=> %(vector)s::vector"


class Chunks:
    """The passages of the documents, by store."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database

    async def begin_ingest(self, tenant_id: str, store_id: str, file_id: str, generation: int, attempt: int) -> bool:
        """Take a file for ingest; False when it was deleted, is done, or belongs to a later generation or attempt."""
        row = await self._database.row(
            """UPDATE vector_store_files SET attempt = %(attempt)s
               WHERE tenant_id = %(tenant)s AND vector_store_id = %(store)s AND file_id = %(file)s
                 AND generation = %(generation)s AND attempt <= %(attempt)s AND status = 'in_progress'
               RETURNING file_id""",
            tenant=tenant_id,
            store=store_id,
            file=file_id,
            generation=generation,
            attempt=attempt,
        )
        return row is not None

    async def restart_ingest(self, tenant_id: str, store_id: str, file_id: str, generation: int) -> int | None:
        """Begin an ingest that is in progress anew; returns its new generation, or None if it is no longer this one."""
        row = await self._database.row(
            """UPDATE vector_store_files SET generation = generation + 1, attempt = 0
               WHERE tenant_id = %(tenant)s AND vector_store_id = %(store)s AND file_id = %(file)s
                 AND generation = %(generation)s AND status = 'in_progress'
               RETURNING generation""",
            tenant=tenant_id,
            store=store_id,
            file=file_id,
            generation=generation,
        )
        return None if row is None else int(row["generation"])

    async def complete_ingest(
        self, record: StoreFileRecord, attempt: int, document: ParsedDocument, chunks: list[Chunk], vectors: Vector
    ) -> bool:
        """Make a new version visible and the old one disappear, in one transaction; False if the file is no longer ours.

        Args:
            vectors: Float array of shape (len(chunks), dimensions), rows of length 1.
        """
        async with self._database.connection() as connection, connection.transaction():
            updated = await connection.execute(
                """UPDATE vector_store_files
                   SET status = 'completed', text = %s, page_starts = %s, chunk_count = %s, usage_bytes = %s
                   WHERE vector_store_id = %s AND file_id = %s AND generation = %s AND attempt = %s
                     AND status = 'in_progress'
                   RETURNING tenant_id, replace_same_name""",
                [
                    document.text,
                    list(document.page_starts),
                    len(chunks),
                    _usage_bytes(chunks, vectors),
                    record.vector_store_id,
                    record.file_id,
                    record.generation,
                    attempt,
                ],
            )
            row = await updated.fetchone()
            if row is None:
                return False
            key = [record.vector_store_id, record.file_id]
            await connection.execute("DELETE FROM chunks WHERE vector_store_id = %s AND file_id = %s", key)
            await _copy_chunks(connection, record, row[0], chunks, vectors)
            if row[1]:
                await connection.execute(
                    """DELETE FROM vector_store_files v USING files f
                       WHERE f.id = v.file_id AND v.vector_store_id = %s AND v.file_id <> %s AND f.filename = %s
                         AND v.created_at < %s""",
                    [*key, record.filename, record.created_at],
                )
        return True

    async def fail_ingest(
        self, tenant_id: str, store_id: str, file_id: str, generation: int, attempt: int, error: RagqError
    ) -> None:
        """Record why a file could not be ingested; its earlier version, if any, stays visible.

        When the error says that its bytes are poison, they are remembered as such in the same transaction.
        """
        await self._database.row(
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
            tenant=tenant_id,
            store=store_id,
            file=file_id,
            generation=generation,
            attempt=attempt,
            code=error.code if isinstance(error, DocumentError) else "server_error",
            message=_storable(error.message),
            poison=isinstance(error, PoisonError) or error.code == "quarantined",
        )

    async def search(
        self,
        tenant_id: str,
        store_ids: list[str],
        text: str,
        vector: Vector,
        *,
        limit: int,
        filters: dict[str, Any] | None = None,
    ) -> list[SearchResult]:
        """Find the chunks nearest to a question in meaning and words, best first; the stores are active by that.

        Args:
            store_ids: Ids; `default` stands for the tenant's default store.
            vector: The question's embedding, of length 1.
            limit: Results at the most.
            filters: OpenAI's attribute filter: only files that match it are searched.

        Raises:
            PermanentError: `filters` is not a filter.
        """
        condition, values = compile_filter(filters)
        parameters = {"tenant": tenant_id} | values
        stores = await self._database.row(
            _STORES.format(condition=condition), names=store_ids, default=DEFAULT_STORE_NAME, **parameters
        )
        assert stores  # an aggregate has a row
        exact = stores["chunks"] <= EXACT_SEARCH_CHUNKS
        among = _AMONG.format(condition=condition) if filters else ""
        return await self._database.records(
            SearchResult,
            _SEARCH.format(distance=_EXACT if exact else _BY_INDEX, among=among),
            text=text.replace("\0", " "),
            vector=_vector_literal(vector),
            config=self._settings.text_search_config,
            candidates=max(CANDIDATES, limit),
            constant=RANK_CONSTANT,
            limit=limit,
            stores=stores["ids"],
            **parameters,
        )


def _storable(text: str) -> str:
    """Replace what PostgreSQL's text cannot hold: the words may come from a hostile file."""
    return text.replace("\0", " ").encode("utf-8", "replace").decode()


def _vector_literal(vector: Vector) -> str:
    return orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY).decode()


def _usage_bytes(chunks: list[Chunk], vectors: Vector) -> int:
    return sum(len(chunk.text.encode()) for chunk in chunks) + vectors.nbytes


async def _copy_chunks(
    connection: AsyncConnection[Any], record: StoreFileRecord, tenant_id: str, chunks: list[Chunk], vectors: Vector
) -> None:
    copy_statement = """COPY chunks (vector_store_id, file_id, ordinal, tenant_id, start_offset, end_offset, page, heading,
                                     token_count, text, embedding) FROM STDIN"""
    async with connection.cursor() as cursor, cursor.copy(copy_statement) as copy:
        for ordinal, (chunk, vector) in enumerate(zip(chunks, vectors, strict=True)):
            where = (record.vector_store_id, record.file_id, ordinal, tenant_id, chunk.start, chunk.end, chunk.page)
            await copy.write_row((*where, chunk.heading, chunk.token_count, chunk.text, _vector_literal(vector)))
