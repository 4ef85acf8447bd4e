"""Clients that ask over HTTP, retry like good clients, and record what was accepted."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Self

import aiohttp

from benchmarks.drill.stage import FINAL, POLL_SECONDS
from ragq.tasks import end_tasks

CLIENTS = 12
PATIENCE_SECONDS = 10.0  # for one job, before its client asks the next; the audit checks it again
RETRY_SECONDS = 0.3
RETRIED = (0, 409, 429, 500, 502, 503)  # 409 and 500 are bugs, which the account shows
UNREACHABLE = (aiohttp.ClientError, TimeoutError)


@dataclass(frozen=True)
class Answer:
    """A response of the API; status 0 if it was not reached, `retry_after` 0 without the header."""

    status: int
    body: Any
    retry_after: float


@dataclass
class Account:
    """Questions by tag.

    Attributes:
        accepted: Tag → id of the job.
        states: Tag → last state seen: `waiting`, `finished`, `failed: CODE`, `gone`.
        answers: HTTP status (0: no connection) → number of responses.
    """

    accepted: dict[str, str] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    answers: Counter[int] = field(default_factory=Counter)

    def count(self, state: str) -> int:
        return sum(one.startswith(state) for one in self.states.values())


class Client:
    """A client; subclasses talk to ragq or to stock RQ."""

    def __init__(self) -> None:
        self.account = Account()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def ask(self, tag: str) -> None:
        """Ask until the question is accepted."""
        raise NotImplementedError

    async def fetch(self, tag: str) -> str:
        """Fetch a job's state from the service."""
        raise NotImplementedError

    async def look(self, tag: str) -> str:
        """A job's state; that of an ended job is not fetched again."""
        if self.account.states[tag] == "waiting":
            self.account.states[tag] = await self.fetch(tag)
        return self.account.states[tag]

    async def follow(self, tag: str, *, seconds: float = PATIENCE_SECONDS, poll: float = POLL_SECONDS) -> str:
        """Poll until the job has ended or the time is over."""
        deadline = time.monotonic() + seconds
        while await self.look(tag) == "waiting" and time.monotonic() < deadline:
            await asyncio.sleep(poll)
        return self.account.states[tag]

    async def settle(self, *, seconds: float) -> float:
        """Wait until every accepted job has ended; returns the seconds."""
        started = time.monotonic()
        await asyncio.gather(*(self.follow(tag, seconds=seconds) for tag in self.account.accepted))
        return time.monotonic() - started


class HttpClient(Client):
    """Asks ragq's API; use it with `async with`."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=0)
        self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(20))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def call(self, method: str, path: str, **options: Any) -> Answer:
        """Send one request and count its status."""
        try:
            async with self._session.request(method, self._url + path, **options) as reply:
                wait = float(reply.headers.get("Retry-After", 0))
                answer = Answer(reply.status, await reply.json(content_type=None), wait)
        except UNREACHABLE:
            answer = Answer(0, {}, 0.0)
        self.account.answers[answer.status] += 1
        return answer

    async def text(self, path: str) -> str:
        """Read a page as text, by its path or, for another process, by its URL."""
        url = path if path.startswith("http") else self._url + path
        async with self._session.get(url, raise_for_status=True) as reply:
            return await reply.text()

    async def post(self, tag: str, *, tier: str = "default", fake: str = "") -> Answer:
        """Ask once, with an Idempotency-Key.

        Args:
            fake: Behaviour of the fake LLM, as in its markers.
        """
        question = f"How tall is the lighthouse? [[fake job={tag} {fake}]]"
        body = {"input": question, "background": True, "vector_store_ids": [], "service_tier": tier}
        answer = await self.call("POST", "/v1/responses", json=body, headers={"Idempotency-Key": tag})
        if answer.status == 200:
            known = self.account.accepted.setdefault(tag, answer.body["id"])
            assert known == answer.body["id"], f"two ids for one key: {known}, {answer.body['id']}"
            self.account.states.setdefault(tag, "waiting")
        return answer

    async def ask(self, tag: str, *, tier: str = "default", fake: str = "") -> None:
        while (answer := await self.post(tag, tier=tier, fake=fake)).status != 200:
            assert answer.status in RETRIED, f"refused: {answer}"
            await asyncio.sleep(RETRY_SECONDS)

    async def fetch(self, tag: str) -> str:
        answer = await self.call("GET", f"/v1/responses/{self.account.accepted[tag]}")
        if answer.status in (404, 410):
            return "gone"
        if answer.status != 200 or answer.body["status"] not in FINAL:
            return "waiting"
        code = f": {answer.body['error']['code']}" if answer.body["error"] else ""
        return FINAL[answer.body["status"]] + code


async def keep_asking(client: Client, prefix: str, goes_on: Callable[[], bool], *, clients: int = CLIENTS) -> None:
    """Run this many clients, which each ask, wait for the answer, and ask the next, while `goes_on`."""
    numbers = itertools.count()

    async def one() -> None:
        while goes_on():
            tag = f"{prefix}-{next(numbers)}"
            await client.ask(tag)
            await client.follow(tag)

    await asyncio.gather(*(one() for _ in range(clients)))


def for_seconds(seconds: float) -> Callable[[], bool]:
    """A `goes_on` that is true for some seconds."""
    deadline = time.monotonic() + seconds
    return lambda: time.monotonic() < deadline


async def until(check: Callable[[], bool], *, seconds: float = 30, what: str = "") -> None:
    """Wait for a condition; fail after some seconds."""
    goes_on = for_seconds(seconds)
    while not check():
        assert goes_on(), f"not within {seconds} s: {what}"
        await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def background(coroutine: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run a coroutine concurrently with the body, and cancel it after the body; its error is raised."""
    task = asyncio.create_task(coroutine)
    try:
        yield
    finally:
        await end_tasks([task])
        if not task.cancelled():
            task.result()
