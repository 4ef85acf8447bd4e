"""Chat completions that are kept, with the official SDK."""

from __future__ import annotations

import time
from typing import Any

import httpx2
import openai
import pytest

from ragq.errors import NotFoundError
from ragq.models import Answer, JobStatus, new_id
from ragq.records import Job, QueryResult, Request
from ragq.storage.archive import Archive, StoredChats
from ragq.storage.database import Database
from ragq.storage.paging import Page
from ragq.storage.webhooks import Webhooks
from tests.servers import wait_until

MESSAGES: Any = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "How tall is the lighthouse of Quorra?"}]},
]


def ask(client: openai.OpenAI, **fields: Any) -> Any:
    return client.chat.completions.create(**{"model": "ragq", "messages": MESSAGES, "store": True} | fields)


def test_a_stored_completion_is_shown_with_its_messages_changed_and_deleted(client: openai.OpenAI) -> None:
    done = ask(client, metadata={"topic": "harbour"}, temperature=0.5)
    kept: Any = client.chat.completions.retrieve(done.id)
    assert kept.choices == done.choices
    assert (kept.created, kept.usage, kept.model) == (done.created, done.usage, "ragq")
    assert (kept.metadata, kept.temperature) == ({"topic": "harbour"}, 0.5)
    messages = list(client.chat.completions.messages.list(done.id))
    assert [(one.role, one.content) for one in messages] == [
        ("system", "Be brief."),
        ("user", "How tall is the lighthouse of Quorra?"),
    ]
    assert messages[1].to_dict()["content_parts"] == MESSAGES[1]["content"]
    newest = list(client.chat.completions.messages.list(done.id, order="desc", limit=1))
    assert [one.id for one in newest] == [one.id for one in messages[::-1]]
    changed: Any = client.chat.completions.update(done.id, metadata={"topic": "sea"})
    assert changed.metadata == {"topic": "sea"}
    time.sleep(1.5)  # the archiver has stored it by now, and changed nothing
    again: Any = client.chat.completions.retrieve(done.id)
    assert again.metadata == {"topic": "sea"}
    gone = client.chat.completions.delete(done.id)
    assert (gone.id, gone.object, gone.deleted) == (done.id, "chat.completion.deleted", True)
    for look in (
        client.chat.completions.retrieve,
        client.chat.completions.messages.list,
        client.chat.completions.delete,
    ):
        with pytest.raises(openai.NotFoundError):
            look(done.id)


def test_they_are_listed_by_age_model_and_metadata(client: openai.OpenAI) -> None:
    tag = {"run": new_id("")[:8]}
    ids = [ask(client, metadata=tag | {"n": str(n)}).id for n in range(3)]
    ids.append(ask(client, model="fake/model", metadata=tag).id)
    listed = client.chat.completions.list(metadata=tag, limit=2)
    assert (len(listed.data), listed.has_more) == (2, True)
    assert [one.id for one in listed] == ids
    assert [one.id for one in client.chat.completions.list(metadata=tag, order="desc")] == ids[::-1]
    assert [one.id for one in client.chat.completions.list(metadata=tag, model="ragq")] == ids[:3]
    assert [one.id for one in client.chat.completions.list(metadata=tag | {"n": "1"})] == [ids[1]]
    assert list(client.chat.completions.list(metadata=tag | {"n": "9"})) == []


def test_a_streamed_one_is_found_at_once_and_listed_soon(client: openai.OpenAI) -> None:
    tag = {"run": new_id("")[:8]}
    chunks = list(ask(client, stream=True, metadata=tag))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert client.chat.completions.retrieve(chunks[0].id).choices[0].message.content == text
    wait_until(lambda: [one.id for one in client.chat.completions.list(metadata=tag)] == [chunks[0].id])


def test_what_was_not_to_be_stored_or_failed_is_not_there_and_no_chat_is_a_response(
    client: openai.OpenAI, http: httpx2.Client
) -> None:
    kept, left = ask(client), ask(client, store=False)
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.retrieve(left.id)
    assert caught.value.param == "completion_id"
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(kept.id)
    assert http.get("/job-status", params={"job_id": kept.id}).status_code == 404
    response = client.responses.create(input="How tall is the lighthouse of Quorra?")
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.retrieve(response.id)
    tag = {"run": new_id("")[:8]}
    with pytest.raises(openai.InternalServerError):
        ask(client, messages=[{"role": "user", "content": "Why? [[fake status=401 message=no]]"}], metadata=tag)
    time.sleep(1.5)  # the archiver has stored it by now
    assert list(client.chat.completions.list(metadata=tag)) == []


def test_the_messages_of_a_large_request_are_whole(client: openai.OpenAI) -> None:
    long = "word " * 20_000
    done = ask(client, messages=[{"role": "user", "content": long}])
    (message,) = client.chat.completions.messages.list(done.id)
    assert message.content == long


def chat(*, ended_after: float = 0) -> Job:
    now = time.time()
    return Job(
        id="chatcmpl-a",
        tenant_id="default",
        status=JobStatus.FINISHED,
        attempt=1,
        created_at=now,
        ended_at=now + ended_after,
        request=Request(store=True, model="ragq", input=[{"role": "user", "content": "why?"}], metadata={"a": "b"}),
        result=QueryResult("why?", Answer("Because.", [], "generated"), []),
    )


async def test_it_makes_no_event_expires_with_the_responses_and_is_its_tenants_alone(database: Database) -> None:
    archive, chats = Archive(database), StoredChats(database)
    endpoint = await Webhooks(database).create_endpoint("default", url="http://hooks.test", events=[], description=None)
    await archive.store([chat()])
    assert await Webhooks(database).list_deliveries("default", endpoint.id, Page()) == []
    assert (await chats.get("default", "chatcmpl-a")).metadata == {"a": "b"}
    for tenant, id_ in (("acme", "chatcmpl-a"), ("default", "chatcmpl-\0b"), ("default", "chatcmpl-b")):
        with pytest.raises(NotFoundError):
            await chats.get(tenant, id_)
    await chats.update("default", "chatcmpl-a", {"c": "d"})
    await archive.store([chat(ended_after=1)])
    assert (await chats.get("default", "chatcmpl-a")).metadata == {"c": "d"}
    assert await archive.expire(-10) == 1
    assert await chats.list_chats("default", Page(), model=None, metadata={}) == []


async def test_a_deleted_one_is_not_stored_again(database: Database) -> None:
    archive, chats = Archive(database), StoredChats(database)
    await archive.store([chat()])
    await archive.delete("chatcmpl-a", "default")
    await archive.store([chat(ended_after=1)])
    with pytest.raises(NotFoundError):
        await chats.get("default", "chatcmpl-a")
