"""The official async SDK through every part of the API, as the sync one goes in tests of their own."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest

DOCUMENT = b"The lighthouse of Quorra is 61 metres tall.\n\nThe ferry to Quorra leaves at noon.\n"
QUESTION = "How tall is the lighthouse of Quorra?"


async def test_files_and_stores(async_client: openai.AsyncOpenAI) -> None:
    store = await async_client.vector_stores.create(name="harbour")
    file = await async_client.vector_stores.files.upload_and_poll(
        vector_store_id=store.id, file=("harbour.md", DOCUMENT)
    )
    assert file.status == "completed"
    batch = await async_client.vector_stores.file_batches.upload_and_poll(
        store.id, files=[(f"ferry{number}.md", b"A ferry, number %d." % number) for number in range(3)]
    )
    assert (batch.status, batch.file_counts.completed) == ("completed", 3)
    assert len([one async for one in async_client.vector_stores.files.list(store.id, limit=2)]) == 4
    (found, *_) = (await async_client.vector_stores.search(store.id, query=QUESTION)).data
    assert found.file_id == file.id
    assert (
        b"".join([piece async for piece in (await async_client.files.content(file.id)).response.aiter_bytes()])
        == DOCUMENT
    )
    assert (await async_client.vector_stores.files.delete(file.id, vector_store_id=store.id)).deleted
    assert (await async_client.vector_stores.retrieve(store.id)).file_counts.total == 3
    assert (await async_client.files.delete(file.id)).deleted
    assert (await async_client.vector_stores.delete(store.id)).deleted


async def test_responses(async_client: openai.AsyncOpenAI) -> None:
    response = await async_client.responses.create(model="ragq", input=QUESTION, background=True)
    async with asyncio.timeout(30):
        while response.status in ("queued", "in_progress"):
            await asyncio.sleep(0.1)
            response = await async_client.responses.retrieve(response.id, include=["file_search_call.results"])
    assert "61 metres" in response.output_text
    next_one = await async_client.responses.create(
        model="ragq", input="When does the ferry leave?", previous_response_id=response.id
    )
    assert "noon" in next_one.output_text
    (item,) = [one async for one in async_client.responses.input_items.list(response.id)]
    assert item.type == "message"
    assert (await async_client.responses.cancel(response.id)).status == "completed"
    await async_client.responses.delete(response.id)
    with pytest.raises(openai.NotFoundError):
        await async_client.responses.retrieve(response.id)


async def test_chat_completions_embeddings_and_models(async_client: openai.AsyncOpenAI) -> None:
    messages: Any = [{"role": "user", "content": QUESTION}]
    whole = await async_client.chat.completions.create(model="ragq", messages=messages)
    pieces = [
        chunk.choices[0].delta.content or ""
        async for chunk in await async_client.chat.completions.create(model="ragq", messages=messages, stream=True)
    ]
    assert "".join(pieces) == whole.choices[0].message.content
    names = [model.id async for model in async_client.models.list()]
    vectors = await async_client.embeddings.create(model=names[-1], input=[QUESTION, "noon"])
    assert [len(one.embedding) for one in vectors.data] == [384, 384]


async def test_batches_and_webhook_endpoints(async_client: openai.AsyncOpenAI) -> None:
    line = {"custom_id": "one", "method": "POST", "url": "/v1/responses", "body": {"input": QUESTION}}
    file = await async_client.files.create(file=("lines.jsonl", json.dumps(line).encode()), purpose="batch")
    batch = await async_client.batches.create(input_file_id=file.id, endpoint="/v1/responses", completion_window="24h")
    async with asyncio.timeout(30):
        while batch.status not in ("completed", "failed"):
            await asyncio.sleep(0.1)
            batch = await async_client.batches.retrieve(batch.id)
    assert batch.status == "completed"
    assert batch.output_file_id
    assert json.loads((await async_client.files.content(batch.output_file_id)).text)["custom_id"] == "one"
    assert batch.id in [one.id async for one in async_client.batches.list()]
    made: Any = await async_client.post(
        "/webhook_endpoints", cast_to=object, body={"url": "https://hooks.example.com/in"}
    )
    listed: Any = await async_client.get("/webhook_endpoints", cast_to=object)
    assert [one["id"] for one in listed["data"]] == [made["id"]]
    await async_client.delete(f"/webhook_endpoints/{made['id']}", cast_to=object)


async def test_errors_are_the_sdks_classes(async_client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError):
        await async_client.responses.create(model="ragq", input="")
    with pytest.raises(openai.NotFoundError):
        await async_client.vector_stores.retrieve("vs_unknown")
    key = {"Idempotency-Key": "the same"}
    await async_client.responses.create(model="ragq", input=QUESTION, extra_headers=key)
    with pytest.raises(openai.ConflictError):
        await async_client.responses.create(model="ragq", input="Another?", extra_headers=key)
