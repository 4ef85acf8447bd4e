"""Large parts of requests: where they are, that they go with their job, and that nobody else reads them."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ragq.client import request_client
from ragq.client.job import ClaimedJob
from ragq.client.queue_audit import audit_queue
from ragq.client.request_client import Requests
from ragq.client.rq_client import JobQueue
from ragq.errors import GoneError, OverloadedError, PermanentError, TooLargeError, UnavailableError
from ragq.models import JobFunction, JobStatus
from ragq.queues.perform import Retry, perform
from ragq.queues.running import RunningJob, WorkerContext
from ragq.queues.upkeep import expiry
from ragq.queues.upkeep.expiry import delete_unused_requests, find_left_requests
from ragq.records import DocumentArguments, EmbeddingArguments, EmbeddingResult, Failure, Job, Request, read_payload
from ragq.settings import Settings
from ragq.storage.archive import Archive
from ragq.storage.database import Database
from tests.queue_steps import claim, enqueue, finish, let_pass, state
from tests.servers import Valkey, environment

TEXTS = [f"{number} {1000 * 'x'}" for number in range(40)]
INPUT = [{"type": "message", "role": "user", "content": "earlier " * 40_000}]
ASKED = Request(input=INPUT, background=True)


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    return settings.model_copy(update={"data_dir": tmp_path})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the parts of requests are."""
    return tmp_path / "files" / "requests"


@pytest.fixture
async def small(queue: JobQueue, valkey: Valkey, settings: Settings) -> AsyncIterator[JobQueue]:
    """A queue in which 500 KB may wait."""
    del queue  # it has emptied the server
    small = JobQueue(settings.model_copy(update={"max_queued_bytes": 500_000}), valkey.url)
    yield small
    await small.close()


def kept(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


async def ask(queue: JobQueue, job_id: str, **options: Any) -> bool:
    """Queue a job whose arguments and request are large."""
    return await enqueue(queue, job_id, **{"arguments": EmbeddingArguments(TEXTS), "request": ASKED} | options)


async def read_input(queue: JobQueue, job: Job) -> Any:
    return (await queue.requests.complete(job)).request.input


async def run(context: WorkerContext, job: ClaimedJob) -> Any:
    loop = asyncio.get_running_loop()
    running = RunningJob(job.id, job.attempt, job.tenant_id, loop.time() + 30)
    return await perform(job, running, context)


async def test_what_is_large_is_not_in_valkey_and_is_whole_where_it_is_used(
    queue: JobQueue, valkey: Valkey, folder: Path, settings: Settings
) -> None:
    await ask(queue, "a")
    with valkey.connect() as connection:
        assert connection.memory_usage("ragq:job:a") < 4000
    (job,) = await claim(queue)
    assert await Requests(settings).unpack("a", *read_payload(job.data)) == EmbeddingArguments(TEXTS)
    shown = await state(queue, "a")
    (name,) = kept(folder)
    assert shown.request == Request(background=True, blob=f"requests/{name}")
    assert await read_input(queue, shown) == INPUT


async def test_a_small_request_makes_no_bytes_and_is_read_as_it_is(queue: JobQueue, folder: Path) -> None:
    await enqueue(queue, "a", request=Request(input="why?"))
    job = await state(queue, "a")
    assert await queue.requests.complete(job) is job
    assert kept(folder) == []


async def test_a_worker_runs_a_large_job_and_one_that_an_older_version_queued(
    queue: JobQueue, context: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ask(queue, "new")
    monkeypatch.setattr(request_client, "LARGE_BYTES", 1 << 30)
    await ask(queue, "old")
    monkeypatch.undo()
    for job in await claim(queue):
        outcome = await run(context, job)
        assert not isinstance(outcome, Retry)
        assert isinstance(outcome.ended, EmbeddingResult)
        assert len(outcome.ended.embeddings) == len(TEXTS)
    old = await state(queue, "old")
    assert (await queue.requests.complete(old)).request == ASKED


@pytest.mark.parametrize("damage", ["missing", "other bytes"])
async def test_a_job_whose_bytes_are_lost_fails_at_once_and_says_so(
    queue: JobQueue, context: WorkerContext, folder: Path, damage: str
) -> None:
    await ask(queue, "a")
    (name,) = kept(folder)
    if damage == "missing":
        await asyncio.to_thread((folder / name).unlink)
    else:
        shutil.copy(__file__, folder / name)
    (job,) = await claim(queue)
    outcome = await run(context, job)
    assert not isinstance(outcome, Retry)
    assert isinstance(outcome.ended, Failure)
    assert outcome.ended.code == "request_lost"
    with pytest.raises(GoneError, match="send it again"):
        await queue.requests.complete(await state(queue, "a"))


async def test_a_forged_name_reads_and_deletes_nothing_of_others(
    queue: JobQueue, context: WorkerContext, folder: Path
) -> None:
    await ask(queue, "victim")
    (name,) = kept(folder)
    (folder.parent / "secret").write_text("{}")
    (job,) = await claim(queue)
    for forged in ({"x": 1}, None, f"requests/{name}", "secret", "requests/../secret"):
        data = json.dumps([JobFunction.PROCESS_EMBEDDING, None, [], {"$blob": forged}]).encode()
        outcome = await run(context, replace(job, id="thief", data=data))
        assert not isinstance(outcome, Retry)
        assert isinstance(outcome.ended, Failure)
        assert outcome.ended.code == "invalid_payload"
        if not isinstance(forged, str):
            continue
        thief = replace(await state(queue, "victim"), id="thief", request=Request(blob=forged))
        with pytest.raises(PermanentError):
            await queue.requests.complete(thief)
        await queue.requests.discard(thief)
    assert kept(folder) == [name]
    assert (folder.parent / "secret").exists()


async def test_a_refused_or_repeated_request_leaves_no_bytes_and_takes_none(small: JobQueue, folder: Path) -> None:
    assert await ask(small, "a", fingerprint="first", is_repeat=False)
    first = kept(folder)
    assert not await ask(small, "a", fingerprint="first")
    assert not await ask(small, "b", fingerprint="first", is_repeat=True)
    with pytest.raises(OverloadedError):
        await ask(small, "c")
    assert kept(folder) == first
    assert await read_input(small, await state(small, "a")) == INPUT


async def test_two_jobs_of_the_same_bytes_do_not_share_them(queue: JobQueue, folder: Path) -> None:
    await asyncio.gather(ask(queue, "a"), ask(queue, "b"))
    job = await state(queue, "a")
    await asyncio.gather(queue.requests.discard(job), ask(queue, "c"))
    assert [name[0] for name in kept(folder)] == ["b", "c"]
    assert await read_input(queue, await state(queue, "c")) == INPUT


async def test_without_the_blob_store_a_large_request_is_not_accepted(queue: JobQueue, folder: Path) -> None:
    await asyncio.to_thread(folder.parent.mkdir, parents=True, exist_ok=True)
    shutil.copy(__file__, folder)  # a file where a folder should be
    with pytest.raises(UnavailableError):
        await ask(queue, "a")
    assert await queue.fetch("a", "default") is None
    assert await enqueue(queue, "b")


async def test_waiting_bytes_refuse_and_an_end_makes_room(small: JobQueue, valkey: Valkey) -> None:
    await ask(small, "a")
    with pytest.raises(OverloadedError) as refused:
        await ask(small, "b")
    assert refused.value.retry_after_seconds
    (job,) = await claim(small)
    with pytest.raises(OverloadedError):
        await ask(small, "b")  # a started job's bytes are there still
    await finish(small, job)
    assert await ask(small, "b")
    await small.cancel("b")
    assert await ask(small, "c")
    await small.delete("c")
    assert await ask(small, "d")
    with valkey.connect() as connection:
        connection.delete("ragq:job:d")  # as one of RQ's tools does
        with pytest.raises(OverloadedError):
            await ask(small, "e")
        let_pass(valkey, "deadlines")
        await small.reap()
        assert await ask(small, "e")
        connection.hset("ragq:queued_bytes", "queries.flex", 5)
    kinds = {orphan.kind: orphan.id for orphan in await audit_queue(small._settings, valkey.url)}
    assert kinds["wrong_queued_bytes"] == "queries.flex"


async def test_a_request_that_could_never_be_taken_is_too_large(small: JobQueue, folder: Path) -> None:
    with pytest.raises(TooLargeError, match="RAGQ_MAX_QUEUED_BYTES"):
        await ask(small, "a", request=Request(input="x" * 500_000))
    with pytest.raises(TooLargeError, match="besides its input"):
        await ask(small, "a", request=Request(tools=["x" * 300_000]))
    assert kept(folder) == []


async def test_the_housekeeping_deletes_what_no_job_names(
    queue: JobQueue, database: Database, valkey: Valkey, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiry, "UNUSED_SECONDS", 0)
    monkeypatch.setattr(expiry, "RECHECK_SECONDS", 0.05)
    monkeypatch.setattr(expiry, "LEFT_SECONDS", 0)
    archive = Archive(database)
    for job_id in ("gone", "archived", "waiting"):
        await ask(queue, job_id, archive=True)
    gone, archived, *_ = await claim(queue, 2)
    await finish(queue, archived)
    await archive.store(await queue.unarchived(10))
    with valkey.connect() as connection:
        connection.delete("ragq:job:gone", "ragq:job:archived")
    assert [orphan.id.split("/")[1].split(".")[0] for orphan in await find_left_requests(queue, archive)] == [gone.id]
    assert await delete_unused_requests(queue, archive) == 1
    assert [name.split(".")[0] for name in kept(folder)] == ["archived", "waiting"]
    stored = await archive.fetch("archived", "default")
    assert stored
    assert stored.request.input == ""
    assert await read_input(queue, stored) == INPUT
    async with database.for_all().connection() as connection:
        await connection.execute("UPDATE responses SET ended_at = now() - interval '40 days'")
    assert await archive.expire(30 * 86_400) == 1
    assert await delete_unused_requests(queue, archive) == 1
    assert [name.split(".")[0] for name in kept(folder)] == ["waiting"]


async def test_what_a_killed_process_left_of_a_large_request_is_deleted(
    queue: JobQueue, database: Database, folder: Path
) -> None:
    await ask(queue, "a")
    (whole,) = kept(folder)
    left, fresh = folder / "b.killed#1", folder / "c.written#1"
    left.write_text("half")
    fresh.write_text("half")
    os.utime(left, (0, 0))
    assert await delete_unused_requests(queue, Archive(database)) == 0
    assert kept(folder) == [whole, fresh.name]


async def test_a_job_whose_failure_cannot_be_told_ends_all_the_same(queue: JobQueue, context: WorkerContext) -> None:
    await enqueue(queue, "a", arguments=DocumentArguments("vs_none", "file-none", 1))

    async def fail(*_: object) -> None:
        raise ValueError

    context.ingests.begin_ingest = context.ingests.fail_ingest = fail  # type: ignore[assignment,method-assign]
    (job,) = await claim(queue, 1)
    outcome = await run(context, job)
    assert not isinstance(outcome, Retry)
    assert isinstance(outcome.ended, Failure)
    assert "ValueError" in outcome.ended.message


async def test_bytes_that_are_just_being_queued_are_spared(
    queue: JobQueue, database: Database, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = Archive(database)
    await queue.requests.pack("a", JobFunction.PROCESS_EMBEDDING, EmbeddingArguments(TEXTS), Request())
    assert await delete_unused_requests(queue, archive) == 0  # younger than a minute
    monkeypatch.setattr(expiry, "UNUSED_SECONDS", 0)
    monkeypatch.setattr(expiry, "RECHECK_SECONDS", 0.5)
    sweeping = asyncio.create_task(delete_unused_requests(queue, archive))
    await asyncio.sleep(0.1)
    await enqueue(queue, "a")  # its process was held up between the two
    assert await sweeping == 0
    assert len(kept(folder)) == 1


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from ragq.client.rq_client import JobQueue
from ragq.records import EmbeddingArguments
from ragq.settings import Settings
from tests.queue_steps import enqueue

async def main():
    queue = JobQueue(Settings(_env_file=None, data_dir=Path(sys.argv[2])), sys.argv[1])
    async def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)
    queue._accept = die
    await enqueue(queue, "a", arguments=EmbeddingArguments(["x" * 99_999]))

asyncio.run(main())
"""


async def test_what_a_process_killed_before_the_enqueue_had_written_is_deleted(
    queue: JobQueue,
    database: Database,
    valkey: Valkey,
    settings: Settings,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", KILLED, valkey.url, str(settings.data_dir)],
        env=environment(),
        check=False,
        timeout=30,
    )
    assert done.returncode == -signal.SIGKILL
    (left,) = kept(folder)
    monkeypatch.setattr(expiry, "UNUSED_SECONDS", 0)
    monkeypatch.setattr(expiry, "RECHECK_SECONDS", 0.05)
    assert await delete_unused_requests(queue, Archive(database)) == 1
    assert await ask(queue, "a")  # the client asks again
    assert left not in kept(folder)
    assert (await state(queue, "a")).status is JobStatus.QUEUED


async def test_a_machine_that_slept_between_the_two_steps_accepts_nothing(
    queue: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = itertools.count(time.time(), 3600)
    monkeypatch.setattr("ragq.client.request_client.time", SimpleNamespace(time=lambda: next(times)))
    with pytest.raises(UnavailableError, match="send it again"):
        await ask(queue, "a")
    monkeypatch.undo()
    assert await queue.fetch("a", "default") is None
