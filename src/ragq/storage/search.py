"""Search the chunks of stores in PostgreSQL with pgvector.

A `Scope` names its tenant, and only that tenant's rows are read.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import msgspec
import orjson

from ragq.models import DEFAULT_STORE_NAME, AttributeFilter, Location, SearchResult
from ragq.settings import Settings
from ragq.storage.database import Database
from ragq.storage.filter_sql import compile_filter
from ragq.storage.word_choice import MATCHES, WordShares, choose_words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector = NDArray[np.float32]

# Scanning n chunks takes time in n; in a table of N chunks, the index must visit about N / n to find one among n. So up
# to this many chunks, or this many times the square root of N, a scan is as fast, and exact.
EXACT_SEARCH_CHUNKS = 20_000
EXACT_SEARCH_ROOTS = 40
CANDIDATES = 50  # taken from each of the two rankings before they are fused
RANK_CONSTANT = 60  # of reciprocal rank fusion (Cormack, Clarke, Büttcher 2009)
SHARES_SECONDS = 60.0  # how long the shares of words are cached

# Two rankings of the stores' chunks, fused by reciprocal rank: by meaning, and by words (rarer matches and shorter
# chunks first, among those that match `choose_words`). `among` restricts both to the files that a filter matches. The sum
# is divided by their number, so that a chunk which is first in both has score 1.
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
           (1 - (c.embedding <=> %(vector)s::halfvec))::float8 AS similarity, v.attributes,
           coalesce(c.location, CASE
               WHEN c.page IS NOT NULL THEN jsonb_build_object('kind', 'page', 'number', c.page)
               WHEN c.heading IS NOT NULL THEN jsonb_build_object('kind', 'section', 'name', c.heading)
               ELSE '{{}}' END) AS location
    FROM fused JOIN chunks c USING (file_id, vector_store_id, ordinal)
         JOIN files f ON f.id = c.file_id
         JOIN vector_store_files v USING (file_id, vector_store_id)
    ORDER BY fused.score DESC, c.file_id, c.ordinal
"""
_EXACT = "(embedding <=> %(vector)s::halfvec) + 0"  # no index matches this expression
_BY_INDEX = "embedding <=> %(vector)s::halfvec"
_AMONG_FEW = """
    AND (vector_store_id, file_id) IN (SELECT * FROM unnest(%(store_of_file)s::text[], %(files)s::text[]))"""
# A subquery for each chunk, not a join, so that the index's order, nearest first, is kept.
_AMONG_MANY = """
    AND (SELECT {condition} FROM vector_store_files v WHERE (v.vector_store_id, v.file_id) = (c.vector_store_id, c.file_id))"""
# The scope of a search: the stores, the number of chunks that match the filter, their files if there are few, and the
# words. A search makes a store active; that is written at most once a minute, without waiting for a lock.
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


@dataclass(frozen=True, slots=True)
class Scope:
    """The stores, files and method of a search, known before the question is embedded.

    Attributes:
        plan_anew: Plan for these values, because a generic plan could miss the index.
    """

    query: str
    parameters: dict[str, Any]
    plan_anew: bool


class Chunks:
    """The chunks of all stores."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._shares = WordShares()
        self._shares_until = 0.0

    async def find_scope(
        self, tenant_id: str, store_ids: list[str], text: str, filters: AttributeFilter | None = None
    ) -> Scope:
        """Find the scope of a search, and mark the stores as active.

        Args:
            store_ids: Ids; `default` stands for the tenant's default store.
            filters: Restricts the search to matching files.

        Raises:
            PermanentError: `filters` is malformed.
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
        """Search for the chunks nearest to a question in meaning and words, best first.

        Args:
            vector: The question's embedding, of length 1.
            limit: Most results.
        """
        found = await self._database.records(
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
        return [replace(one, location=msgspec.convert(one.location, Location)) for one in found]

    async def _word_shares(self) -> WordShares:
        if time.monotonic() > self._shares_until:
            row = await self._database.row(_SHARES)
            # There are two more shares than words: the minimum and the maximum.
            common = dict(zip(row["words"], row["shares"], strict=False)) if row else {}
            self._shares = WordShares(common, min(common.values(), default=0.0) / 4)
            self._shares_until = time.monotonic() + SHARES_SECONDS
        return self._shares


def _vector_literal(vector: Vector) -> str:
    return orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY).decode()
