"""Search the chunks of stores in PostgreSQL with pgvector.

A `Scope` names its viewer, and only what that may see is read.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import orjson

from ragq.accounts.views import Viewer, tenant_of, view_of
from ragq.models import DEFAULT_STORE_NAME, AttributeFilter, Location, SearchResult
from ragq.rag.synonyms.table import read_synonyms
from ragq.rag.synonyms.task import asked_words
from ragq.settings import Settings
from ragq.storage.database import Database
from ragq.storage.search.filter_sql import compile_filter
from ragq.storage.search.replica import SearchServers
from ragq.storage.search.statements import (
    OF_NAMED,
    OF_OWNERS,
    OWN,
    SCOPE,
    SHARES,
    TOUCH,
    TOUCH_NAMED,
    of_stores,
    write_next,
    write_search,
)
from ragq.storage.search.word_choice import MATCHES, ChosenWords, WordShares, choose_words
from ragq.storage.tenancy.access import Plan
from ragq.storage.tenancy.visibility import hides_documents, of_tenant, see_readers, see_stores

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
_ATTRIBUTES = msgspec.json.Decoder(dict[str, Any])
SHARES_SECONDS = 60.0  # how long the shares of words are cached


@dataclass(frozen=True, slots=True)
class Scope:
    """The stores, files and method of a search, known before the question is embedded.

    Attributes:
        viewer: For whom chunks are searched.
        write: Writes the SQL for a number of `candidates`.
        plan_anew: Plan for these values, because a generic plan could miss the index.
    """

    viewer: Viewer
    write: Callable[..., str]
    parameters: dict[str, Any]
    plan_anew: bool


class Chunks:
    """The chunks of all stores."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        replica: Database | None = None,
        replica_checks: Database | None = None,
    ) -> None:
        self._settings = settings
        self._database = database
        self._servers = SearchServers(database, replica, replica_checks)
        self._shares = WordShares()
        self._shares_until = 0.0
        self.synonyms = read_synonyms(settings.synonyms, settings.language)

    async def find_scope(
        self, tenant: Viewer, store_ids: list[str], text: str, filters: AttributeFilter | None = None
    ) -> Scope:
        """Find the scope of a search, and mark the stores as active.

        Args:
            store_ids: Ids; `default` stands for the tenant's default store.
            filters: Restricts the search to matching files.

        Raises:
            PermanentError: `filters` is malformed.
        """
        condition, values = compile_filter(filters)
        is_filtered = filters is not None
        found = await self._measure(tenant, store_ids, condition, values, is_filtered=is_filtered)
        if found["hides"]:
            condition, is_filtered = f"({condition}){see_readers(tenant)}", True
            found = await self._measure(tenant, store_ids, condition, values, is_filtered=True)
        if found["owners"] not in ([], [tenant_of(tenant)]):
            await self._database.for_all().row(TOUCH, stores=found["stores"])
        words = await self._choose_words(text, found)
        return Scope(
            tenant,
            partial(
                write_search,
                len(words.ranking),
                condition if is_filtered else None,
                are_few=found["are_few"],
                vectors=await self._database.vector_column(),
                of=_searched(tenant, found),
                seen=_seen(tenant),
                has_near=words.has_near,
            ),
            _name_scope(found) | words.parameters | values,
            plan_anew=_is_large(found),
        )

    async def _measure(
        self, tenant: Viewer, store_ids: list[str], condition: str, values: dict[str, Any], *, is_filtered: bool
    ) -> dict[str, Any]:
        seen = of_tenant(tenant, "tenant_id", "id") + see_stores(tenant, "id")
        hides = hides_documents(tenant, "SELECT id FROM named")
        own = OF_NAMED if view_of(tenant).shares else OWN
        found = await self._database.for_tenant(tenant).row(
            SCOPE.format(condition=condition, seen=seen, hides=hides, own=own, touch=TOUCH_NAMED),
            plan=None if is_filtered else "once",
            names=store_ids,
            default=DEFAULT_STORE_NAME,
            exact=EXACT_SEARCH_CHUNKS,
            exact_roots=EXACT_SEARCH_ROOTS,
            filtered=is_filtered,
            **values,
        )
        assert found  # it has one row
        return found

    async def _choose_words(self, text: str, found: dict[str, Any]) -> ChosenWords:
        shares = await self._word_shares() if found["chunks"] > MATCHES else WordShares()
        languages = tuple(found["languages"] or [self._settings.language])
        return choose_words(asked_words(text, languages, self.synonyms), shares, found["chunks"], languages)

    async def search(
        self, scope: Scope, vector: Vector, *, limit: int, meaning: float | None = None
    ) -> list[SearchResult]:
        """Search for the chunks nearest to a question in meaning and words, best first.

        Args:
            vector: The question's embedding, of length 1.
            limit: Most results.
            meaning: Weight of the meaning, 0…1, against that of the words; None for that of the settings.
        """
        values = {
            "vector": _vector_literal(vector),
            "meaning": self._settings.meaning_weight if meaning is None else meaning,
            "floor": self._settings.embedding_floor,
            "limit": limit,
            **scope.parameters,
        }
        query = scope.write(candidates=max(CANDIDATES, limit))
        plan: Plan = "anew" if scope.plan_anew else "once"

        async def search_on(server: Database) -> list[SearchResult]:
            return await server.for_tenant(scope.viewer).records(_read_result, query, plan=plan, **values)

        return await self._servers.run(search_on)

    async def read_next(self, tenant: Viewer, store_ids: list[str], passage: SearchResult) -> SearchResult | None:
        """Read the chunk that comes after another one in its document; None after the last.

        Args:
            store_ids: Where the document is looked for, as in `find_scope`.
        """
        stores = of_tenant(tenant, "tenant_id", "id") + see_stores(tenant, "id")
        found = await self._database.for_tenant(tenant).records(
            _read_result,
            write_next(stores, _seen(tenant)),
            plan="once",
            names=store_ids,
            default=DEFAULT_STORE_NAME,
            file=passage.file_id,
            start=passage.start,
            end=passage.end,
        )
        return found[0] if found else None

    async def _word_shares(self) -> WordShares:
        if time.monotonic() > self._shares_until:
            row = await self._database.for_all().row(SHARES)
            # There are two more shares than words: the minimum and the maximum.
            common = dict(zip(row["words"], row["shares"], strict=False)) if row else {}
            self._shares = WordShares(common, min(common.values(), default=0.0) / 4)
            self._shares_until = time.monotonic() + SHARES_SECONDS
        return self._shares


def _name_scope(found: dict[str, Any]) -> dict[str, Any]:
    """The scope's part of a search's parameters."""
    kept = {name: found[name] for name in ("stores", "owners", "store_of_file", "files")}
    return kept | {"store": next(iter(found["stores"]), None), "chunks": max(1, found["chunks"])}


def _is_large(found: dict[str, Any]) -> bool:
    return bool(found["of_all"] > EXACT_SEARCH_CHUNKS)


def _searched(viewer: Viewer, found: dict[str, Any]) -> str:
    """Whose chunks are searched, and of which stores; a plan for these values needs no help with one."""
    own = OF_OWNERS if view_of(viewer).shares else OWN
    return of_stores(own, is_one=len(found["stores"]) == 1 and not _is_large(found))


def _seen(viewer: Viewer) -> str:
    """What holds for each result, whatever has changed since the scope was found."""
    shares = f" AND {of_tenant(viewer, 'v.tenant_id', 'v.vector_store_id')}" if view_of(viewer).shares else ""
    return shares + see_readers(viewer, "v.")


def _read_result(location: str, attributes: str, **columns: Any) -> SearchResult:
    return SearchResult(**columns, location=_LOCATION.decode(location), attributes=_ATTRIBUTES.decode(attributes))


def _vector_literal(vector: Vector) -> str:
    return orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY).decode()
