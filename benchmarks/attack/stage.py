"""Shared by the attacks: two services on loopback, an endless LLM, good clients, and verdicts."""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web

from benchmarks.harness import percentiles
from tests.servers import Ragq, free_port

KEY = "only the attacks and the good clients know it"
EVIL = "http://evil.example"
HOLD_SECONDS = 5.0
OPEN_AT_ONCE = 50
MAX_RATIO = 2.0  # most that an attack may slow the good clients' p95
ALONE_SECONDS = 2.0
STREAM_CHARACTERS, STREAM_PIECE, STREAM_SECONDS = 100_000, 10, 20.0
SHORT_SECONDS = 0.3  # the LLM's time for a short answer


@dataclass
class Verdict:
    """The attempt, its effect, and whether the service held."""

    tried: str
    happened: str
    held: bool
    figures: dict[str, Any] = field(default_factory=dict)


Attack = Callable[["Stage"], Coroutine[Any, Any, Verdict]]


@dataclass
class Stage:
    """Two services: `keyed` has a key, a query worker and the LLM; `open` has none of these."""

    folder: Path
    keyed: Ragq
    open: Ragq

    @classmethod
    @contextlib.asynccontextmanager
    async def set_up(cls, folder: Path) -> AsyncIterator[Self]:
        """Start both, and stop them at the end."""
        async with running_llm() as llm_url:
            limits = {"RAGQ_MAX_WAIT_SECONDS": 0, "RAGQ_SHUTDOWN_GRACE_SECONDS": 1, "RAGQ_MAX_QUEUED": 0}
            model = {"RAGQ_LLM_BASE_URL": llm_url, "RAGQ_LLM_MODEL": "endless"}
            keyed = Ragq(folder / "keyed", "--document-workers", "0", RAGQ_API_KEY=KEY, **model, **limits)
            open_ = Ragq(folder / "open", *("--query-workers", "0", "--document-workers", "0"), **limits)
            async with contextlib.AsyncExitStack() as stack:
                for service in (keyed, open_):
                    await asyncio.to_thread(service.start)
                    stack.push_async_callback(asyncio.to_thread, service.stop)
                yield cls(folder, keyed, open_)


async def raw(url: str, request: bytes, *, seconds: float = 10) -> bytes:
    """Send bytes on a new connection; returns the response read until the connection ends or the time is over."""
    answer = bytearray()
    writer = None
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(seconds):
            reader, writer = await connect(url)
            writer.write(request)
            while part := await reader.read(65_536):
                answer += part
    if writer:
        writer.transport.abort()
    return bytes(answer)


async def connect(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection to a service."""
    parts = urlsplit(url)
    return await asyncio.open_connection(parts.hostname, parts.port)


def status_of(answer: bytes) -> int:
    """The status of a raw response; 0 if there is none."""
    return int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else 0


async def status(url: str, method: str, path: str, **more: Any) -> int:
    """Send a request; returns the response's status, or 0 if the connection was closed without one."""
    try:
        async with aiohttp.ClientSession(url) as session, session.request(method, path, **more) as reply:
            await reply.read()
            return reply.status
    except (aiohttp.ClientError, ConnectionError):
        return 0


# Resources of a process


def resident_mb(pid: int) -> float:
    """Memory of a process."""
    return int(Path(f"/proc/{pid}/status").read_text().partition("VmRSS:")[2].split()[0]) / 1024


def temporary_mb(pid: int) -> float:
    """Bytes of a process's unnamed files and of the temporary folder."""
    total = 0
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            target = str(entry.readlink())
            if target.startswith("/") and (target.endswith("(deleted)") or target.startswith(tempfile.gettempdir())):
                total += entry.stat().st_size
    return total / (1 << 20)


async def peak_mb(pid: int, work: Coroutine[Any, Any, Any]) -> tuple[float, Any]:
    """Run some work; returns a process's growth meanwhile, in memory and temporary files, and the work's result."""
    before = most = resident_mb(pid) + temporary_mb(pid)
    task = asyncio.create_task(work)
    while not task.done():
        most = max(most, resident_mb(pid) + temporary_mb(pid))
        await asyncio.wait([task], timeout=0.02)
    return round(most - before, 1), task.result()


# Good clients


class GoodClients:
    """The process of the good clients, from its start to `times`."""

    def __init__(self, service: Ragq) -> None:
        self._command = [sys.executable, "-m", "benchmarks.attack.good_client", service.url, KEY]

    async def start(self) -> Self:
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(*self._command, stdin=pipe, stdout=pipe)
        assert self._process.stdout
        await self._process.stdout.readline()
        return self

    async def times(self) -> dict[str, dict[str, float]]:
        """End them; returns the percentiles of each, in ms."""
        printed, _ = await self._process.communicate(b"")
        return {name: percentiles(times) for name, times in json.loads(printed).items()}


async def beside(service: Ragq, attack: Coroutine[Any, Any, Any]) -> tuple[Any, float, dict[str, Any]]:
    """Attack while good clients ask; returns the attack's result, the ratio of their p95, and the times.

    They are measured alone before and after; the longer p95 counts, since the machine's speed changes.
    """
    (outcome,), ratio, figures = await beside_rounds(service, [attack])
    return outcome, ratio, figures


async def beside_rounds(
    service: Ragq, attacks: Iterable[Coroutine[Any, Any, Any]]
) -> tuple[list[Any], float, dict[str, Any]]:
    """Attack in rounds, as `beside` does in one; returns the results, the median ratio, and the last round's times.

    Each round is compared with the good clients' time alone just before and after it.
    """

    async def measure(work: Coroutine[Any, Any, Any]) -> tuple[Any, dict[str, dict[str, float]]]:
        clients = await GoodClients(service).start()
        outcome = await work
        return outcome, await clients.times()

    outcomes, ratios = [], []
    _, after = await measure(asyncio.sleep(ALONE_SECONDS))
    for attack in attacks:
        before = after
        outcome, during = await measure(attack)
        _, after = await measure(asyncio.sleep(ALONE_SECONDS))
        alone = {name: max(before[name]["p95"], after[name]["p95"]) for name in before}
        outcomes.append(outcome)
        ratios.append(round(max(during[name]["p95"] / alone[name] for name in alone), 2))
    ratio = round(statistics.median(ratios), 2)
    return outcomes, ratio, {"p95_ratio": ratio, "p95_ratios": ratios, "alone_p95_ms": alone, "during_ms": during}


# The LLM


@contextlib.asynccontextmanager
async def running_llm() -> AsyncIterator[str]:
    """A local LLM: for a prompt with "endless" it streams letters without spaces, otherwise a short answer."""
    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    port = free_port()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        await runner.cleanup()


async def answer(request: web.Request) -> web.StreamResponse:
    """Answer a call."""
    is_endless = "endless" in str((await request.json())["messages"][-1]["content"])
    await asyncio.sleep(0 if is_endless else SHORT_SECONDS)
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    loop = asyncio.get_running_loop()
    started, pieces = loop.time(), STREAM_CHARACTERS // STREAM_PIECE if is_endless else 1
    for number in range(pieces):
        await asyncio.sleep(max(0, started + number * STREAM_SECONDS / pieces - loop.time()))
        await response.write(event({"content": "a" * STREAM_PIECE}, None))
    await response.write(event({}, "stop") + b"data: [DONE]\n\n")
    return response


def event(delta: dict[str, str], finish_reason: str | None) -> bytes:
    """Write one event of a stream."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    content = {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": "endless", "choices": [choice]}
    return b"data: " + json.dumps(content).encode() + b"\n\n"
