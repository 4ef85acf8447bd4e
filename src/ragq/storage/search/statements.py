"""The SQL of a search."""

from __future__ import annotations

from functools import cache, lru_cache

from ragq.storage.search.word_choice import MATCHES

RARITY_POWER = 1.3  # of the inverse document frequency: tuned on the first halves of XQuAD in four languages
NEAR_COUNTS_AS = (
    0.4  # as how much of a chunk with a word of the question one counts that has another of the same meaning
)
WORDS_SCALE = 0.1  # of the saturation of the words' score; a chunk of 100 words that has each word once gets 0.6

_COLUMNS = """
           chunk.file_id, f.filename, chunk.text, chunk.start_offset AS start, chunk.end_offset AS end, chunk.page,
           chunk.heading, chunk.token_count, v.attributes::text,
           coalesce(chunk.location, CASE
               WHEN chunk.page IS NOT NULL THEN jsonb_build_object('kind', 'page', 'number', chunk.page)
               WHEN chunk.heading IS NOT NULL THEN jsonb_build_object('kind', 'section', 'name', chunk.heading)
               ELSE '{}' END)::text AS location"""

# Two rankings of the stores' chunks, and one score for the best of both. The words' score is the sum over the question's
# words of rarity times ts_rank, as a share of the sum of the rarities, saturated to 0…1; the meaning's is the similarity
# above the model's floor. Neither depends on which other chunks are found, so scores of two questions can be compared.
# How many chunks have a word is counted among those found by it. Of a word that finds none, because it is common, the share
# among those found by others is taken, or half where these are few. `w` has the weights of the words' ranks.
# The words of a chunk get the weight that they have, so that they are decompressed once and not for each word.
# Words are found in a view, because the policy on chunks keeps `@@` from the index (migration 0022).
# `chosen` is materialized because the keys of a full join are no leakproof expressions, so under the policy they would find no chunk
# by its index.
# How many chunks are ranked stands in the text: of a parameter, a plan for all values expects a tenth of the table, and reads
# the whole table to join them.
# `among` restricts both rankings to the files that a filter matches.
_SEARCH = """
    WITH asked AS MATERIALIZED (
        SELECT {queries} FROM (SELECT %(words)s::text[] AS words) AS given
    ), nearest AS (
        SELECT file_id, vector_store_id, ordinal FROM chunks c
        WHERE {of}{among}
        ORDER BY {distance} LIMIT {candidates}
    ), ranked AS MATERIALIZED (
        SELECT file_id, vector_store_id, ordinal{ranks_as}
        FROM (
            SELECT file_id, vector_store_id, ordinal, setweight(text_search, 'D') AS words FROM tenant_words c
            WHERE {of}
              AND text_search @@ %(found_by)s::tsquery{among}
            LIMIT {most_matches}
        ) AS found, asked
    ), counted AS (
        SELECT count(*) AS found, ARRAY[{counts}]::bigint[] AS having_word FROM ranked
    ), rarity AS MATERIALIZED (
        {rarity}
    ), by_words AS (
        SELECT file_id, vector_store_id, ordinal, {sum} AS rank FROM ranked, rarity
        ORDER BY rank DESC, file_id, ordinal LIMIT {candidates}
    ), chosen AS MATERIALIZED (
        SELECT file_id, vector_store_id, ordinal, rank FROM nearest FULL JOIN by_words USING (file_id, vector_store_id, ordinal)
    ), scored AS (
        SELECT file_id, vector_store_id, ordinal, (1 - (hit.{vectors} <=> %(vector)s::halfvec))::float8 AS similarity,
               1 - exp(-coalesce(rank, {sum_of_ranks}) / total / {scale}) AS words
        FROM chosen JOIN chunks hit USING (file_id, vector_store_id, ordinal), rarity, asked
    ), best AS (
        SELECT *, %(meaning)s::float8 * greatest(0, (similarity - %(floor)s::float8) / (1 - %(floor)s::float8))
                  + (1 - %(meaning)s::float8) * words AS score
        FROM scored ORDER BY score DESC, file_id, ordinal LIMIT %(limit)s
    )
    SELECT {columns}, best.score::float8 AS score, best.similarity
    FROM best JOIN chunks chunk USING (file_id, vector_store_id, ordinal)
         JOIN files f ON f.id = chunk.file_id
         JOIN vector_store_files v USING (file_id, vector_store_id)
    WHERE true{seen}
    ORDER BY best.score DESC, chunk.file_id, chunk.ordinal
"""
_RARITY = """
        SELECT array_agg(weight * forms ORDER BY number) AS w, greatest(sum(weight), 1e-9) AS total
        FROM (
            SELECT number, forms,
                   emphasis * power(ln(1 + (%(chunks)s::float8 - have + 0.5) / (have + 0.5)), {power}) AS weight
            FROM (
                SELECT number, forms, emphasis, least(%(chunks)s::float8, coalesce(share * %(chunks)s::float8,
                    CASE WHEN finds THEN n ELSE (n + 2)::float8 / (found + 4) * %(chunks)s::float8 END)) AS have
                FROM counted, unnest(having_word, %(shares)s::float8[], %(finds)s::bool[], %(forms)s::int[],
                                       %(emphasis)s::float8[])
                     WITH ORDINALITY AS word(n, share, finds, forms, emphasis, number)
            ) AS words
        ) AS weights"""
# The same with words that mean the same as one of the question, their head. They weigh less than the head, the less the more chunks have
# the head; a chunk with one of them counts in part as one with the head.
_RARITY_WITH_NEAR = """
        SELECT array_agg(weight * forms ORDER BY number) AS w, greatest(sum(weight) FILTER (WHERE number = head), 1e-9) AS total
        FROM (
            SELECT number, head, forms,
                   emphasis * power(ln(1 + (%(chunks)s::float8 - have + 0.5) / (have + 0.5)), {power}) AS weight
            FROM (
                SELECT number, head, forms, emphasis * CASE WHEN number = head THEN 1 ELSE
                       n / greatest(sum(n) OVER (PARTITION BY head), 1) END AS emphasis, least(%(chunks)s::float8,
                       sum(n) OVER (PARTITION BY head) * CASE WHEN number = head THEN {near} ELSE 1 END
                       + CASE WHEN number = head THEN (1 - {near}) * n ELSE 0 END) AS have
                FROM (
                    SELECT number, head, forms, emphasis, coalesce(share * %(chunks)s::float8,
                           CASE WHEN finds THEN n ELSE (n + 2)::float8 / (found + 4) * %(chunks)s::float8 END) AS n
                    FROM counted, unnest(having_word, %(shares)s::float8[], %(finds)s::bool[], %(forms)s::int[],
                                         %(emphasis)s::float8[], %(heads)s::int[])
                         WITH ORDINALITY AS word(n, share, finds, forms, emphasis, head, number)
                ) AS occurrences
            ) AS words
        ) AS weights"""
# Whose files and chunks are searched: the tenant's alone, or also those of tenants that share stores with it.
OWN = "tenant_id = %(tenant)s"
OF_NAMED = "tenant_id IN (SELECT tenant_id FROM named)"
OF_OWNERS = "tenant_id = ANY(%(owners)s::text[])"
_EXACT = "({vectors} <=> %(vector)s::halfvec) + 0"  # no index matches this expression
_BY_INDEX = "{vectors} <=> %(vector)s::halfvec"
_AMONG_FEW = """
    AND (vector_store_id, file_id) IN (SELECT * FROM unnest(%(store_of_file)s::text[], %(files)s::text[]))"""
# A subquery for each chunk, not a join, so that the index's order, nearest first, is kept.
_AMONG_MANY = """
    AND (SELECT {condition} FROM vector_store_files v WHERE (v.vector_store_id, v.file_id) = (c.vector_store_id, c.file_id))"""

# ts_rank divides by the number of forms, of which a chunk has one as a rule, and by the logarithm of its words (1).
_RANK = "ts_rank('{{1,1,1,1}}', {words}, q{n}, 1)"

# Make stores active: at most once a minute, without waiting for a lock.
_TOUCH = """
        UPDATE vector_stores
        SET last_active_at = now(), expires_at = now() + expires_after_days * interval '24 hours'
        WHERE id IN (
            SELECT id FROM vector_stores
            WHERE id {named} AND last_active_at < now() - interval '1 minute'
              AND (expires_at IS NULL OR expires_at > now())
            FOR NO KEY UPDATE SKIP LOCKED
        ) RETURNING id"""
TOUCH = _TOUCH.format(named="= ANY(%(stores)s)")
TOUCH_NAMED = _TOUCH.format(named="IN (SELECT id FROM named)")
# The scope of a search: the stores, their tenants and languages, the number of chunks that match the filter, and their files if
# there are few; also whether the stores have documents that the viewer may not read. A search makes a store active, one of
# another tenant by a statement of its own.
SCOPE = """
    WITH named AS (
        SELECT id, tenant_id, languages FROM vector_stores
        WHERE {seen}
          AND (id = ANY(%(names)s) OR is_default AND tenant_id = %(tenant)s AND %(default)s = ANY(%(names)s))
    ), touched AS (
        {touch}
    ), size AS (
        SELECT greatest(reltuples, 0)::bigint AS chunks,
               greatest(%(exact)s, %(exact_roots)s * sqrt(greatest(reltuples, 0)))::bigint AS few
        FROM pg_class WHERE oid = 'chunks'::regclass
    ), matching AS (
        SELECT vector_store_id, file_id, chunk_count FROM vector_store_files
        WHERE {own} AND vector_store_id IN (SELECT id FROM named) AND chunk_count > 0 AND {condition}
        LIMIT (SELECT few + 1 FROM size)
    ), counted AS (
        SELECT coalesce(sum(chunk_count), 0) AS chunks,
               coalesce(array_agg(vector_store_id) FILTER (WHERE %(filtered)s), '{{}}') AS store_of_file,
               coalesce(array_agg(file_id) FILTER (WHERE %(filtered)s), '{{}}') AS files
        FROM matching
    )
    SELECT (SELECT coalesce(array_agg(id), '{{}}') FROM named) AS stores,
           ARRAY(SELECT DISTINCT tenant_id FROM named) AS owners, counted.chunks <= size.few AS are_few,
           size.chunks AS of_all,
           CASE WHEN counted.chunks <= size.few THEN counted.chunks ELSE size.chunks END AS chunks,
           CASE WHEN counted.chunks <= size.few THEN store_of_file ELSE '{{}}' END AS store_of_file,
           CASE WHEN counted.chunks <= size.few THEN files ELSE '{{}}' END AS files,
           ARRAY(SELECT DISTINCT unnest(languages) FROM named ORDER BY 1) AS languages, {hides} AS hides
    FROM counted, size"""
_NEXT = """
    SELECT {columns}, 0::float8 AS score, NULL::float8 AS similarity
    FROM chunks chunk JOIN files f ON f.id = chunk.file_id
         JOIN vector_store_files v USING (vector_store_id, file_id)
    WHERE vector_store_id IN (
              SELECT id FROM vector_stores
              WHERE {of}
                AND (id = ANY(%(names)s) OR is_default AND tenant_id = %(tenant)s AND %(default)s = ANY(%(names)s)))
      AND file_id = %(file)s AND chunk.start_offset > %(start)s AND chunk.end_offset > %(end)s{seen}
    ORDER BY ordinal LIMIT 1"""
SHARES = """
    SELECT most_common_elems::text::text[] AS words, most_common_elem_freqs AS shares FROM pg_stats
    WHERE (schemaname, tablename, attname) = (
        SELECT relnamespace::regnamespace::name, relname, 'text_search'::name FROM pg_class WHERE oid = 'chunks'::regclass)"""


def of_stores(own: str, *, is_one: bool) -> str:
    """Write which chunks are searched: those of several stores, or of one.

    Args:
        own: Whose chunks: `OWN` or `OF_OWNERS`.
        is_one: It is one store. Of a list, a plan for all values expects ten stores, and reads the whole table.
    """
    return f"{own} AND vector_store_id = " + ("%(store)s" if is_one else "ANY(%(stores)s)")


def write_next(of: str, seen: str) -> str:
    """Write the statement for the chunk after another one in its document.

    Args:
        of: In which stores, as a condition on `vector_stores`.
        seen: As in `write_search`.
    """
    return _NEXT.format(columns=_COLUMNS, of=of, seen=seen)


@lru_cache(maxsize=256)
def write_search(
    count: int,
    condition: str | None,
    *,
    candidates: int,
    are_few: bool,
    vectors: str,
    of: str,
    seen: str = "",
    has_near: bool = False,
) -> str:
    """Write the search for a question of `count` words.

    Args:
        condition: The filter, as `compile_filter` writes it; None for all files.
        candidates: Most chunks that each of the two rankings gives.
        are_few: The chunks that match are few: scan them, without the index.
        vectors: Name of the column of vectors.
        of: Whose chunks are searched, and of which stores, as `of_stores` writes it.
        seen: What the viewer may read, as a condition on `v`. The filter has it too where it leaves anything
            out; here it holds for what has changed since the scope was found.
        has_near: Some of the words mean the same as others.
    """
    distance, among = (_EXACT, _AMONG_FEW) if are_few else (_BY_INDEX, _AMONG_MANY)
    restriction = "" if condition is None else among.format(condition=condition)
    distance = distance.format(vectors=vectors)
    search = _SEARCH.format(
        columns=_COLUMNS,
        vectors=vectors,
        distance=distance,
        among=restriction,
        of=of,
        seen=seen,
        candidates=candidates,
        most_matches=MATCHES,
        **_parts(count, has_near=has_near),
    )
    # psycopg parses a statement of more than 4,096 characters each time; in this form one of eight words has fewer.
    return " ".join(search.split())


@cache
def _parts(count: int, *, has_near: bool) -> dict[str, str]:
    """What depends on the number of words: a column for each, since an array a row would take twice the time."""
    numbers = range(1, count + 1)
    return {
        "queries": ", ".join(f"words[{n}]::tsquery AS q{n}" for n in numbers),
        "ranks_as": "".join(f", {_RANK.format(words='words', n=n)} AS r{n}" for n in numbers),
        "counts": ", ".join(f"count(nullif(r{n}, 0))" for n in numbers),
        "sum": " + ".join(f"r{n} * w[{n}]" for n in numbers),
        "sum_of_ranks": " + ".join(f"{_RANK.format(words='hit.text_search', n=n)} * w[{n}]" for n in numbers),
        "rarity": (_RARITY_WITH_NEAR if has_near else _RARITY).format(power=RARITY_POWER, near=NEAR_COUNTS_AS),
        "scale": str(WORDS_SCALE),
    }
