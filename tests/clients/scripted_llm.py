"""A scripted OpenAI-compatible LLM: it follows instructions by rules, the same way every time.

It calls tools, fills JSON schemas, describes images, honours `stop`, `max_tokens`, `n` and `logprobs`, and otherwise
answers from the numbered sources. Run it with `python -m tests.clients.scripted_llm`; when ready, it prints a line of
JSON with its `base_url`. `GET /requests` returns the bodies of the last calls.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import time
import uuid
from collections import deque
from typing import Any

from aiohttp import web

from tests.clients.script import Answer, answer_to

KEPT = 200


class ScriptedLlm:
    """The routes, and the bodies of the last calls."""

    def __init__(self) -> None:
        self._requests: deque[dict[str, Any]] = deque(maxlen=KEPT)

    def application(self) -> web.Application:
        application = web.Application(client_max_size=64 << 20)
        application.router.add_post("/v1/chat/completions", self.complete)
        application.router.add_get("/v1/models", self.list_models)
        application.router.add_get("/requests", self.list_requests)
        return application

    async def list_models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "scripted", "object": "model"}]})

    async def list_requests(self, _: web.Request) -> web.Response:
        return web.json_response(list(self._requests))

    async def complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self._requests.append(body)
        answer = answer_to(body)
        if not body.get("stream"):
            return web.json_response(whole(body, answer))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for chunk in chunks(body, answer):
            await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
        await response.write(b"data: [DONE]\n\n")
        return response


def whole(body: dict[str, Any], answer: Answer) -> dict[str, Any]:
    """The completion of a request that does not stream."""
    message: dict[str, Any] = {"role": "assistant", "content": answer.text or None, "refusal": None}
    if answer.calls:
        message["tool_calls"] = [tool_call(call) for call in answer.calls]
    choices = [
        {"index": index, "message": message, "logprobs": logprobs(body, answer), "finish_reason": answer.finish}
        for index in range(body.get("n") or 1)
    ]
    return envelope(body, "chat.completion") | {"choices": choices, "usage": usage(body, answer)}


def chunks(body: dict[str, Any], answer: Answer) -> list[dict[str, Any]]:
    """The events of a request that streams: arguments and text in pieces."""
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": None if answer.calls else ""}]
    deltas += [{"content": word} for word in re.findall(r"\s*\S+\s*$|\s*\S+", answer.text)]
    for index, call in enumerate(answer.calls):
        begun = tool_call(call)
        arguments = begun["function"]["arguments"]
        begun["function"]["arguments"] = ""
        deltas.append({"tool_calls": [{"index": index} | begun]})
        pieces = [arguments[start : start + 12] for start in range(0, len(arguments), 12)]
        deltas += [{"tool_calls": [{"index": index, "function": {"arguments": piece}}]} for piece in pieces]
    made = []
    for number in range(body.get("n") or 1):
        for delta in deltas:
            told = logprobs(body, Answer(delta["content"])) if delta.get("content") else None
            made.append(event(body, {"index": number, "delta": delta, "logprobs": told, "finish_reason": None}))
        made.append(event(body, {"index": number, "delta": {}, "logprobs": None, "finish_reason": answer.finish}))
    if (body.get("stream_options") or {}).get("include_usage"):
        made.append(envelope(body, "chat.completion.chunk") | {"choices": [], "usage": usage(body, answer)})
    return made


def event(body: dict[str, Any], choice: dict[str, Any]) -> dict[str, Any]:
    return envelope(body, "chat.completion.chunk") | {"choices": [choice]}


def envelope(body: dict[str, Any], kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-scripted", "object": kind, "created": int(time.time()), "model": body.get("model")}


def tool_call(call: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    name, arguments = call
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"id": f"call_{uuid.uuid4().hex[:16]}", "type": "function", "function": function}


def logprobs(body: dict[str, Any], answer: Answer) -> dict[str, Any] | None:
    if not body.get("logprobs"):
        return None
    tokens = re.findall(r"\s*\S+", answer.text)
    others = [{"token": " maybe", "logprob": -3.0, "bytes": None}][: body.get("top_logprobs") or 0]
    return {"content": [{"token": t, "logprob": -0.1, "bytes": None, "top_logprobs": others} for t in tokens]}


def usage(body: dict[str, Any], answer: Answer) -> dict[str, Any]:
    prompt = len(json.dumps(body["messages"]).split())
    count = len(answer.text.split()) + sum(len(json.dumps(arguments)) // 4 for _, arguments in answer.calls)
    return {"prompt_tokens": prompt, "completion_tokens": count, "total_tokens": prompt + count}


async def serve() -> None:
    """Serve on a free port of loopback until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    runner = web.AppRunner(ScriptedLlm().application(), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(json.dumps({"base_url": f"http://127.0.0.1:{runner.addresses[0][1]}/v1"}), flush=True)
    await stop.wait()
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(serve())
