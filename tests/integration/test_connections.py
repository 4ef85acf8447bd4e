"""Connections that send too much, too slowly or nothing: each is bounded, and the others' requests are served meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn

from ragq.http import connections
from ragq.http.connections import Connection, Connections, Wait
from tests.servers import Valkey, command, environment, free_port, stop, wait_until

MOST = 200
SOFT, HARD = 300, 4000
HEAD = b"POST /session HTTP/1.1\r\nhost: 127.0.0.1\r\n"
SHORT = {Wait.END: 0.5, Wait.FIRST_REQUEST: 0.5, Wait.NEXT_REQUEST: 0.5, Wait.BODY: 0.5, Wait.READER: 0.5}


class Api:
    """A `ragq serve`, started with few descriptors."""

    def __init__(self, folder: Path, **variables: object) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "api.log"
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (SOFT, hard))  # the child inherits it
        try:
            with self.log.open("w") as log:
                self.process = subprocess.Popen(
                    command("serve", "--port", str(self.port)), env=environment(**variables), stdout=log, stderr=log
                )
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        wait_until(self._answers, seconds=60, what="the API answers")

    def _answers(self) -> bool:
        with contextlib.suppress(httpx2.TransportError):
            return httpx2.get(f"{self.url}/readyz").status_code == 200
        return False

    @property
    def resident_mb(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def metric(self, name: str) -> float:
        lines = httpx2.get(f"{self.url}/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, valkey: Valkey, database_url: str) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("api")
    api = Api(
        folder,
        RAGQ_DATA_DIR=folder,
        RAGQ_VALKEY_URL=valkey.url,
        RAGQ_DATABASE_URL=database_url,
        RAGQ_MAX_CONNECTIONS=MOST,
    )
    yield api
    stop(api.process)
    assert "Traceback" not in api.log.read_text()


async def send(port: int, *parts: bytes, repeated: bytes = b"", times: int = 0) -> bytes:
    """Send what is given, then a part again and again until the server has enough; returns what it answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = asyncio.create_task(reader.read())
    try:
        writer.write(b"".join(parts))
        for _ in range(times):
            if answer.done():
                break
            writer.write(repeated)
            with contextlib.suppress(ConnectionError):
                await writer.drain()
        async with asyncio.timeout(20):
            return await answer
    except ConnectionError:
        return b""
    finally:
        writer.transport.abort()


def refusal(answer: bytes) -> tuple[int, dict[str, Any]]:
    """The status and the error of an answer, which says that the connection ends."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"connection: close" in head.lower(), answer[:300]
    return int(head.split()[1]), json.loads(body)["error"]


async def times_of(api: Api, until: asyncio.Future[Any]) -> list[float]:
    """How long requests on new connections take, each after the other, until something has ended."""
    times = []
    while not until.done():
        started = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        writer.write(b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
        writer.close()
        times.append(time.monotonic() - started)
        await asyncio.sleep(0.01)
    return times


@pytest.mark.parametrize(
    ("head", "repeated"),
    [
        pytest.param(HEAD + b"x-endless: ", b"a" * 65_536, id="an endless header"),
        pytest.param(HEAD, b"x: y\r\n" * 1000, id="endless headers"),
        pytest.param(b"GET /", b"a" * 65_536, id="an endless address"),
        pytest.param(b"GET /?query=", b"a" * 65_536, id="an endless query"),
        pytest.param(HEAD + b"x: ", b"\t\r\n " * 10_000, id="an endless folded header"),
        pytest.param(b"", b"\r\n" * 32_768, id="endless empty lines"),
        pytest.param(HEAD + b"transfer-encoding: chunked\r\n\r\n5;x=", b"a" * 65_536, id="an endless chunk extension"),
        pytest.param(
            HEAD + b"transfer-encoding: chunked\r\n\r\n", b"1;" + b"a" * 60_000 + b"\r\nx\r\n", id="long chunk extensions"
        ),
        pytest.param(HEAD + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nx: ", b"a" * 65_536, id="an endless trailer"),
        pytest.param(HEAD + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n", b"x: y\r\n" * 1000, id="endless trailers"),
        pytest.param(b"", b"GET /status HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n" * 1000, id="endless requests at once"),
    ],
)  # fmt: skip
async def test_what_never_ends_is_refused_and_takes_neither_time_nor_memory(
    api: Api, head: bytes, repeated: bytes
) -> None:
    before = api.resident_mb
    attack = asyncio.create_task(send(api.port, head, repeated=repeated, times=3000))
    times = await times_of(api, attack)
    answer = await attack
    assert not answer or answer.startswith(b"HTTP/1.1 4"), answer[:300]
    assert api.resident_mb - before < 15
    assert sorted(times)[int(len(times) * 0.95)] < 1, times


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /healthz HTTP/1.1\r\nx: " + b"a" * 65_600 + b"\r\n\r\n",
        b"GET /healthz?x=" + b"a" * 65_600 + b" HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n" + b"x: y\r\n" * 101 + b"\r\n",
    ],
)
async def test_a_head_over_its_limits_is_answered_with_431_and_says_what_to_do(api: Api, request_: bytes) -> None:
    status, error = refusal(await send(api.port, request_))
    assert (status, error["code"], error["type"]) == (431, "request_head_too_large", "invalid_request_error")
    assert "in the body" in error["message"]


async def test_what_is_not_http_is_answered_in_openais_form(api: Api) -> None:
    status, error = refusal(await send(api.port, b"this is not HTTP\r\n\r\n"))
    assert (status, error["type"]) == (400, "invalid_request_error")


async def test_a_head_below_its_limits_and_a_large_body_are_taken(api: Api) -> None:
    with httpx2.Client(base_url=api.url, timeout=30) as client:
        assert client.get("/healthz", headers={"x": "a" * 60_000}).status_code == 200
        assert client.get("/healthz", headers={f"x-{n}": "y" for n in range(90)}).status_code == 200
        for _ in range(3):
            file = {"file": ("large.md", b"word " * 400_000)}
            assert client.post("/v1/files", files=file, data={"purpose": "assistants"}).status_code == 200
        pieces = (b"word " for _ in range(20_000))  # a chunk of five bytes each
        headers = {"content-type": "application/json"}
        assert client.post("/v1/responses", content=pieces, headers=headers).status_code == 400


async def test_some_requests_may_be_sent_at_once_and_are_answered_in_their_order(api: Api) -> None:
    paths = ["/healthz", "/readyz", "/nowhere", "/healthz"]
    requests = [f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n" for path in paths]
    answer = await send(api.port, ("\r\n".join(requests) + "connection: close\r\n\r\n").encode())
    assert [int(part.split()[0]) for part in answer.split(b"HTTP/1.1 ")[1:]] == [200, 200, 404, 200]


async def test_more_silent_connections_than_there_may_be_do_not_keep_others_out(api: Api) -> None:
    async def hold() -> list[socket.socket]:
        held = []
        for _ in range(3 * MOST):
            client = socket.socket()
            client.setblocking(False)
            await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", api.port))
            held.append(client)
            await asyncio.sleep(0)
        await asyncio.sleep(1)
        return held

    attack = asyncio.create_task(hold())
    times = await times_of(api, attack)
    assert sorted(times)[int(len(times) * 0.95)] < 1, times
    assert api.metric("ragq_http_connections ") <= MOST
    assert api.metric('ragq_http_connections_closed_total{reason="full"}') >= 2 * MOST
    for one in await attack:
        one.close()


async def test_readers_of_answers_are_not_closed_for_others_who_are_refused_instead(api: Api) -> None:
    body = b'{"input": "Is anyone there?", "stream": true}'
    request = (
        b"POST /v1/responses HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n%s" % (len(body), body)
    )
    streams = [await asyncio.open_connection("127.0.0.1", api.port) for _ in range(MOST)]
    for reader, writer in streams:
        writer.write(request)
        assert (await reader.readuntil(b"response.created")).startswith(b"HTTP/1.1 200 OK")
    status, error = refusal(await send(api.port))
    assert (status, error["code"]) == (503, "too_many_connections")
    streams[0][1].transport.abort()
    answer = b""
    async with asyncio.timeout(10):
        while not answer.startswith(b"HTTP/1.1 200"):
            answer = await send(api.port, b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
    assert not any(reader.at_eof() for reader, _ in streams[1:])
    for _, writer in streams:
        writer.transport.abort()


def test_a_process_raises_its_limit_on_descriptors_to_the_hard_one(api: Api) -> None:
    limits = Path(f"/proc/{api.process.pid}/limits").read_text().splitlines()
    (files,) = [line.split() for line in limits if line.startswith("Max open files")]
    assert int(files[3]) > SOFT
    assert files[3] == str(min(int(files[4]), 65_536))


# Times, which a server in this process shortens


@pytest.fixture
async def hasty(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    """The port of a server with short waits, whose application reads the body and answers with as many bytes as it is told."""
    monkeypatch.setattr(connections, "SECONDS", SHORT)
    monkeypatch.setattr(connections, "SWEEP_SECONDS", 0.05)

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        message = await receive()
        while message.get("more_body"):
            message = await receive()
        if message["type"] == "http.disconnect":
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(int(scope["query_string"] or 1)):
            await send({"type": "http.response.body", "body": b"a" * 65_536, "more_body": True})
            await asyncio.sleep(0.001)
        await send({"type": "http.response.body", "body": b""})

    listener = socket.create_server(("127.0.0.1", 0))
    protocol: Any = partial(Connection, Connections(50))
    server = uvicorn.Server(uvicorn.Config(application, http=protocol, ws="none", log_config=None, lifespan="off"))
    serving = asyncio.create_task(server.serve([listener]))
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await serving
        listener.close()


async def drip(port: int, first: bytes, piece: bytes, *, every: float = 0.1) -> tuple[bytes, float]:
    """Send a piece every so often; returns what the server says at last, and after how long it ends the connection."""
    started = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = asyncio.create_task(reader.read())
    writer.write(first)
    try:
        async with asyncio.timeout(10):
            while not answer.done():
                writer.write(piece)
                await asyncio.wait([answer], timeout=every)
    finally:
        writer.transport.abort()
    return answer.result(), time.monotonic() - started


async def test_a_connection_that_asks_nothing_is_closed(hasty: int) -> None:
    assert (await drip(hasty, b"", b""))[0] == b""


async def test_a_head_that_drips_gets_408(hasty: int) -> None:
    answer, seconds = await drip(hasty, HEAD, b"x: y\r\n")
    status, error = refusal(answer)
    assert (status, error["code"]) == (408, "request_timeout")
    assert seconds < 5


async def test_a_body_that_drips_gets_408(hasty: int) -> None:
    answer, seconds = await drip(hasty, HEAD + b"content-length: 1000000\r\n\r\n", b"a")
    status, error = refusal(answer)
    assert (status, error["code"]) == (408, "request_timeout")
    assert seconds < 5


async def test_a_body_that_makes_progress_is_taken_however_long_it_takes(hasty: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", hasty)
    writer.write(HEAD + b"content-length: %d\r\nconnection: close\r\n\r\n" % (20 * 10_000))
    for _ in range(20):
        writer.write(b"a" * 10_000)
        await asyncio.sleep(0.1)
    assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
    writer.close()


async def test_empty_lines_do_not_keep_a_connection_open_after_an_answer(hasty: int) -> None:
    answer, seconds = await drip(hasty, b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n", b"\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert seconds < 5


async def test_a_client_that_does_not_read_its_answer_is_cut_off_and_one_that_reads_slowly_is_not(hasty: int) -> None:
    request = b"GET /?400 HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n"  # 26 MB
    (deaf, deaf_writer), (slow, slow_writer) = [await asyncio.open_connection("127.0.0.1", hasty) for _ in range(2)]
    deaf_writer.write(request)
    slow_writer.write(request)
    deaf_writer.transport.pause_reading()  # type: ignore[attr-defined]
    read = 0
    async with asyncio.timeout(30):
        while part := await slow.read(65_536):
            read += len(part)
            await asyncio.sleep(0.005)
    assert read > 400 * 65_536
    deaf_writer.transport.resume_reading()  # type: ignore[attr-defined]
    with contextlib.suppress(ConnectionResetError):
        assert len(await deaf.read()) < 400 * 65_536
    slow_writer.close()
    deaf_writer.transport.abort()
