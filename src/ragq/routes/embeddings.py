"""OpenAI's embeddings, made with the model that embeds the documents."""

from __future__ import annotations

import asyncio
import base64
import struct
from typing import Annotated, Any, Literal, cast

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import Discriminator, Field, Tag
from typing_extensions import TypedDict

from ragq.errors import InvalidRequestError
from ragq.http.input import CheckedRoute
from ragq.http.openapi import refusals, shows
from ragq.queues.embeddings import embed
from ragq.queues.questions import check_model
from ragq.rag.tokens import decode
from ragq.records import EmbeddingResult
from ragq.routes.context import ContextDependency, Tenant, wait_connected
from ragq.schemas.objects import Body

MAX_TEXTS = 2048  # these two are OpenAI's limits
MAX_TOKENS = 300_000
CLIENT_GONE = 499  # seen only by the metrics

Tokens = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, fail_fast=True)]


class _TokensRoute(CheckedRoute):
    max_values = MAX_TOKENS + MAX_TEXTS + 100


router = APIRouter(prefix="/v1/embeddings", route_class=_TokensRoute)


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


def _kind(value: Any) -> str | None:
    """Tell the four forms of `input` apart by the first element, so that a mistake is named in one of them."""
    if isinstance(value, str):
        return "text"
    if not isinstance(value, list):
        return None
    first = value[0] if value else ""
    return "tokens" if isinstance(first, int) else "token lists" if isinstance(first, list) else "texts"


class EmbeddingCreate(Body):
    """Texts to embed."""

    input: Annotated[
        Annotated[str, Tag("text")]
        | Annotated[list[str], Field(min_length=1, max_length=MAX_TEXTS, fail_fast=True), Tag("texts")]
        | Annotated[Tokens, Tag("tokens")]
        | Annotated[list[Tokens], Field(min_length=1, max_length=MAX_TEXTS, fail_fast=True), Tag("token lists")],
        Discriminator(
            _kind,
            custom_error_type="input_form",
            custom_error_message="Input should be a text, a list of texts, a list of tokens or a list of such lists",
        ),
    ] = Field(description="A text or texts, or the same as tokens of cl100k_base.")
    model: str | None = Field(None, description="`ragq`, or the embedding model's name.")
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    user: str | None = None


@router.post("", response_model=None, responses=shows(Embeddings) | refusals(404, 429))
async def create_embeddings(
    body: EmbeddingCreate, request: Request, context: ContextDependency, tenant: Tenant
) -> Response:
    """Embed texts. Every vector has length 1."""
    settings = context.settings
    check_model(settings, body.model, settings.embedding_name)
    if body.dimensions not in (None, settings.embedding_dimensions):
        raise InvalidRequestError(
            f"'{settings.embedding_name}' makes vectors of {settings.embedding_dimensions} numbers only: leave out "
            "dimensions.",
            param="dimensions",
        )
    texts = await _read_texts(body.input)
    done = await wait_connected(request, embed(context, tenant, texts, context.embedding_parts))
    if done is None:
        return Response(status_code=CLIENT_GONE)
    model = body.model or settings.embedding_name
    shown = await asyncio.to_thread(_render, done, model, as_numbers=body.encoding_format != "base64")
    return Response(shown, media_type="application/json")


async def _read_texts(given: str | list[str] | list[int] | list[list[int]]) -> list[str]:
    """The texts of a request, decoded if they are tokens.

    Raises:
        InvalidRequestError: A text is empty, or the tokens are too many or unknown.
    """
    if isinstance(given, str):
        texts = [given]
    elif isinstance(given[0], str):
        texts = given
    else:
        lists = cast("list[list[int]]", [given] if isinstance(given[0], int) else given)
        if sum(map(len, lists)) > MAX_TOKENS:
            raise InvalidRequestError(f"A request may have {MAX_TOKENS} tokens: send less at once.", param="input")
        texts = await asyncio.to_thread(lambda: [decode(tokens) for tokens in lists])
    for number, text in enumerate(texts):
        if not text:
            raise InvalidRequestError(f"Text {number} of the input is empty: leave it out.", param="input")
    return texts


def _render(done: EmbeddingResult, model: str, *, as_numbers: bool) -> bytes:
    """Serialize vector by vector, in a thread: FastAPI takes seconds for a million numbers, and holds up all others."""
    shown = (_write_numbers(one) for one in done.embeddings) if as_numbers else done.embeddings
    return orjson.dumps(
        {
            "object": "list",
            "data": [{"object": "embedding", "index": index, "embedding": one} for index, one in enumerate(shown)],
            "model": model,
            "usage": {"prompt_tokens": done.tokens, "total_tokens": done.tokens},
        }
    )


def _write_numbers(encoded: str) -> orjson.Fragment:
    raw = base64.b64decode(encoded)
    return orjson.Fragment(orjson.dumps(struct.unpack(f"<{len(raw) // 4}f", raw)))
