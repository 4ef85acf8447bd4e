"""Kill the primary of PostgreSQL and delete its disk under load: every file that was completed is found afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.drill.audit import Report, audit, spread
from benchmarks.drill.kills import SETTLE_SECONDS
from benchmarks.drill.load import HttpClient, keep_asking
from benchmarks.drill.stage import Stage
from tests.postgres_pair import Postgres, url_of

LATENCY_SECONDS = 0.4  # of an LLM call
WORKERS = 2
CLIENTS, UPLOADERS = 4, 2
STEADY_SECONDS = (2.0, 4.0)
BACK_SECONDS = 15.0
RETRY_SECONDS = 0.2

Say = Callable[[str], None]


class PostgresPair:
    """A primary and its replica, which has each commit on disk before it is acknowledged."""

    def __init__(self, folder: Path) -> None:
        self.primary, self.replica = Postgres(folder), Postgres(folder)
        self.url = url_of("read-write", self.primary, self.replica)
        self.read_url = url_of("standby", self.primary, self.replica)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        try:
            self.primary.create()
            self.add_replica()
            yield
        finally:
            self.primary.stop()
            self.replica.stop()

    def add_replica(self) -> None:
        """Make a new replica where the lost server was."""
        self.replica.follow(self.primary)
        self.primary.commit_on_replica()

    def promote_replica(self) -> None:
        """Promote the replica of the killed primary, and delete the primary's disk, which takes a while."""
        self.replica.promote()
        shutil.rmtree(self.primary.folder)
        self.primary, self.replica = self.replica, self.primary


class Librarian:
    """Puts files into the default store, one after the other, and searches for each that is completed."""

    def __init__(self, client: HttpClient) -> None:
        self.completed: list[str] = []
        self.not_found: list[str] = []
        self._client = client
        self._numbers = itertools.count()

    async def work(self, goes_on: Callable[[], bool]) -> None:
        while goes_on():
            name = f"harbour{next(self._numbers)}"
            await self._complete(name)
            self.completed.append(name)
            if not await self.finds(name):
                self.not_found.append(name)

    async def _complete(self, name: str) -> None:
        file_id = (await self.insist("POST", "/v1/files", name=name))["id"]
        path = "/v1/vector_stores/default/files"
        await self.insist("POST", path, json={"file_id": file_id})
        while (await self.insist("GET", f"{path}/{file_id}"))["status"] != "completed":
            await asyncio.sleep(RETRY_SECONDS)

    async def finds(self, name: str) -> bool:
        query = {"query": f"Which keeper lives at {name}?", "max_num_results": 5}
        found = await self.insist("POST", "/v1/vector_stores/default/search", json=query)
        return f"{name}.txt" in {result["filename"] for result in found["data"]}

    async def insist(self, method: str, path: str, *, name: str = "", **options: Any) -> Any:
        """Ask again after 503 or a lost connection, like the official clients."""
        while True:
            if name:
                options["data"] = _form(name)
            answer = await self._client.call(method, path, **options)
            if answer.status == 200:
                return answer.body
            assert answer.status in (0, 429, 500, 503), f"{method} {path}: {answer}"
            await asyncio.sleep(RETRY_SECONDS)


def _form(name: str) -> aiohttp.FormData:
    form = aiohttp.FormData({"purpose": "assistants"})
    form.add_field("file", f"The keeper of {name} lives in the tower.".encode(), filename=f"{name}.txt")
    return form


async def lose_primaries(stage: Stage, pair: PostgresPair, client: HttpClient, say: Say, *, kills: int) -> Report:
    """Lose the primary with its disk under load, this many times."""
    report, accepting, is_done = Report("postgres"), list[float](), asyncio.Event()
    await stage.start_workers(WORKERS)
    documents = await asyncio.to_thread(stage.spawn, "documents", "worker", "documents")
    librarian = Librarian(client)
    load = [
        asyncio.create_task(keep_asking(client, "postgres", lambda: not is_done.is_set(), clients=CLIENTS)),
        *(asyncio.create_task(librarian.work(lambda: not is_done.is_set())) for _ in range(UPLOADERS)),
    ]
    try:
        for number in range(kills):
            await asyncio.sleep(random.uniform(*STEADY_SECONDS))
            await asyncio.to_thread(pair.primary.kill)
            killed_at = time.monotonic()
            promoting = asyncio.create_task(asyncio.to_thread(pair.promote_replica))
            await librarian.insist("POST", "/v1/files", name=f"probe{number}")
            accepting.append(time.monotonic() - killed_at)
            say(f"{number + 1} primaries lost, {len(librarian.completed)} files, writing after {accepting[-1]:.1f} s")
            await promoting
            await asyncio.to_thread(pair.add_replica)
    finally:
        is_done.set()
        await asyncio.gather(*load)
    await _report(report, stage, client, librarian, accepting)
    report.checks["no worker ended by itself"] &= documents.process.poll() is None
    await asyncio.to_thread(documents.stop)
    stage.stop_workers()
    return report


async def _report(
    report: Report, stage: Stage, client: HttpClient, librarian: Librarian, accepting: list[float]
) -> None:
    """Audit what was accepted and completed, after the primaries were lost."""
    report.figures["settle_seconds"] = round(await client.settle(seconds=SETTLE_SECONDS), 1)
    audit(report, client.account, stage.count_results(list(client.account.accepted.values())), stage.runs())
    lost = [name for name in librarian.completed if not await librarian.finds(name)]
    report.figures |= {
        "primaries_lost_with_their_disks": len(accepting),
        "writing_again_seconds": spread(accepting),
        "files_completed": len(librarian.completed),
        "files_lost": len(lost),
        "worker_exits": stage.exited(),
    }
    report.checks |= {
        "every accepted job finished": client.account.count("finished") == len(client.account.accepted),
        "every completed file was found at once, and is found at the end": not lost and not librarian.not_found,
        "no worker ended by itself": not stage.exited(),
        "no request ended in 500": not client.account.answers[500],
        f"files are taken again in {BACK_SECONDS} s": max(accepting) <= BACK_SECONDS,
    }


async def run(folder: Path, say: Say, *, kills: int) -> list[Report]:
    """Run the drill on a pair of its own."""
    pair = PostgresPair(folder)
    with (
        pair.running(),
        Stage(
            folder,
            latency=LATENCY_SECONDS,
            settings={"RAGQ_DATABASE_READ_URL": pair.read_url},
            database_url=pair.url,
        ) as stage,
    ):
        async with HttpClient(stage.url) as client:
            return [await lose_primaries(stage, pair, client, say, kills=kills)]
