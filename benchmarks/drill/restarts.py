"""SIGKILL `ragq up` with all its processes during questions and an ingest, and run the same command again at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import aiohttp
import redis

from benchmarks.drill.audit import Report, audit, spread
from benchmarks.drill.load import HttpClient, until
from benchmarks.drill.stage import Stage
from tests.servers import Ragq, free_port

QUESTIONS = 50
SENTENCES = 800  # of a document: some seconds of embedding
SETTLE_SECONDS = 180
GONE_SECONDS = 15.0

Say = Callable[[str], None]


async def restarts(
    stage: Stage, _client: HttpClient, say: Say, *, rounds: int = 20, ready_seconds: float = 10
) -> Report:
    """Kill `ragq up` repeatedly: it is ready soon, everything accepted is finished, and no process is left."""
    port = free_port()
    llm = {"RAGQ_LLM_BASE_URL": stage.llm.base_url, "RAGQ_LLM_MODEL": "restarts"}
    ragq = Ragq(stage.folder / "whole", "--port", str(port), **llm)
    report, starts, ours = Report("restarts"), list[float](), set[int]()
    await asyncio.to_thread(ragq.start)
    try:
        async with HttpClient(ragq.url) as client:
            files = []
            for number in range(rounds):
                files.append(await _put_document(client, number))
                await asyncio.gather(*(client.ask(f"restarts-{number}-{n}") for n in range(QUESTIONS)))
                await _wait_for_work(client)
                ours |= {ragq.pid, *ragq.pids.values()}
                await asyncio.to_thread(ragq.kill)
                started = time.monotonic()
                await asyncio.to_thread(ragq.start)
                starts.append(round(time.monotonic() - started, 2))
                say(f"{number + 1} of {rounds}: ready again after {starts[-1]} s")
            await client.settle(seconds=SETTLE_SECONDS)
            documents = await _wait_for_documents(client, files)
            accepted = list(client.account.accepted.values())
            audit(report, client.account, _count_results(ragq, accepted), stage.runs())
            finished = client.account.count("finished")
        ours |= {ragq.pid, *ragq.pids.values()}
        await asyncio.to_thread(ragq.kill)  # not restarted: the last kill must not leave a process either
        left = await _wait_until_gone(ours)
    finally:
        ragq.end()
    report.figures |= {"up_kills": rounds + 1, "up_ready_seconds": spread(starts), "documents": documents}
    report.checks |= {
        "every accepted question finished": finished == len(accepted) == rounds * QUESTIONS,
        "every document is searchable": documents == ["completed"] * rounds,
        f"ragq up is ready again in {ready_seconds} s": max(starts) <= ready_seconds,
        "no process is left": not left,
    }
    return report


async def _put_document(client: HttpClient, number: int) -> str:
    text = " ".join(f"Sentence {n} of report {number} tells of lighthouse {n * number}." for n in range(SENTENCES))
    form = aiohttp.FormData({"purpose": "assistants"})
    form.add_field("file", text.encode(), filename=f"report-{number}.txt")
    file_id = str((await client.call("POST", "/v1/files", data=form)).body["id"])
    await client.call("POST", "/v1/vector_stores/default/files", json={"file_id": file_id})
    return file_id


async def _wait_for_work(client: HttpClient) -> None:
    """Wait until questions and a document are in flight."""
    deadline = time.monotonic() + 30
    while True:
        queues = (await client.call("GET", "/status")).body["queues"]
        flying = {queue["name"] for queue in queues if queue["in_flight"]}
        if any("queries" in name for name in flying) and any("documents" in name for name in flying):
            return
        assert time.monotonic() < deadline, f"no question and document in flight within 30 s: {queues}"
        await asyncio.sleep(0.05)


async def _wait_for_documents(client: HttpClient, files: list[str]) -> list[str]:
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        answers = [await client.call("GET", f"/v1/vector_stores/default/files/{file_id}") for file_id in files]
        states = [str(answer.body.get("status")) for answer in answers]
        if "in_progress" not in states or time.monotonic() > deadline:
            return states
        await asyncio.sleep(0.2)


def _count_results(ragq: Ragq, ids: list[str]) -> dict[str, int]:
    with redis.Redis.from_url(ragq.services["valkey_url"]) as connection:
        return {id_: int(connection.xlen(f"ragq:results:{id_}")) for id_ in ids}


async def _wait_until_gone(pids: set[int]) -> set[int]:
    """Wait a moment for processes to end; returns those that have not."""

    def left() -> set[int]:
        return {pid for pid in pids if Path(f"/proc/{pid}/exe").exists()}  # a zombie has none

    try:
        await until(lambda: not left(), seconds=GONE_SECONDS)
    except AssertionError:
        return left()
    return set()
