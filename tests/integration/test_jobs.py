"""Jobs as columns: searched and paged in the order of an index, whatever is selected; and those in Valkey, a bounded number at a time."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ragq.accounts.limits import Limits
from ragq.accounts.payer import Payer, paid_by
from ragq.client.console import live_jobs
from ragq.client.job import Outcome
from ragq.client.rq_client import JobQueue
from ragq.context import Context
from ragq.errors import InvalidRequestError, OverloadedError
from ragq.models import Answer, JobFunction, JobStatus, QueueName, Usage
from ragq.queues.documents import document_job_id, enqueue_document
from ragq.queues.upkeep.job_actions import act, find_row
from ragq.records import DocumentArguments, DocumentResult, Failure, Job, Meta, QueryResult, Request
from ragq.settings import Settings
from ragq.storage.archive import Archive
from ragq.storage.blobs import BlobStore
from ragq.storage.console import jobs as job_storage
from ragq.storage.console.jobs import JobRow, Jobs
from ragq.storage.console.selection import START_OF_ENDED, Place, Selection, read_place
from ragq.storage.database import Database
from tests.ingests import attach, open_context
from tests.queue_steps import BAD, DONE, claim, enqueue, finish, let_pass, new_job, state
from tests.servers import Valkey

DAY = 86_400
MANY = 30_000
MOST_READ = 200  # rows for a page of 50, of any selection that an index knows
FILL = """
    INSERT INTO jobs (id, tenant_id, key_id, queue, lane, kind, state, created_at, started_at, ended_at, attempts, error_code,
                      model, input_tokens, output_tokens, waited_ms, ran_ms, worker, excerpt, words)
    SELECT 'resp_' || n, CASE WHEN n %% 100 = 0 THEN 'acme' ELSE 'default' END, CASE WHEN n %% 1000 = 0 THEN 'key_rare' ELSE 'key_' || n %% 7 END,
           CASE WHEN n %% 500 = 0 THEN 'documents' ELSE 'queries' END, '', 'question',
           CASE WHEN n %% 300 = 0 THEN 'failed' ELSE 'finished' END, at - interval '2 s', at - interval '1 s', at, 1,
           CASE WHEN n %% 300 = 0 THEN 'llm_' || n %% 4 END, 'ragq', 10, 5, 1000, 1000, 'w', text, to_tsvector('simple', text)
    FROM generate_series(1, %(many)s) AS n, LATERAL (SELECT now() - n * interval '1 s' AS at) a,
         LATERAL (SELECT 'How tall is tower number' || n || '?' AS text) t"""


def make_job(job_id: str, *, ended_seconds_ago: float = 0, text: str = "Why?", **fields: object) -> Job:
    ended_at = time.time() - ended_seconds_ago
    job = Job(
        id=job_id,
        tenant_id="default",
        status=JobStatus.FINISHED,
        attempt=1,
        created_at=ended_at - 2,
        started_at=ended_at - 1,
        ended_at=ended_at,
        request=Request(input=text, model="ragq", key_id="key_1"),
        result=QueryResult("Why?", Answer("Because.", [], "generated", Usage(12, 3)), []),
        meta=Meta(run_ms=900, queued_ms=1000, worker="w1"),
        queue="queries.flex",
        function="process_query",
    )
    return replace(job, **fields)  # type: ignore[arg-type]


@pytest.fixture
def archive(database: Database) -> Archive:
    return Archive(database)


@pytest.fixture
def jobs(database: Database) -> Jobs:
    return Jobs(database)


async def ids(jobs: Jobs, **wanted: object) -> list[str]:
    return [row.id for row in await jobs.list_jobs(Selection(**wanted), limit=100)]  # type: ignore[arg-type]


async def test_the_archive_writes_the_columns_of_a_job(archive: Archive, jobs: Jobs) -> None:
    job = make_job("resp_a")
    await archive.store([job])
    (row,) = await jobs.list_jobs(Selection(), limit=10)
    assert (row.id, row.tenant_id, row.key_id) == ("resp_a", "default", "key_1")
    assert (row.queue, row.lane, row.kind, row.state, row.excerpt) == (
        "queries",
        "flex",
        "question",
        "finished",
        "Why?",
    )
    assert (row.attempts, row.error_code, row.model, row.worker) == (1, None, "ragq", "w1")
    assert (row.input_tokens, row.output_tokens, row.waited_ms, row.ran_ms) == (12, 3, 1000, 900)
    assert row.ended_at
    assert row.ended_at.timestamp() == pytest.approx(job.ended_at)
    extractive = QueryResult("Why?", Answer("yes", [], "extractive"), [])
    await archive.store([make_job("resp_b", result=extractive)])
    found = await jobs.find("resp_b", "default")
    assert found
    assert found.model == "extractive"


async def test_a_documents_job_is_listed_and_its_record_not_kept(archive: Archive, jobs: Jobs) -> None:
    done = DocumentResult("completed", 3)
    document = make_job("vs_1-file-1-1", request=Request(), result=done, queue="documents", function="process_document")
    await archive.store([document])
    (row,) = await jobs.list_jobs(Selection(queue="documents"), limit=10)
    assert (row.kind, row.state, row.excerpt) == ("document", "finished", "")
    assert await archive.fetch(document.id, "default") is None


async def test_jobs_are_selected_by_each_column_and_by_words(archive: Archive, jobs: Jobs) -> None:
    failure = Failure("llm_refused", "The LLM refuses: quota exceeded.")
    await archive.store(
        [
            make_job("resp_old", ended_seconds_ago=500, text="How tall is the lighthouse?"),
            make_job("resp_new", ended_seconds_ago=5, text="How tall is the tower?", status=JobStatus.STOPPED),
            make_job("resp_bad", ended_seconds_ago=50, status=JobStatus.FAILED, result=None, error=failure),
        ]
    )
    assert await ids(jobs) == ["resp_new", "resp_bad", "resp_old"]
    assert await ids(jobs, state="failed") == ["resp_bad"]
    assert await ids(jobs, state="canceled") == ["resp_new"]
    assert await ids(jobs, error_code="llm_refused") == ["resp_bad"]
    assert await ids(jobs, text="quota") == ["resp_bad"]
    assert await ids(jobs, text="TALL light") == ["resp_old"]
    assert await ids(jobs, text="resp_new") == ["resp_new"]
    assert await ids(jobs, text="'&|!:*()") == []
    assert await ids(jobs, text="\0") == []
    assert await ids(jobs, key="key_2") == []
    assert await ids(jobs, worker="w1", since=time.time() - 100) == ["resp_new", "resp_bad"]
    assert await ids(jobs, until=time.time() - 100) == ["resp_old"]
    assert await ids(jobs, tenant="acme") == []
    assert await ids(jobs, ids=("resp_bad", "resp_unknown")) == ["resp_bad"]


@pytest.mark.parametrize("text", ["a \0 b", "half of a pair \ud800", "'{}\\ & | ! :* <->", "x" * 100_000])
async def test_any_text_is_listed(archive: Archive, jobs: Jobs, text: str) -> None:
    await archive.store([make_job("resp_a", text=text)])
    assert await ids(jobs) == ["resp_a"]


async def test_the_later_end_stays_and_a_deleted_or_old_job_is_gone(archive: Archive, jobs: Jobs) -> None:
    old = make_job("resp_a", ended_seconds_ago=9, status=JobStatus.FAILED, result=None, error=Failure("a", "b"))
    new = make_job("resp_a")
    for batch in ([old], [new], [old]):
        await archive.store(batch)
    (row,) = await jobs.list_jobs(Selection(), limit=10)
    assert (row.state, row.error_code) == ("finished", None)
    await jobs.remove(replace(row, ended_at=row.created_at))
    assert await ids(jobs) == ["resp_a"], "a later end stays"
    await archive.delete("resp_a", "default")
    assert await ids(jobs) == []
    await archive.store(
        [make_job("resp_b", ended_seconds_ago=31 * DAY), make_job("resp_c", ended_seconds_ago=29 * DAY)]
    )
    assert await jobs.expire(30 * DAY) == 1
    assert await ids(jobs) == ["resp_c"]


async def test_a_job_deleted_while_it_is_archived_is_not_listed(archive: Archive, jobs: Jobs) -> None:
    await archive.delete("resp_a", tenant_id="default", key_id="key_1")
    await archive.store([make_job("resp_a"), make_job("resp_b")])
    assert await ids(jobs) == ["resp_b"]


async def test_rates_are_counts_and_percentiles_of_ten_seconds(archive: Archive, jobs: Jobs) -> None:
    start = time.time() // 10 * 10 - 30
    ends = [
        replace(make_job(f"resp_{n}"), ended_at=start + n, meta=Meta(run_ms=n * 100, queued_ms=50)) for n in range(11)
    ]
    await archive.store([*ends, make_job("resp_old", ended_seconds_ago=900)])
    first, second = await jobs.list_rates("default", seconds=300)
    assert (first.queue, first.at, first.ended, first.failed) == ("queries", start, 10, 0)
    assert (first.ran_p50, first.waited_p50, first.waited_p95) == (450, 50, 50)
    assert (second.at, second.ended) == (start + 10, 1)
    assert await jobs.list_rates("acme", seconds=300) == []


async def fill(database: Database) -> None:
    async with database.for_all().connection() as connection:
        await connection.execute("INSERT INTO tenants (id) VALUES ('acme') ON CONFLICT DO NOTHING")
        await connection.execute(FILL, {"many": MANY})
        await connection.execute("ANALYZE jobs")


async def plan_of(database: Database, selection: Selection, after: Place | None) -> str:
    table, where, values = await Jobs(database)._find(selection, after)
    query = f"SELECT * FROM {table} WHERE {where} ORDER BY ended_at DESC, id DESC LIMIT 50"
    async with database.for_all().connection() as connection:
        rows = await (
            await connection.execute(f"EXPLAIN (ANALYZE, TIMING OFF) {query}", values, prepare=False)
        ).fetchall()
    return "\n".join(row[0] for row in rows)


async def test_a_page_reads_few_rows_of_an_index_however_many_jobs_there_are(database: Database) -> None:
    await fill(database)
    late = Place("ended", round((time.time() - MANY / 2) * 1_000_000), "resp_x")
    chosen: dict[str, Selection] = {
        "jobs_by_age": Selection(),
        "jobs_of_tenant_by_age": Selection(tenant="acme"),
        "jobs_not_finished_by_age": Selection(state="failed"),
        "jobs_of_key_by_age": Selection(key="key_rare"),
        "jobs_with_error_by_age": Selection(error_code="llm_1"),
        "jobs_of_documents_by_age": Selection(queue="documents"),
    }
    for index, selection in chosen.items():
        for after in (None, late):
            plan = await plan_of(database, selection, after)
            assert index in plan, plan
            assert max(map(float, re.findall(r"actual rows=(\d+)", plan))) <= MOST_READ, plan
    for selection in (
        Selection(text="number777"),  # in 11 jobs, with those that begin so
        Selection(text="tall tow"),  # in all
        Selection(text="resp_123"),
        Selection(state="finished", worker="w", tenant="default"),
    ):
        plan = await plan_of(database, selection, late)
        assert max(map(float, re.findall(r"actual rows=(\d+)", plan))) <= MOST_READ, plan


async def test_rare_words_and_common_ones_find_the_same_jobs(
    database: Database, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(database)
    rare = await ids(jobs, text="tower number77")
    assert len(rare) == 100, "a page"
    monkeypatch.setattr(job_storage, "MOST_RARE", 0)
    assert await ids(jobs, text="tower number77") == rare
    assert await jobs.count(Selection(text="tall")) == MANY
    monkeypatch.setattr(job_storage, "MOST_COUNTED", 10)
    assert await jobs.count(Selection()) == 11


async def test_pages_have_each_job_once_with_equal_ends_too(jobs: Jobs, archive: Archive) -> None:
    at = time.time()
    await archive.store([make_job(f"resp_{n:02}", ended_seconds_ago=0) for n in range(3)])
    await archive.store([replace(make_job(f"resp_{n:02}"), ended_at=at) for n in range(10, 20)])
    found: list[str] = []
    place = None
    while page := await jobs.list_jobs(Selection(), limit=3, after=place):
        found += [row.id for row in page]
        place = read_place(page[-1].place.write())
    assert sorted(found) == sorted({*found})
    assert len(found) == 13
    assert await jobs.list_jobs(Selection(), limit=100, after=START_OF_ENDED)


@pytest.mark.parametrize("cursor", ["", "resp_1", "live.x.y", "ended.-1.a", f"ended.{'9' * 30}.a"])
def test_a_cursor_that_is_none_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidRequestError):
        read_place(cursor)


# In Valkey


async def live(valkey_queue: JobQueue, **wanted: object) -> list[str]:
    page = await valkey_queue.live.list_jobs(Selection(**wanted), limit=100)  # type: ignore[arg-type]
    return [row.id for row in page.jobs]


async def test_jobs_that_have_not_ended_are_listed_by_state_queue_tenant_and_text(queue: JobQueue) -> None:
    await enqueue(queue, "a", request=Request(input="How tall is the lighthouse?"))
    await enqueue(queue, "b", tenant_id="acme")
    await queue.enqueue(new_job("c", queue=QueueName.DOCUMENTS, arguments=DocumentArguments("vs_1", "file-1", 1)))
    await enqueue(queue, "d")
    (first,) = await claim(queue, 1)
    assert first.id == "a"
    assert sorted(await live(queue)) == ["a", "b", "c", "d"]
    assert await live(queue, state="started") == await live(queue, worker="w1") == ["a"]
    assert sorted(await live(queue, state="queued")) == ["b", "c", "d"]
    assert await live(queue, tenant="acme") == ["b"]
    assert await live(queue, queue="documents") == ["c"]
    assert await live(queue, text="tall LIGHT") == ["a"]
    assert await live(queue, text="d") == ["d"]
    assert await live(queue, ids=("a", "gone")) == ["a"]
    assert await live(queue, until=time.time() - 60) == []
    await finish(queue, first)
    assert sorted(await live(queue)) == ["b", "c", "d"]
    assert await queue.live.find("a") is None


async def test_a_look_at_valkey_is_bounded_and_goes_on_where_it_stopped(
    queue: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_jobs, "WINDOW", 4)
    monkeypatch.setattr(live_jobs, "LOOKED_AT", 8)
    for n in range(30):
        await enqueue(queue, f"j{n:02}", tenant_id="acme" if n in (3, 20) else "default")
    found: list[str] = []
    place, pages = None, 0
    while pages == 0 or place:
        page = await queue.live.list_jobs(Selection(tenant="acme"), limit=5, after=place)
        found, place, pages = found + [row.id for row in page.jobs], page.next, pages + 1
    assert found == ["j20", "j03"]
    assert 4 <= pages <= 10  # the job at the end of each window is looked at again, with those of its millisecond
    assert await queue.live.count(Selection(tenant="acme")) == (2, True)
    newest = await queue.live.list_jobs(Selection(), limit=3)
    assert len(newest.jobs) == 3
    assert newest.next
    rest = await queue.live.list_jobs(Selection(), limit=3, after=newest.next)
    assert not {row.id for row in newest.jobs} & {row.id for row in rest.jobs}


async def test_no_job_is_passed_over_while_those_before_it_leave_the_queue(
    queue: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_jobs, "WINDOW", 4)
    for n in range(16):
        await enqueue(queue, f"j{n:02}")
    read, seen = queue.live._read_rows, list[str]()

    async def read_and_cancel(job_ids: list[str]) -> list[JobRow | None]:
        rows = await read(job_ids)
        for job_id in job_ids:
            await queue.cancel(job_id)
        seen.extend(job_ids)
        return rows

    monkeypatch.setattr(queue.live, "_read_rows", read_and_cancel)
    page = await queue.live.list_jobs(Selection(), limit=100)
    assert len(page.jobs) == len(seen) == 16


async def test_a_job_that_runs_again_counts_for_the_limits_again(queue: JobQueue) -> None:
    with paid_by(Payer("default", "key_1", Limits(queued=1))):
        await enqueue(queue, "a")
        await queue.cancel("a")
        assert await queue.live.retry("a")
        with pytest.raises(OverloadedError, match="1 questions queued"):
            await enqueue(queue, "b")
        await queue.cancel("a")
        assert await enqueue(queue, "b")


@pytest.mark.usefixtures("database")
async def test_a_document_runs_again_at_once_after_its_job_was_cancelled(
    queue: JobQueue, settings: Settings, database_url: str, tmp_path: Path
) -> None:
    context = await open_context(settings.model_copy(update={"data_dir": tmp_path}), database_url)
    record = await attach(context, "The ferry of Quorra leaves at noon.")
    context = replace(context, queue=queue)
    await enqueue_document(queue, settings, record)
    await queue.cancel(document_job_id(record))
    row = await find_row(context, "default", document_job_id(record))
    await act(context, row, "retry")
    assert (await state(queue, document_job_id(record))).status is JobStatus.QUEUED


async def test_a_failed_job_runs_again_with_its_whole_time_and_one_with_a_result_does_not(
    queue: JobQueue, valkey: Valkey
) -> None:
    await enqueue(queue, "a", archive=True)
    (first,) = await claim(queue)
    assert not await queue.live.retry("a"), "it runs"
    await queue.commit("w1", [Outcome("a", first.attempt, BAD)])
    assert [job.id for job in await queue.unarchived(10)] == ["a"]
    assert await queue.live.retry("a")
    assert not await queue.live.retry("a"), "it waits"
    again = await state(queue, "a")
    assert (again.status, again.error, again.ended_at) == (JobStatus.QUEUED, None, None)
    assert await queue.unarchived(10) == []
    assert await live(queue) == ["a"]
    assert await queue.heartbeat([("a", first.attempt, None)]) == {"a"}, "the attempt before has ended"
    assert await queue.commit("w1", [Outcome("a", first.attempt, DONE)]) == [False]
    (second,) = await claim(queue)
    assert (second.attempt, second.tries) == (2, 0)
    assert second.deadline - time.monotonic() > 50
    assert await finish(queue, second)
    assert not await queue.live.retry("a"), "it has a result"
    assert not await queue.live.retry("unknown")
    await enqueue(queue, "b")
    await queue.cancel("b")
    assert await queue.live.retry("b")
    let_pass(valkey, "deadlines")
    assert (await queue.reap()).late == ["b"], "its deadline counts again"


async def test_a_job_that_ends_while_it_is_looked_for_is_found(
    queue: JobQueue, database: Database, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = BlobStore(settings.model_copy(update={"data_dir": tmp_path}))
    context = Context(settings=settings, queue=queue, database=database, blobs=blobs)
    await enqueue(queue, "a")
    (job,) = await claim(queue)
    find = queue.live.find

    async def find_after_the_end(job_id: str) -> JobRow | None:
        await finish(queue, job)
        return await find(job_id)

    monkeypatch.setattr(queue.live, "find", find_after_the_end)
    assert (await find_row(context, "default", "a")).state == "finished"


async def test_no_job_of_a_paused_queue_is_claimed(queue: JobQueue) -> None:
    await enqueue(queue, "a")
    await queue.enqueue(new_job("d", queue=QueueName.DOCUMENTS, arguments=DocumentArguments("vs_1", "file-1", 1)))
    lanes = [("queries.priority", 5), ("queries", 5), ("documents", 5)]
    await queue.controls.set_paused(QueueName.QUERIES, paused=True)
    assert await queue.controls.list_paused() == {"queries"}
    assert [job.id for job in (await queue.claim("w1", lanes, in_flight=0)).jobs] == ["d"]
    await queue.controls.set_paused(QueueName.QUERIES, paused=False)
    assert [job.id for job in (await queue.claim("w1", lanes, in_flight=0)).jobs] == ["a"]


async def test_a_worker_that_is_not_there_is_not_drained(queue: JobQueue) -> None:
    assert not await queue.controls.drain("nobody")


def test_the_functions_that_are_listed_exist() -> None:
    assert {f"ragq.queues.worker.{name}" for name in job_storage.KINDS} <= set(JobFunction)
