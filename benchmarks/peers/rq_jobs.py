"""Stock RQ: `rq worker`, which forks for each job; BENCH_RQ_CLASS selects another worker class."""

from __future__ import annotations

import os

import redis
from rq import Queue

from benchmarks.peers import calls

COMMAND = ["rq.cli", "worker", "--url", f"unix://{calls.SOCKET}", "--worker-class"]
COMMAND.append(os.environ.get("BENCH_RQ_CLASS", "rq.Worker"))


def call(sent: float) -> str:
    """Call the endpoint."""
    return calls.call_blocking(sent)


def noop(sent: float) -> str:
    """Do nothing."""
    return str(sent)


async def enqueue(kind: str, sents: list[float]) -> None:
    """Enqueue a job for each time."""
    queue = Queue(connection=redis.Redis(unix_socket_path=calls.SOCKET))
    for sent in sents:
        queue.enqueue({"call": call, "noop": noop}[kind], sent)
