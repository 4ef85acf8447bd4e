"""What `ragq reembed` does: embed every chunk with the settings' model while searches use the old one, then switch."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import click

from ragq.client.embedding_client import EmbeddingClient, create_embedding_client
from ragq.errors import ConfigurationError
from ragq.rag.split import searched_text
from ragq.settings import Settings
from ragq.storage.database import Database
from ragq.storage.search.reembedding import Reembedding, UnfilledChunk, reembedding, retry_locked
from ragq.storage.search.vector_column import EmbeddingModel

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray

    Vectors = NDArray[float32]

BATCH = 64  # chunks embedded and stored at a time


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is.

    Attributes:
        status: `embedding`, `indexing`, `switched`, or `unchanged` if searches used the model already.
        done: Chunks that have their new vector.
        total: All chunks.
        per_second: Chunks embedded a second since this run began.
        seconds_left: None while that is not known.
    """

    status: str
    model: str
    done: int = 0
    total: int = 0
    per_second: float = 0.0
    seconds_left: float | None = None


Report = Callable[[Progress], None]


async def reembed(settings: Settings, report: Report) -> None:
    """Change the database to the settings' embedding model.

    Raises:
        ConfigurationError: The settings' dimensions are not the model's.
        ConflictError: Another `ragq reembed` is at work.
        RagqError: A server failed; run it again to go on.
    """
    assert settings.database_url
    client = create_embedding_client(settings)
    if client.dimensions != settings.embedding_dimensions:
        raise ConfigurationError(
            f"Set RAGQ_EMBEDDING_DIMENSIONS={client.dimensions}, or unset it: so long are the vectors."
        )
    database = await Database.open(settings, settings.database_url.get_secret_value(), connections=1)
    try:
        await client.start()
        async with reembedding(database) as change:
            await _Run(change, client, settings.embedding_name, report).carry_out(EmbeddingModel.of_settings(settings))
    finally:
        await client.close()
        await database.close()


class _Run:
    def __init__(self, change: Reembedding, client: EmbeddingClient, model: str, report: Report) -> None:
        self._change = change
        self._client = client
        self._model = model
        self._report = report

    async def carry_out(self, model: EmbeddingModel) -> None:
        await self._client.embed_documents(["A test of the model, before anything is changed."])
        if not await self._change.begin(model):
            self._report(Progress("unchanged", self._model))
            return
        await self._fill()
        done, total = await self._change.count()
        self._report(Progress("indexing", self._model, done, total))
        await self._change.create_vector_index()
        while not await retry_locked(lambda: self._change.switch(self._embed)):
            await self._fill()
        self._report(Progress("switched", self._model, total, total))

    async def _fill(self) -> None:
        """Fill the column, but for chunks that are being deleted: the switch waits for those."""
        done, total = await self._change.count()
        begun_at, first = time.monotonic(), done
        while chunks := await self._change.unfilled(BATCH):
            await self._change.fill(chunks, await self._embed(chunks))
            done += len(chunks)
            rate = (done - first) / max(0.001, time.monotonic() - begun_at)
            left = max(0, total - done) / rate
            self._report(Progress("embedding", self._model, done, max(done, total), round(rate, 1), round(left)))

    async def _embed(self, chunks: Sequence[UnfilledChunk]) -> Vectors:
        return await self._client.embed_documents([searched_text(chunk) for chunk in chunks])


def show(progress: Progress, *, as_json: bool) -> None:
    """Print the progress as a line of JSON or as a sentence."""
    if as_json:
        click.echo(json.dumps(asdict(progress)))
    elif progress.status == "embedding":
        left = f", {progress.seconds_left:,.0f} s left" if progress.seconds_left else ""
        click.echo(f"{progress.done:,} of {progress.total:,} chunks, {progress.per_second:,.1f}/s{left}")
    else:
        click.echo(_SENTENCES[progress.status].format(model=progress.model))


_SENTENCES = {
    "indexing": "All chunks are embedded. The index is being made, then searches switch.",
    "switched": "Searches use {model} now. Restart the API and the workers with these settings.",
    "unchanged": "Searches use {model} already. Nothing to do.",
}
