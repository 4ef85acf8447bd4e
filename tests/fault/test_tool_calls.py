"""A worker that is killed while an LLM calls tools: each call is shown once, and its output continues to an answer."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis
from redis.connection import parse_url

from tests.fault.fleet import running_fleet, wait_for_workers
from tests.proxy import Cut, ValkeyProxy, Write
from tests.servers import FakeLlm, Ragq, stop, wait_until

CALLED = [("call_0", "tide", '{"hour": 1}'), ("call_1", "light", "{}")]
TOOLS = [{"name": name, "parameters": {"type": "object", "properties": {}}} for name in ("tide", "light")]
KINDS = ("foreground", "background", "chat")
RESULT = "It is high. [[fake calls='' reasoning='' job=continued]]"
NUMBERS = itertools.count()

Read = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeLlm]:
    with FakeLlm(tmp_path_factory.mktemp("llm")) as fake:
        yield fake


@pytest.fixture(scope="module")
def ragq(tmp_path_factory: pytest.TempPathFactory, llm: FakeLlm) -> Iterator[Ragq]:
    """A service without query workers."""
    with running_fleet(tmp_path_factory.mktemp("tools"), llm) as service:
        yield service


def spawn(ragq: Ragq, **variables: object) -> subprocess.Popen[bytes]:
    return ragq.spawn("worker", "queries", RAGQ_LEASE_SECONDS=2, RAGQ_HEARTBEAT_SECONDS=0.5, **variables)


def question(behaviour: str = "") -> str:
    return (
        f"""[[fake calls='tide {{"hour": 1}}; light {{}}' reasoning='Let me think.' {behaviour} """
        f"""job=tools-{next(NUMBERS)}]] How tall is the lighthouse of Quorra at high tide?"""
    )


async def ask(ragq: Ragq, kind: str, asked: str, read: Read) -> None:
    """Ask for a stream, and read it to its end."""
    if kind == "chat":
        path, tools = "/v1/chat/completions", [{"type": "function", "function": tool} for tool in TOOLS]
        body: dict[str, Any] = {"messages": [{"role": "user", "content": asked}], "tools": tools, "stream": True}
    else:
        path, tools = "/v1/responses", [{"type": "function", **tool} for tool in TOOLS]
        body = {"input": asked, "tools": tools, "stream": True, "background": kind == "background"}
    read[kind] = []
    async with (
        httpx2.AsyncClient(base_url=ragq.url, timeout=60) as client,
        client.stream("POST", path, json=body) as answer,
    ):
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                read[kind].append(json.loads(line[6:]))


@contextlib.asynccontextmanager
async def asking(ragq: Ragq, behaviour: str = "") -> AsyncIterator[Read]:
    """Ask in every way; at the end of the block, all streams are read to their ends."""
    read: Read = {}
    tasks = [asyncio.create_task(ask(ragq, kind, question(behaviour), read)) for kind in KINDS]
    try:
        yield read
        async with asyncio.timeout(60):
            await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def has_begun(read: Read) -> bool:
    """Whether every stream shows what the LLM thinks."""
    shown = [json.dumps(read.get(kind, [])) for kind in KINDS]
    return all("reasoning_text.delta" in one or "reasoning_content" in one for one in shown)


def ids_of(read: Read) -> list[str]:
    return [read["chat"][0]["id"], *(read[kind][0]["response"]["id"] for kind in KINDS[:2])]


async def until(check: Callable[[], bool], what: str) -> None:
    await asyncio.to_thread(wait_until, check, seconds=30, what=what)


def check_results(ragq: Ragq, read: Read) -> None:
    """Each job has one result, and each call is shown once."""
    with redis.Redis.from_url(ragq.services["valkey_url"]) as connection:
        assert [connection.xlen(f"ragq:results:{id_}") for id_ in ids_of(read)] == [1, 1, 1]
    for kind in KINDS[:2]:
        check_response(ragq, read[kind])
    check_chat(read["chat"])


def check_response(ragq: Ragq, events: list[dict[str, Any]]) -> None:
    stored = httpx2.get(f"{ragq.url}/v1/responses/{events[0]['response']['id']}").json()
    assert (stored["status"], events[-1]["type"]) == ("completed", "response.completed")
    assert events[-1]["response"]["output"] == stored["output"]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    calls = [item for item in stored["output"] if item["type"] == "function_call"]
    assert [(call["call_id"], call["name"], call["arguments"]) for call in calls] == CALLED
    for word in ("added", "done"):
        items = [event["item"] for event in events if event["type"] == f"response.output_item.{word}"]
        assert [item["id"] for item in items if item["type"] == "function_call"] == [call["id"] for call in calls]
    arguments = [event["arguments"] for event in events if event["type"] == "response.function_call_arguments.done"]
    assert arguments == [arguments for _, _, arguments in CALLED]


def attempts_of(ragq: Ragq, read: Read) -> set[int]:
    """How many times the jobs of the responses were claimed."""
    ids = [read[kind][0]["response"]["id"] for kind in KINDS[:2]]
    return {httpx2.get(f"{ragq.url}/v1/responses/{id_}").json()["attempt"] for id_ in ids}


def check_chat(chunks: list[dict[str, Any]]) -> None:
    assert not any("error" in chunk for chunk in chunks)
    choices = [chunk["choices"][0] for chunk in chunks]
    calls = [call for choice in choices for call in choice["delta"].get("tool_calls", ())]
    shown = [(call["id"], call["function"]["name"], call["function"]["arguments"]) for call in calls]
    assert (shown, [call["index"] for call in calls]) == (CALLED, [0, 1])
    assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == ["tool_calls"]


def check_continuations(ragq: Ragq, read: Read) -> None:
    """The outputs of the calls lead to an answer with citations."""
    outputs = [{"type": "function_call_output", "call_id": id_, "output": RESULT} for id_, _, _ in CALLED]
    tools = [{"type": "function", **tool} for tool in TOOLS]
    for kind in KINDS[:2]:
        previous = read[kind][0]["response"]["id"]
        body: dict[str, Any] = {"input": outputs, "previous_response_id": previous, "tools": tools}
        answer = httpx2.post(f"{ragq.url}/v1/responses", json=body, timeout=60).json()
        assert [item["type"] for item in answer["output"]] == ["message"], answer
        check_citation(answer["output"][0]["content"][0]["text"], answer["output"][0]["content"][0]["annotations"])
    calls = [
        {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}
        for id_, name, arguments in CALLED
    ]
    messages = [
        {"role": "user", "content": question()},
        {"role": "assistant", "content": None, "tool_calls": calls},
        *({"role": "tool", "tool_call_id": id_, "content": RESULT} for id_, _, _ in CALLED),
    ]
    body = {"messages": messages, "tools": [{"type": "function", "function": tool} for tool in TOOLS]}
    chat = httpx2.post(f"{ragq.url}/v1/chat/completions", json=body, timeout=60).json()
    message = chat["choices"][0]["message"]
    check_citation(message["content"], message["annotations"])


def check_citation(text: str, annotations: list[dict[str, Any]]) -> None:
    assert "61 metres" in text
    passage = annotations[0].get("citation", annotations[0])
    assert (passage["filename"], "61 metres" in passage["quote"]) == ("harbour.md", True)


@contextlib.asynccontextmanager
async def survivor_of(ragq: Ragq, victim: subprocess.Popen[bytes]) -> AsyncIterator[None]:
    """Start another worker, and end both."""
    survivor = spawn(ragq)
    try:
        yield
    finally:
        for worker in (victim, survivor):
            await asyncio.to_thread(stop, worker)


async def test_killed_before_the_llm_has_the_call(ragq: Ragq, llm: FakeLlm) -> None:
    victim = spawn(ragq)
    await asyncio.to_thread(wait_for_workers, ragq, 1)
    os.kill(llm.pid, signal.SIGSTOP)
    try:
        async with asking(ragq) as read:
            await until(lambda: len(read) == len(KINDS) and all(read.values()), "all have been asked")
            await until(lambda: statuses(ragq, read) == {b"started"}, "all have begun")
            async with survivor_of(ragq, victim):
                victim.kill()
                os.kill(llm.pid, signal.SIGCONT)
                await ended(ragq, read)
                check_continuations(ragq, read)
    finally:
        os.kill(llm.pid, signal.SIGCONT)
    check_results(ragq, read)
    assert attempts_of(ragq, read) == {2}


async def test_killed_in_the_middle_of_a_call(ragq: Ragq) -> None:
    victim = spawn(ragq)
    await asyncio.to_thread(wait_for_workers, ragq, 1)
    async with asking(ragq, "stall_after=2 times=1") as read:
        await until(lambda: has_begun(read), "all streams have begun")
        async with survivor_of(ragq, victim):
            victim.kill()
            await ended(ragq, read)
            check_continuations(ragq, read)
    check_results(ragq, read)
    assert attempts_of(ragq, read) == {2}


@pytest.mark.parametrize("cut", list(Cut))
async def test_killed_when_the_result_is_to_be_stored_or_just_was(ragq: Ragq, tmp_path: Path, cut: Cut) -> None:
    victims: list[subprocess.Popen[bytes]] = []

    def choose(write: Write) -> Cut | None:
        return cut if write.name == "commit" and write.turn == 1 else None

    def strike(_write: Write, _cut: Cut) -> None:
        victims[0].kill()

    target = Path(parse_url(ragq.services["valkey_url"])["path"])  # type: ignore[no-untyped-call]
    async with ValkeyProxy(tmp_path / "v.sock", target, choose, strike) as proxy:
        database_url = ragq.services["database_url"]
        victims.append(spawn(ragq, RAGQ_VALKEY_URL=proxy.url, RAGQ_DATABASE_URL=database_url))
        await asyncio.to_thread(wait_for_workers, ragq, 1)
        async with asking(ragq, "latency=0.5") as read:
            await until(lambda: victims[0].poll() is not None, "the worker was killed at its commit")
            assert proxy.cuts
            async with survivor_of(ragq, victims[0]):
                await ended(ragq, read)
                check_continuations(ragq, read)
    check_results(ragq, read)
    assert attempts_of(ragq, read) <= ({2} if cut is Cut.BEFORE else {1, 2})


def statuses(ragq: Ragq, read: Read) -> set[bytes | None]:
    with redis.Redis.from_url(ragq.services["valkey_url"]) as connection:
        return {connection.hget(f"ragq:job:{id_}", "status") for id_ in ids_of(read)}


async def ended(ragq: Ragq, read: Read) -> None:
    await until(lambda: statuses(ragq, read) == {b"finished"}, "all are finished")
