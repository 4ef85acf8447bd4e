"""API processes and workers are restarted one after the other by SIGTERM, as for an upgrade, while clients go on."""

from __future__ import annotations

import asyncio
import itertools
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from benchmarks.drill.audit import Report, audit
from benchmarks.drill.load import UNREACHABLE, Answer, HttpClient, keep_asking
from benchmarks.drill.stage import Stage, Worker, is_ready
from tests.fault.test_drills import assert_passed
from tests.servers import free_port, wait_until

TEXT = " ".join(f"word{number}" for number in range(40))
SLOW = f"[[fake text='{TEXT}' latency=0 rate=4]] How tall is it?"  # ten seconds
GRACE_SECONDS = 2  # less than a stream takes, so that workers hand its job back


@pytest.fixture
def stage() -> Iterator[Stage]:
    with (
        tempfile.TemporaryDirectory(prefix="ragq-roll-", ignore_cleanup_errors=True) as folder,
        Stage(Path(folder), latency=0.3, settings={"RAGQ_SHUTDOWN_GRACE_SECONDS": GRACE_SECONDS}) as stage,
    ):
        yield stage


class Balancer(HttpClient):
    """A client of several API processes, which tries the next one if one refuses or drops the connection."""

    def __init__(self, urls: list[str]) -> None:
        super().__init__(urls[0])
        self._urls = itertools.cycle(urls)

    async def call(self, method: str, path: str, **options: Any) -> Answer:
        while True:
            self._url = next(self._urls)
            answer = await super().call(method, path, **options)
            if answer.status:
                return answer
            await asyncio.sleep(0.05)


async def read_stream(urls: list[str]) -> list[dict[str, Any]]:
    """Ask for a slow answer and read its events to the end; after a lost connection, go on at the next API process."""
    events: list[dict[str, Any]] = []
    question = {"input": SLOW, "background": True, "stream": True, "vector_store_ids": []}
    async with aiohttp.ClientSession() as session:
        for url in itertools.cycle(urls):
            path = f"{url}/v1/responses"
            if events:
                after = {"stream": "true", "starting_after": events[-1]["sequence_number"]}
                request = session.get(f"{path}/{events[0]['response']['id']}", params=after)
            else:
                request = session.post(path, json=question)
            try:
                async with request as reply:
                    assert reply.status == 200
                    async for line in reply.content:
                        if line.startswith(b"data: {"):
                            events += [json.loads(line.removeprefix(b"data: "))]
            except UNREACHABLE:
                await asyncio.sleep(0.05)
            if events and events[-1]["type"] in ("response.completed", "response.failed"):
                return events
    raise AssertionError("an endless cycle has ended")


def serve(stage: Stage, port: int) -> Worker:
    api = stage.spawn(f"api-{port}", "serve", "--port", str(port))
    wait_until(lambda: is_ready(f"http://127.0.0.1:{port}"), seconds=60, what="the API is ready")
    return api


def tries(stage: Stage, ids: list[str]) -> list[int]:
    """How many tries each job was charged."""
    with stage.valkey.connect() as connection:
        return [int(connection.hget(f"ragq:job:{id_}", "tries") or 0) for id_ in ids]


@pytest.mark.timeout(240)
async def test_a_rolling_restart_fails_no_request_charges_no_try_and_cuts_no_stream(stage: Stage) -> None:
    ports = [free_port(), free_port()]
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    apis = [await asyncio.to_thread(serve, stage, port) for port in ports]
    workers = await stage.start_workers(2)
    is_done = asyncio.Event()
    try:
        async with Balancer(urls) as client:
            load = asyncio.create_task(keep_asking(client, "roll", lambda: not is_done.is_set(), clients=6))
            streams = [asyncio.create_task(read_stream(urls[turn:] + urls[:turn])) for turn in (0, 1)]
            await asyncio.sleep(1)
            for index, port in enumerate(ports):
                await asyncio.to_thread(apis[index].stop)
                apis[index] = await asyncio.to_thread(serve, stage, port)
            for worker in workers:
                await asyncio.to_thread(worker.stop)
                stage.workers.remove(worker)
                await stage.start_workers(1)
            is_done.set()
            await load
            await client.settle(seconds=60)
            followed = await asyncio.gather(*streams)
            report = Report("rolling")
            ids = list(client.account.accepted.values())
            audit(report, client.account, stage.count_results(ids), stage.runs())
    finally:
        for api in apis:
            await asyncio.to_thread(api.stop)
        stage.stop_workers()
    assert_passed(report)
    assert set(client.account.answers) - {0} == {200}
    assert client.account.count("finished") == len(ids) > 0
    for events in followed:
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        assert events[-1]["response"]["output"][-1]["content"][0]["text"] == TEXT
    assert set(tries(stage, [*ids, *(events[0]["response"]["id"] for events in followed)])) == {0}
