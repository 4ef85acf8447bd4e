"""OpenAI's embeddings."""

from __future__ import annotations

import base64
import struct
from typing import Annotated, Any, Literal

import orjson
from pydantic import Discriminator, Field, Tag
from typing_extensions import TypedDict

from ragq.records import EmbeddingResult
from ragq.schemas.checks import MAX_VALUES
from ragq.schemas.objects import Body

MAX_TEXTS = 2048  # these two are OpenAI's limits
MAX_TOKENS = 300_000
MAX_EMBEDDING_VALUES = MAX_TOKENS + MAX_TEXTS + MAX_VALUES  # in the JSON of a request

Tokens = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, fail_fast=True)]


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


def render_embeddings(done: EmbeddingResult, model: str, *, as_numbers: bool) -> bytes:
    """Serialize vector by vector; call it in a thread, because a million numbers take a second."""
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
