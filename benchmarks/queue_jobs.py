"""ragq's queue in the comparison: its unchanged worker, with two job functions that do what the other queues' jobs do."""

from __future__ import annotations

import asyncio
import functools
import uuid

from benchmarks.peers import calls
from ragq.cli import main
from ragq.client.job import NewJob
from ragq.client.rq_client import JobQueue
from ragq.models import JobFunction, Question, QueueName
from ragq.queues.running import RunningJob, WorkerContext
from ragq.queues.worker import FUNCTIONS
from ragq.records import Arguments, EmbeddingArguments, EmbeddingResult, QueryArguments
from ragq.settings import read_settings

COMMAND = [__name__]
AT_ONCE = 100  # enqueued concurrently, as an API process does with as many requests


async def call(_job: RunningJob, _context: WorkerContext, arguments: EmbeddingArguments) -> EmbeddingResult:
    """Call the endpoint."""
    return EmbeddingResult([await calls.call(float(arguments.texts[0]))], 0)


async def noop(_job: RunningJob, _context: WorkerContext, arguments: QueryArguments) -> EmbeddingResult:
    """Do nothing."""
    return EmbeddingResult([arguments.query.text], 0)


def _arguments(kind: str, sent: float) -> Arguments:
    return EmbeddingArguments([str(sent)]) if kind == "call" else QueryArguments(Question(str(sent), []))


async def enqueue(kind: str, sents: list[float]) -> None:
    """Enqueue a job for each time, archived like a response."""
    queue = _queue()
    for start in range(0, len(sents), AT_ONCE):
        await asyncio.gather(
            *(
                queue.enqueue(
                    NewJob(
                        id=uuid.uuid4().hex,
                        arguments=_arguments(kind, sent),
                        queue=QueueName.QUERIES,
                        deadline_seconds=300,
                        archive=True,
                    )
                )
                for sent in sents[start : start + AT_ONCE]
            )
        )


@functools.cache
def _queue() -> JobQueue:
    settings = read_settings()
    assert settings.valkey_url
    return JobQueue(settings, settings.valkey_url.get_secret_value())


if __name__ == "__main__":
    FUNCTIONS[JobFunction.PROCESS_EMBEDDING], FUNCTIONS[JobFunction.PROCESS_QUERY] = call, noop
    main(["worker", "queries"])
