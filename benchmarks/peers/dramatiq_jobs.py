"""Dramatiq with 500 threads in one process."""

from __future__ import annotations

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from benchmarks.peers import calls

broker = RedisBroker(url=f"unix://{calls.SOCKET}?db=0")
broker.add_middleware(Results(backend=RedisBackend(url=f"unix://{calls.SOCKET}?db=1"), store_results=True))
dramatiq.set_broker(broker)
COMMAND = ["dramatiq", __name__, "--processes", "1", "--threads", "500"]


@dramatiq.actor
def call(sent: float) -> str:
    """Call the endpoint."""
    return calls.call_blocking(sent)


@dramatiq.actor
def noop(sent: float) -> str:
    """Do nothing."""
    return str(sent)


async def enqueue(kind: str, sents: list[float]) -> None:
    """Enqueue a job for each time."""
    actor = {"call": call, "noop": noop}[kind]
    for sent in sents:
        actor.send(sent)
