"""The official async SDK through every part of the API, as the sync one goes in tests of their own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import openai
import pytest

from tests.servers import Ragq

DOCUMENT = b"The lighthouse of Quorra is 61 metres tall.\n\nThe ferry to Quorra leaves at noon.\n"
QUESTION = "How tall is the lighthouse of Quorra?"


@pytest.fixture(scope="module")
def ragq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ragq]:
    service = Ragq(tmp_path_factory.mktemp("async") / "data").start()
    yield service
    assert service.stop() == 0


@pytest.fixture
async def sdk(ragq: Ragq) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{ragq.url}/v1", api_key="unused", max_retries=0) as client:
        yield client


async def test_files_and_stores(sdk: openai.AsyncOpenAI) -> None:
    store = await sdk.vector_stores.create(name="harbour")
    file = await sdk.vector_stores.files.upload_and_poll(vector_store_id=store.id, file=("harbour.md", DOCUMENT))
    assert file.status == "completed"
    batch = await sdk.vector_stores.file_batches.upload_and_poll(
        store.id, files=[(f"ferry{number}.md", b"A ferry, number %d." % number) for number in range(3)]
    )
    assert (batch.status, batch.file_counts.completed) == ("completed", 3)
    assert len([one async for one in sdk.vector_stores.files.list(store.id, limit=2)]) == 4
    (found, *_) = (await sdk.vector_stores.search(store.id, query=QUESTION)).data
    assert found.file_id == file.id
    assert b"".join([piece async for piece in (await sdk.files.content(file.id)).response.aiter_bytes()]) == DOCUMENT
    assert (await sdk.vector_stores.files.delete(file.id, vector_store_id=store.id)).deleted
    assert (await sdk.vector_stores.retrieve(store.id)).file_counts.total == 3
    assert (await sdk.files.delete(file.id)).deleted
    assert (await sdk.vector_stores.delete(store.id)).deleted


async def test_responses(sdk: openai.AsyncOpenAI) -> None:
    await sdk.vector_stores.files.upload_and_poll(vector_store_id="default", file=("harbour.md", DOCUMENT))
    response = await sdk.responses.create(model="ragq", input=QUESTION, background=True)
    async with asyncio.timeout(30):
        while response.status in ("queued", "in_progress"):
            await asyncio.sleep(0.1)
            response = await sdk.responses.retrieve(response.id, include=["file_search_call.results"])
    assert "61 metres" in response.output_text
    next_one = await sdk.responses.create(
        model="ragq", input="When does the ferry leave?", previous_response_id=response.id
    )
    assert "noon" in next_one.output_text
    (item,) = [one async for one in sdk.responses.input_items.list(response.id)]
    assert item.type == "message"
    assert (await sdk.responses.cancel(response.id)).status == "completed"
    await sdk.responses.delete(response.id)
    with pytest.raises(openai.NotFoundError):
        await sdk.responses.retrieve(response.id)


async def test_chat_completions_embeddings_and_models(sdk: openai.AsyncOpenAI) -> None:
    messages: Any = [{"role": "user", "content": QUESTION}]
    whole = await sdk.chat.completions.create(model="ragq", messages=messages)
    pieces = [
        chunk.choices[0].delta.content or ""
        async for chunk in await sdk.chat.completions.create(model="ragq", messages=messages, stream=True)
    ]
    assert "".join(pieces) == whole.choices[0].message.content
    names = [model.id async for model in sdk.models.list()]
    vectors = await sdk.embeddings.create(model=names[-1], input=[QUESTION, "noon"])
    assert [len(one.embedding) for one in vectors.data] == [384, 384]


async def test_batches_and_webhook_endpoints(sdk: openai.AsyncOpenAI) -> None:
    line = {"custom_id": "one", "method": "POST", "url": "/v1/responses", "body": {"input": QUESTION}}
    file = await sdk.files.create(file=("lines.jsonl", json.dumps(line).encode()), purpose="batch")
    batch = await sdk.batches.create(input_file_id=file.id, endpoint="/v1/responses", completion_window="24h")
    async with asyncio.timeout(30):
        while batch.status not in ("completed", "failed"):
            await asyncio.sleep(0.1)
            batch = await sdk.batches.retrieve(batch.id)
    assert batch.status == "completed"
    assert batch.output_file_id
    assert json.loads((await sdk.files.content(batch.output_file_id)).text)["custom_id"] == "one"
    assert batch.id in [one.id async for one in sdk.batches.list()]
    made: Any = await sdk.post("/webhook_endpoints", cast_to=object, body={"url": "https://hooks.example.com/in"})
    listed: Any = await sdk.get("/webhook_endpoints", cast_to=object)
    assert [one["id"] for one in listed["data"]] == [made["id"]]
    await sdk.delete(f"/webhook_endpoints/{made['id']}", cast_to=object)


async def test_errors_are_the_sdks_classes(sdk: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError):
        await sdk.responses.create(model="ragq", input="")
    with pytest.raises(openai.NotFoundError):
        await sdk.vector_stores.retrieve("vs_unknown")
    key = {"Idempotency-Key": "the same"}
    await sdk.responses.create(model="ragq", input=QUESTION, extra_headers=key)
    with pytest.raises(openai.ConflictError):
        await sdk.responses.create(model="ragq", input="Another?", extra_headers=key)
