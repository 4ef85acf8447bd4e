"""The SQL of a search."""

from __future__ import annotations

from functools import cache

RARITY_POWER = 1.3  # of the inverse document frequency: tuned on the first halves of XQuAD in four languages
WORDS_SCALE = 0.1  # of the saturation of the words' score; a chunk of 100 words that has each word once gets 0.6

# Two rankings of the stores' chunks, and one score for the best of both. The words' score is the sum over the question's
# words of rarity times ts_rank, as a share of the sum of the rarities, saturated to 0…1; the meaning's is the similarity
# above the model's floor. Neither depends on which other chunks are found, so scores of two questions can be compared.
# How many chunks have a word is counted among those found by it. Of a word that finds none, such as a stop word, the share
# among those found by others is taken, or half where these are few.
# The words of a chunk are joined with none, so that they are decompressed once and not for each word.
# `among` restricts both rankings to the files that a filter matches.
_SEARCH = """
    WITH nearest AS (
        SELECT file_id, vector_store_id, ordinal FROM chunks c
        WHERE tenant_id = %(tenant)s AND vector_store_id = ANY(%(stores)s){among}
        ORDER BY {distance} LIMIT %(candidates)s
    ), ranked AS MATERIALIZED (
        SELECT file_id, vector_store_id, ordinal{ranks_as}
        FROM (
            SELECT file_id, vector_store_id, ordinal, text_search || ''::tsvector AS text_search FROM chunks c
            WHERE tenant_id = %(tenant)s AND vector_store_id = ANY(%(stores)s)
              AND text_search @@ %(found_by)s::tsquery{among}
            LIMIT %(most_matches)s
        ) AS found
    ), counted AS (
        SELECT count(*) AS found{counts} FROM ranked
    ), rarity AS MATERIALIZED (
        SELECT greatest({total}, 1e-9::float8) AS total, weights.* FROM (SELECT {weights} FROM counted) AS weights
    ), by_words AS (
        SELECT file_id, vector_store_id, ordinal FROM ranked, rarity
        ORDER BY {sum} DESC LIMIT %(candidates)s
    ), scored AS (
        SELECT c.file_id, c.vector_store_id, c.ordinal, (1 - (c.embedding <=> %(vector)s::halfvec))::float8 AS similarity,
               1 - exp(-({sum_of_ranks}) / rarity.total / {scale}) AS words
        FROM (SELECT * FROM nearest UNION SELECT * FROM by_words) AS candidates
             JOIN chunks c USING (file_id, vector_store_id, ordinal), rarity
    ), best AS (
        SELECT *, %(meaning)s::float8 * greatest(0, (similarity - %(floor)s::float8) / (1 - %(floor)s::float8))
                  + (1 - %(meaning)s::float8) * words AS score
        FROM scored ORDER BY score DESC, file_id, ordinal LIMIT %(limit)s
    )
    SELECT c.file_id, f.filename, c.text, c.start_offset AS start, c.end_offset AS end, c.page, c.heading, c.token_count,
           best.score::float8 AS score, best.similarity, v.attributes,
           coalesce(c.location, CASE
               WHEN c.page IS NOT NULL THEN jsonb_build_object('kind', 'page', 'number', c.page)
               WHEN c.heading IS NOT NULL THEN jsonb_build_object('kind', 'section', 'name', c.heading)
               ELSE '{{}}' END) AS location
    FROM best JOIN chunks c USING (file_id, vector_store_id, ordinal)
         JOIN files f ON f.id = c.file_id
         JOIN vector_store_files v USING (file_id, vector_store_id)
    ORDER BY best.score DESC, c.file_id, c.ordinal
"""
_EXACT = "(embedding <=> %(vector)s::halfvec) + 0"  # no index matches this expression
_BY_INDEX = "embedding <=> %(vector)s::halfvec"
_AMONG_FEW = """
    AND (vector_store_id, file_id) IN (SELECT * FROM unnest(%(store_of_file)s::text[], %(files)s::text[]))"""
# A subquery for each chunk, not a join, so that the index's order, nearest first, is kept.
_AMONG_MANY = """
    AND (SELECT {condition} FROM vector_store_files v WHERE (v.vector_store_id, v.file_id) = (c.vector_store_id, c.file_id))"""

# ts_rank divides by the number of forms, of which a chunk has one as a rule, and by the logarithm of its words (1).
_RANK = (
    "ts_rank('{{1,1,1,1}}', {of}text_search, (%(words)s::text[])[{n}]::tsquery, 1)::float8 * (%(forms)s::int[])[{n}]"
)
_WEIGHT = """power(ln(1 + (%(chunks)s::float8 - have + 0.5::float8) / (have + 0.5::float8)), {power}::float8)"""
_HAVE = """least(%(chunks)s::float8, coalesce((%(shares)s::float8[])[{n}] * %(chunks)s::float8,
    CASE WHEN (%(finds)s::bool[])[{n}] THEN n{n}::float8 ELSE (n{n} + 2)::float8 / (found + 4) * %(chunks)s::float8 END))"""

# The scope of a search: the stores and their languages, the number of chunks that match the filter, and their files if
# there are few. A search makes a store active; that is written at most once a minute, without waiting for a lock.
SCOPE = """
    WITH named AS (
        SELECT id, languages FROM vector_stores
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
           ARRAY(SELECT DISTINCT unnest(languages) FROM named ORDER BY 1) AS languages
    FROM counted, size"""
SHARES = """
    SELECT most_common_elems::text::text[] AS words, most_common_elem_freqs AS shares FROM pg_stats
    WHERE (schemaname, tablename, attname) = (
        SELECT relnamespace::regnamespace::name, relname, 'text_search'::name FROM pg_class WHERE oid = 'chunks'::regclass)"""


def write_search(count: int, condition: str | None, *, are_few: bool) -> str:
    """Write the search for a question of `count` words.

    Args:
        condition: The filter, as `compile_filter` writes it; None for all files.
        are_few: The chunks that match are few: scan them, without the index.
    """
    distance, among = (_EXACT, _AMONG_FEW) if are_few else (_BY_INDEX, _AMONG_MANY)
    restriction = "" if condition is None else among.format(condition=condition)
    return _SEARCH.format(distance=distance, among=restriction, **_parts(count))


@cache
def _parts(count: int) -> dict[str, str]:
    """What depends on the number of words: a column for each, since arrays would take twice the time."""
    numbers = range(1, count + 1)
    return {
        "ranks_as": "".join(f", {_RANK.format(of='', n=n)} AS r{n}" for n in numbers),
        "counts": "".join(f", count(*) FILTER (WHERE r{n} > 0) AS n{n}" for n in numbers),
        "weights": ", ".join(
            f"(SELECT {_WEIGHT.format(power=RARITY_POWER)} FROM (SELECT {_HAVE.format(n=n)} AS have) AS words) AS w{n}"  # noqa: S608  (constants)
            for n in numbers
        )
        or "0 AS none",
        "total": " + ".join(f"weights.w{n}" for n in numbers) or "0.0::float8",
        "sum": " + ".join(f"r{n} * w{n}" for n in numbers) or "0.0::float8",
        "sum_of_ranks": " + ".join(f"{_RANK.format(of='c.', n=n)} * w{n}" for n in numbers) or "0.0::float8",
        "scale": str(WORDS_SCALE),
    }
