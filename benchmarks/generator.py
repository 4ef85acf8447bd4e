"""The load generator, a process that prints JSON. Raw HTTP/1.1 on kept-alive connections, so that it takes little CPU.

`python -m benchmarks.generator PART` reads its keyword arguments, JSON, on standard input.
"""

from __future__ import annotations

import asyncio
import json
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, Self
from urllib.parse import quote, urlsplit

import uvloop

from benchmarks.harness import percentiles

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
POLL_SECONDS = 0.2
STAGES = ("queued_ms", "retrieve_ms", "answer_ms", "first_token_ms", "total_ms")

Part = Callable[..., Coroutine[Any, Any, dict[str, Any]]]


class Connection(asyncio.Protocol):
    """A kept-alive connection; one request at a time."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._reply: asyncio.Future[tuple[int, bytes]] | None = None
        self._transport: Any = None

    @classmethod
    async def open(cls, url: str) -> Self:
        """Connect to the host and port of an address."""
        parts = urlsplit(url)
        assert parts.hostname
        assert parts.port
        _, protocol = await asyncio.get_running_loop().create_connection(cls, parts.hostname, parts.port)
        return protocol

    async def send(self, request: bytes) -> tuple[int, bytes]:
        """Send a request; returns the status and the body."""
        self._reply = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._reply

    def close(self) -> None:
        self._transport.close()

    @property
    def is_open(self) -> bool:
        return not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n") + 4
        if end < 4:
            return
        length = LENGTH.search(self._received, 0, end)
        assert length, self._received[:end]
        whole = end + int(length[1])
        if len(self._received) >= whole:
            assert self._reply
            reply = int(self._received[9:12]), bytes(self._received[end:whole])
            del self._received[:whole]
            self._reply.set_result(reply)

    def connection_lost(self, error: Exception | None) -> None:
        if self._reply and not self._reply.done():
            self._reply.set_exception(error or ConnectionResetError("closed in the middle of an answer"))


def write(method: str, path: str, body: dict[str, Any] | None = None) -> bytes:
    """Write a request."""
    content = b"" if body is None else json.dumps(body).encode()
    kind = "" if body is None else "content-type: application/json\r\n"
    return (
        f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{kind}content-length: {len(content)}\r\n\r\n".encode()
        + content
    )


def ask(route: str, question: str, **more: Any) -> bytes:
    """Write a question for `/chat`, or for `/v1/responses`."""
    if route == "/chat":
        return write("POST", f"/chat?query={quote(question)}")
    return write("POST", route, {"input": question, **more})


async def shared(url: str, connections: int, requests: list[bytes]) -> list[tuple[int, bytes]]:
    """Send requests over some connections, each as soon as one is free; returns the replies in the requests' order."""
    replies: list[tuple[int, bytes]] = [(0, b"")] * len(requests)
    waiting = iter(enumerate(requests))

    async def drive() -> None:
        connection = await Connection.open(url)
        for place, request in waiting:
            replies[place] = await connection.send(request)
        connection.close()

    await asyncio.gather(*(drive() for _ in range(connections)))
    return replies


async def accept(url: str, *, route: str, more: dict[str, Any], connections: int, seconds: float) -> dict[str, Any]:
    """Ask as fast as the API accepts: each connection asks again as soon as it has a reply."""
    took: list[float] = []
    statuses: Counter[int] = Counter()
    ready = asyncio.Barrier(connections)

    async def drive(number: int) -> None:
        connection = await Connection.open(url)
        await ready.wait()
        stop = time.monotonic() + seconds
        while (started := time.monotonic()) < stop:
            question = f"How tall is the lighthouse of Quorra, and who keeps it? ({number}.{len(took)})"
            status, _ = await connection.send(ask(route, question, **more))
            took.append(time.monotonic() - started)
            statuses[status] += 1
        connection.close()

    started, cpu = time.monotonic(), time.process_time()
    await asyncio.gather(*(drive(number) for number in range(connections)))
    elapsed = time.monotonic() - started
    return {
        "accepted": statuses.pop(200, 0),
        "other_statuses": dict(statuses),
        "accepts_per_second": round(len(took) / elapsed, 1),
        "ms": percentiles(took),
        "generator_cpu_share": round((time.process_time() - cpu) / elapsed, 2),
    }


async def burst(
    url: str, *, route: str, more: dict[str, Any], questions: list[str], connections: int
) -> dict[str, Any]:
    """Ask all at once and wait until none is left in the queue; returns their ids and the times."""
    started, cpu = time.monotonic(), time.process_time()
    replies = await shared(url, connections, [ask(route, question, **more) for question in questions])
    assert {status for status, _ in replies} == {200}, Counter(status for status, _ in replies)
    accepted = time.monotonic() - started
    connection = await Connection.open(url)
    left = 1
    while left:
        await asyncio.sleep(POLL_SECONDS)
        _, body = await connection.send(write("GET", "/status"))
        left = sum(one["queued"] + one["in_flight"] for one in json.loads(body)["queues"])
    seconds = time.monotonic() - started
    bodies = [json.loads(body) for _, body in replies]
    return {
        "ids": [body.get("job_id") or body["id"] for body in bodies],
        "seconds": seconds,
        "accepting_seconds": round(accepted, 2),
        "cpu_seconds": time.process_time() - cpu,
    }


async def read(url: str, *, ids: list[str]) -> dict[str, Any]:
    """Read each response; returns the number by status, and the median times of the stages."""
    replies = await shared(url, 8, [write("GET", f"/v1/responses/{one}") for one in ids])
    found = [json.loads(body) for _, body in replies]
    cited = sum(bool(part["annotations"]) for one in found for part in one["output"][-1]["content"])
    return {
        "statuses": dict(Counter(one["status"] for one in found)),
        "cited": cited,
        "median_ms": stages_of(found),
    }


def stages_of(responses: list[dict[str, Any]]) -> dict[str, float]:
    """The median time of each stage, from the responses."""
    return {name: statistics.median(one["timing"][name] or 0 for one in responses) for name in STAGES}


async def paced(url: str, *, llm_url: str, rate: float, seconds: float, questions: list[str]) -> dict[str, Any]:
    """Ask at a steady rate and wait for each answer; between any two, call the LLM directly in the same way."""
    direct = {"model": "fake", "messages": [{"role": "user", "content": ""}]}
    times: dict[str, list[float]] = {"ragq": [], "direct": []}
    responses: list[dict[str, Any]] = []
    free: dict[str, list[Connection]] = {"ragq": [], "direct": []}

    async def one(name: str, address: str, request: bytes) -> None:
        started = time.monotonic()
        free[name] = [connection for connection in free[name] if connection.is_open]  # a server closes idle ones
        connection = free[name].pop() if free[name] else await Connection.open(address)
        status, body = await connection.send(request)
        times[name].append(time.monotonic() - started)
        free[name].append(connection)
        assert status == 200, body[:300]
        if name == "ragq":
            responses.append(json.loads(body))
            assert responses[-1]["status"] == "completed", body[:300]

    started, tasks = time.monotonic(), []
    for number in range(int(rate * seconds)):
        question = questions[number % len(questions)]
        direct["messages"] = [{"role": "user", "content": question}]
        pairs = (
            ("ragq", url, ask("/v1/responses", question)),
            ("direct", llm_url, write("POST", "/v1/chat/completions", direct)),
        )
        for half, (name, address, request) in enumerate(pairs):
            await asyncio.sleep(max(0, started + (number + half / 2) / rate - time.monotonic()))
            tasks.append(asyncio.create_task(one(name, address, request)))
    await asyncio.gather(*tasks)
    shown = {name: percentiles(found) for name, found in times.items()}
    return shown | {"asked": len(responses), "median_ms": stages_of(responses)}


async def hold(url: str, *, questions: list[str]) -> dict[str, Any]:
    """Ask all at once, each on a connection of its own that waits for the answer."""
    replies = await shared(url, len(questions), [ask("/v1/responses", question) for question in questions])
    return {"statuses": dict(Counter(json.loads(body)["status"] for _, body in replies))}


PARTS: dict[str, Part] = {part.__name__: part for part in (accept, burst, read, paced, hold)}


def start(part: Part, url: str, **arguments: Any) -> subprocess.Popen[str]:
    """Start a part in a new process."""
    command = [sys.executable, "-m", "benchmarks.generator", part.__name__]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin
    process.stdin.write(json.dumps({"url": url, **arguments}))
    process.stdin.close()
    process.stdin = None  # so that it is not written to again
    return process


def finish(process: subprocess.Popen[str], *, seconds: float = 180) -> dict[str, Any]:
    """Wait for a part; returns what it printed."""
    printed, _ = process.communicate(timeout=seconds)
    assert process.returncode == 0
    found: dict[str, Any] = json.loads(printed)
    return found


def generate(part: Part, url: str, **arguments: Any) -> dict[str, Any]:
    """Run a part in a new process."""
    return finish(start(part, url, **arguments))


if __name__ == "__main__":
    print(json.dumps(uvloop.run(PARTS[sys.argv[1]](**json.load(sys.stdin)))))
