"""Attacks that exhaust: connections, bytes in the queue, and the event loop of a worker."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import resource
import statistics
import time
from collections import Counter
from functools import partial
from typing import Any

import aiohttp
import redis

from benchmarks.attack.stage import (
    HOLD_SECONDS,
    KEY,
    MAX_RATIO,
    OPEN_AT_ONCE,
    STREAM_SECONDS,
    Attack,
    Stage,
    Verdict,
    beside,
    connect,
    status,
    status_of,
)
from tests.servers import Ragq

HEAD = b"POST /session HTTP/1.1\r\nhost: 127.0.0.1\r\n"
REOPEN_SECONDS = 2.0
MAX_GROWTH_MB = 20.0  # of Valkey, by 300 MB of questions
STREAMS, SHORT_QUESTIONS = 10, 10
MAX_SHORT_RATIO = 1.2

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def endless(url: str, head: bytes, piece: bytes, *, megabytes: int) -> tuple[int, float]:
    """Send an endless request; returns the response's status and the MB that were sent."""
    sent = 0
    reader, writer = await connect(url)
    answer = asyncio.create_task(reader.read(4096))
    writer.write(head)
    with contextlib.suppress(ConnectionError):
        while sent < megabytes << 20 and not answer.done():
            writer.write(piece)
            await writer.drain()
            sent += len(piece)
    with contextlib.suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(60):
            await asyncio.wait([answer])
    writer.transport.abort()
    found = await asyncio.gather(answer, return_exceptions=True)
    return (status_of(found[0]) if isinstance(found[0], bytes) else 0), round(sent / (1 << 20), 1)


async def endless_header(stage: Stage) -> Verdict:
    """Headers of 200 MB, one connection after the other."""

    async def again_and_again() -> list[tuple[int, float]]:
        found, until = [], time.monotonic() + HOLD_SECONDS
        while time.monotonic() < until:
            found.append(await endless(stage.open.url, HEAD + b"x: ", b"a" * 65_536, megabytes=200))
        return found

    found, ratio, figures = await beside(stage.open, again_and_again())
    held = ratio <= MAX_RATIO and {code for code, _ in found} == {431}
    happened = f"status and MB taken: {found}; good clients' p95 {ratio} times as long"
    return Verdict("headers of 200 MB, one after the other", happened, held, figures)


async def endless_rest(stage: Stage) -> Verdict:
    """Other endless input: address, headers, empty lines, chunk extensions, trailers, pipelined requests."""
    chunked = HEAD + b"transfer-encoding: chunked\r\n\r\n"
    parts = {
        "address": (b"GET /", b"a" * 65_536),
        "headers": (HEAD, b"x: y\r\n" * 10_000),
        "empty lines": (b"", b"\r\n" * 32_768),
        "chunk extension": (chunked + b"5;x=", b"a" * 65_536),
        "trailers": (chunked + b"2\r\n{}\r\n0\r\n", b"x: y\r\n" * 10_000),
        "requests": (b"", b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n" * 1000),
    }

    async def each() -> dict[str, tuple[int, float]]:
        until = time.monotonic() + HOLD_SECONDS
        while True:
            found = {name: await endless(stage.open.url, *part, megabytes=50) for name, part in parts.items()}
            if time.monotonic() > until:
                return found

    found, ratio, figures = await beside(stage.open, each())
    held = ratio <= MAX_RATIO and all(sent < 50 for _, sent in found.values())
    happened = f"status and MB taken: {found}; good clients' p95 {ratio} times as long"
    return Verdict("50 MB each of " + ", ".join(parts), happened, held, figures)


async def hold(url: str, count: int, seconds: float, drip: bytes) -> dict[str, int]:
    """Keep this many connections open, silent or dripping, for some seconds after all were opened; reopen closed ones."""
    opening, all_open, found = asyncio.Semaphore(OPEN_AT_ONCE), asyncio.Barrier(count), Counter(opened=0, closed=0)
    until = math.inf

    async def open_one() -> Connection | None:
        async with opening:
            await asyncio.sleep(0.05)  # so that opening them does not take all of this machine's time
            with contextlib.suppress(OSError):
                return await connect(url)
        return None

    async def one() -> None:
        nonlocal until
        connection = await open_one()
        await all_open.wait()
        until = min(until, time.monotonic() + seconds)
        while (left := until - time.monotonic()) > 0:
            if connection:
                found["opened"] += 1
                with contextlib.suppress(TimeoutError, OSError):
                    async with asyncio.timeout(left):
                        await keep(*connection, drip)
                        found["closed"] += 1
                connection[1].transport.abort()
            await asyncio.sleep(REOPEN_SECONDS)  # faster would be a flood, which needs no silent connections
            connection = await open_one()
        if connection:
            connection[1].transport.abort()

    await asyncio.gather(*(one() for _ in range(count)))
    return dict(found)


async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, drip: bytes) -> None:
    """Send a byte each second, if there are any, until the server closes the connection."""
    ended = asyncio.create_task(reader.read())
    try:
        for place in range(1 << 20):
            if drip:
                writer.write(drip if place == 0 else b"a")
            await asyncio.wait([ended], timeout=1 if drip else None)
            if ended.done():
                return
    finally:
        ended.cancel()
        await asyncio.gather(ended, return_exceptions=True)


async def held_connections(stage: Stage, *, count: int, seconds: float, drip: bytes = b"", closed: int = 0) -> Verdict:
    """Many connections that send nothing, or too slowly; the server must close at least `closed` of them."""
    room = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 500
    count = min(count, room)
    found, ratio, figures = await beside(stage.open, hold(stage.open.url, count, seconds, drip))
    held = ratio <= MAX_RATIO and found["closed"] >= closed
    kind = "silent" if not drip else "slow headers on" if drip.endswith(b"x: ") else "slow bodies on"
    happened = f"{found['opened']} opened, {found['closed']} closed; good clients' p95 {ratio} times as long"
    return Verdict(f"{count} {kind} connections for {seconds:.0f} s, opened again when closed", happened, held, figures)


async def large_questions(stage: Stage) -> Verdict:
    """100 questions of 3 MB each, without a worker."""
    long = {"role": "assistant", "content": "word " * 600_000}
    valkey = redis.Redis.from_url(stage.open.services["valkey_url"])
    before = int(valkey.info("memory")["used_memory"])
    found, slots = Counter[int](), asyncio.Semaphore(4)

    async def ask(number: int) -> None:
        async with slots:
            question = {"role": "user", "content": f"How tall is it? ({number})"}
            body: dict[str, Any] = {"input": [long, question], "background": True}
            found[await status(stage.open.url, "POST", "/v1/responses", json=body)] += 1

    await asyncio.gather(*(ask(number) for number in range(100)))
    memory = valkey.info("memory")
    valkey.close()
    grown = round((int(memory["used_memory"]) - before) / (1 << 20), 1)
    limit = int(memory["maxmemory"])
    held = grown <= MAX_GROWTH_MB and limit > 0 and set(found) <= {200, 413, 429}
    happened = f"{dict(found)}; Valkey grew by {grown} MB, its maxmemory is {limit >> 20} MB"
    return Verdict("100 questions of 3 MB each", happened, held, {"grown_mb": grown})


async def endless_answers(stage: Stage) -> Verdict:
    """Answers of 100,000 letters without a space beside short ones, on one worker."""
    alone = await short_questions(stage.keyed)
    async with aiohttp.ClientSession(stage.keyed.url, headers={"Authorization": f"Bearer {KEY}"}) as session:
        ids = [await follow(session, "Be endless, please.") for _ in range(STREAMS)]
        await asyncio.sleep(STREAM_SECONDS * 0.6)  # the cost of an answer grows with its length
        beside_them = await short_questions(stage.keyed)
        for id_ in ids:
            async with session.post(f"/v1/responses/{id_}/cancel") as reply:
                await reply.read()
    ratio = round(statistics.mean(beside_them) / statistics.mean(alone), 2)
    figures = {"alone_s": alone, "beside_s": beside_them}
    happened = f"a short question took {ratio} times as long (at most {MAX_SHORT_RATIO})"
    return Verdict(f"{STREAMS} answers of 100,000 letters", happened, ratio <= MAX_SHORT_RATIO, figures)


async def short_questions(service: Ragq) -> list[float]:
    """Ask short questions one after the other for at most 15 s; returns the time of each."""
    times: list[float] = []
    until = time.monotonic() + 15
    async with aiohttp.ClientSession(service.url, headers={"Authorization": f"Bearer {KEY}"}) as session:
        while len(times) < SHORT_QUESTIONS and time.monotonic() < until:
            started = time.monotonic()
            await post(session, "How tall is it?")
            times.append(round(time.monotonic() - started, 3))
    return times


async def follow(session: aiohttp.ClientSession, question: str) -> str:
    """Start a stream whose reader disconnects; returns its id."""
    body = {"input": question, "vector_store_ids": [], "background": True, "stream": True}
    async with session.post("/v1/responses", json=body) as reply:
        async for line in reply.content:
            if line.startswith(b"data:"):
                return str(json.loads(line[5:])["response"]["id"])
    raise AssertionError("a stream without an event")


async def post(session: aiohttp.ClientSession, question: str, **more: Any) -> Any:
    """Ask without a search."""
    body = {"input": question, "vector_store_ids": [], **more}
    async with session.post("/v1/responses", json=body) as reply:
        assert reply.status == 200, await reply.text()
        return await reply.json()


SLOW_HEAD = HEAD + b"x: "
SLOW_BODY = HEAD + b"content-type: application/json\r\ncontent-length: 100000\r\n\r\n"
ATTACKS: dict[str, Attack] = {
    "endless_header": endless_header,
    "endless_rest": endless_rest,
    "silent_1000": partial(held_connections, count=1000, seconds=HOLD_SECONDS),
    "silent_5000": partial(held_connections, count=5000, seconds=2 * HOLD_SECONDS, closed=500),
    "slow_headers": partial(held_connections, count=500, seconds=18, drip=SLOW_HEAD, closed=500),
    "slow_bodies": partial(held_connections, count=200, seconds=33, drip=SLOW_BODY, closed=200),
    "large_questions": large_questions,
    "endless_answers": endless_answers,
}
