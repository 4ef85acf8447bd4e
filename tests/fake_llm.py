"""A fake OpenAI-compatible server that answers, and fails, on demand.

Run it with `python -m tests.fake_llm --port 0 [--set latency=1 …] [--witness FILE]`; when ready, it prints a line of JSON
with its `port` and `base_url`. In a test: `async with running_fake_llm() as fake:`.

A `Behaviour` controls the answer to a call. It is set by `--set`, overridden by the model's name
(`any-name?status=429&retry_after=1`), and that by a marker anywhere in the messages (`[[fake status=500 times=2 job=a]]`;
values with spaces are quoted, and values cannot contain brackets).

Routes: `/v1/chat/completions`, `/v1/embeddings`, `/v1/models`, `GET /stats`, `GET /requests` (the last ten) and `POST /reset`.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import hashlib
import json
import math
import re
import resource
import shlex
import signal
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web

MARKER = re.compile(r"\[\[fake ((?:[^\]]|\](?!\]))*)\]\]")
WORD = re.compile(r"\w+")
JUDGING = "You check an answer."
FINISHED_EARLY = (
    "status",
    "body",
    "cut_after",
    "error_after",
    "stall_after",
    "finish",
    "done",
    "latency_after_headers",
)


@dataclass(frozen=True)
class Behaviour:
    """How a call is answered.

    Attributes:
        status: HTTP status; other than 200: an error with `code`, `type`, `message`, `retry_after` and `retry_after_ms`.
        times: Misbehave only in this many first calls of a job; 0: always.
        latency: Seconds before the headers.
        latency_after_headers: Seconds between the headers and the first token.
        text: The answer; empty: a sentence of source [1] and its citation.
        tokens: Length of the answer, repeated or cut; 0: unchanged.
        rate: Tokens a second; 0: all in one write.
        cut_after: Close the connection after this many tokens; -1: never.
        stall_after: Pause for `stall` seconds after this many tokens, or pieces of a call; -1: never.
        error_after: Send an error event, with `code` and `message`, after this many tokens; -1: never.
        finish: The finish_reason; empty: none.
        done: Send [DONE].
        usage: Send the usage if the request asks for it.
        odd_usage: The usage is not numbers.
        reasoning: What the model thinks before the answer.
        reasoning_in: The field that has it, or `think` for tags in the text, or `closed` for the closing tag alone.
        calls: Tool calls, as `name {"json": 1}`, separated by semicolons; they take the place of the text.
        refusal: Text of the field `refusal`; it takes the place of the text.
        raw: The body of a stream, sent as it is.
        body: `sse`, `json`, `html`, `cut_json`, `text`, `empty` or `reset` (close instead of an answer).
        context_characters: Refuse longer messages; 0: no limit.
        refuses: Request fields, separated by commas; the first that a request has is answered with `refuses_status`.
        refuses_status: HTTP status of that.
        refuses_words: The message, with `{field}`; empty: OpenAI's.
        crlf: End lines with CRLF.
        piece: Write the body in pieces of this many bytes; 0: not split.
        echo: Error messages repeat the key and the prompt.
        keepalive: Seconds between comments before the first token and while stalled; 0: no comments.
        keepalive_line: The comment.
        linger: Seconds the body stays open after its last event.
        dimensions: Length of embeddings.
        judge: Changes for a call that judges statements, as in a query string: `status=500`.
        job: Key of the call in `/stats`; empty: a hash of the question.
    """

    status: int = 200
    code: str = ""
    type: str = ""
    message: str = "The fake was told to fail."
    retry_after: str = ""
    retry_after_ms: str = ""
    times: int = 0
    latency: float = 0.0
    latency_after_headers: float = 0.0
    text: str = ""
    tokens: int = 0
    rate: float = 0.0
    cut_after: int = -1
    stall_after: int = -1
    stall: float = 3600.0
    error_after: int = -1
    finish: str = "stop"
    done: bool = True
    usage: bool = True
    odd_usage: bool = False
    body: str = "sse"
    context_characters: int = 0
    refuses: str = ""
    refuses_status: int = 400
    refuses_words: str = ""
    reasoning: str = ""
    reasoning_in: str = "reasoning_content"
    calls: str = ""
    refusal: str = ""
    raw: str = ""
    crlf: bool = False
    piece: int = 0
    echo: bool = False
    keepalive: float = 0.0
    keepalive_line: str = ": still thinking"
    linger: float = 0.0
    dimensions: int = 384
    judge: str = ""
    job: str = ""

    def changed(self, pairs: list[tuple[str, str]]) -> Behaviour:
        """Set fields from strings, converted to each field's type."""
        changes: dict[str, Any] = {}
        for name, value in pairs:
            kind = type(getattr(self, name))
            changes[name] = value.lower() in ("1", "true", "yes") if kind is bool else kind(value)
        return replace(self, **changes)

    def healed(self) -> Behaviour:
        """Without faults, at the same rate."""
        well = asdict(Behaviour())
        return replace(self, **{name: well[name] for name in FINISHED_EARLY})


@dataclass
class Stats:
    """Counts of the calls so far."""

    calls: int = 0
    in_flight: int = 0
    max_in_flight: int = 0
    disconnected: int = 0
    embedding_calls: int = 0
    by_job: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Call:
    """One request for a completion."""

    request: dict[str, Any]
    behaviour: Behaviour
    question: str
    answer: str


class FakeLlm:
    """The server's state and handlers.

    Attributes:
        requests: Bodies of the chat requests, oldest first, the last 1,000.
        connections: Different client ports seen.
    """

    def __init__(self, behaviour: Behaviour | None = None, witness: Path | None = None) -> None:
        self.behaviour = behaviour or Behaviour()
        self.stats = Stats()
        self.requests: list[dict[str, Any]] = []
        self.authorizations: set[str] = set()
        self.connections: set[object] = set()
        self.port = 0
        self._witness = witness

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def application(self) -> web.Application:
        """Build the application that serves this state."""
        application = web.Application(client_max_size=64 << 20)
        application.router.add_post("/v1/chat/completions", self.complete)
        application.router.add_post("/v1/embeddings", self.embed)
        application.router.add_get("/v1/models", self.list_models)
        application.router.add_get("/stats", self.show_stats)
        application.router.add_get("/requests", self.show_requests)
        application.router.add_post("/reset", self.reset)
        return application

    async def list_models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "fake", "object": "model", "owned_by": "tests"}]})

    async def show_stats(self, _: web.Request) -> web.Response:
        return web.json_response(vars(self.stats))

    async def show_requests(self, _: web.Request) -> web.Response:
        return web.json_response(self.requests[-10:])

    async def reset(self, _: web.Request) -> web.Response:
        self.stats = Stats(in_flight=self.stats.in_flight)
        return web.json_response({})

    async def embed(self, request: web.Request) -> web.Response:
        """Answer with vectors of hashed words, the same in every process."""
        body = await request.json()
        behaviour = self._behaviour(str(body.get("model", "")), "")
        self.stats.embedding_calls += 1
        await asyncio.sleep(behaviour.latency)
        if behaviour.status != 200:
            return error_response(behaviour, behaviour.message)
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        vectors = [hash_vector(text, int(body.get("dimensions") or behaviour.dimensions)) for text in texts]
        is_base64 = body.get("encoding_format") == "base64"
        data = [
            {"object": "embedding", "index": index, "embedding": in_base64(vector) if is_base64 else vector}
            for index, vector in enumerate(vectors)
        ]
        count = sum(len(text.split()) for text in texts)
        usage = {"prompt_tokens": count, "total_tokens": count}
        return web.json_response({"object": "list", "model": body.get("model"), "data": data, "usage": usage})

    async def complete(self, request: web.Request) -> web.StreamResponse:
        """Answer a chat request according to its behaviour."""
        body = await request.json()
        stats = self.stats
        stats.calls += 1
        stats.in_flight += 1
        stats.max_in_flight = max(stats.max_in_flight, stats.in_flight)
        self.authorizations.add(request.headers.get("Authorization", ""))
        if request.transport:
            self.connections.add(request.transport.get_extra_info("peername"))
        try:
            return await self._answer(request, self._call(body))
        except (asyncio.CancelledError, ConnectionResetError):
            stats.disconnected += 1
            raise
        finally:
            stats.in_flight -= 1

    def _call(self, body: dict[str, Any]) -> Call:
        """Count a call and select its behaviour."""
        self.requests = [*self.requests[-999:], body]
        messages = "\n\n".join(content_of(message) for message in body["messages"])
        behaviour = self._behaviour(str(body.get("model", "")), messages)
        if messages.startswith(JUDGING):
            behaviour = behaviour.changed(parse_qsl(behaviour.judge))
        question = question_of(content_of(body["messages"][-1]))
        job = behaviour.job or hashlib.sha256(question.encode()).hexdigest()[:16]
        self.stats.by_job[job] += 1
        if 0 < behaviour.times < self.stats.by_job[job]:
            behaviour = behaviour.healed()
        if self._witness:
            with self._witness.open("a") as witness:
                line = {"time": time.time(), "job": job, "model": body.get("model"), "question": question}
                witness.write(json.dumps(line) + "\n")
        answer = behaviour.text or cited_sentence(MARKER.sub("", messages))
        if behaviour.tokens:
            words = (answer.split() * (behaviour.tokens // max(1, len(answer.split())) + 1))[: behaviour.tokens]
            answer = " ".join(words)
        return Call(body, behaviour, question, answer)

    def _behaviour(self, model: str, messages: str) -> Behaviour:
        behaviour = self.behaviour.changed(parse_qsl(model.partition("?")[2]))
        for marker in MARKER.finditer(messages):
            behaviour = behaviour.changed([(n, v) for n, _, v in (w.partition("=") for w in shlex.split(marker[1]))])
        return behaviour

    async def _answer(self, request: web.Request, call: Call) -> web.StreamResponse:
        behaviour = call.behaviour
        await asyncio.sleep(behaviour.latency)
        if refusal := refusal_of(request, call):
            return refusal
        if behaviour.body == "reset":
            abort(request)
        if behaviour.body in ("html", "cut_json", "text", "empty"):
            text = {"html": "<!DOCTYPE html><html><body>Gateway</body></html>", "text": "upstream is busy"}
            text["cut_json"] = json.dumps(whole_completion(call))[:-30]
            kind = {"html": "text/html", "cut_json": "application/json"}.get(behaviour.body, "text/plain")
            return web.Response(text=text.get(behaviour.body, ""), content_type=kind)
        if behaviour.body == "json" or not call.request.get("stream"):
            return web.json_response(whole_completion(call))
        return await self._stream(request, call)

    async def _stream(self, request: web.Request, call: Call) -> web.StreamResponse:
        behaviour = call.behaviour
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        await response.prepare(request)
        await pause(response, behaviour, behaviour.latency_after_headers)
        if behaviour.raw:
            await write(response, behaviour, behaviour.raw.encode(errors="surrogateescape"))
        else:
            await self._stream_answer(request, response, call)
        await asyncio.sleep(behaviour.linger)
        return response

    async def _stream_answer(self, request: web.Request, response: web.StreamResponse, call: Call) -> None:
        behaviour, started = call.behaviour, time.monotonic()
        waiting = [event(call, {"role": "assistant", "content": ""})]
        waiting += [event(call, delta) for delta in thoughts_of(call)]
        if behaviour.calls or behaviour.refusal:
            for index, delta in enumerate(said_instead(call)):
                if index == behaviour.stall_after:
                    await write(response, behaviour, b"".join(waiting))
                    waiting.clear()
                    await pause(response, behaviour, behaviour.stall)
                waiting.append(event(call, delta))
            await write(response, behaviour, b"".join([*waiting, *ending(call)]))
            return
        for index, token in enumerate(re.findall(r"\s*\S+", call.answer)):
            delay = started + index / behaviour.rate - time.monotonic() if behaviour.rate else 0.0
            if delay > 0 or index in (behaviour.cut_after, behaviour.stall_after, behaviour.error_after):
                await write(response, behaviour, b"".join(waiting))
                waiting.clear()
                if index == behaviour.stall_after:
                    await pause(response, behaviour, behaviour.stall)
                await asyncio.sleep(max(0.0, delay))
            if index == behaviour.cut_after:
                abort(request)
            if index == behaviour.error_after:
                error = {"message": behaviour.message, "code": behaviour.code or None, "type": behaviour.type}
                await write(response, behaviour, sse({"error": error}))
                return
            waiting.append(event(call, {"content": token}, token=token))
        await write(response, behaviour, b"".join([*waiting, *ending(call)]))


def refusal_of(request: web.Request, call: Call) -> web.Response | None:
    """The refusal of the call, if its behaviour asks for one."""
    behaviour, messages = call.behaviour, call.request["messages"]
    count = sum(len(content_of(message)) for message in messages)
    if field := next((name for name in behaviour.refuses.split(",") if name in call.request), ""):
        hint = "Use 'max_completion_tokens' instead." if field == "max_tokens" else ""
        words = behaviour.refuses_words or "Unsupported parameter: '{field}' is not supported with this model. " + hint
        refusing = replace(behaviour, status=behaviour.refuses_status, type="invalid_request_error")
        return error_response(refusing, words.replace("{field}", field))
    if behaviour.context_characters and count > behaviour.context_characters:
        message = f"This model's maximum context length is {behaviour.context_characters}, you sent {count}."
        return error_response(replace(behaviour, status=400, code="context_length_exceeded"), message)
    if behaviour.status == 200:
        return None
    message = behaviour.message
    if behaviour.echo:
        message += f" {request.headers.get('Authorization')} asked: {content_of(messages[-1])}"
    return error_response(behaviour, message)


def error_response(behaviour: Behaviour, message: str) -> web.Response:
    """Make an error response in OpenAI's form."""
    error = {"message": message, "type": behaviour.type or None, "param": None, "code": behaviour.code or None}
    headers = {"Retry-After": behaviour.retry_after, "retry-after-ms": behaviour.retry_after_ms}
    set_headers = {name: value for name, value in headers.items() if value}
    return web.json_response({"error": error}, status=behaviour.status, headers=set_headers)


def abort(request: web.Request) -> None:
    """Reset the connection."""
    if request.transport:
        request.transport.abort()
    raise ConnectionResetError


async def pause(response: web.StreamResponse, behaviour: Behaviour, seconds: float) -> None:
    """Wait, and send comments meanwhile if configured."""
    until = time.monotonic() + seconds
    while (rest := until - time.monotonic()) > 0:
        await asyncio.sleep(min(rest, behaviour.keepalive or rest))
        if behaviour.keepalive:
            await response.write(f"{behaviour.keepalive_line}\n\n".encode())


async def write(response: web.StreamResponse, behaviour: Behaviour, body: bytes) -> None:
    """Write a part of the body, in pieces if configured."""
    body = body.replace(b"\n", b"\r\n") if behaviour.crlf else body
    for start in range(0, len(body), behaviour.piece or len(body) or 1):
        await response.write(body[start : start + (behaviour.piece or len(body))])
        if behaviour.piece:
            await asyncio.sleep(0)


def sse(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


def event(call: Call, delta: dict[str, Any], finish_reason: str | None = None, token: str = "") -> bytes:
    """Make one event of the stream, with the log probability of its token if the request asks for it."""
    logprobs = {"content": [logprob_of(token)]} if token and call.request.get("logprobs") else None
    choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
    return sse(envelope(call, "chat.completion.chunk") | {"choices": [choice]})


def logprob_of(token: str) -> dict[str, Any]:
    return {"token": token, "logprob": -0.5, "bytes": list(token.encode()), "top_logprobs": []}


def thoughts_of(call: Call) -> list[dict[str, Any]]:
    """The deltas of the reasoning, word by word."""
    behaviour = call.behaviour
    if not behaviour.reasoning:
        return []
    words = re.findall(r"\s*\S+", behaviour.reasoning)
    if behaviour.reasoning_in not in ("think", "closed"):
        return [{behaviour.reasoning_in: word} for word in words]
    opener = ["<think>\n"] if behaviour.reasoning_in == "think" else []
    return [{"content": word} for word in [*opener, *words, "\n</think>\n\n"]]


def said_instead(call: Call) -> list[dict[str, Any]]:
    """The deltas of a refusal or of tool calls, whose arguments come in pieces."""
    if call.behaviour.refusal:
        return [{"refusal": word} for word in re.findall(r"\s*\S+", call.behaviour.refusal)]
    deltas: list[dict[str, Any]] = []
    for index, each in enumerate(call.behaviour.calls.split(";")):
        name, _, arguments = each.strip().partition(" ")
        begin = {"index": index, "id": f"call_{index}", "type": "function", "function": {"name": name, "arguments": ""}}
        pieces = [arguments[start : start + 4] for start in range(0, len(arguments), 4)]
        rest = [{"index": index, "function": {"arguments": piece}} for piece in pieces]
        deltas += [{"tool_calls": [piece]} for piece in (begin, *rest)]
    return deltas


def ending(call: Call) -> list[bytes]:
    """Make the events after the last token."""
    behaviour, options = call.behaviour, call.request.get("stream_options") or {}
    reason = "tool_calls" if behaviour.calls and behaviour.finish == "stop" else behaviour.finish
    events = [event(call, {}, reason)] if reason else []
    if options.get("include_usage") and behaviour.usage:
        events.append(sse(envelope(call, "chat.completion.chunk") | {"choices": [], "usage": usage_of(call)}))
    return [*events, b"data: [DONE]\n\n"] if behaviour.done else events


def envelope(call: Call, kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-fake", "object": kind, "created": int(time.time()), "model": call.request.get("model")}


def usage_of(call: Call) -> dict[str, Any]:
    if call.behaviour.odd_usage:
        return {"prompt_tokens": math.inf, "completion_tokens": "many"}
    prompt = sum(len(content_of(message).split()) for message in call.request["messages"])
    count = len(call.answer.split())
    thought = len(call.behaviour.reasoning.split())
    return {
        "prompt_tokens": prompt,
        "completion_tokens": count + thought,
        "total_tokens": prompt + count + thought,
        "prompt_tokens_details": {"cached_tokens": prompt // 2},
        "completion_tokens_details": {"reasoning_tokens": thought},
    }


def whole_completion(call: Call) -> dict[str, Any]:
    behaviour = call.behaviour
    message: dict[str, Any] = {"role": "assistant", "content": call.answer}
    if behaviour.calls or behaviour.refusal:
        message |= {"content": None, "refusal": behaviour.refusal or None}
    if behaviour.calls:
        named = [each.strip().partition(" ") for each in behaviour.calls.split(";")]
        functions = [{"name": name, "arguments": arguments} for name, _, arguments in named]
        message["tool_calls"] = [
            {"id": f"call_{n}", "type": "function", "function": f} for n, f in enumerate(functions)
        ]
    if behaviour.reasoning:
        message["reasoning_content"] = behaviour.reasoning
    reason = "tool_calls" if behaviour.calls and behaviour.finish == "stop" else behaviour.finish
    choice = {"index": 0, "message": message, "finish_reason": reason or None}
    return envelope(call, "chat.completion") | {"choices": [choice], "usage": usage_of(call)}


def content_of(message: dict[str, Any]) -> str:
    """The text of a message: its content, or that of its parts."""
    content = message.get("content") or ""
    return content if isinstance(content, str) else "\n".join(part.get("text") or "" for part in content)


def question_of(message: str) -> str:
    """The question in the last message: the text after the last `Question:`, else the whole message."""
    return MARKER.sub("", message).rpartition("Question:")[2].strip()


def cited_sentence(messages: str) -> str:
    """Repeat a sentence of source [1] and cite it; asked to rewrite a question, repeat the question."""
    source = re.search(r"source \[1\](.*?)(?=\n<<|\n\s*Question:|\Z)", messages, re.DOTALL)
    if not source:
        _, rewriting, question = messages.rpartition("Last question: ")
        return question.strip() if rewriting else "The fake model has no source to quote."
    lines = [line.strip() for line in source[1].strip().splitlines() if line.strip()]
    body = " ".join(lines[1:] if len(lines) > 1 else lines)  # the first line names the file
    sentence = re.split(r"(?<=[.!?])\s", body, maxsplit=1)[0]
    return f"{sentence} [1]"


def hash_vector(text: str, dimensions: int) -> list[float]:
    """Make a unit vector from the hashes of the text's words."""
    vector = [0.0] * dimensions
    for word in WORD.findall(text.lower()) or [""]:
        digest = hashlib.blake2b(word.encode(), digest_size=16).digest()
        for place, sign in struct.iter_unpack("<Ib", digest[:15]):
            vector[place % dimensions] += 1.0 if sign >= 0 else -1.0
    norm = math.sqrt(sum(value * value for value in vector)) or 1.0
    return [value / norm for value in vector]


def in_base64(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


@contextlib.asynccontextmanager
async def running_fake_llm(
    behaviour: Behaviour | None = None, *, port: int = 0, witness: Path | None = None
) -> AsyncIterator[FakeLlm]:
    """Serve on loopback during a `with`."""
    fake = FakeLlm(behaviour, witness)
    runner = web.AppRunner(fake.application(), access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
        fake.port = runner.addresses[0][1]
        yield fake
    finally:
        await runner.cleanup()


async def serve(behaviour: Behaviour, port: int, witness: Path | None) -> None:
    """Serve until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with running_fake_llm(behaviour, port=port, witness=witness) as fake:
        print(json.dumps({"port": fake.port, "base_url": fake.base_url}), flush=True)  # noqa: T201  (the parent process reads it)
        await stop.wait()


def main() -> None:
    """Run the server from the command line."""
    names = ", ".join(setting.name for setting in fields(Behaviour))
    parser = argparse.ArgumentParser(description="A fake OpenAI-compatible server.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--witness", type=Path, help="append a line of JSON for each call to this file")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help=f"default behaviour: {names}")
    arguments = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 65_536)) if hard > 0 else soft, hard))
    pairs = [(name, value) for name, _, value in (word.partition("=") for word in arguments.set)]
    asyncio.run(serve(Behaviour().changed(pairs), arguments.port, arguments.witness))


if __name__ == "__main__":
    main()
