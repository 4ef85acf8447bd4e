"""OpenAI's embeddings, made with the model that embeds the documents."""

from __future__ import annotations

import base64
import struct
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import Field
from typing_extensions import TypedDict

from ragq.context import Context
from ragq.errors import InvalidRequestError
from ragq.http.input import CheckedRoute
from ragq.http.openapi import refusals, shows
from ragq.queues.questions import check_model, perform_now
from ragq.records import EmbeddingArguments, EmbeddingResult
from ragq.routes.context import ContextDependency, Tenant
from ragq.schemas.objects import Body

router = APIRouter(prefix="/v1/embeddings", route_class=CheckedRoute)


class Embedding(TypedDict):
    """A vector, as numbers or as base64 of 32-bit floats."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingUsage(TypedDict):
    """The number of embedded tokens."""

    prompt_tokens: int
    total_tokens: int


class Embeddings(TypedDict):
    """The vectors of the texts, in their order."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


class EmbeddingCreate(Body):
    """Texts to embed."""

    input: str | Annotated[list[str], Field(min_length=1, max_length=256)]
    model: str | None = Field(None, description="`ragq`, or the embedding model's name.")
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    user: str | None = Field(None, max_length=512)


@router.post("", response_model=None, responses=shows(Embeddings) | refusals(404, 429))
async def create_embeddings(body: EmbeddingCreate, context: ContextDependency, tenant: Tenant) -> dict[str, Any]:
    """Embed texts. Every vector has length 1."""
    settings = context.settings
    check_model(body.model, settings.embedding_name)
    if body.dimensions not in (None, settings.embedding_dimensions):
        raise InvalidRequestError(
            f"'{settings.embedding_name}' makes vectors of {settings.embedding_dimensions} numbers only.",
            param="dimensions",
        )
    texts = [body.input] if isinstance(body.input, str) else body.input
    _check_texts(context, texts)
    done = await perform_now(context, tenant, EmbeddingArguments(texts), EmbeddingResult)
    shown = done.embeddings if body.encoding_format == "base64" else map(_read_vector, done.embeddings)
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": embedding} for index, embedding in enumerate(shown)
        ],
        "model": settings.embedding_name,
        "usage": {"prompt_tokens": done.tokens, "total_tokens": done.tokens},
    }


def _check_texts(context: Context, texts: list[str]) -> None:
    limit = context.settings.max_question_characters
    for number, text in enumerate(texts):
        if not text.strip() or len(text) > limit:
            raise InvalidRequestError(
                f"Text {number} of the input has {len(text)} characters; it must have 1 to {limit}.",
                param="input",
            )


def _read_vector(encoded: str) -> list[float]:
    raw = base64.b64decode(encoded)
    return list(struct.unpack(f"<{len(raw) // 4}f", raw))
