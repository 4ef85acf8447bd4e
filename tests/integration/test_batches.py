"""Batches: a service that is killed and goes on, as the SDK sees it, and single steps against real servers."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import redis
from openai.types import Batch, CreateEmbeddingResponse
from openai.types.chat import ChatCompletion

from ragq.batches.lines import suffix_of
from ragq.batches.runner import take_step
from ragq.client.rq_client import JobQueue
from ragq.context import Context
from ragq.errors import NotFoundError
from ragq.settings import Settings
from ragq.storage.batches import Batches, BatchRecord
from ragq.storage.blobs import BlobStore
from ragq.storage.database import Database
from ragq.storage.paging import Page
from ragq.storage.webhooks import Webhooks
from tests.integration.test_archive import make_job
from tests.servers import FakeLlm, Ragq, Valkey, wait_until

KEY = "a key for the batches"
LINES = 200
RESPONSES, CHATS, EMBEDDINGS = "/v1/responses", "/v1/chat/completions", "/v1/embeddings"


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeLlm]:
    with FakeLlm(tmp_path_factory.mktemp("llm"), latency=0.3) as fake:
        yield fake


@pytest.fixture(scope="module")
def ragq(tmp_path_factory: pytest.TempPathFactory, llm: FakeLlm) -> Iterator[Ragq]:
    folder = tmp_path_factory.mktemp("batches")
    service = Ragq(
        folder / "data",
        RAGQ_API_KEY=KEY,
        RAGQ_LLM_BASE_URL=llm.base_url,
        RAGQ_LLM_MODEL="fake",
        RAGQ_BATCH_OUTSTANDING=40,
    ).start()
    (folder / "harbour.md").write_text("The lighthouse of Quorra is 61 metres tall.\n")
    assert service.run("ingest", str(folder / "harbour.md"), RAGQ_API_KEY=KEY).returncode == 0
    yield service
    assert service.stop() == 0


@pytest.fixture(scope="module")
def client(ragq: Ragq) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{ragq.url}/v1", api_key=KEY, max_retries=3) as sdk:
        yield sdk


def write_line(custom_id: str, url: str = RESPONSES, /, **body: Any) -> str:
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": body})


def start_batch(client: openai.OpenAI, lines: list[str], endpoint: Any = RESPONSES) -> Batch:
    file = client.files.create(file=("input.jsonl", "\n".join(lines).encode()), purpose="batch")
    return client.batches.create(
        input_file_id=file.id, endpoint=endpoint, completion_window="24h", metadata={"ticket": "7"}
    )


def read_file(client: openai.OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    assert file_id
    assert client.files.retrieve(file_id).purpose == "batch_output"
    return [json.loads(line) for line in client.files.content(file_id).text.splitlines()]


def poll(client: openai.OpenAI, batch: Batch, *, until: int) -> Batch | None:
    """The batch, when it has ended or `until` of its lines have; its counts must hold at every moment."""
    batch = client.batches.retrieve(batch.id)
    counts = batch.request_counts
    assert counts
    assert counts.completed + counts.failed <= counts.total or batch.status == "validating"
    ended = batch.status in ("completed", "failed", "expired", "cancelled")
    return batch if ended or counts.completed + counts.failed >= until else None


def wait_for_end(client: openai.OpenAI, batch: Batch) -> Batch:
    return wait_until(lambda: poll(client, batch, until=1 << 30), seconds=50, what="the batch has ended")  # type: ignore[return-value]


def ask_line(number: int) -> str:
    question = f"How tall is the lighthouse of Quorra? ({number})"
    if number % 10 == 3:
        return write_line(f"line {number}", input=f"{question} [[fake status=400]]")
    if number % 10 == 7:
        return write_line(f"line {number}", input=question, temperature=9)
    return write_line(f"line {number}", input=f"{question} [[fake text=answer-{number}]]", metadata={"n": str(number)})


def test_a_batch_goes_on_after_its_api_process_is_killed(ragq: Ragq, client: openai.OpenAI, llm: FakeLlm) -> None:
    batch = start_batch(client, [ask_line(number) for number in range(LINES)])
    assert (batch.status, batch.object) == ("validating", "batch")
    assert wait_until(lambda: poll(client, batch, until=40), seconds=30).status == "in_progress"  # type: ignore[union-attr]
    api = ragq.pids["api"]
    os.kill(api, signal.SIGKILL)
    batch = wait_for_end(client, batch)
    assert (batch.status, batch.metadata, batch.errors) == ("completed", {"ticket": "7"}, None)
    assert batch.request_counts
    assert batch.request_counts.to_dict() == {"total": LINES, "completed": LINES * 8 // 10, "failed": LINES * 2 // 10}
    assert batch.created_at <= (batch.in_progress_at or 0) <= (batch.finalizing_at or 0) <= (batch.completed_at or 0)
    output = read_file(client, batch.output_file_id)
    assert [line["custom_id"] for line in output] == [f"line {number}" for number in range(LINES)]
    for number, line in enumerate(output):
        check_line(number, line)
    assert read_file(client, batch.error_file_id) == [line for n, line in enumerate(output) if n % 10 in (3, 7)]
    assert len({line["id"] for line in output}) == LINES
    assert llm.calls() == LINES * 9 // 10  # no line ran twice
    first = output[0]["response"]["body"]
    assert client.responses.retrieve(first["id"]).output_text == "answer-0"
    assert batch.id in [one.id for one in client.batches.list(limit=1)]


def check_line(number: int, line: dict[str, Any]) -> None:
    response, error = line["response"], line["error"]
    if number % 10 == 3:
        assert (response, error["code"]) == (None, "llm_bad_request")
    elif number % 10 == 7:
        assert (response["status_code"], error) == (400, None)
        assert response["body"]["error"]["param"] == "temperature"
    else:
        body = response["body"]
        assert (response["status_code"], error, body["status"]) == (200, None, "completed")
        assert (body["metadata"], body["service_tier"]) == ({"n": str(number)}, "flex")
        assert body["output"][-1]["content"][0]["text"] == f"answer-{number}"


# Other endpoints


def ask_chat(custom_id: str, question: str, **body: Any) -> str:
    return write_line(custom_id, CHATS, messages=[{"role": "user", "content": question}], **body)


def test_a_batch_of_chats_goes_on_after_its_api_process_is_killed(
    ragq: Ragq, client: openai.OpenAI, llm: FakeLlm
) -> None:
    calls = llm.calls()
    batch = start_batch(
        client, [ask_chat(str(n), f"How tall is it? {n} [[fake text=chat-{n}]]") for n in range(100)], CHATS
    )
    wait_until(lambda: poll(client, batch, until=20), seconds=30)
    os.kill(ragq.pids["api"], signal.SIGKILL)
    ended = wait_for_end(client, batch)
    assert (ended.status, ended.endpoint) == ("completed", CHATS)
    output = read_file(client, ended.output_file_id)
    assert [line["custom_id"] for line in output] == [str(n) for n in range(100)]
    chats = [ChatCompletion.model_validate(line["response"]["body"], strict=True) for line in output]
    assert [chat.choices[0].message.content for chat in chats] == [f"chat-{n}" for n in range(100)]
    assert all(chat.usage and chat.usage.total_tokens for chat in chats)
    assert llm.calls() - calls == 100  # no line ran twice


def test_lines_of_chats_call_tools_are_kept_with_store_and_name_the_field_at_fault(client: openai.OpenAI) -> None:
    tool = {"type": "function", "function": {"name": "tide", "parameters": {"type": "object", "properties": {}}}}
    lines = [
        ask_chat("called", "[[fake calls='tide {}']] How high is the tide?", tools=[tool]),
        ask_chat("stored", "How tall is the lighthouse of Quorra?", store=True, metadata={"of": "a batch"}),
        ask_chat("hot", "How tall is it?", temperature=9),
        ask_chat("streamed", "How tall is it?", stream=True),
        ask_chat("silent", " "),
        write_line("empty", CHATS, messages=[]),
        ask_chat("refused", "How tall is it? [[fake status=400]]"),
        ask_chat("other", "How tall is it?", model="other"),
    ]
    output = read_file(client, wait_for_end(client, start_batch(client, lines, CHATS)).output_file_id)
    found = {line["custom_id"]: line for line in output}
    choice = found["called"]["response"]["body"]["choices"][0]
    assert (choice["finish_reason"], choice["message"]["tool_calls"][0]["function"]["name"]) == ("tool_calls", "tide")
    stored = client.chat.completions.retrieve(found["stored"]["response"]["body"]["id"])
    assert (stored.choices[0].message.content, stored.metadata) == (
        found["stored"]["response"]["body"]["choices"][0]["message"]["content"],
        {"of": "a batch"},
    )
    for custom_id, status, param in (
        ("hot", 400, "temperature"),
        ("streamed", 400, "stream"),
        ("silent", 400, "messages"),
        ("empty", 400, "messages"),
        ("other", 404, "model"),
    ):
        response = found[custom_id]["response"]
        assert (response["status_code"], response["body"]["error"]["param"]) == (status, param), custom_id
    assert found["refused"]["error"]["code"] == "llm_bad_request"


def test_a_batch_of_completions_answers_texts(client: openai.OpenAI) -> None:
    url = "/v1/completions"
    lines = [
        write_line("plain", url, prompt="How tall is the lighthouse of Quorra? [[fake text=tall]]"),
        write_line("echoed", url, prompt="How tall? [[fake text=tall]]", echo=True),
        write_line("many", url, prompt=["One?", "Two?"]),
    ]
    output = read_file(client, wait_for_end(client, start_batch(client, lines, url)).output_file_id)
    bodies = [line["response"]["body"] for line in output]
    assert [body["choices"][0]["text"] for body in bodies[:2]] == ["tall", "How tall? [[fake text=tall]]tall"]
    assert bodies[2]["error"]["param"] == "prompt"


def test_a_batch_of_embeddings_holds_what_the_endpoint_answers(ragq: Ragq, client: openai.OpenAI) -> None:
    many = [f"The lighthouse of Quorra, seen from mile {number}." for number in range(300)]
    inputs: list[Any] = ["The ferry leaves at noon.", many, [791, 37843], [[791, 37843], [1820]]]
    lines = [write_line(str(number), EMBEDDINGS, input=given, model="ragq") for number, given in enumerate(inputs)]
    lines.append(write_line("packed", EMBEDDINGS, input="The ferry leaves at noon.", encoding_format="base64"))
    batch = start_batch(client, lines, EMBEDDINGS)
    os.kill(ragq.pids["api"], signal.SIGKILL)
    ended = wait_for_end(client, batch)
    assert ended.status == "completed"
    output = read_file(client, ended.output_file_id)
    for line, given in zip(output, inputs, strict=False):
        found = CreateEmbeddingResponse.model_validate(line["response"]["body"])
        expected = client.embeddings.create(input=given, model="ragq", encoding_format="float")
        assert [one.index for one in found.data] == list(range(len(expected.data)))
        assert [one.embedding for one in found.data] == [
            pytest.approx(one.embedding, abs=1e-2) for one in expected.data
        ]
        assert found.usage == expected.usage
    assert isinstance(output[-1]["response"]["body"]["data"][0]["embedding"], str)


def test_embeddings_are_bounded_as_the_endpoint_is(client: openai.OpenAI) -> None:
    lines = [
        write_line("empty", EMBEDDINGS, input=""),
        write_line("none", EMBEDDINGS, input=[]),
        write_line("missing", EMBEDDINGS, model="ragq"),
        write_line("many", EMBEDDINGS, input=["a"] * 2049),
        write_line("short", EMBEDDINGS, input="a", dimensions=3),
        write_line("mixed", EMBEDDINGS, input=["a", 1]),
    ]
    output = read_file(client, wait_for_end(client, start_batch(client, lines, EMBEDDINGS)).output_file_id)
    for line in output:
        response = line["response"]
        param = response["body"]["error"]["param"]
        assert (response["status_code"], param.partition(".")[0]) == (
            400,
            "dimensions" if line["custom_id"] == "short" else "input",
        )
    too_many = [write_line(str(number), EMBEDDINGS, input=["a"] * 2000) for number in range(26)]
    failed = wait_for_end(client, start_batch(client, too_many, EMBEDDINGS))
    assert failed.status == "failed"
    assert failed.errors
    assert failed.errors.data
    assert (failed.errors.data[0].line, failed.errors.data[0].code) == (26, "batch_too_large")


def test_a_cancelled_batch_of_chats_and_of_embeddings_ends_its_jobs(ragq: Ragq, client: openai.OpenAI) -> None:
    slow = [ask_chat(str(number), "How tall is it? [[fake latency=30]]") for number in range(20)]
    texts = [f"{number} " * 100 for number in range(2000)]
    chats, vectors = (
        start_batch(client, slow, CHATS),
        start_batch(client, [write_line("a", EMBEDDINGS, input=texts)], EMBEDDINGS),
    )
    with redis.Redis.from_url(ragq.services["valkey_url"]) as connection:
        for batch in (chats, vectors):
            wait_until(lambda: jobs_of(connection, batch), what="its jobs are queued")  # noqa: B023  (called at once)
            client.batches.cancel(batch.id)
            output = read_file(client, wait_for_end(client, batch).output_file_id)
            assert {line["error"]["code"] for line in output} == {"batch_cancelled"}
            assert jobs_of(connection, batch) == []


def jobs_of(connection: redis.Redis, batch: Batch, *, lines: int = 21) -> list[bytes]:
    """The keys of the jobs of a batch's first lines, in whatever state."""
    names = [suffix_of(batch.id, line) for line in range(lines)]
    return [key for key in connection.scan_iter("ragq:job:*") if any(name in key.decode() for name in names)]


def test_a_cancelled_batch_keeps_what_had_ended(client: openai.OpenAI) -> None:
    slow = "How tall is the lighthouse of Quorra? [[fake latency=30]]"
    quick = [write_line(str(number), input=f"How tall is the lighthouse? {number}") for number in range(5)]
    batch = start_batch(client, [*quick, *(write_line(str(number), input=slow) for number in range(5, 60))])
    wait_until(lambda: poll(client, batch, until=5), seconds=20)
    assert client.batches.cancel(batch.id).status == "cancelling"
    ended = wait_for_end(client, batch)
    assert ended.status == "cancelled"
    assert ended.request_counts
    assert ended.request_counts.to_dict() == {"total": 60, "completed": 5, "failed": 55}
    output = read_file(client, ended.output_file_id)
    assert [line["custom_id"] for line in output] == [str(number) for number in range(60)]
    assert [line["response"]["status_code"] for line in output[:5]] == [200] * 5
    assert {line["error"]["code"] for line in output[5:]} == {"batch_cancelled"}
    assert client.batches.cancel(batch.id).to_dict() == ended.to_dict()


def test_wrong_input_fails_the_batch_and_names_the_line(client: openai.OpenAI) -> None:
    lines = [write_line("a", input="hi"), "{", write_line("a", input="hi")]
    batch = wait_for_end(client, start_batch(client, lines))
    assert (batch.status, batch.output_file_id) == ("failed", None)
    assert batch.errors
    assert batch.errors.data
    assert [(error.line, error.code) for error in batch.errors.data] == [
        (2, "invalid_json_line"),
        (3, "duplicate_custom_id"),
    ]
    assert batch.request_counts
    assert batch.request_counts.total == 0


def test_what_cannot_be_a_batch_is_refused(client: openai.OpenAI) -> None:
    file = client.files.create(file=("a.txt", b"text"), purpose="assistants")
    create: Any = client.batches.create
    right = {"input_file_id": file.id, "endpoint": "/v1/responses", "completion_window": "24h"}
    for changes, param in (
        ({}, "input_file_id"),
        ({"endpoint": "/v1/moderations"}, "endpoint"),
        ({"completion_window": "1h"}, "completion_window"),
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            create(**right | changes)
        assert refused.value.param == param
    with pytest.raises(openai.NotFoundError):
        create(**right | {"input_file_id": "file-unknown"})
    with pytest.raises(openai.NotFoundError):
        client.batches.retrieve("batch_unknown")


# Single steps


@pytest.fixture
def context(database: Database, queue: JobQueue, settings: Settings, tmp_path: Path) -> Context:
    settings = settings.model_copy(update={"data_dir": tmp_path})
    return Context(settings=settings, queue=queue, database=database, blobs=BlobStore(settings))


async def make_batch(context: Context, lines: int) -> BatchRecord:
    """A batch that is in progress."""
    data = "\n".join(write_line(str(number), input=f"Why {number}?") for number in range(1, lines + 1)).encode()
    sha256 = hashlib.sha256(data).hexdigest()
    await context.blobs.put(sha256, io.BytesIO(data))
    file = await context.files.create("default", filename="a.jsonl", purpose="batch", size=len(data), sha256=sha256)
    batch = await context.batches.create(
        "default",
        input_file_id=file.id,
        endpoint="/v1/responses",
        completion_window="24h",
        window_seconds=3600,
        metadata=None,
    )
    return await step(context, batch)


def job_id_of(batch_id: str, line: int) -> str:
    return f"resp_{suffix_of(batch_id, line)}"


async def step(context: Context, batch: BatchRecord) -> BatchRecord:
    await take_step(context, await context.batches.get("default", batch.id))
    return await context.batches.get("default", batch.id)


async def count_jobs(context: Context, batch: BatchRecord) -> int:
    ids = [job_id_of(batch.id, line) for line in range(1, batch.total + 1)]
    return sum(status is not None for status in await context.queue.statuses(ids))


async def test_no_more_lines_are_asked_than_allowed_or_than_the_queue_takes(context: Context) -> None:
    context.settings = context.settings.model_copy(update={"batch_outstanding": 3})
    batch = await make_batch(context, 5)
    for _ in range(2):
        await step(context, batch)
        assert await count_jobs(context, batch) == 3
    full = context.settings.model_copy(update={"batch_outstanding": 5, "max_queued": 4})
    context.settings = context.queue._settings = full
    assert (await step(context, batch)).status == "in_progress"
    assert await count_jobs(context, batch) == 4


async def test_jobs_that_valkey_lost_are_asked_again_and_archived_ones_are_not(
    context: Context, valkey: Valkey
) -> None:
    batch = await make_batch(context, 2)
    await step(context, batch)
    with valkey.connect() as connection:
        connection.flushall()
    await context.archive.store([make_job(job_id_of(batch.id, 2))])
    batch = await step(context, batch)
    assert (batch.completed, batch.failed) == (1, 0)
    assert await count_jobs(context, batch) == 1


async def test_lines_whose_jobs_cannot_be_read_end_with_an_error(context: Context, valkey: Valkey) -> None:
    batch = await make_batch(context, 2)
    await step(context, batch)
    with valkey.connect() as connection:
        for line, status in ((1, "finished"), (2, "no status")):
            connection.hset(f"ragq:job:{job_id_of(batch.id, line)}", mapping={"status": status})
            connection.hdel(f"ragq:job:{job_id_of(batch.id, line)}", "ticket")
    batch = await step(context, batch)
    assert (batch.completed, batch.failed) == (0, 2)


async def test_an_expired_batch_tells_which_lines_had_not_ended(context: Context, database: Database) -> None:
    batch = await make_batch(context, 3)
    await step(context, batch)
    async with database.for_all().connection() as connection:
        await connection.execute("UPDATE batches SET expires_at = now()")
    for _ in range(5):
        batch = await step(context, batch)
    assert (batch.status, batch.completed, batch.failed) == ("expired", 0, 3)
    assert batch.output_file_id
    file = await context.files.get("default", batch.output_file_id)
    lines = b"".join([piece async for piece in context.blobs.stream(file.sha256)]).splitlines()
    assert [json.loads(line)["error"]["code"] for line in lines] == ["batch_expired"] * 3


async def test_a_batch_without_its_file_fails_and_tells_its_webhook(context: Context, database: Database) -> None:
    endpoint = await Webhooks(database).create_endpoint(
        "default", url="https://a.test", events=["batch.failed"], description=None
    )
    batch = await Batches(database).create(
        "default",
        input_file_id="file-gone",
        endpoint="/v1/responses",
        completion_window="24h",
        window_seconds=60,
        metadata=None,
    )
    batch = await step(context, batch)
    assert batch.status == "failed"
    assert batch.errors
    assert json.loads(batch.errors)[0]["param"] == "input_file_id"
    (delivery,) = await Webhooks(database).list_deliveries("default", endpoint.id, Page())
    assert (delivery.type, delivery.object_id) == ("batch.failed", batch.id)


async def test_one_process_at_a_time_works_on_a_batch(context: Context, database: Database) -> None:
    batch, batches = await make_batch(context, 1), Batches(database)
    async with batches.lock(batch.id) as first, batches.lock(batch.id) as second:
        assert (first, second) == (True, False)
    async with batches.lock(batch.id) as third:
        assert third


async def test_another_tenants_batch_is_not_there(context: Context, database: Database) -> None:
    batch, batches = await make_batch(context, 1), Batches(database)
    assert await batches.list_batches("acme", Page()) == []
    for attempt in (batches.get, batches.cancel):
        with pytest.raises(NotFoundError):
            await attempt("acme", batch.id)
    assert (await batches.get("default", batch.id)).status == "in_progress"
