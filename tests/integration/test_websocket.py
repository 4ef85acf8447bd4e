"""Responses over a WebSocket: OpenAI's own client, several turns on a connection, and errors that do not end it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2
import openai
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.servers import KEY, FakeLlm, Ragq, stop, wait_until

AUTHORIZED = {"Authorization": f"Bearer {KEY}"}
ENDS = ("response.completed", "response.failed", "response.incomplete", "error")
OF_THE_SDK = pytest.mark.filterwarnings("ignore:connect.. must be used as a context manager:DeprecationWarning")
TOKEN = "a-key-of-characters-that-a-subprotocol-may-have"
TOOL = {"type": "function", "name": "tide", "parameters": {"type": "object", "properties": {}}}


def address(ragq: Ragq) -> str:
    return ragq.url.replace("http", "ws", 1) + "/v1/responses"


@pytest.fixture
async def socket(ragq: Ragq) -> AsyncIterator[ClientConnection]:
    async with connect(address(ragq), additional_headers=AUTHORIZED) as connection:
        yield connection


async def turn(socket: ClientConnection, message: Any = None, /, **fields: Any) -> list[dict[str, Any]]:
    """Send a message, by default one that asks; returns the events up to the last one."""
    await socket.send(json.dumps({"type": "response.create", **fields}) if message is None else message)
    return await answer_of(socket)


async def answer_of(socket: ClientConnection) -> list[dict[str, Any]]:
    events = []
    while True:
        events.append(json.loads(await socket.recv()))
        if events[-1]["type"] in ENDS:
            return events


def error_in(events: list[dict[str, Any]]) -> tuple[int, str, str | None]:
    """The status, code and field of an error, which is all that was sent."""
    (event,) = events
    assert event["error"].keys() >= {"message", "type", "param", "code"}
    return event["status"], event["error"]["code"], event["error"]["param"]


async def test_the_events_are_those_of_the_stream(socket: ClientConnection, http: httpx2.Client) -> None:
    events = await turn(socket, model="ragq", input="How tall is the lighthouse of Quorra?")
    response = events[-1]["response"]
    assert events[0]["type"] == "response.created"
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    text = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
    assert "61 metres" in text
    assert http.get(f"/v1/responses/{response['id']}").json()["output"] == response["output"]
    streamed = http.get(f"/v1/responses/{response['id']}?stream=true").text
    assert [json.loads(line[6:]) for line in streamed.splitlines() if line.startswith("data: ")] == events


async def test_turns_follow_each_other_and_continue_what_was_not_stored(
    ragq: Ragq, socket: ClientConnection, http: httpx2.Client
) -> None:
    first = (await turn(socket, input="How tall is the lighthouse of Quorra?", store=False))[-1]["response"]
    second = (await turn(socket, input="And the ferry?", store=False, previous_response_id=first["id"]))[-1]["response"]
    assert second["previous_response_id"] == first["id"]
    third = (await turn(socket, input="And the ferry?", previous_response_id=second["id"]))[-1]["response"]
    assert third["status"] == "completed"
    asked = {"input": "Why?", "previous_response_id": second["id"]}
    assert http.post("/v1/responses", json=asked).json()["error"]["code"] == "previous_response_not_found"
    async with connect(address(ragq), additional_headers=AUTHORIZED) as other:
        assert error_in(await turn(other, **asked)) == (400, "previous_response_not_found", "previous_response_id")
        fresh = await turn(other, input="When does the ferry leave?", previous_response_id=third["id"])
        assert fresh[-1]["response"]["status"] == "completed"


async def test_a_tool_call_is_continued_with_its_output(socket: ClientConnection) -> None:
    question = "[[fake calls='tide {}' times=1 job=socket-tide]] How high is the tide?"
    first = (await turn(socket, input=question, tools=[TOOL], store=False))[-1]["response"]
    (call,) = [item for item in first["output"] if item["type"] == "function_call"]
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "[[fake calls='']] 2 metres"}
    second = await turn(socket, input=[output], tools=[TOOL], store=False, previous_response_id=first["id"])
    assert second[-1]["response"]["status"] == "completed"
    assert [item["type"] for item in second[-1]["response"]["output"]] == ["message"]


async def test_each_stream_id_has_a_response_to_continue_and_another_may_fork_it(socket: ClientConnection) -> None:
    asked: dict[str, Any] = {"input": "When does the ferry leave?", "store": False}
    left = (await turn(socket, **asked, stream_id="left"))[-1]["response"]["id"]
    right = (await turn(socket, **asked, stream_id="right"))[-1]["response"]["id"]
    for previous, stream_id in ((left, "fork"), (left, "left"), (right, "right")):
        answer = (await turn(socket, **asked, previous_response_id=previous, stream_id=stream_id))[-1]
        assert answer["type"] == "response.completed", answer
    assert error_in(await turn(socket, **asked, previous_response_id=left))[1] == "previous_response_not_found"


async def test_a_failed_continuation_ends_what_is_remembered(socket: ClientConnection) -> None:
    first = (await turn(socket, input="When does the ferry leave?", store=False))[-1]["response"]
    output = {"type": "function_call_output", "call_id": "call_unknown", "output": "Nothing."}
    refused = await turn(socket, input=[output], store=False, previous_response_id=first["id"])
    assert error_in(refused) == (400, "invalid_request", "input")
    again = await turn(socket, input="Why?", store=False, previous_response_id=first["id"])
    assert error_in(again)[1] == "previous_response_not_found"


@pytest.mark.parametrize(
    ("message", "status", "code", "param"),
    [
        ("{", 400, "invalid_json", None),
        ("[]", 400, "invalid_value", "type"),
        ("[" * 100_000, 400, "invalid_json", None),
        ('{"type": "session.update"}', 400, "invalid_value", "type"),
        ('{"type": "response.create"}', 400, "missing_required_parameter", "input"),
        ('{"type": "response.create", "input": "a\\u0000"}', 400, "invalid_value", "input"),
        ('{"type": "response.create", "input": " "}', 400, "empty_question", "input"),
        ('{"type": "response.create", "input": "Why?", "model": "other"}', 404, "model_not_found", "model"),
        (
            '{"type": "response.create", "input": "Why?", "background": true}',
            400,
            "unsupported_parameter",
            "background",
        ),
        ('{"type": "response.create", "input": "Why?", "generate": false}', 400, "unsupported_parameter", "generate"),
        ('{"type": "response.create", "input": "Why?", "stream_id": 1}', 400, "invalid_request", "stream_id"),
        ('{"type": "response.create", "response": {"input": "Why?", "top_p": 2}}', 400, "invalid_value", "top_p"),
    ],
)
async def test_a_wrong_message_gets_an_error_and_the_connection_goes_on(
    socket: ClientConnection, message: str, status: int, code: str, param: str | None
) -> None:
    assert error_in(await turn(socket, message)) == (status, code, param)
    assert (await turn(socket, input="When does the ferry leave?"))[-1]["type"] == "response.completed"


async def test_fields_may_be_nested_and_a_stream_id_comes_back(socket: ClientConnection) -> None:
    message = {"type": "response.create", "stream_id": "left", "response": {"input": "When does the ferry leave?"}}
    events = await turn(socket, json.dumps(message).encode())
    assert events[-1]["type"] == "response.completed"
    assert {event["stream_id"] for event in events} == {"left"}
    (refused,) = await turn(socket, stream_id="right")
    assert refused["stream_id"] == "right"


async def test_messages_sent_ahead_wait_for_their_turn(socket: ClientConnection) -> None:
    for number in range(3):
        asked = {
            "type": "response.create",
            "input": f"When does the ferry leave? ({number})",
            "metadata": {"n": number},
        }
        await socket.send(json.dumps(asked))
    answers = [await answer_of(socket) for _ in range(3)]
    assert [events[-1]["response"]["metadata"]["n"] for events in answers] == ["0", "1", "2"]
    assert all(events[0]["type"] == "response.created" for events in answers)


async def test_a_failed_response_is_the_last_event_of_its_turn(socket: ClientConnection) -> None:
    events = await turn(socket, input="[[fake status=400]] How tall is it?")
    assert events[-1]["type"] == "response.failed"
    assert events[-1]["response"]["error"]["code"]


async def test_a_deleted_response_ends_with_an_error(socket: ClientConnection, http: httpx2.Client) -> None:
    await socket.send(json.dumps({"type": "response.create", "input": "Slow? [[fake latency=60 job=socket-deleted]]"}))
    created = json.loads(await socket.recv())
    assert http.delete(f"/v1/responses/{created['response']['id']}").status_code == 200
    assert (await answer_of(socket))[-1]["error"]["code"] == "not_answered"
    assert (await turn(socket, input="When does the ferry leave?"))[-1]["type"] == "response.completed"


@pytest.mark.parametrize("ending", ["closed", "aborted"])
async def test_a_client_that_disconnects_cancels_its_response(
    ragq: Ragq, http: httpx2.Client, llm: FakeLlm, ending: str
) -> None:
    job = f"socket-{ending}"
    async with connect(address(ragq), additional_headers=AUTHORIZED) as socket:
        await socket.send(json.dumps({"type": "response.create", "input": f"Slow? [[fake latency=60 job={job}]]"}))
        created = json.loads(await socket.recv())
        wait_until(lambda: job in llm.witness.read_text())
        if ending == "aborted":
            socket.transport.abort()
    shown = f"/v1/responses/{created['response']['id']}"
    assert wait_until(lambda: http.get(shown).json()["status"] == "cancelled", seconds=5)


async def test_clients_that_go_while_they_ask_leave_nothing_running(
    ragq: Ragq, http: httpx2.Client, llm: FakeLlm
) -> None:
    asked = json.dumps({"type": "response.create", "input": "Slow? [[fake latency=60 job=socket-gone]]"})
    for number in range(60):
        async with connect(address(ragq), additional_headers=AUTHORIZED) as socket:
            await socket.send(asked)
            await asyncio.sleep(number * 0.0005)
            socket.transport.abort()
    stats = llm.base_url.removesuffix("/v1") + "/stats"
    assert wait_until(lambda: http.get(stats).json()["in_flight"] == 0, seconds=10, what="no call is left")


async def test_an_answer_is_completed_when_its_api_process_ends(ragq: Ragq) -> None:
    api, url = ragq.spawn_api()
    try:
        async with connect(url.replace("http", "ws", 1) + "/v1/responses", additional_headers=AUTHORIZED) as socket:
            await socket.send('{"type": "response.create", "input": "Slow? [[fake latency=1 job=socket-restart]]"}')
            assert json.loads(await socket.recv())["type"] == "response.created"
            api.terminate()
            assert (await answer_of(socket))[-1]["type"] == "response.completed"
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
            assert closed.value.rcvd
            assert closed.value.rcvd.code == 1012
    finally:
        stop(api)


@OF_THE_SDK
def test_the_sdk_connects(client: openai.OpenAI) -> None:
    with client.responses.connect() as connection:
        connection.response.create(model="ragq", input="How tall is the lighthouse of Quorra?")
        text, first = "", None
        for event in connection:
            if event.type == "response.output_text.delta":
                text += event.delta
            if event.type == "response.completed":
                first = event.response
                break
        assert first
        assert text == first.output_text
        connection.response.create(model="ragq", input="And the ferry?", previous_response_id=first.id)
        assert next(event.type for event in connection if event.type in ENDS) == "response.completed"


@OF_THE_SDK
async def test_the_async_sdk_sees_errors_and_goes_on(async_client: openai.AsyncOpenAI) -> None:
    async with async_client.responses.connect() as connection:
        await connection.response.create(model="other", input="How tall is it?")
        event = await connection.recv()
        assert event.type == "error"
        assert event.error.code == "model_not_found"
        await connection.response.create(model="ragq", input="When does the ferry leave?")
        assert (await connection.recv()).type == "response.created"


# Who may connect


async def status_of(url: str, **options: Any) -> tuple[int, str]:
    """The refusal of a handshake."""
    with pytest.raises(InvalidStatus) as refused:
        await connect(url, **options)
    response = refused.value.response
    assert response.headers["x-request-id"]
    return response.status_code, json.loads(response.body)["error"]["code"]


@pytest.fixture(scope="module")
def locked(plain_ragq: Ragq) -> Iterator[str]:
    """Another API process of a service, with a key and an app that may call it."""
    api, url = plain_ragq.spawn_api(RAGQ_API_KEY=TOKEN, RAGQ_CORS_ORIGINS="https://app.example.com")
    yield url.replace("http", "ws", 1) + "/v1/responses"
    stop(api)


async def test_the_key_may_be_in_either_header_or_in_a_subprotocol(locked: str) -> None:
    protocols = ["realtime", f"openai-insecure-api-key.{TOKEN}"]
    ways: list[tuple[Any, str | None]] = [
        ({"additional_headers": {"Authorization": f"Bearer {TOKEN}"}}, None),
        ({"additional_headers": {"api-key": TOKEN}}, None),
        ({"subprotocols": protocols, "origin": "https://any.example.com"}, "realtime"),
        ({"subprotocols": protocols[::-1]}, "realtime"),
        ({"subprotocols": protocols[1:]}, None),  # the key is never sent back
    ]
    for options, subprotocol in ways:
        async with connect(locked, **options) as socket:
            assert socket.subprotocol == subprotocol
            assert error_in(await turn(socket, input=" "))[1] == "empty_question"


async def test_a_handshake_without_the_key_is_refused(locked: str) -> None:
    refused = (401, "invalid_api_key")
    assert await status_of(locked) == refused
    assert await status_of(locked, subprotocols=["realtime"]) == refused
    assert await status_of(locked, subprotocols=["realtime", "openai-insecure-api-key.wrong"]) == refused
    assert await status_of(locked, additional_headers={"Authorization": "Bearer wrong"}) == refused


async def test_a_session_is_enough_for_the_own_page_alone(locked: str) -> None:
    base = locked.replace("ws", "http", 1).removesuffix("/v1/responses")
    answer = httpx2.post(f"{base}/session", json={"key": TOKEN})
    cookie = {"Cookie": answer.headers["set-cookie"].partition(";")[0]}
    for origin in ("https://app.example.com", "http://evil.test", None):
        assert (await status_of(locked, additional_headers=cookie, origin=origin))[1] == "cross_site_request"
    async with connect(locked, additional_headers=cookie, origin=base) as socket:  # type: ignore[arg-type]
        assert error_in(await turn(socket, input=" "))[1] == "empty_question"


async def test_only_the_address_of_responses_speaks_websocket(ragq: Ragq) -> None:
    url = ragq.url.replace("http", "ws", 1)
    for path in ("/healthz", "/v1/models", "/v1/responses/resp_unknown"):
        with pytest.raises(InvalidStatus) as refused:
            await connect(url + path, additional_headers=AUTHORIZED)
        assert refused.value.response.status_code in (200, 404)


async def test_another_website_cannot_connect_where_no_key_is_set(plain_ragq: Ragq) -> None:
    url = address(plain_ragq)
    for origin in ("http://evil.test", "null"):
        assert await status_of(url, origin=origin) == (403, "cross_site_request")
    assert await status_of(url, additional_headers={"Sec-Fetch-Site": "cross-site"}) == (403, "cross_site_request")
    assert await status_of(url.replace("127.0.0.1", "localhost"), additional_headers={"Host": "evil.test"}) == (
        403,
        "unknown_host",
    )
    async with connect(url, origin=plain_ragq.url) as own:  # type: ignore[arg-type]
        assert error_in(await turn(own, input=" "))[1] == "empty_question"


# What a connection may send


async def test_a_message_over_the_limit_of_a_body_ends_the_connection(socket: ClientConnection) -> None:
    with pytest.raises(ConnectionClosed) as closed:
        await turn(socket, input="a" * (4 << 20))
    assert closed.value.rcvd
    assert closed.value.rcvd.code == 1009


async def test_too_many_messages_ahead_end_the_connection(socket: ClientConnection) -> None:
    for _ in range(30):
        await socket.send('{"type": "response.create", "input": "Slow? [[fake latency=60 job=socket-ahead]]"}')
    with pytest.raises(ConnectionClosed) as closed:
        await answer_of(socket)
    assert closed.value.rcvd
    assert closed.value.rcvd.code == 1008
