"""Embed the texts of a request, in parts, so that questions are answered in between."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from ragq.context import Context
from ragq.models import Lane
from ragq.queues.questions import perform_now
from ragq.records import EmbeddingArguments, EmbeddingResult
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
    parts = list(_split(texts))
    if len(parts) == 1 and sum(map(len, texts)) <= PART_CHARACTERS:
        return await perform_now(context, tenant, EmbeddingArguments(texts), EmbeddingResult)
    done: dict[int, EmbeddingResult] = {}

    async def embed_part(number: int, part: list[str]) -> None:
        async with limit:
            done[number] = await perform_now(
                context, tenant, EmbeddingArguments(part), EmbeddingResult, lane=Lane.DEFAULT, seconds=PARTS_SECONDS
            )

    await run_all((embed_part(number, part) for number, part in enumerate(parts)), at_once=PARTS_OF_REQUEST)
    results = [done[number] for number in range(len(parts))]
    return EmbeddingResult(
        [vector for result in results for vector in result.embeddings], sum(result.tokens for result in results)
    )


def _split(texts: list[str]) -> Iterator[list[str]]:
    part: list[str] = []
    characters = 0
    for text in texts:
        if part and (len(part) == PART_TEXTS or characters + len(text) > PART_CHARACTERS):
            yield part
            part, characters = [], 0
        part.append(text)
        characters += len(text)
    yield part
