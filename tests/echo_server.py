"""A model server that repeats the key and the texts of the request, in every kind of error.

`fault` selects the place of the repetition, `encode` its encoding. Without a fault it answers like a model. Raw sockets,
because HTTP libraries refuse to write some of these responses.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import html
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from urllib.parse import quote

from tests.fake_llm import hash_vector

CRLF = "\r\n"


def in_pieces(text: str, length: int = 30, gap: int = 10) -> str:
    """Leave out a few characters at regular places, like servers that mask secrets."""
    return "…".join(text[start : start + length] for start in range(0, len(text), length + gap))


ENCODINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "shifted base64": lambda text: base64.urlsafe_b64encode(f"x{text}".encode()).decode(),
    "hexadecimal": lambda text: text.encode().hex(),
    "percent": lambda text: "".join(f"%{byte:02X}" for byte in text.encode()),
    "url": quote,
    "html": html.escape,
    "unicode escapes": lambda text: "".join(f"\\u{ord(sign):04x}" for sign in text),
    "spaced": "\u200b-".join,
    "upper": str.upper,
    "pieces": in_pieces,
}


def with_json(status: str, body: object, *headers: str) -> str:
    return with_body(status, json.dumps(body), "Content-Type: application/json", *headers)


def with_body(status: str, body: str, *headers: str) -> str:
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body.encode())}", "Connection: close"]
    return CRLF.join([*lines, "", body])


def one_line(text: str) -> str:
    """Make a text valid in a header."""
    return " ".join(text.split())[:6_000].encode("ascii", "replace").decode()


def refusal(status: int) -> Callable[[str], str]:
    return lambda echo: with_json(f"{status} No", {"error": {"message": f"No: {echo}", "type": echo, "code": echo}})


# By name; each makes the bytes of a response from the repetition.
FAULTS: dict[str, Callable[[str], str]] = {
    **{f"status {status}": refusal(status) for status in (400, 401, 402, 403, 404, 409, 413, 422, 500, 503)},
    "status 429": lambda echo: with_json("429 Slow", {"error": {"message": echo}}, f"Retry-After: {one_line(echo)}"),
    "HTML 502": lambda echo: with_body("502 Bad", f"<html><pre>{echo}</pre></html>", "Content-Type: text/html"),
    "detail 422": lambda echo: with_json("422 No", {"detail": [{"loc": ["body"], "msg": "bad", "input": echo}]}),
    "text 400": lambda echo: with_body("400 Bad", echo),
    "redirect": lambda echo: with_body("302 Found", echo, f"Location: http://127.0.0.1:9/{quote(one_line(echo))}"),
    "reason": lambda echo: with_body(f"400 {one_line(echo)}", ""),
    "header": lambda echo: with_body("400 Bad", "", f"X-Echo: {one_line(echo)}", f"WWW-Authenticate: {one_line(echo)}"),
    "status line": lambda echo: f"{one_line(echo)}{CRLF}{CRLF}",
    "bad header": lambda echo: f"HTTP/1.1 200 OK{CRLF}{one_line(echo)}{CRLF}{CRLF}",
    "long header": lambda echo: f"HTTP/1.1 200 OK{CRLF}X: {one_line(echo) * 100}{CRLF}{CRLF}",
    "bad chunk": lambda echo: f"HTTP/1.1 200 OK{CRLF}Transfer-Encoding: chunked{CRLF}{CRLF}{one_line(echo)}{CRLF}",
    "cut": lambda echo: with_json("400 Bad", {"error": {"message": echo}})[:-3],
    "nothing": lambda _: "",
    "not JSON": lambda echo: with_body("200 OK", f'{{"data": {echo}', "Content-Type: application/json"),
    "HTML": lambda echo: with_body("200 OK", f"<html>{echo}", "Content-Type: text/html"),
    "words for numbers": lambda echo: with_json("200 OK", {"data": [{"index": 0, "embedding": [echo]}]}),
    "strange index": lambda echo: with_json("200 OK", {"data": [{"index": echo, "embedding": [1.0]}]}),
    "strange answer": lambda echo: with_json(
        "200 OK", {"choices": [{"delta": {"content": [echo]}}], "data": {echo: 1}}
    ),
    "strange usage": lambda echo: with_json("200 OK", {"choices": [], "usage": {"prompt_tokens": echo}, "data": echo}),
    "strange finish": lambda echo: with_json("200 OK", {"choices": [{"finish_reason": echo, "delta": {}}], "data": 1}),
    "error in 200": lambda echo: with_json("200 OK", {"error": {"message": echo, "code": 400}}),
}


class EchoServer:
    """The server's state, which a test can change between calls."""

    def __init__(self) -> None:
        self.fault, self.encode = "", ENCODINGS["plain"]
        self.faulty_path = ""  # only paths with this suffix have the fault; empty: all
        self.calls = 0
        self.base_url = ""

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            headers = {
                name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head.split(CRLF))
            }
            body = (await reader.readexactly(int(headers.get("content-length", 0)))).decode()
            self.calls += 1
            request = json.loads(body or "{}")
            writer.write(self._response(head.split()[1], headers.get("authorization", ""), request).encode())
            await writer.drain()
        writer.close()

    def _response(self, path: str, authorization: str, request: dict[str, Any]) -> str:
        texts = request.get("input") or [message["content"] for message in request.get("messages", [])]
        if self.fault and path.partition("?")[0].endswith(self.faulty_path):
            texts = [texts] if isinstance(texts, str) else texts
            return FAULTS[self.fault](self.encode(" ".join([authorization.partition(" ")[2], *reversed(texts)])))
        if "/embeddings" in path:
            rows = [{"index": place, "embedding": hash_vector(text, 384)} for place, text in enumerate(texts)]
            return with_json("200 OK", {"data": rows})
        choice = {"delta": {"content": "Yes [1]."}, "finish_reason": "stop"}
        return with_json("200 OK", {"data": [], "choices": [choice]})


@contextlib.asynccontextmanager
async def running_echo_server() -> AsyncIterator[EchoServer]:
    """Serve on loopback, in this event loop, during a `with`."""
    echo = EchoServer()
    server = await asyncio.start_server(echo._answer, "127.0.0.1", 0)
    async with server:
        echo.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        yield echo


@contextlib.contextmanager
def echo_server_in_thread() -> Iterator[EchoServer]:
    """Serve on loopback, in a thread, during a `with`."""
    ready, ended = threading.Event(), asyncio.Event()
    found: list[EchoServer] = []
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with running_echo_server() as echo:
            found.append(echo)
            ready.set()
            await ended.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(10)
    try:
        yield found[0]
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(10)
        loop.close()


def parts_of(text: str, length: int) -> set[str]:
    return {text[start : start + length] for start in range(len(text) - length + 1)}


def repeats(shown: str, secret: str, length: int) -> set[str]:
    """Find the parts of a secret, so long, that are shown as they are or encoded in a way of `ENCODINGS`."""
    forms = [secret, *(encode(secret) for encode in ENCODINGS.values())]
    return {part for form in forms for part in parts_of(form, length) if part in shown}
