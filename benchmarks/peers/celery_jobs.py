"""Celery with 500 threads."""

from __future__ import annotations

from celery import Celery

from benchmarks.peers import calls

app = Celery(
    "jobs",
    broker=f"redis+socket://{calls.SOCKET}?virtual_host=0",
    backend=f"redis+socket://{calls.SOCKET}?virtual_host=1",
)
COMMAND = ["celery", "--app", __name__, "worker", "--pool", "threads", "--concurrency", "500", "--loglevel", "WARNING"]


@app.task
def call(sent: float) -> str:
    """Call the endpoint."""
    return calls.call_blocking(sent)


@app.task
def noop(sent: float) -> str:
    """Do nothing."""
    return str(sent)


async def enqueue(kind: str, sents: list[float]) -> None:
    """Enqueue a job for each time."""
    task = {"call": call, "noop": noop}[kind]
    for sent in sents:
        task.delay(sent)
