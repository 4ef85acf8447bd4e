"""Models, embeddings, chat completions, conversations, deletion and repeats, over the official SDK and the wire."""

from __future__ import annotations

import json
import math
from typing import Any

import httpx2
import openai
import pytest
from aiohttp import ClientSession, web

from tests.servers import KEY, FakeLlm, Ragq, stop, wait_until

QUESTION = "How tall is the lighthouse of Quorra?"


def ask(client: openai.OpenAI, question: Any, store_id: str, **options: Any) -> Any:
    tool: Any = {"type": "file_search", "vector_store_ids": [store_id]}
    return client.responses.create(model="ragq", input=question, tools=[tool], **options)


def witnessed(llm: FakeLlm, question: str) -> int:
    """How many LLM calls had the question."""
    calls = map(json.loads, llm.witness.read_text().splitlines()) if llm.witness.exists() else ()
    return sum(call["question"] == question for call in calls)


def look(llm: FakeLlm) -> dict[str, int]:
    """What the LLM counted."""
    counted: dict[str, int] = httpx2.get(llm.base_url.replace("/v1", "/stats")).json()
    return counted


def test_the_models_are_ragq_the_llm_and_the_embedding_model(client: openai.OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert names == ["ragq", "fake/model", "all-MiniLM-L6-v2"]
    for name in names:
        model = client.models.retrieve(name)
        assert (model.id, model.object, model.owned_by) == (name, "model", "ragq")
        assert model.created
        assert (model.model_extra or {})["capabilities"] == {
            "chat_completion": name != "all-MiniLM-L6-v2",
            "embeddings": name != "fake/model",
        }
        assert (model.model_extra or {})["type"] == ("embedding" if name == "all-MiniLM-L6-v2" else "chat")
    with pytest.raises(openai.NotFoundError) as refused:
        client.models.retrieve("gpt-9")
    assert (refused.value.code, refused.value.param) == ("model_not_found", "model")


def test_any_model_is_accepted_where_the_setting_says_so(ragq: Ragq, client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="RAGQ_ACCEPT_ANY_MODEL=true"):
        client.responses.create(model="gpt-9", input="How tall is the lighthouse of Quorra?")
    api, url = ragq.spawn_api(RAGQ_ACCEPT_ANY_MODEL="true")
    try:
        other = client.with_options(base_url=f"{url}/v1")
        assert other.models.retrieve("gpt-9").id == "gpt-9"
        response = other.responses.create(model="gpt-9", input="How tall is the lighthouse of Quorra?")
        assert (response.model, "61 metres" in response.output_text) == ("gpt-9", True)
        completion = other.chat.completions.create(
            model="gpt-9", messages=[{"role": "user", "content": "How tall is the lighthouse of Quorra?"}]
        )
        assert completion.model == "gpt-9"
        assert other.embeddings.create(model="text-embedding-3-small", input="x").model == "text-embedding-3-small"
    finally:
        stop(api)


def test_embeddings_are_unit_vectors_of_the_documents_model_in_both_formats(client: openai.OpenAI) -> None:
    texts = ["A lighthouse.", "A ferry."]
    packed = client.embeddings.create(model="ragq", input=texts)  # the SDK asks for base64
    plain = client.embeddings.create(model="all-MiniLM-L6-v2", input=texts, encoding_format="float", dimensions=384)
    assert [one.index for one in plain.data] == [0, 1]
    assert [one.embedding for one in packed.data] == [pytest.approx(one.embedding, abs=1e-6) for one in plain.data]
    for one in plain.data:
        assert len(one.embedding) == 384
        assert math.hypot(*one.embedding) == pytest.approx(1, abs=1e-5)
    assert plain.usage.prompt_tokens == plain.usage.total_tokens == 6
    assert plain.model == "all-MiniLM-L6-v2"
    single = client.embeddings.create(model="ragq", input=texts[0], encoding_format="float")
    assert single.data[0].embedding == pytest.approx(plain.data[0].embedding, abs=1e-6)


def test_a_running_response_is_cancelled_by_its_deletion_and_gone(
    client: openai.OpenAI, http: httpx2.Client, llm: FakeLlm, store_id: str
) -> None:
    before = look(llm)["disconnected"]
    response = ask(client, "Slow? [[fake latency=60 job=deleted]]", store_id, background=True)
    wait_until(lambda: client.responses.retrieve(response.id).status == "in_progress" and look(llm)["in_flight"])
    shown = http.delete(f"/v1/responses/{response.id}")
    assert shown.json() == {"id": response.id, "object": "response", "deleted": True}
    wait_until(lambda: look(llm)["disconnected"] > before, what="the worker ends its call")
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(response.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.delete(response.id)


def test_a_finished_response_is_deleted_and_its_idempotency_key_finds_nothing(client: openai.OpenAI) -> None:
    headers = {"Idempotency-Key": "deleted"}
    response = client.responses.create(model="ragq", input="Who?", extra_headers=headers)
    client.responses.delete(response.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(response.id)
    with pytest.raises(openai.NotFoundError, match="was deleted"):
        client.responses.create(model="ragq", input="Who?", extra_headers=headers)


def test_input_items_are_paged_in_both_orders(client: openai.OpenAI, http: httpx2.Client, store_id: str) -> None:
    asked = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "input_text", "text": QUESTION}]},
    ]
    response = ask(client, asked, store_id)
    pages = {
        order: [
            (item.role, item.content[0].text)  # type: ignore[union-attr,index]
            for item in client.responses.input_items.list(response.id, limit=1, order=order)
        ]
        for order in ("asc", "desc")
    }
    assert pages["asc"] == [("developer", "Be brief."), ("user", QUESTION)]
    assert pages["desc"] == pages["asc"][::-1]
    first = http.get(f"/v1/responses/{response.id}/input_items", params={"limit": 1}).json()
    assert (first["has_more"], first["object"]) == (True, "list")
    assert first["data"][0]["id"].startswith("msg_")
    assert first["data"][0]["content"] == [{"type": "input_text", "text": QUESTION}]


def test_the_question_of_the_tutorials_route_is_an_input_item_too(client: openai.OpenAI, http: httpx2.Client) -> None:
    job_id = http.post("/chat", params={"query": "What is here?"}).json()["job_id"]
    (item,) = client.responses.input_items.list(job_id)
    assert item.content[0].text == "What is here?"  # type: ignore[union-attr,index]


def test_a_follow_up_is_searched_for_as_the_llm_rewrites_it(client: openai.OpenAI, store_id: str) -> None:
    first = ask(client, QUESTION, store_id)
    assert first.previous_response_id is None
    rewritten = "When does the ferry of the harbour leave?"
    second = ask(client, f"And the ferry? [[fake text='{rewritten}']]", store_id, previous_response_id=first.id)
    assert second.previous_response_id == first.id
    assert second.output[0].queries == [rewritten]
    third = ask(client, "And then? [[fake status=500 times=1 job=follow]]", store_id, previous_response_id=second.id)
    assert third.status == "completed"
    assert third.output[0].queries == ["And then? [[fake status=500 times=1 job=follow]]"]


def test_a_conversation_that_comes_whole_in_the_input_is_followed(
    client: openai.OpenAI, llm: FakeLlm, store_id: str
) -> None:
    first = ask(client, QUESTION, store_id)
    turns = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": QUESTION},
        *first.output,
        {"role": "user", "content": "How old is it?"},
    ]
    second = ask(client, turns, store_id)
    third = ask(client, "Who keeps it?", store_id, previous_response_id=second.id)
    listed = [(item.role, item.content[0].type) for item in client.responses.input_items.list(second.id, order="asc")]  # type: ignore[union-attr,index]
    assert listed == [
        ("developer", "input_text"), ("user", "input_text"), ("assistant", "output_text"), ("user", "input_text"),
    ]  # fmt: skip
    calls = [json.loads(line)["question"] for line in llm.witness.read_text().splitlines()]
    said = f"user: {QUESTION}\n\nassistant: {first.output_text}\n\n"
    assert f"{said}Last question: How old is it?" in calls
    assert f"{said}user: How old is it?\n\nassistant: {second.output_text}\n\nLast question: Who keeps it?" in calls
    assert third.status == "completed"


def test_a_conversation_is_kept_when_its_first_response_is_deleted(
    client: openai.OpenAI, llm: FakeLlm, store_id: str
) -> None:
    first = ask(client, QUESTION, store_id)
    second = ask(client, "Why?", store_id, previous_response_id=first.id)
    client.responses.delete(first.id)
    ask(client, "Since when?", store_id, previous_response_id=second.id)
    calls = [json.loads(line)["question"] for line in llm.witness.read_text().splitlines()]
    (rewriting,) = [call for call in calls if call.endswith("Last question: Since when?")]
    assert rewriting.startswith(f"user: {QUESTION}\n\nassistant: {first.output_text}\n\nuser: Why?\n\nassistant: ")


def test_only_a_stored_and_completed_response_can_be_followed(client: openai.OpenAI, store_id: str) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        ask(client, "And?", store_id, previous_response_id="resp_unknown")
    assert unknown.value.param == "previous_response_id"
    running = ask(client, "Slow? [[fake latency=60 job=followed]]", store_id, background=True)
    fleeting = ask(client, QUESTION, store_id, store=False)
    for previous in (running, fleeting):
        with pytest.raises(openai.BadRequestError) as refused:
            ask(client, "And?", store_id, previous_response_id=previous.id)
        assert refused.value.param == "previous_response_id"
    client.responses.cancel(running.id)


def test_a_response_that_is_not_stored_is_answered_and_never_runs_in_the_background(
    client: openai.OpenAI, store_id: str
) -> None:
    response = ask(client, QUESTION, store_id, store=False)
    assert (response.status, response.store) == ("completed", False)
    assert "61 metres" in response.output_text
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, QUESTION, store_id, store=False, background=True)
    assert refused.value.param == "store"


def test_a_repeat_by_the_sdk_finds_the_first_response_and_equal_questions_are_two(http: httpx2.Client) -> None:
    def create(retry_count: int) -> str:
        body = {"input": "Sent twice?", "background": True}
        headers = {"x-stainless-retry-count": str(retry_count)}
        return str(http.post("/v1/responses", json=body, headers=headers).json()["id"])

    first, second, repeat = create(0), create(0), create(1)
    assert first != second
    assert repeat == first


async def test_the_sdk_makes_one_response_when_the_first_answer_is_lost(ragq: Ragq, llm: FakeLlm) -> None:
    made: list[str] = []

    async def forward(request: web.Request) -> web.Response:
        async with ClientSession() as session:
            headers = {name: value for name, value in request.headers.items() if name.lower() != "host"}
            async with session.post(ragq.url + request.path, data=await request.read(), headers=headers) as answer:
                made.append((await answer.json())["id"])
                if request.headers["x-stainless-retry-count"] == "0":
                    assert request.transport
                    request.transport.abort()
                return web.Response(body=await answer.read(), content_type="application/json")

    application = web.Application()
    application.router.add_post("/{path:.*}", forward)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key=KEY, max_retries=2) as sdk:
            response = await sdk.responses.create(model="ragq", input="Lost on its way?")
            question: Any = {"role": "user", "content": "Lost again?"}
            completion = await sdk.chat.completions.create(model="ragq", messages=[question])
    finally:
        await runner.cleanup()
    assert made == [response.id, response.id, completion.id, completion.id]
    assert (witnessed(llm, "Lost on its way?"), witnessed(llm, "Lost again?")) == (1, 1)


def test_a_conversation_of_chat_messages_is_answered_with_citations(
    client: openai.OpenAI, llm: FakeLlm, store_id: str
) -> None:
    messages: list[Any] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}]
    extra: dict[str, Any] = {"vector_store_ids": [store_id]}
    first = client.chat.completions.create(
        model="ragq", messages=messages, metadata={"ticket": "7"}, user="u", extra_body=extra
    )
    assert first.id.startswith("chatcmpl-")
    (choice,) = first.choices
    assert (choice.index, choice.finish_reason, choice.message.role) == (0, "stop", "assistant")
    assert choice.message.content
    assert "61 metres" in choice.message.content
    citation: Any = choice.message.annotations[0]  # type: ignore[index]
    assert (citation.type, citation.citation["filename"]) == ("url_citation", "harbour.md")
    assert first.usage
    assert first.usage.total_tokens == first.usage.prompt_tokens + first.usage.completion_tokens > 0
    messages += [choice.message, {"role": "user", "content": [{"type": "text", "text": "Is it open?"}]}]
    second = client.chat.completions.create(model="fake/model", messages=messages, extra_body=extra)
    assert second.choices[0].message.content
    calls = [json.loads(line)["question"] for line in llm.witness.read_text().splitlines()]
    (rewriting,) = [call for call in calls if call.endswith("Last question: Is it open?")]
    assert rewriting.startswith(f"user: {QUESTION}\n\nassistant: {choice.message.content}")


def test_a_cut_chat_says_so(client: openai.OpenAI) -> None:
    question: Any = {"role": "user", "content": "Long? [[fake finish=length]]"}
    done = client.chat.completions.create(model="ragq", messages=[question], max_completion_tokens=5)
    assert done.choices[0].finish_reason == "length"


def test_a_chat_whose_llm_fails_is_an_error_that_says_why(client: openai.OpenAI) -> None:
    question: Any = {"role": "user", "content": "Broken? [[fake status=400 job=broken]]"}
    with pytest.raises(openai.InternalServerError) as failed:
        client.chat.completions.create(model="ragq", messages=[question])
    assert failed.value.code == "llm_bad_request"


def test_a_client_that_leaves_cancels_its_chat(http: httpx2.Client, llm: FakeLlm) -> None:
    before = look(llm)["disconnected"]
    body = {"messages": [{"role": "user", "content": "Slow? [[fake latency=60 job=left]]"}]}
    with pytest.raises(httpx2.ReadTimeout):
        http.post("/v1/chat/completions", json=body, timeout=1.5)
    wait_until(lambda: look(llm)["disconnected"] > before, what="the worker ends its call")


CHAT = {"messages": [{"role": "user", "content": "Hi?"}]}
ANSWER = {"role": "assistant", "content": "Yes."}
BAD: list[tuple[str, dict[str, Any], int, str]] = [
    ("/v1/responses", {"input": []}, 400, "input"),
    ("/v1/responses", {"input": [ANSWER]}, 400, "input"),
    ("/v1/embeddings", {}, 400, "input"),
    ("/v1/embeddings", {"input": "x", "dimensions": 12}, 400, "dimensions"),
    ("/v1/embeddings", {"input": "x", "encoding_format": "hex"}, 400, "encoding_format"),
    ("/v1/embeddings", {"input": "x", "model": "gpt-9"}, 404, "model"),
    ("/v1/chat/completions", {"messages": []}, 400, "messages"),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": " "}]}, 400, "messages"),
    ("/v1/chat/completions", {"messages": [{"role": "assistant", "content": "Hi."}]}, 400, "messages"),
    ("/v1/chat/completions", CHAT | {"n": 2}, 400, "n"),
    ("/v1/chat/completions", CHAT | {"tools": [{"type": "function"}]}, 400, "tools.0.name"),
    ("/v1/chat/completions", CHAT | {"response_format": {"type": "xml"}}, 400, "response_format.type"),
    ("/v1/chat/completions", CHAT | {"model": "gpt-9"}, 404, "model"),
    ("/v1/chat/completions", CHAT | {"vector_store_ids": ["vs_unknown"]}, 404, "vector_store_id"),
]


@pytest.mark.parametrize(("path", "body", "status", "param"), BAD)
def test_bad_input_is_refused_with_the_field_named(
    http: httpx2.Client, path: str, body: dict[str, Any], status: int, param: str
) -> None:
    answer = http.post(path, json=body)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["param"] == param
