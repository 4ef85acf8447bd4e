"""Streams of responses by the official SDK: whole, resumed, cut, and through the death of a worker or of an API."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import httpx2
import openai
import pytest
from openai.types.responses import ResponseStreamEvent

from tests.servers import KEY, FakeLlm, Ragq, stop, wait_until

QUESTION = "How tall is the lighthouse of Quorra?"
SLOW = "[[fake text='One two three four five six seven eight nine ten.' rate=3]] " + QUESTION

QUESTIONS: dict[str, Callable[[str], dict[str, Any]]] = {
    "/v1/responses": lambda text: {"input": text},
    "/v1/chat/completions": lambda text: {"messages": [{"role": "user", "content": text}]},
    "/v1/completions": lambda text: {"prompt": text},
}


def numbers(events: list[ResponseStreamEvent]) -> list[int]:
    return [event.sequence_number for event in events]


def test_the_sdks_accumulator_ends_with_the_stored_answer(client: openai.OpenAI) -> None:
    search: Any = {"type": "file_search", "vector_store_ids": ["default"]}
    with client.responses.stream(model="ragq", input=QUESTION, tools=[search]) as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert final.status == "completed"
    assert "61 metres" in final.output_text
    assert numbers(events) == list(range(len(events)))  # type: ignore[arg-type]
    stored = client.responses.retrieve(final.id)
    assert stored.output_text == final.output_text
    said = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert said == stored.output_text
    kinds = [event.type for event in events]
    assert kinds[:3] == ["response.created", "response.in_progress", "response.output_item.added"]
    assert kinds[-1] == "response.completed"
    assert kinds.index("response.file_search_call.completed") < kinds.index("response.output_text.delta")


def test_an_api_process_that_ends_cuts_streams_and_refuses_who_waits_without_an_error(ragq: Ragq) -> None:
    logged = len(ragq.log())
    api, url = ragq.spawn_api()
    body, headers = (
        {"input": f"{SLOW.replace('rate=3', 'rate=0.5')} It is overlooked."},
        {"Authorization": f"Bearer {KEY}"},
    )
    with httpx2.Client(base_url=url, headers=headers, timeout=60) as http, ThreadPoolExecutor() as pool:
        waits = pool.submit(http.post, "/v1/responses", json=body)
        with http.stream("POST", "/v1/responses", json=body | {"stream": True}) as stream:
            lines = stream.iter_lines()
            next(lines)
            jobs = {"text": "overlooked"}
            wait_until(lambda: len(http.get("/v1/admin/jobs", params=jobs).json()["data"]) == 2, what="both are asked")
            api.terminate()
            with pytest.raises(httpx2.RemoteProtocolError):
                list(lines)
        refused = waits.result()
    assert api.wait(30) == -signal.SIGTERM
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "2")
    assert "Exception in ASGI application" not in ragq.log()[logged:]


async def test_the_async_sdk_does_the_same(async_client: openai.AsyncOpenAI) -> None:
    responses = async_client.responses
    async with responses.stream(model="ragq", input=QUESTION, background=True) as stream:
        events = [event async for event in stream]
        final = await stream.get_final_response()
    assert numbers(events) == list(range(len(events)))  # type: ignore[arg-type]
    assert final.output_text == (await responses.retrieve(final.id)).output_text
    rest = [event async for event in await responses.retrieve(final.id, stream=True, starting_after=3)]
    assert numbers(rest) == numbers(events)[4:]  # type: ignore[arg-type]


def test_a_background_stream_goes_on_anywhere_after_a_number(client: openai.OpenAI) -> None:
    first: list[ResponseStreamEvent] = []
    with client.responses.create(model="ragq", input=SLOW, background=True, stream=True) as stream:
        for event in stream:
            first.append(event)
            if event.type == "response.output_text.delta":
                break
    response_id = first[0].response.id  # type: ignore[union-attr]
    rest = list(client.responses.retrieve(response_id, stream=True, starting_after=first[-1].sequence_number))
    everything = first + rest
    assert numbers(everything) == list(range(len(everything)))
    assert rest[-1].type == "response.completed"
    again = list(client.responses.retrieve(response_id, stream=True))
    assert [event.to_dict() for event in again[2:]] == [event.to_dict() for event in everything[2:]]


def test_a_response_that_was_not_streamed_can_be_read_as_a_stream(client: openai.OpenAI) -> None:
    created = client.responses.create(model="ragq", input=QUESTION)
    events = list(client.responses.retrieve(created.id, stream=True))
    assert events[-1].type == "response.completed"
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == created.output_text


def test_a_failed_question_ends_with_a_failed_event(client: openai.OpenAI) -> None:
    events = list(client.responses.create(model="ragq", input=f"[[fake status=400]] {QUESTION}", stream=True))
    assert events[-1].type == "response.failed"
    assert events[-1].response.error


@pytest.mark.parametrize("path", QUESTIONS)
async def test_clients_that_go_while_they_ask_leave_nothing_running(
    ragq: Ragq, http: httpx2.Client, llm: FakeLlm, path: str
) -> None:
    text = f"Slow? [[fake latency=60 job=gone-{path.rpartition('/')[2]}]]"
    body = json.dumps(QUESTIONS[path](text) | {"stream": True}).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {KEY}\r\ncontent-length: {len(body)}\r\n"
    for number in range(60):
        _, writer = await asyncio.open_connection("127.0.0.1", urlsplit(ragq.url).port)
        writer.write(head.encode() + b"content-type: application/json\r\n\r\n" + body)
        await asyncio.sleep(number * 0.0005)
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    def running() -> list[int]:
        queries = http.get("/status").json()["queues"][0]
        calls = http.get(llm.base_url.removesuffix("/v1") + "/stats").json()["in_flight"]
        return [queries["queued"], queries["in_flight"], calls]

    assert wait_until(lambda: not any(running()), seconds=10, what="no question and no call is left")


def test_a_foreground_stream_that_is_dropped_cancels_its_job_and_a_background_one_does_not(
    client: openai.OpenAI,
) -> None:
    ids: dict[bool, str] = {}
    for background in (False, True):
        with client.responses.create(model="ragq", input=SLOW, stream=True, background=background) as stream:
            ids[background] = next(iter(stream)).response.id  # type: ignore[union-attr]
    wait_until(lambda: client.responses.retrieve(ids[False]).status == "cancelled", seconds=5)
    wait_until(lambda: client.responses.retrieve(ids[True]).status == "completed", seconds=10)
    assert client.responses.retrieve(ids[False]).status == "cancelled"


def test_a_canceled_response_ends_its_stream(client: openai.OpenAI) -> None:
    kinds: list[str] = []
    with client.responses.create(model="ragq", input=SLOW, background=True, stream=True) as stream:
        for event in stream:
            kinds.append(event.type)
            if len(kinds) == 1:
                assert client.responses.cancel(event.response.id).status == "cancelled"  # type: ignore[union-attr]
    assert kinds[0] == "response.created"
    assert "response.completed" not in kinds


def test_another_api_process_goes_on_where_a_killed_one_stopped(ragq: Ragq) -> None:
    other, url = ragq.spawn_api()
    try:
        with openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as sdk:
            stream = sdk.responses.create(model="ragq", input=SLOW, background=True, stream=True)
            first: list[Any] = [next(stream)]
            while first[-1].type != "response.output_text.delta":
                first.append(next(stream))
            other.kill()
            with pytest.raises((openai.APIError, httpx2.TransportError)):
                first += list(stream)
    finally:
        stop(other)
    with openai.OpenAI(base_url=f"{ragq.url}/v1", api_key=KEY) as sdk:
        rest = list(sdk.responses.retrieve(first[0].response.id, stream=True, starting_after=first[-1].sequence_number))
    assert numbers(first + rest) == list(range(len(first) + len(rest)))
    assert rest[-1].type == "response.completed"


# Chat completions


def test_a_streamed_chat_completion_is_the_answer_in_pieces(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": SLOW}]
    with client.chat.completions.create(
        model="ragq", messages=messages, stream=True, stream_options={"include_usage": True}
    ) as stream:
        chunks = list(stream)
    said = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert "".join(piece or "" for piece in said) == "One two three four five six seven eight nine ten."
    assert sum(bool(piece) for piece in said) > 3
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_chat_completion_that_fails_raises_in_the_sdk(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "[[fake status=400]] " + QUESTION}]
    with (
        pytest.raises(openai.APIError),
        client.chat.completions.create(model="ragq", messages=messages, stream=True) as stream,
    ):
        list(stream)


def test_a_chat_completion_that_is_dropped_cancels_its_job(
    http: httpx2.Client, client: openai.OpenAI, llm: FakeLlm
) -> None:
    before = llm.calls()
    messages: Any = [{"role": "user", "content": SLOW.replace("rate=3", "rate=0.2")}]
    stream = client.chat.completions.create(model="ragq", messages=messages, stream=True)
    next(iter(stream))
    wait_until(lambda: llm.calls() > before, what="the LLM is called")
    stream.close()

    def nothing_runs() -> bool:
        queues = http.get("/status").json()["queues"]
        return all(queue["in_flight"] == 0 for queue in queues)

    wait_until(nothing_runs, seconds=5, what="the job is cancelled")
    assert llm.calls() == before + 1
