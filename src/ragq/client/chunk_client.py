"""Chunks and their search in PostgreSQL with pgvector.

Every method takes the tenant and sees that tenant's rows alone.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
from psycopg import AsyncConnection, Rollback

from ragq.client.database import Database
from ragq.client.filters import compile_filter
from ragq.client.removal import StoredFile, delete_chunks, remove_older_of_same_name
from ragq.client.store_file_client import StoreFileRecord
from ragq.client.word_choice import MATCHES, WordShares, choose_words
from ragq.errors import DocumentError, PoisonError, RagqError
from ragq.models import DEFAULT_STORE_NAME, Chunk, ParsedDocument, SearchResult
from ragq.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector = NDArray[np.float32]

# Scanning n chunks takes time like n; the index must look at like N / n chunks of a table of N to find one among n. So up
# to this many, or to this many times the root of N, a scan is as fast, and exact.
EXACT_SEARCH_CHUNKS = 20_000
EXACT_SEARCH_ROOTS = 40
CANDIDATES = 50  # taken from each of the two rankings before they are fused
RANK_CONSTANT = 60  # of reciprocal rank fusion (Cormack, Clarke, Büttcher 2009)
SHARES_SECONDS = 60.0  # for which the shares of words are remembered
STORE_STEP = 200  # chunks stored by one statement: each takes 2 ms with the index of vectors, on a busy machine 10

# Two rankings of the chunks of the given stores, fused by reciprocal rank: by meaning and by words (rarer matches and
# shorter chunks first; found by the words of `choose_words`). `among` keeps to the files that a filter matches.
_SEARCH = """
    WITH question AS MATERIALIZED (
        SELECT replace(plainto_tsquery(%(config)s::regconfig, %(text)s)::text, ' & ', ' | ')::tsquery AS words
    ), by_meaning AS (
        SELECT file_id, vector_store_id, ordinal, row_number() OVER (ORDER BY distance) AS rank
        FROM (
            SELECT file_id, vector_store_id, ordinal, {distance} AS distance
            FROM chunks c
            WHERE tenant_id = %(tenant)s AND vector_store_id = ANY(%(stores)s){among}
            ORDER BY {distance} LIMIT %(candidates)s
        ) AS nearest
    ), by_words AS (
        SELECT file_id, vector_store_id, ordinal, row_number() OVER (ORDER BY weight DESC) AS rank
        FROM (
            SELECT file_id, vector_store_id, ordinal, ts_rank(text_search, question.words, 1) AS weight
            FROM question, (
                SELECT file_id, vector_store_id, ordinal, text_search
                FROM chunks c
                WHERE tenant_id = %(tenant)s AND vector_store_id = ANY(%(stores)s)
                  AND text_search @@ %(found_by)s::tsquery{among}
                LIMIT %(most_matches)s
            ) AS found
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
           (1 - (c.embedding <=> %(vector)s::halfvec))::float8 AS similarity, v.attributes
    FROM fused JOIN chunks c USING (file_id, vector_store_id, ordinal)
         JOIN files f ON f.id = c.file_id
         JOIN vector_store_files v USING (file_id, vector_store_id)
    ORDER BY fused.score DESC, c.file_id, c.ordinal
"""
_EXACT = "(embedding <=> %(vector)s::halfvec) + 0"  # an expression no index serves
_BY_INDEX = "embedding <=> %(vector)s::halfvec"
_AMONG_FEW = """
    AND (vector_store_id, file_id) IN (SELECT * FROM unnest(%(store_of_file)s::text[], %(files)s::text[]))"""
# A subquery for each chunk, not a join: what the index gives, nearest first, stays in that order.
_AMONG_MANY = """
    AND (SELECT {condition} FROM vector_store_files v WHERE (v.vector_store_id, v.file_id) = (c.vector_store_id, c.file_id))"""
# What is to be searched: the stores, the chunks that match the filter and their files if they are few, and the words.
# A store that is searched is active; noted once a minute, and never waited for.
_SCOPE = """
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
    ), size AS (
        SELECT greatest(reltuples, 0)::bigint AS chunks,
               greatest(%(exact)s, %(exact_roots)s * sqrt(greatest(reltuples, 0)))::bigint AS few
        FROM pg_class WHERE oid = 'chunks'::regclass
    ), matching AS (
        SELECT vector_store_id, file_id, chunk_count FROM vector_store_files
        WHERE tenant_id = %(tenant)s AND vector_store_id IN (SELECT id FROM named) AND chunk_count > 0 AND {condition}
        LIMIT (SELECT few + 1 FROM size)
    ), counted AS (
        SELECT coalesce(sum(chunk_count), 0) AS chunks,
               coalesce(array_agg(vector_store_id) FILTER (WHERE %(filtered)s), '{{}}') AS store_of_file,
               coalesce(array_agg(file_id) FILTER (WHERE %(filtered)s), '{{}}') AS files
        FROM matching
    )
    SELECT (SELECT coalesce(array_agg(id), '{{}}') FROM named) AS stores, counted.chunks <= size.few AS are_few,
           size.chunks AS of_all,
           CASE WHEN counted.chunks <= size.few THEN counted.chunks ELSE size.chunks END AS chunks,
           CASE WHEN counted.chunks <= size.few THEN store_of_file ELSE '{{}}' END AS store_of_file,
           CASE WHEN counted.chunks <= size.few THEN files ELSE '{{}}' END AS files,
           tsvector_to_array(to_tsvector(%(config)s::regconfig, %(text)s)) AS words
    FROM counted, size"""
_SHARES = """
    SELECT most_common_elems::text::text[] AS words, most_common_elem_freqs AS shares FROM pg_stats
    WHERE (schemaname, tablename, attname) = (
        SELECT relnamespace::regnamespace::name, relname, 'text_search'::name FROM pg_class WHERE oid = 'chunks'::regclass)"""

_COPY = """
    COPY chunks (vector_store_id, file_id, ordinal, tenant_id, start_offset, end_offset, page, heading, token_count, text, embedding)
    FROM STDIN (FORMAT binary)"""
# The last is a halfvec as pgvector sends it: its length, 0, its numbers. As text it takes both ends longer.
_COPY_TYPES = ("text", "text", "int4", "text", "int4", "int4", "int4", "text", "int4", "text", "bytea")


@dataclass(frozen=True, slots=True)
class Scope:
    """What a question is searched in, and how: known before the question is embedded.

    Attributes:
        plan_anew: A plan for any store and filter could miss the index that serves this one.
    """

    query: str
    parameters: dict[str, Any]
    plan_anew: bool


class Chunks:
    """The passages of the documents, by store."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._shares = WordShares()
        self._shares_until = 0.0

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

    async def is_ingest_of(self, record: StoreFileRecord, attempt: int) -> bool:
        """Whether the file still waits for this attempt of this ingest: it is in its store, and nothing came after."""
        row = await self._database.row(
            """SELECT FROM vector_store_files
               WHERE tenant_id = %(tenant)s AND vector_store_id = %(store)s AND file_id = %(file)s
                 AND generation = %(generation)s AND attempt = %(attempt)s""",
            tenant=record.tenant_id,
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
        progress: Callable[[int, int], None] | None = None,
    ) -> bool:
        """Make a new version visible and the old one disappear in one transaction; False if the file is no longer ours.

        The chunks are stored by many statements, each well within PostgreSQL's time limit. Nobody waits for them: the
        file's row is locked only when all are there.

        Args:
            vectors: Float array of shape (len(chunks), dimensions), rows of length 1.
            progress: Called with (chunks stored, chunks in all).
        """
        async with self._database.connection() as connection, connection.transaction() as transaction:
            await connection.execute("SET LOCAL idle_in_transaction_session_timeout = '60s'")  # this process may freeze
            for first in range(0, len(chunks), STORE_STEP):
                some = slice(first, first + STORE_STEP)
                await _copy_chunks(connection, record, first, chunks[some], vectors[some])
                if progress:
                    progress(first + len(chunks[some]), len(chunks))
            if not await _replace_version(connection, record, attempt):
                raise Rollback(transaction)
            await connection.execute(
                "SET LOCAL statement_timeout = '600s'"
            )  # one value: 200 MB take seconds, or a minute
            await connection.execute(
                """UPDATE vector_store_files
                   SET status = 'completed', text = %s, page_starts = %s, chunk_count = %s, usage_bytes = %s
                   WHERE vector_store_id = %s AND file_id = %s""",
                [
                    document.text,
                    list(document.page_starts),
                    len(chunks),
                    _usage_bytes(chunks, vectors),
                    record.vector_store_id,
                    record.file_id,
                ],
            )
            return True
        return False

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

    async def find_scope(
        self, tenant_id: str, store_ids: list[str], text: str, filters: dict[str, Any] | None = None
    ) -> Scope:
        """Look up what a question is to be searched in; the stores are active by that.

        Args:
            store_ids: Ids; `default` stands for the tenant's default store.
            filters: OpenAI's attribute filter: only files that match it are searched.

        Raises:
            PermanentError: `filters` is not a filter.
        """
        condition, values = compile_filter(filters)
        question = {"tenant": tenant_id, "config": self._settings.text_search_config, "text": text.replace("\0", " ")}
        found = await self._database.row(
            _SCOPE.format(condition=condition),
            names=store_ids,
            default=DEFAULT_STORE_NAME,
            exact=EXACT_SEARCH_CHUNKS,
            exact_roots=EXACT_SEARCH_ROOTS,
            filtered=filters is not None,
            **question,
            **values,
        )
        assert found  # it has one row
        distance, among = (_EXACT, _AMONG_FEW) if found["are_few"] else (_BY_INDEX, _AMONG_MANY)
        shares = await self._word_shares() if found["chunks"] > MATCHES else WordShares()
        return Scope(
            _SEARCH.format(distance=distance, among=among.format(condition=condition) if filters else ""),
            {
                "found_by": choose_words(found["words"], shares, found["chunks"]),
                "stores": found["stores"],
                "store_of_file": found["store_of_file"],
                "files": found["files"],
                **question,
                **values,
            },
            plan_anew=found["of_all"] > EXACT_SEARCH_CHUNKS,
        )

    async def search(self, scope: Scope, vector: Vector, *, limit: int) -> list[SearchResult]:
        """Find the chunks nearest to a question in meaning and words, best first.

        Args:
            vector: The question's embedding, of length 1.
            limit: Results at the most.
        """
        return await self._database.records(
            SearchResult,
            scope.query,
            plan_anew=scope.plan_anew,
            vector=_vector_literal(vector),
            most_matches=MATCHES,
            candidates=max(CANDIDATES, limit),
            constant=RANK_CONSTANT,
            limit=limit,
            **scope.parameters,
        )

    async def _word_shares(self) -> WordShares:
        if time.monotonic() > self._shares_until:
            row = await self._database.row(_SHARES)
            # Two shares more than words: the least and the most.
            common = dict(zip(row["words"], row["shares"], strict=False)) if row else {}
            self._shares = WordShares(common, min(common.values(), default=0.0) / 4)
            self._shares_until = time.monotonic() + SHARES_SECONDS
        return self._shares


def _storable(text: str) -> str:
    """Replace what PostgreSQL's text cannot hold: the words may come from a hostile file."""
    return text.replace("\0", " ").encode("utf-8", "replace").decode()


def _vector_literal(vector: Vector) -> str:
    return orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY).decode()


def _usage_bytes(chunks: list[Chunk], vectors: Vector) -> int:
    return sum(len(chunk.text.encode()) for chunk in chunks) + vectors.nbytes


async def _replace_version(connection: AsyncConnection[Any], record: StoreFileRecord, attempt: int) -> bool:
    """Lock a file's row and delete what its new version replaces; False if the file is no longer this ingest's."""
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


async def _copy_chunks(
    connection: AsyncConnection[Any], record: StoreFileRecord, first: int, chunks: Sequence[Chunk], vectors: Vector
) -> None:
    where = (record.vector_store_id, record.file_id)
    async with connection.cursor() as cursor, cursor.copy(_COPY) as copy:
        copy.set_types(_COPY_TYPES)
        for ordinal, (chunk, vector) in enumerate(zip(chunks, vectors.astype(">f2"), strict=True), start=first):
            place = (ordinal, record.tenant_id, chunk.start, chunk.end, chunk.page)
            halfvec = struct.pack(">HH", len(vector), 0) + vector.tobytes()
            await copy.write_row((*where, *place, chunk.heading, chunk.token_count, chunk.text, halfvec))
