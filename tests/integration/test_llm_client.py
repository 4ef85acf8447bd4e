"""The LLM client against a fake server on loopback: the rows of the table of LLM faults, with the calls counted."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from email.utils import formatdate
from typing import Any

import pytest

from ragq.client.llm_client import LlmClient
from ragq.client.llm_stream import Completion
from ragq.client.model_faults import ContextTooLongError
from ragq.errors import ConfigurationError, OverloadedError, PermanentError, RagqError, TransientError, UnavailableError
from ragq.models import Usage
from ragq.settings import Settings
from tests.fake_llm import Behaviour, FakeLlm, running_fake_llm

KEY = "sk-canary-4711-0815"
PROMPT = "Question: how long does a polar night of the northern town of Tromsø last, canary prompt?"
TEXT = "Äpfel (🍎 und 漢字) sind «gut», said the fake."


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost,nowhere.invalid")


@pytest.fixture
async def fake() -> AsyncIterator[FakeLlm]:
    async with running_fake_llm() as server:
        yield server


def new_client(base_url: str, **changes: Any) -> LlmClient:
    values: dict[str, Any] = {"llm_base_url": base_url, "llm_model": "fake", "llm_api_key": KEY}
    return LlmClient(Settings(_env_file=None, **(values | changes)))


@pytest.fixture
async def client(fake: FakeLlm) -> AsyncIterator[LlmClient]:
    client = new_client(fake.base_url)
    yield client
    await client.close()


def asking(behaviour: str = "") -> list[dict[str, str]]:
    return [{"role": "system", "content": f"[[fake text={TEXT!r} {behaviour}]]"}, {"role": "user", "content": PROMPT}]


async def error_of(client: LlmClient, behaviour: str, **options: Any) -> RagqError:
    with pytest.raises(RagqError) as caught:
        await client.complete(asking(behaviour), **options)
    return caught.value


def listening(told: list[str]) -> Callable[[str, str], None]:
    return lambda _, piece: told.append(piece)


async def eventually(condition: Callable[[], bool], seconds: float = 3.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  (nothing tells when)
            await asyncio.sleep(0.005)


TRANSIENT = {
    **{f"status={status}": "llm_unavailable" for status in (408, 409, 425, 500, 502, 503, 529)},
    "status=429": "llm_rate_limited",
    "status=503 retry_after_ms=10": "llm_unavailable",
    "cut_after=0": "llm_unavailable",
    "cut_after=3": "llm_unavailable",
    "error_after=3": "llm_unavailable",
    "error_after=0 code=server_error": "llm_unavailable",
    "finish=''": "llm_cut_stream",
    "finish='' done=false": "llm_cut_stream",
    "finish='' body=json": "llm_cut_stream",
    "finish=abort": "llm_cut_stream",
    "finish=error": "llm_cut_stream",
    "body=reset": "llm_unavailable",
    "body=html": "llm_malformed",
    "body=cut_json": "llm_malformed",
    "body=text": "llm_cut_stream",
    "body=empty": "llm_cut_stream",
}


@pytest.mark.parametrize(("behaviour", "code"), TRANSIENT.items())
async def test_a_transient_fault_costs_one_call_and_is_left_to_the_queue(
    fake: FakeLlm, client: LlmClient, behaviour: str, code: str
) -> None:
    error = await error_of(client, behaviour)
    assert isinstance(error, TransientError), error
    assert error.code == code
    assert error.retry_after_seconds == (0.01 if "retry_after" in behaviour else None)
    assert fake.stats.calls == 1


@pytest.mark.parametrize("behaviour", TRANSIENT)
async def test_after_a_transient_fault_the_next_call_gives_the_whole_answer(
    fake: FakeLlm, client: LlmClient, behaviour: str
) -> None:
    await error_of(client, f"{behaviour} times=1")
    told: list[str] = []
    completion = await client.complete(asking(f"{behaviour} times=1"), on_delta=listening(told))
    assert (completion.text, completion.finish_reason) == (TEXT, "stop")
    assert "".join(told) == TEXT
    assert fake.stats.calls == 2


@pytest.mark.parametrize(
    ("behaviour", "code"),
    {
        "status=400": "llm_bad_request",
        "status=401": "llm_authentication",
        "status=402": "insufficient_quota",
        "status=403": "llm_forbidden",
        "status=404": "llm_not_found",
        "status=422": "llm_bad_request",
        "status=307": "llm_bad_request",
        "status=429 code=insufficient_quota": "insufficient_quota",
        "status=429 type=insufficient_quota retry_after=1": "insufficient_quota",
        "status=400 code=content_filter": "content_filter",
        "finish=content_filter": "content_filter",
        "error_after=2 code=insufficient_quota": "insufficient_quota",
    }.items(),
)
async def test_a_fatal_fault_costs_one_call(fake: FakeLlm, client: LlmClient, behaviour: str, code: str) -> None:
    error = await error_of(client, behaviour)
    assert isinstance(error, PermanentError), error
    assert error.code == code
    assert fake.stats.calls == 1


@pytest.mark.parametrize(
    "behaviour",
    [
        "context_characters=50",
        "status=413",
        "status=400 message='Please reduce the length of the messages.'",
        "status=400 type=exceed_context_size_error",
        "status=422 message='`inputs` tokens + `max_new_tokens` must be <= 4096'",
        "error_after=0 message='the context window is full'",
    ],
)
async def test_a_prompt_over_the_context_is_told_apart(fake: FakeLlm, client: LlmClient, behaviour: str) -> None:
    error = await error_of(client, behaviour)
    assert isinstance(error, ContextTooLongError)
    assert error.code == "context_length_exceeded"
    assert fake.stats.calls == 1


@pytest.mark.parametrize("form", ["seconds", "date"])
@pytest.mark.parametrize("status", [429, 503])
async def test_the_servers_retry_after_is_carried_and_not_waited_for(
    fake: FakeLlm, client: LlmClient, status: int, form: str
) -> None:
    started = time.monotonic()
    value = "60" if form == "seconds" else formatdate(time.time() + 61, usegmt=True)
    error = await error_of(client, f"status={status} retry_after={value!r}")
    assert isinstance(error, OverloadedError if status == 429 else UnavailableError)
    assert error.retry_after_seconds == pytest.approx(60, abs=20)
    assert fake.stats.calls == 1
    assert time.monotonic() - started < 1


@pytest.mark.parametrize("value", ["soon", "-3", "nan", "Fri, 31 Dec 1999 23:59:59 GMT"])
async def test_a_retry_after_without_sense_asks_for_no_wait(client: LlmClient, value: str) -> None:
    error = await error_of(client, f"status=503 retry_after={value!r}")
    assert not error.retry_after_seconds


@pytest.mark.parametrize(
    ("limit", "behaviour"),
    [
        ("first_token", "latency=30"),
        ("first_token", "latency_after_headers=30"),
        ("answer", "latency_after_headers=30 keepalive=0.05"),
        ("token_gap", "stall_after=2"),
        ("answer", "rate=20 tokens=1000"),
    ],
)
async def test_each_limit_ends_a_call(fake: FakeLlm, limit: str, behaviour: str) -> None:
    setting = f"llm_{limit}_timeout_seconds"
    client = new_client(fake.base_url, **{setting: 0.2})
    started = time.monotonic()
    error = await error_of(client, behaviour)
    assert 0.2 <= time.monotonic() - started < 2
    assert isinstance(error, TransientError)
    assert error.code == "llm_timeout"
    assert setting.upper() in error.message
    assert fake.stats.calls == 1
    await eventually(lambda: fake.stats.in_flight == 0)
    await client.close()


@pytest.mark.parametrize("behaviour", ["latency=30", "stall_after=2", "rate=20 tokens=1000"])
async def test_the_deadline_ends_the_call(fake: FakeLlm, client: LlmClient, behaviour: str) -> None:
    started = time.monotonic()
    error = await error_of(client, behaviour, deadline=asyncio.get_running_loop().time() + 0.3)
    assert time.monotonic() - started < 1
    assert isinstance(error, TransientError)
    assert error.code == "deadline_exceeded"
    assert fake.stats.calls == 1


async def test_no_call_is_made_after_the_deadline(fake: FakeLlm, client: LlmClient) -> None:
    error = await error_of(client, "", deadline=asyncio.get_running_loop().time() - 1)
    assert error.code == "deadline_exceeded"
    assert fake.stats.calls == 0


async def test_a_connection_that_does_not_come_up_is_given_up_soon() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.settimeout(0)
            one.connect_ex(server.getsockname())
        client = new_client(f"http://127.0.0.1:{server.getsockname()[1]}/v1", llm_connect_timeout_seconds=0.2)
        started = time.monotonic()
        error = await error_of(client, "")
        assert isinstance(error, TransientError)
        assert 0.2 <= time.monotonic() - started < 2
        for one in waiting:
            one.close()
        await client.close()


@pytest.mark.parametrize("address", ["127.0.0.1:9", "nowhere.invalid"])
async def test_an_endpoint_that_is_not_there_is_transient(address: str) -> None:
    client = new_client(f"http://{address}/v1")
    error = await error_of(client, "")
    assert isinstance(error, TransientError)
    assert address.partition(":")[0] in error.message
    await client.close()


@pytest.mark.parametrize(
    "behaviour", ["done=false", "usage=false", "odd_usage=1", "linger=30", "body=json", "finish=eos", "crlf=1"]
)
async def test_an_answer_with_a_finish_reason_is_complete(fake: FakeLlm, client: LlmClient, behaviour: str) -> None:
    started = time.monotonic()
    completion = await client.complete(asking(behaviour))
    assert (completion.text, completion.finish_reason) == (TEXT, "stop")
    assert fake.stats.calls == 1
    assert time.monotonic() - started < 5


async def test_length_is_no_error_and_is_said(client: LlmClient) -> None:
    completion = await client.complete(asking("finish=length"), options={"max_tokens": 7})
    assert completion.finish_reason == "length"


async def test_a_completion_tells_usage_model_and_time(fake: FakeLlm, client: LlmClient) -> None:
    completion = await client.complete(
        asking("latency=0.2"), options={"max_tokens": 50, "temperature": 0.5, "top_p": 0.25}
    )
    prompt = completion.usage.input_tokens
    assert completion.usage == Usage(prompt, len(TEXT.split()), cached_tokens=prompt // 2)
    assert completion.usage.input_tokens > 10
    assert completion.model == "fake"
    assert 0.2 <= completion.first_token_seconds < 0.5
    sent = fake.requests[0]
    assert (sent["max_tokens"], sent["temperature"], sent["top_p"]) == (50, 0.5, 0.25)
    assert fake.authorizations == {f"Bearer {KEY}"}


@pytest.mark.parametrize("refused", ["stream_options", "max_tokens"])
async def test_a_refused_field_is_left_out_from_then_on(fake: FakeLlm, client: LlmClient, refused: str) -> None:
    messages = asking(f"refuses={refused}")
    first = await client.complete(messages, options={"max_tokens": 5})
    second = await client.complete(messages, options={"max_tokens": 5})
    assert first.text == second.text == TEXT
    assert fake.stats.calls == 3
    last = fake.requests[-1]
    assert refused not in last
    assert 5 in (last.get("max_tokens"), last.get("max_completion_tokens"))


@pytest.mark.parametrize("behaviour", [f"{lines} piece={piece}" for lines in ("crlf=1", "") for piece in (1, 2, 3, 7)])
async def test_events_cut_anywhere_are_put_together(client: LlmClient, behaviour: str) -> None:
    told: list[str] = []
    completion = await client.complete(asking(behaviour), on_delta=listening(told))
    assert completion.text == "".join(told) == TEXT


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


async def serve_raw(response: bytes) -> AsyncGenerator[str, None]:
    """Answer every connection with one response, byte for byte, and close."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(response)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


async def ask_raw(body: bytes, head: bytes = HEAD) -> Completion:
    async with contextlib.aclosing(serve_raw(head + body)) as servers:
        client = new_client(await anext(servers))
        try:
            return await client.complete(asking())
        finally:
            await client.close()


def chunk(content: str | None, finish_reason: str | None = None, **more: Any) -> str:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": finish_reason}
    return json.dumps({"choices": [choice], **more})


@pytest.mark.parametrize(
    "body",
    [
        f"\ufeffdata: {chunk('ab')}\n\ndata: {chunk('c', 'stop')}\n\n",
        f": a comment\nevent: chunk\nid: 1\nretry: 9\ndata:{chunk('abc')}\n\n:\n\ndata: {chunk(None, 'stop')}\n\n",
        f"data: {chunk('abc')[:11]}\ndata: {chunk('abc')[11:]}\n\ndata: {chunk('', 'stop')}",
        f"\n\ndata:\n\ndata: {chunk('abc')}\r\n\r\ndata: {chunk(None, 'stop')}\n\ndata: [DONE]",
        f"data: {chunk('abc')}\n\ndata: {chunk(None, 'stop')}\n\ndata: not json after the end\n\n",
        chunk("abc", "stop"),
        "\n " + json.dumps(json.loads(chunk("abc", "stop")), indent=2),
    ],
)
async def test_every_form_of_events_is_read(body: str) -> None:
    completion = await ask_raw(body.encode())
    assert (completion.text, completion.finish_reason) == ("abc", "stop")


@pytest.mark.parametrize(
    ("body", "code"),
    {
        f"data: {chunk('half')}\n\ndata: [DONE]\n\n": "llm_cut_stream",
        f"data: {chunk('half')}\n\n": "llm_cut_stream",
        f"data: {chunk('half')}\n\ndata: {chunk('rest', 'stop')[:-9]}": "llm_malformed",
        "data: [1]\n\n": "llm_malformed",
        'data: {"choices": [{"delta": {"content": 3}}]}\n\n': "llm_malformed",
        "data: \udcff\n\n": "llm_malformed",
        f"data: {'[' * 100_000}\n\n": "llm_malformed",
        '{"error": "out of memory"}': "llm_unavailable",
        '{"error": {"code": 401, "message": "no"}}': "llm_authentication",
        'data: {"error": {"code": 429, "message": "slow down"}}\n\n': "llm_rate_limited",
    }.items(),
)
async def test_a_body_that_is_no_answer_is_told_apart(body: str, code: str) -> None:
    with pytest.raises(RagqError) as caught:
        await ask_raw(body.encode(errors="surrogateescape"))
    assert caught.value.code == code


async def test_what_cannot_be_stored_is_taken_out_of_the_text() -> None:
    halves = "".join(f"data: {chunk(half)}\n\n" for half in ("a\ud83c", "\udf4e\0b\ud83c"))
    completion = await ask_raw(f"{halves}data: {chunk(None, 'stop')}\n\n".encode())
    assert completion.text == "a🍎b\ufffd"


async def test_a_big_event_is_read_and_a_huge_one_refused() -> None:
    text = "x" * 900_000
    completion = await ask_raw(f"data: {chunk(text, 'stop')}\n\n".encode())
    assert completion.text == text
    for body in (f"data: {chunk('x' * 2_000_000)}", "data: x\n" * 800_000):
        with pytest.raises(PermanentError) as caught:
            await ask_raw(body.encode())
        assert caught.value.code == "llm_answer_too_large"


async def test_an_endless_answer_is_refused() -> None:
    with pytest.raises(PermanentError) as caught:
        await ask_raw(f"data: {chunk('x' * 100_000)}\n\n".encode() * 20)
    assert caught.value.code == "llm_answer_too_large"


@pytest.mark.parametrize("behaviour", ["status=401 echo=1", "status=400 echo=1", "status=500 echo=1"])
async def test_neither_key_nor_prompt_is_in_an_error_or_a_log(
    client: LlmClient, caplog: pytest.LogCaptureFixture, behaviour: str
) -> None:
    caplog.set_level("DEBUG")
    error = await error_of(client, behaviour)
    shown = "".join(traceback.format_exception(error)) + caplog.text + repr(error)
    assert KEY not in shown
    assert "canary" not in shown
    assert f"status {behaviour[7:10]}" in error.message


@pytest.mark.parametrize("words", [f"Incorrect key: {KEY}", f"Cannot answer: {PROMPT[20:60]}", f"Bad: {PROMPT}"])
async def test_neither_key_nor_a_part_of_the_prompt_is_quoted(words: str) -> None:
    async with running_fake_llm(Behaviour(status=400, message=words)) as fake:
        client = new_client(fake.base_url)
        error = await error_of(client, "")
        await client.close()
    assert KEY not in error.message
    assert PROMPT[30:50] not in error.message
    assert "status 400" in error.message


async def test_a_redirect_is_not_followed(fake: FakeLlm) -> None:
    head = f"HTTP/1.1 307 Moved\r\nLocation: {fake.base_url}/chat/completions\r\nConnection: close\r\n\r\n"
    with pytest.raises(PermanentError):
        await ask_raw(b"", head=head.encode())
    assert fake.stats.calls == 0


async def test_an_error_quotes_the_server_briefly() -> None:
    async with running_fake_llm(Behaviour(status=400, message=f"The seed is odd. {'o' * 1000}")) as fake:
        client = new_client(fake.base_url)
        error = await error_of(client, "")
        await client.close()
    assert "The seed is odd." in error.message
    assert f"{fake.base_url}/chat/completions" in error.message
    assert len(error.message) < 450


async def test_300_calls_take_about_the_latency_and_keep_their_connections(fake: FakeLlm, client: LlmClient) -> None:
    for _ in range(2):
        started = time.monotonic()
        answers = await asyncio.gather(*(client.complete(asking(f"latency=0.7 job={n}")) for n in range(300)))
        assert time.monotonic() - started < 10  # one after the other they take 210 s; the server shares the loop
        assert {answer.text for answer in answers} == {TEXT}
    assert fake.stats.max_in_flight == 300
    assert len(fake.connections) <= 310
    assert set(fake.stats.by_job.values()) == {2}


@pytest.mark.parametrize("behaviour", ["latency=30", "latency_after_headers=30", "stall_after=2"])
async def test_a_cancelled_call_closes_its_connection(fake: FakeLlm, client: LlmClient, behaviour: str) -> None:
    told: list[str] = []
    call = asyncio.create_task(client.complete(asking(behaviour), on_delta=listening(told)))
    await eventually(lambda: fake.stats.in_flight == 1 and (bool(told) or "stall" not in behaviour))
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await eventually(lambda: fake.stats.in_flight == 0, seconds=0.5)
    assert fake.stats.disconnected == fake.stats.calls == 1


@pytest.mark.parametrize(
    "error", [TransientError("lost"), TimeoutError("lost"), ConnectionError("lost"), ValueError("lost")]
)
async def test_what_the_listener_raises_reaches_the_caller(fake: FakeLlm, client: LlmClient, error: Exception) -> None:
    def listen(_kind: str, _piece: str) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        await client.complete(asking("linger=30"), on_delta=listen)
    assert caught.value is error
    assert fake.stats.calls == 1
    await eventually(lambda: fake.stats.in_flight == 0)


async def test_a_dead_endpoint_costs_a_bounded_number_of_calls_until_a_probe_finds_it_healed(fake: FakeLlm) -> None:
    client, codes = new_client(fake.base_url, llm_breaker_probe_seconds=0.5), list[str]()
    for _ in range(20):
        codes += [error.code for error in await asyncio.gather(*(error_of(client, "status=500") for _ in range(10)))]
    assert 20 <= fake.stats.calls <= 30
    assert codes.count("llm_unavailable") == fake.stats.calls
    assert codes.count("llm_breaker_open") == 200 - fake.stats.calls
    async with asyncio.timeout(0.5 + 0.3):
        while client.endpoint.breaker.state != "closed":
            with contextlib.suppress(UnavailableError):
                await client.complete(asking())
            await asyncio.sleep(0.01)
    assert fake.stats.calls <= 31
    assert (await client.complete(asking())).text == TEXT
    await client.close()


@pytest.mark.parametrize(
    "behaviour",
    [
        "status=500",
        "body=reset",
        "body=html",
        "cut_after=3",
        "error_after=3",
        "finish=''",
        "latency=30",
        "stall_after=2",
    ],
)
async def test_what_makes_an_endpoint_look_dead_opens_the_breaker(fake: FakeLlm, behaviour: str) -> None:
    limits = {"llm_first_token_timeout_seconds": 0.5, "llm_token_gap_timeout_seconds": 0.5}
    client = new_client(fake.base_url, llm_breaker_calls=3, **limits)
    for _ in range(3):
        assert client.endpoint.breaker.state == "closed"
        await error_of(client, behaviour)
    assert client.endpoint.breaker.state == "open"
    error = await error_of(client, "")
    assert isinstance(error, UnavailableError)
    assert error.code == "llm_breaker_open"
    assert error.retry_after_seconds == pytest.approx(5, abs=1)
    assert fake.base_url in error.message
    assert fake.stats.calls == 3
    await client.close()


@pytest.mark.parametrize(
    "behaviour",
    ["status=429", "status=401", "status=413", "finish=content_filter", "error_after=2 code=insufficient_quota"],
)
async def test_a_refusal_does_not_open_the_breaker(fake: FakeLlm, behaviour: str) -> None:
    client = new_client(fake.base_url, llm_breaker_calls=1)
    for _ in range(3):
        await error_of(client, behaviour)
    assert (client.endpoint.breaker.state, fake.stats.calls) == ("closed", 3)
    await client.close()


async def test_neither_our_deadline_nor_a_cancellation_opens_the_breaker(fake: FakeLlm) -> None:
    client = new_client(fake.base_url, llm_breaker_calls=1)
    try:
        await error_of(client, "latency=30", deadline=asyncio.get_running_loop().time() + 0.1)
        await eventually(lambda: fake.stats.in_flight == 0)
        before = fake.stats.calls  # the first call may have ended before the server saw it
        call = asyncio.create_task(client.complete(asking("latency=30")))
        await eventually(lambda: fake.stats.in_flight > 0 and fake.stats.calls > before)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert client.endpoint.breaker.state == "closed"
    finally:
        await client.close()


@pytest.mark.parametrize("url", [None, "", "localhost:8000/v1", "ftp://localhost/v1", "http://user:word@localhost/v1"])
def test_a_base_url_that_cannot_work_is_refused(url: str | None) -> None:
    with pytest.raises(ConfigurationError):
        LlmClient(Settings(_env_file=None, llm_base_url=url, llm_model="fake"))
