"""Taskiq on one process, 500 tasks at once."""

from __future__ import annotations

from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend

from benchmarks.peers import calls

results: RedisAsyncResultBackend[str] = RedisAsyncResultBackend(f"unix://{calls.SOCKET}?db=1")
broker = ListQueueBroker(f"unix://{calls.SOCKET}?db=0").with_result_backend(results)
COMMAND = ["taskiq", "worker", f"{__name__}:broker", "--workers", "1", "--max-async-tasks", "500"]


@broker.task
async def call(sent: float) -> str:
    """Call the endpoint."""
    return await calls.call(sent)


@broker.task
async def noop(sent: float) -> str:
    """Do nothing."""
    return str(sent)


async def enqueue(kind: str, sents: list[float]) -> None:
    """Enqueue a job for each time."""
    task = {"call": call, "noop": noop}[kind]
    await broker.startup()
    for sent in sents:
        await task.kiq(sent)
