"""OpenAI's search of a vector store."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import Field
from typing_extensions import TypedDict

from ragq.http.input import CheckedRoute
from ragq.http.openapi import refusals
from ragq.models import Attributes, SearchResult
from ragq.queues.questions import check_question, perform_now
from ragq.rag.conversation import bound_text
from ragq.records import SearchArguments, SearchResults
from ragq.routes.context import ContextDependency, Tenant
from ragq.routes.store_files import DocumentText
from ragq.schemas.filters import Filter, make_filter
from ragq.schemas.objects import Body
from ragq.schemas.questions import RankingOptions

router = APIRouter(prefix="/v1/vector_stores/{vector_store_id}/search", route_class=CheckedRoute)


DEFAULT_RESULTS = 10  # OpenAI's


class SearchHit(TypedDict):
    """A found passage; `score` is 0…1, higher is better, and `similarity` is the cosine similarity, −1…1."""

    file_id: str
    filename: str
    score: float
    attributes: Attributes
    content: list[DocumentText]
    page: int | None
    heading: str | None
    location: str
    start: int
    end: int
    similarity: float | None


class SearchHits(TypedDict):
    """The found passages, best first."""

    object: Literal["vector_store.search_results.page"]
    search_query: list[str]
    data: list[SearchHit]
    has_more: Literal[False]
    next_page: None


class SearchCreate(Body):
    """A search."""

    query: str | Annotated[list[str], Field(min_length=1, max_length=16)]
    max_num_results: int | None = Field(DEFAULT_RESULTS, ge=1, le=50)
    ranking_options: RankingOptions | None = None
    rewrite_query: bool | None = Field(None, description="Ignored: the query is used as it is.")
    filters: Filter | None = None


@router.post("", responses=refusals(429))
async def search_store(
    vector_store_id: str, body: SearchCreate, context: ContextDependency, tenant: Tenant
) -> SearchHits:
    """Search a store for the passages that match a query, best first."""
    queries = [body.query] if isinstance(body.query, str) else body.query
    for query in queries:
        check_question(query, param="query")
    store_id = await context.stores.resolve(tenant, vector_store_id, to_use=True)
    ranking = body.ranking_options
    arguments = SearchArguments(
        queries=[bound_text(query, context.settings.max_question_characters) for query in queries],
        vector_store_ids=[store_id],
        max_results=body.max_num_results or DEFAULT_RESULTS,
        score_threshold=ranking.score_threshold if ranking else None,
        meaning_weight=ranking.meaning_weight if ranking else None,
        filters=make_filter(body.filters) if body.filters else None,
        view=tenant,
    )
    done = await perform_now(context, tenant, arguments, SearchResults)
    return {
        "object": "vector_store.search_results.page",
        "search_query": queries,
        "data": [_render_result(result) for result in done.results],
        "has_more": False,
        "next_page": None,
    }


def _render_result(result: SearchResult) -> SearchHit:
    return {
        "file_id": result.file_id,
        "filename": result.filename,
        "score": result.score,
        "attributes": result.attributes,
        "content": [{"type": "text", "text": result.text}],
        "page": result.page,
        "heading": result.heading,
        "location": str(result.location),
        "start": result.start,
        "end": result.end,
        "similarity": result.similarity,
    }
