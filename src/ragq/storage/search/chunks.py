"""Search the chunks of stores in PostgreSQL with pgvector.

A `Scope` names its tenant, and only that tenant's rows are read.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import orjson

from ragq.models import DEFAULT_STORE_NAME, AttributeFilter, Location, SearchResult
from ragq.rag.words import question_words
from ragq.settings import Settings
from ragq.storage.database import Database
from ragq.storage.search.filter_sql import compile_filter
from ragq.storage.search.statements import SCOPE, SHARES, write_search
from ragq.storage.search.word_choice import MATCHES, ChosenWords, WordShares, choose_words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector = NDArray[np.float32]

# Scanning n chunks takes time in n; in a table of N chunks, the index must visit about N / n to find one among n. So up
# to this many chunks, or this many times the square root of N, a scan is as fast, and exact.
EXACT_SEARCH_CHUNKS = 20_000
EXACT_SEARCH_ROOTS = 40
CANDIDATES = 50  # taken from each of the two rankings before they are fused
_LOCATION = msgspec.json.Decoder(Location)
SHARES_SECONDS = 60.0  # how long the shares of words are cached


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
        found = await self._database.row(
            SCOPE.format(condition=condition),
            plan=None if filters else "once",
            tenant=tenant_id,
            names=store_ids,
            default=DEFAULT_STORE_NAME,
            exact=EXACT_SEARCH_CHUNKS,
            exact_roots=EXACT_SEARCH_ROOTS,
            filtered=filters is not None,
            **values,
        )
        assert found  # it has one row
        words = await self._choose_words(text, found)
        return Scope(
            write_search(
                len(words.ranking),
                condition if filters else None,
                are_few=found["are_few"],
                vectors=await self._database.vector_column(),
            ),
            {name: found[name] for name in ("stores", "store_of_file", "files")}
            | {
                "tenant": tenant_id,
                "chunks": max(1, found["chunks"]),
                **words.parameters,
                **values,
            },
            plan_anew=found["of_all"] > EXACT_SEARCH_CHUNKS,
        )

    async def _choose_words(self, text: str, found: dict[str, Any]) -> ChosenWords:
        shares = await self._word_shares() if found["chunks"] > MATCHES else WordShares()
        languages = tuple(found["languages"] or [self._settings.language])
        return choose_words(question_words(text, languages), shares, found["chunks"], languages)

    async def search(
        self, scope: Scope, vector: Vector, *, limit: int, meaning: float | None = None
    ) -> list[SearchResult]:
        """Search for the chunks nearest to a question in meaning and words, best first.

        Args:
            vector: The question's embedding, of length 1.
            limit: Most results.
            meaning: Weight of the meaning, 0…1, against that of the words; None for that of the settings.
        """
        return await self._database.records(
            _read_result,
            scope.query,
            plan="anew" if scope.plan_anew else "once",
            vector=_vector_literal(vector),
            most_matches=MATCHES,
            candidates=max(CANDIDATES, limit),
            meaning=self._settings.meaning_weight if meaning is None else meaning,
            floor=self._settings.embedding_floor,
            limit=limit,
            **scope.parameters,
        )

    async def _word_shares(self) -> WordShares:
        if time.monotonic() > self._shares_until:
            row = await self._database.row(SHARES)
            # There are two more shares than words: the minimum and the maximum.
            common = dict(zip(row["words"], row["shares"], strict=False)) if row else {}
            self._shares = WordShares(common, min(common.values(), default=0.0) / 4)
            self._shares_until = time.monotonic() + SHARES_SECONDS
        return self._shares


def _read_result(location: str, **columns: Any) -> SearchResult:
    return SearchResult(**columns, location=_LOCATION.decode(location))


def _vector_literal(vector: Vector) -> str:
    return orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY).decode()
