"""Conversations that ragq keeps: their items, and what responses add to them, over the official SDK and by step."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from ragq.client.job import Outcome
from ragq.client.rq_client import JobQueue
from ragq.context import Context
from ragq.errors import NotFoundError
from ragq.models import Answer, JobStatus
from ragq.queues.conversations import settle, settle_ended
from ragq.queues.upkeep.housekeeping import archive_ended
from ragq.records import Failure, Job, QueryResult, Request
from ragq.settings import Settings
from ragq.storage.blobs import BlobStore
from ragq.storage.database import Database
from ragq.storage.paging import Page
from tests.queue_steps import claim, enqueue
from tests.servers import FakeLlm, wait_until

QUESTION = "How tall is the lighthouse of Quorra?"
ASKED = {"role": "user", "content": "Where is the lighthouse?"}
SAID = {"role": "assistant", "content": "It stands in Quorra."}


def texts(client: openai.OpenAI, conversation_id: str, order: Any = "asc") -> list[str]:
    items: Any = client.conversations.items.list(conversation_id, order=order)
    return [item.content[0].text for item in items if item.type == "message"]


def test_a_conversation_is_made_changed_shown_and_deleted(client: openai.OpenAI) -> None:
    made = client.conversations.create(metadata={"topic": "harbour"}, items=[ASKED])  # type: ignore[list-item]
    assert (made.object, made.metadata) == ("conversation", {"topic": "harbour"})
    assert client.conversations.retrieve(made.id) == made
    assert client.conversations.update(made.id, metadata={"topic": "sea"}).metadata == {"topic": "sea"}
    assert client.conversations.update(made.id, metadata=None).metadata == {}
    gone = client.conversations.delete(made.id)
    assert (gone.id, gone.object, gone.deleted) == (made.id, "conversation.deleted", True)
    for look in (client.conversations.retrieve, client.conversations.items.list, client.conversations.delete):
        with pytest.raises(openai.NotFoundError) as caught:
            look(made.id)
        assert caught.value.param == "conversation_id"


def test_conversations_are_listed_newest_first_with_a_title(client: openai.OpenAI, http: httpx2.Client) -> None:
    picture = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
    asked: list[Any] = [
        [ASKED],
        [],
        [SAID, {"role": "user", "content": [picture, {"type": "input_text", "text": " A b " + "c" * 300}]}],
        [{"role": "user", "content": "w" * 60_000}],
    ]
    made = [client.conversations.create(items=items).id for items in asked]
    made.append(client.conversations.create(items=asked[0], metadata={"title": "The tower"}).id)
    nothing: Any = {"role": "user", "content": [{"type": "input_text", "text": None}]}
    made.append(client.conversations.create(items=[nothing]).id)
    listed = http.get("/v1/conversations", params={"limit": 6}).json()
    assert [one["id"] for one in listed["data"]] == made[::-1]
    titles = [one["title"] for one in listed["data"]]
    assert titles.pop(0) is None
    assert titles[0:2] == ["The tower", None]
    assert titles[2] == ("A b " + "c" * 300)[:200]
    assert titles[3:] == [None, ASKED["content"]]
    rest = http.get("/v1/conversations", params={"limit": 2, "after": made[3]}).json()
    assert [one["id"] for one in rest["data"]] == [made[2], made[1]]
    assert rest["has_more"] is True
    for id_ in made:
        client.conversations.delete(id_)
    assert not {one["id"] for one in http.get("/v1/conversations").json()["data"]} & set(made)


def test_items_are_appended_listed_in_pages_shown_and_deleted(client: openai.OpenAI) -> None:
    id_ = client.conversations.create().id
    call = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "c1", "output": "61"}
    thought = {"type": "reasoning", "id": "rs_x", "summary": [{"type": "summary_text", "text": "Hm."}]}
    added = client.conversations.items.create(id_, items=[ASKED, SAID, call, output, thought])  # type: ignore[list-item]
    assert [item.type for item in added.data] == [
        "message",
        "message",
        "function_call",
        "function_call_output",
        "reasoning",
    ]
    assert all(item.id for item in added.data)
    assert added.has_more is False
    client.conversations.items.create(id_, items=[{"role": "user", "content": "Bye."}])
    listed = list(client.conversations.items.list(id_, order="asc", limit=2))
    assert listed[:5] == added.data
    assert [item.id for item in client.conversations.items.list(id_)] == [item.id for item in listed[::-1]]
    said: Any = listed[1]
    assert (said.role, said.status, said.content[0].type, said.content[0].annotations) == (
        "assistant",
        "completed",
        "output_text",
        [],
    )
    assert listed[4].to_dict()["summary"] == [{"type": "summary_text", "text": "Hm."}]
    assert client.conversations.items.retrieve(listed[2].id or "", conversation_id=id_) == listed[2]
    assert client.conversations.items.delete(listed[2].id or "", conversation_id=id_).id == id_
    assert len(list(client.conversations.items.list(id_))) == 5
    with pytest.raises(openai.NotFoundError):
        client.conversations.items.retrieve(listed[2].id or "", conversation_id=id_)


def test_a_response_goes_on_from_the_conversation_and_is_added_to_it(client: openai.OpenAI, llm: FakeLlm) -> None:
    conversation = client.conversations.create(items=[ASKED, SAID])  # type: ignore[list-item]
    first = client.responses.create(input="How tall is it?", conversation=conversation.id)
    assert first.conversation
    assert first.conversation.id == conversation.id
    assert client.responses.retrieve(first.id).conversation == first.conversation
    assert [one["content"] for one in llm.last_messages()[1:3]] == [ASKED["content"], SAID["content"]]
    assert texts(client, conversation.id) == [ASKED["content"], SAID["content"], "How tall is it?", first.output_text]
    second = client.responses.create(input="And the ferry?", conversation={"id": conversation.id})
    sent = [one["content"] for one in llm.last_messages()[1:]]
    assert sent[:4] == [ASKED["content"], SAID["content"], "How tall is it?", first.output_text]
    assert texts(client, conversation.id)[4:] == ["And the ferry?", second.output_text]
    ids = [item.id for item in client.conversations.items.list(conversation.id)]
    assert second.output[-1].id == ids[0]
    client.responses.delete(first.id)
    assert len(texts(client, conversation.id)) == 6
    client.conversations.delete(conversation.id)
    assert client.responses.retrieve(second.id).output_text == second.output_text


def test_streams_and_background_responses_are_added_too(client: openai.OpenAI) -> None:
    id_ = client.conversations.create().id
    with client.responses.create(input=QUESTION, conversation=id_, stream=True) as events:
        last: Any = list(events)[-1]
    assert last.type == "response.completed"
    assert texts(client, id_) == [QUESTION, last.response.output_text]
    waiting = client.responses.create(input="And the ferry?", conversation=id_, background=True)
    wait_until(lambda: client.responses.retrieve(waiting.id).status == "completed")
    assert len(texts(client, id_)) == 4


def test_the_search_is_kept_and_its_results_are_shown_when_they_are_asked_for(
    client: openai.OpenAI, store_id: str
) -> None:
    id_ = client.conversations.create().id
    tool: Any = {"type": "file_search", "vector_store_ids": [store_id]}
    client.responses.create(input=QUESTION, conversation=id_, tools=[tool])
    plain: Any = list(client.conversations.items.list(id_, order="asc"))
    whole: Any = list(client.conversations.items.list(id_, order="asc", include=["file_search_call.results"]))
    assert [item.type for item in plain] == ["message", "file_search_call", "message"]
    assert plain[1].results is None
    assert whole[1].results[0].filename == "harbour.md"
    assert plain[2].content[0].annotations[0].filename == "harbour.md"


def test_the_address_of_a_citation_is_that_of_this_service(client: openai.OpenAI) -> None:
    id_ = client.conversations.create().id
    shown: Any = client.responses.create(input=QUESTION, conversation=id_).output[-1]
    stored: Any = next(iter(client.conversations.items.list(id_)))
    assert stored.content[0].annotations == shown.content[0].annotations


def test_a_response_that_failed_adds_nothing(client: openai.OpenAI) -> None:
    id_ = client.conversations.create().id
    failed = client.responses.create(input="Why? [[fake status=401 message=no]]", conversation=id_)
    assert failed.status == "failed"
    assert texts(client, id_) == []


def test_items_of_a_conversation_can_be_referred_to(client: openai.OpenAI, llm: FakeLlm) -> None:
    stored = client.conversations.items.create(client.conversations.create().id, items=[ASKED, SAID]).data  # type: ignore[list-item]
    references: Any = [{"type": "item_reference", "id": item.id} for item in stored]
    client.responses.create(input=[*references, {"role": "user", "content": "How tall?"}])
    assert [one["content"] for one in llm.last_messages()[1:3]] == [ASKED["content"], SAID["content"]]
    copied = client.conversations.create(items=references)
    assert texts(client, copied.id) == [ASKED["content"], SAID["content"]]


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("/v1/responses", {"conversation": "conv_unknown"}, 404, "conversation"),
        ("/v1/responses", {"conversation": {"id": "conv_unknown"}}, 404, "conversation"),
        ("/v1/responses", {"conversation": "ID", "previous_response_id": "resp_x"}, 400, "conversation"),
        ("/v1/responses", {"conversation": "ID", "store": False}, 400, "store"),
        ("/v1/conversations", {"items": [ASKED] * 21}, 400, "items"),
        ("/v1/conversations", {"items": [{"content": "Hi."}]}, 400, "items.0.role"),
        (
            "/v1/conversations",
            {"items": [{"role": "user", "content": [{"type": "video"}]}]},
            400,
            "items.0.content.0.type",
        ),
        ("/v1/conversations", {"items": [{"type": "item_reference", "id": "msg_x"}]}, 404, "items.0.id"),
        ("/v1/conversations", {"metadata": {"a": "x" * 513}}, 400, "metadata.a"),
        ("/v1/conversations/ID", {}, 400, "metadata"),
        ("/v1/conversations/ID/items", {}, 400, "items"),
        ("/v1/conversations/conv_unknown/items", {"items": [ASKED]}, 404, "conversation_id"),
        ("/v1/conversations/%00/items", {"items": [ASKED]}, 404, "conversation_id"),
    ],
)
def test_what_cannot_be_is_refused_by_name(
    http: httpx2.Client, client: openai.OpenAI, path: str, body: dict[str, Any], status: int, param: str
) -> None:
    id_ = client.conversations.create().id
    named = {name: id_ if value == "ID" else value for name, value in body.items()}
    asked = {"input": QUESTION} if path == "/v1/responses" else {}
    answer = http.post(path.replace("ID", id_), json=asked | named)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)


@pytest.fixture
async def context(database: Database, queue: JobQueue, settings: Settings, tmp_path: Path) -> Context:
    settings = settings.model_copy(update={"data_dir": tmp_path})
    return Context(settings=settings, queue=queue, database=database, blobs=BlobStore(settings))


def ended(conversation_id: str | None, job_id: str = "resp_a", **fields: Any) -> Job:
    answered = QueryResult("why?", Answer("Because.", [], "generated"), [])
    shown: dict[str, Any] = {"status": JobStatus.FINISHED, "result": answered} | fields
    request = Request(input="why?", conversation=conversation_id)
    return Job(job_id, "default", attempt=1, created_at=time.time(), ended_at=time.time(), request=request, **shown)


async def kept(context: Context, conversation_id: str) -> list[str]:
    page = Page(limit=100, descending=False)
    return [record.id for record in await context.conversations.list_items("default", conversation_id, page)]


async def make(context: Context) -> str:
    return (await context.conversations.create("default", metadata={}, items=[])).id


async def test_a_response_is_added_once_however_often_it_is_settled(context: Context) -> None:
    id_ = await make(context)
    await context.conversations.open_response("default", id_, "resp_a")
    await asyncio.gather(*(settle(context, ended(id_)) for _ in range(4)))
    assert await kept(context, id_) == ["msg_a_in0", "msg_a"]
    await context.conversations.delete_item("default", id_, "msg_a_in0")
    await context.conversations.open_response("default", id_, "resp_a")
    assert await context.conversations.list_open("default", id_) == []
    await settle(context, ended(id_))
    assert await kept(context, id_) == ["msg_a"]


async def test_one_that_was_not_noted_is_added_as_well_and_one_without_an_answer_is_not(context: Context) -> None:
    id_ = await make(context)
    await settle(context, ended(None))
    await settle(context, ended(id_, "resp_b"))
    await settle(context, ended(id_, "resp_c", status=JobStatus.FAILED, result=None, error=Failure("bad", "why")))
    await settle(context, ended(id_, "resp_d", status=JobStatus.STARTED, result=None))
    await settle(context, ended(id_, "resp_d"))
    assert await kept(context, id_) == ["msg_b_in0", "msg_b", "msg_d_in0", "msg_d"]


async def test_nothing_is_added_to_a_deleted_conversation_and_nobody_adds_to_anothers(context: Context) -> None:
    id_ = await make(context)
    with pytest.raises(NotFoundError):
        await context.conversations.delete("acme", id_)
    await context.conversations.settle("acme", id_, "resp_a", [("msg_x", {"type": "message"})])
    assert await kept(context, id_) == []
    assert await context.conversations.find_item("acme", "msg_a") is None
    await context.conversations.open_response("default", id_, "resp_a")
    await context.conversations.delete("default", id_)
    await settle(context, ended(id_))
    row = await context.database.for_all().row("SELECT count(*) AS n FROM conversation_items")
    assert row == {"n": 0}


async def test_the_archiver_settles_before_a_response_leaves_valkey(context: Context) -> None:
    id_ = await make(context)
    await enqueue(context.queue, "resp_a", request=Request(input="why?", conversation=id_), archive=True)
    (claimed,) = await claim(context.queue)
    job = ended(id_)
    assert job.result
    await context.queue.commit("w1", [Outcome("resp_a", claimed.attempt, job.result)])
    await archive_ended(context)
    assert await kept(context, id_) == ["msg_a_in0", "msg_a"]


async def test_a_response_that_was_never_queued_is_forgotten_in_a_minute(context: Context) -> None:
    id_ = await make(context)
    await context.conversations.open_response("default", id_, "resp_a")
    await settle_ended(context, "default", id_)
    assert len(await context.conversations.list_open("default", id_)) == 1
    await context.database.for_all().row(
        "UPDATE conversation_responses SET created_at = now() - interval '61 seconds' RETURNING response_id"
    )
    await settle_ended(context, "default", id_)
    assert await context.conversations.list_open("default", id_) == []


async def test_a_long_conversation_is_read_from_its_end(context: Context) -> None:
    id_ = await make(context)
    for start in range(0, 600, 20):
        items = [(f"msg_{n}", {"type": "message", "content": str(n)}) for n in range(start, start + 20)]
        await context.conversations.add_items("default", id_, items)
    recent = await context.conversations.list_recent("default", id_)
    assert [item["content"] for item in recent] == [str(n) for n in range(100, 600)]
    await context.conversations.add_items(
        "default", id_, [("msg_large", {"type": "message", "content": "x" * 1_999_000})]
    )
    recent = await context.conversations.list_recent("default", id_)
    assert recent[-1]["id"] == "msg_large"
    assert len(recent) < 30
