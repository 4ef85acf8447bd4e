"""OpenAI's embeddings, made with the model that embeds the documents."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request, Response

from ragq.http.input import CheckedRoute
from ragq.http.openapi import refusals, shows
from ragq.queues.embeddings import embed, read_texts
from ragq.routes.context import CLIENT_GONE, ContextDependency, Tenant, wait_connected
from ragq.schemas.embeddings import MAX_EMBEDDING_VALUES, EmbeddingCreate, Embeddings, render_embeddings


class _TokensRoute(CheckedRoute):
    max_values = MAX_EMBEDDING_VALUES


router = APIRouter(prefix="/v1/embeddings", route_class=_TokensRoute)


@router.post("", response_model=None, responses=shows(Embeddings) | refusals(404, 429))
async def create_embeddings(
    body: EmbeddingCreate, request: Request, context: ContextDependency, tenant: Tenant
) -> Response:
    """Embed texts. Every vector has length 1."""
    texts = await read_texts(body, context.settings)
    done = await wait_connected(request, embed(context, tenant.id, texts, context.embedding_parts))
    if done is None:
        return Response(status_code=CLIENT_GONE)
    model = body.model or context.settings.embedding_name
    shown = await asyncio.to_thread(render_embeddings, done, model, as_numbers=body.encoding_format != "base64")
    return Response(shown, media_type="application/json")
