"""Embed the texts of a request, in parts, so that questions are answered in between."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import cast

from ragq.context import Context
from ragq.errors import InvalidRequestError
from ragq.models import Lane
from ragq.queues.questions import check_model, perform_now
from ragq.rag.tokens import decode
from ragq.records import EmbeddingArguments, EmbeddingResult
from ragq.schemas.embeddings import MAX_TOKENS, EmbeddingCreate
from ragq.settings import Settings
from ragq.tasks import run_all

PART_TEXTS = 64
PART_CHARACTERS = 64_000  # unless a single text is longer; about a second of a core
PARTS_OF_REQUEST = 2  # in the queue at once
PARTS_OF_PROCESS = 4  # of all large requests: a question waits for a passage of each at most
PARTS_SECONDS = 590.0  # just below the official clients' timeout


async def embed(context: Context, tenant: str, texts: list[str], limit: asyncio.Semaphore) -> EmbeddingResult:
    """Embed texts: a few of them ahead of the questions, many as jobs among them.

    Args:
        limit: Counts the parts of large requests; shared by the requests of a process.

    Raises:
        UnavailableError: The workers did not embed all of them in time.
    """
    parts = [texts[part] for part in split_sizes(map(len, texts))]
    if len(parts) == 1 and sum(map(len, texts)) <= PART_CHARACTERS:
        return await perform_now(context, tenant, EmbeddingArguments(texts), EmbeddingResult)
    done: dict[int, EmbeddingResult] = {}

    async def embed_part(number: int, part: list[str]) -> None:
        async with limit:
            done[number] = await perform_now(
                context, tenant, EmbeddingArguments(part), EmbeddingResult, lane=Lane.DEFAULT, seconds=PARTS_SECONDS
            )

    await run_all((embed_part(number, part) for number, part in enumerate(parts)), at_once=PARTS_OF_REQUEST)
    return join_results([done[number] for number in range(len(parts))])


async def read_texts(body: EmbeddingCreate, settings: Settings) -> list[str]:
    """Validate a request and read its texts, decoded if they are tokens.

    Raises:
        InvalidRequestError: A text is empty, the tokens are too many or unknown, or the vectors cannot have this length.
        NotFoundError: The model does not exist.
    """
    check_model(settings, body.model, settings.embedding_name)
    if body.dimensions not in (None, settings.embedding_dimensions):
        raise InvalidRequestError(
            f"'{settings.embedding_name}' makes vectors of {settings.embedding_dimensions} numbers only: leave out "
            "dimensions.",
            param="dimensions",
        )
    given = body.input
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


def join_results(results: list[EmbeddingResult]) -> EmbeddingResult:
    """Join the results of the parts of a request."""
    return EmbeddingResult(
        [vector for result in results for vector in result.embeddings], sum(result.tokens for result in results)
    )


def split_sizes(sizes: Iterable[int]) -> Iterator[slice]:
    """Split the texts of a request into parts, each for a job.

    Args:
        sizes: The number of characters of each text.
    """
    first = number = characters = 0
    for number, size in enumerate(sizes):
        if number > first and (number - first == PART_TEXTS or characters + size > PART_CHARACTERS):
            yield slice(first, number)
            first, characters = number, 0
        characters += size
    yield slice(first, number + 1)
