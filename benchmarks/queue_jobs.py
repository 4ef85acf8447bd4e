"""ragq's own queue in the comparison: its worker as it is, with two job functions that do what the others' jobs do."""

from __future__ import annotations

import asyncio
import functools
import uuid
from typing import Any

from benchmarks.peers import calls
from ragq.cli import main
from ragq.client.rq_client import JobQueue
from ragq.models import JobFunction, QueueName
from ragq.queues.worker import FUNCTIONS, Clients, RunningJob
from ragq.settings import read_settings

COMMAND = [__name__]
KINDS = {"call": JobFunction.PROCESS_QUERY, "noop": JobFunction.PROCESS_SEARCH}
AT_ONCE = 100  # enqueued together, as an API process does with as many requests


async def call(_job: RunningJob, _clients: Clients, *, sent: float) -> dict[str, Any]:
    """Call the endpoint."""
    return {"text": await calls.call(sent)}


async def noop(_job: RunningJob, _clients: Clients, *, sent: float) -> dict[str, Any]:
    """Do nothing."""
    return {"text": str(sent)}


async def enqueue(kind: str, sents: list[float]) -> None:
    """Enqueue a job for each time, to be archived as a response is."""
    queue = _queue()
    for start in range(0, len(sents), AT_ONCE):
        await asyncio.gather(
            *(
                queue.enqueue(
                    KINDS[kind],
                    {"sent": sent},
                    job_id=uuid.uuid4().hex,
                    queue=QueueName.QUERIES,
                    deadline_seconds=300,
                    archive=True,
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
    FUNCTIONS[JobFunction.PROCESS_QUERY], FUNCTIONS[JobFunction.PROCESS_SEARCH] = call, noop
    main(["worker", "queries"])
