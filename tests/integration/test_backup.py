"""Backups: made under load and restored into an empty folder; refused when damaged, newer, or of another key."""

from __future__ import annotations

import functools
import gzip
import io
import json
import signal
import tarfile
import threading
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest
from pydantic import SecretStr

from ragq.backup.backup import Progress, back_up
from ragq.backup.encryption import MAGIC, PIECE_BYTES
from ragq.backup.format import MANIFEST
from ragq.backup.places import create, open_source
from ragq.backup.queue import QueueBackup
from ragq.backup.restore import restore, verify
from ragq.client.rq_client import JobQueue
from ragq.errors import ConfigurationError, PermanentError, UnavailableError
from ragq.models import JobStatus, QueueName
from ragq.prepare import prepare
from ragq.settings import Settings
from ragq.storage.blobs import BlobStore
from ragq.storage.database import Database, find_pending, read_migrations, run_migrations
from ragq.storage.search.vector_column import read_facts
from tests.queue_steps import new_job
from tests.servers import FakeLlm, Ragq, Valkey, processes_in, stop, wait_until

pytestmark = pytest.mark.timeout(300)  # it starts ten processes, which takes long on a busy machine

QUESTIONS = 30
LATENCY = 1.5
FLIPS = 40
KEY = "correct horse battery staple"


def ignore(_: Progress) -> None:
    """Show nothing."""


@dataclass
class Load:
    """Questions and documents that a service accepts until `stopping` is set."""

    service: Ragq
    stopping: threading.Event = field(default_factory=threading.Event)
    responses: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)

    def run(self) -> None:
        with httpx2.Client(base_url=self.service.url, timeout=30) as http:
            number = 0
            while not self.stopping.wait(0.05):
                number += 1
                self.responses.append(ask(http, f"What is the height of lighthouse {number}?"))
                if number % 5 == 0:
                    self.files.append(put(http, f"later-{number}.md", f"Lighthouse {number} is {number} metres tall."))


def ask(http: httpx2.Client, question: str) -> str:
    answer = http.post("/v1/responses", json={"model": "ragq", "input": question, "background": True})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def put(http: httpx2.Client, name: str, text: str) -> str:
    """Upload a document and put it into the default store."""
    file = http.post("/v1/files", data={"purpose": "assistants"}, files={"file": (name, text.encode())}).json()
    attached = http.post("/v1/vector_stores/default/files", json={"file_id": file["id"]})
    assert attached.status_code == 200, attached.text
    return str(file["id"])


def chat(http: httpx2.Client, question: str) -> None:
    body = {"model": "ragq", "store": True, "messages": [{"role": "user", "content": question}]}
    assert http.post("/v1/chat/completions", json=body).status_code == 200


def read(http: httpx2.Client, response_id: str) -> dict[str, Any]:
    found = http.get(f"/v1/responses/{response_id}")
    assert found.status_code == 200, found.text
    return dict(found.json())


def text_of(response: dict[str, Any]) -> str:
    return str(response["output"][-1]["content"][0]["text"])


def status_of(http: httpx2.Client, file_id: str) -> str:
    return str(http.get(f"/v1/vector_stores/default/files/{file_id}").json().get("status"))


def orphans(service: Ragq) -> list[Any]:
    """What contradicts the rest in Valkey, PostgreSQL and the blob store."""
    return list(json.loads(service.run("doctor", "--audit", "--json").stdout)["orphans"])


@dataclass(frozen=True)
class Made:
    """A backup that was made under load, and what had been accepted before it began.

    Attributes:
        answered: Texts of the answers that had ended, by id.
    """

    file: Path
    responses: list[str]
    files: list[str]
    answered: dict[str, str]
    lines: list[dict[str, Any]]
    warnings: str


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Back up a service that gets questions and documents faster than it can do them."""
    folder = tmp_path_factory.mktemp("source")
    with FakeLlm(folder, latency=LATENCY) as llm:
        variables = {"RAGQ_LLM_BASE_URL": llm.base_url, "RAGQ_LLM_MODEL": "fake", "RAGQ_QUERY_CONCURRENCY": 2}
        service = Ragq(folder / "data", **variables).start()
        load = Load(service)
        thread = threading.Thread(target=load.run)
        try:
            with httpx2.Client(base_url=service.url, timeout=30) as http:
                large = put(http, "large.md", "The lighthouse of Quorra is 61 metres tall.\n" * 300)
                chat(http, "How tall is the lighthouse of Quorra?")  # one that is archived at once
                thread.start()
                wait_until(lambda: len(load.responses) >= QUESTIONS and len(load.files) >= 2, what="enough load")
                responses, files = list(load.responses), [large, *load.files]
                found = {id_: read(http, id_) for id_ in responses}
                answered = {id_: text_of(one) for id_, one in found.items() if one["status"] == "completed"}
                done = service.run("backup", str(folder / "made.backup"), "--json")
                assert done.returncode == 0, done.stderr
        finally:
            load.stopping.set()
            if thread.is_alive():
                thread.join()
            service.end()
    lines = list(map(json.loads, done.stdout.splitlines()))
    return Made(folder / "made.backup", responses, files, answered, lines, done.stderr)


def test_a_backup_under_load_has_all_that_was_accepted_before_it(made: Made, tmp_path: Path) -> None:
    with FakeLlm(tmp_path) as llm:
        idle = ("--query-workers", "0", "--document-workers", "0")
        service = Ragq(tmp_path / "data", *idle, RAGQ_LLM_BASE_URL=llm.base_url, RAGQ_LLM_MODEL="fake")
        restored = service.run("restore", str(made.file))
        assert restored.returncode == 0, restored.stderr
        service.start()
        try:
            with httpx2.Client(base_url=service.url, timeout=30) as http:
                found = {id_: read(http, id_) for id_ in made.responses}
                assert {one["status"] for one in found.values()} == {"completed", "queued"}
                assert {id_: text_of(found[id_]) for id_ in made.answered} == made.answered
                assert orphans(service) == []
                waiting = made.lines[-1]["pending"]
                worker = service.spawn("worker")
                try:
                    everything = [id_ for id_, one in found.items() if one["status"] == "queued"]
                    wait_until(
                        lambda: {read(http, id_)["status"] for id_ in everything} == {"completed"},
                        seconds=30,
                        what="the answers of pending questions",
                    )
                    wait_until(
                        lambda: {status_of(http, id_) for id_ in made.files} == {"completed"},
                        seconds=30,
                        what="the pending documents",
                    )
                finally:
                    stop(worker)
                assert len(everything) <= llm.calls() <= waiting
                assert orphans(service) == []
                assert http.get(f"/v1/files/{made.files[0]}/content").text.startswith("The lighthouse of Quorra")
            refused = service.run("restore", str(made.file))
            assert refused.returncode == 1
            assert "in use" in refused.stderr
        finally:
            service.end()


def test_a_backup_tells_its_progress_and_what_is_in_it(made: Made) -> None:
    *steps, end = made.lines
    assert {step["status"] for step in steps} == {"writing"}
    assert {step["part"] for step in steps} >= {"files", "queue", "table-chunks", "table-responses"}
    assert end["status"] == "written"
    assert end["pending"] > 0
    assert end["parts"]["files"]["count"] >= len(made.files)
    assert end["migrations"] == list(read_migrations())
    assert "The backup is not encrypted, since RAGQ_BACKUP_KEY is not set." in made.warnings


def test_a_flipped_byte_is_refused_wherever_it_changes_the_content(made: Made, settings: Settings) -> None:
    """Some bits of gzip mean nothing, or lead to the same bytes by another way: those may be read."""
    whole = made.file.read_bytes()
    content, harmless = gzip.decompress(whole), 0
    for place in range(0, len(whole), len(whole) // FLIPS):
        damaged = flip(whole, place)
        if unzip(damaged) == content:
            harmless += 1
            check(settings, damaged)
            continue
        with pytest.raises(PermanentError):
            check(settings, damaged)
    assert harmless < FLIPS / 4


def test_a_cut_backup_is_refused(made: Made, settings: Settings) -> None:
    whole = made.file.read_bytes()
    for length in (0, 1, len(whole) // 3, len(whole) // 2, len(whole) - 1):
        with pytest.raises(PermanentError):
            check(settings, whole[:length])


def test_a_change_that_gzip_does_not_notice_is_found_by_the_checksum_of_its_part(
    made: Made, settings: Settings
) -> None:
    tar = gzip.decompress(made.file.read_bytes())
    with tarfile.open(fileobj=io.BytesIO(tar)) as members:
        first = {info.name.partition("/")[0]: info for info in members if "/" in info.name}
    assert len(first) > 10
    for part, info in first.items():
        with pytest.raises(PermanentError, match=f"the checksum of {part} is wrong"):
            check(settings, gzip.compress(flip(tar, info.offset_data + info.size // 2), 1))


def test_nothing_is_written_of_a_damaged_backup(made: Made, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.backup"
    damaged.write_bytes(made.file.read_bytes()[:-9])
    done = Ragq(tmp_path / "data").run("restore", str(damaged))
    assert done.returncode == 1
    assert "damaged or cut" in done.stderr
    assert not (tmp_path / "data").exists()


def test_a_killed_restore_leaves_no_server(made: Made, tmp_path: Path) -> None:
    process = Ragq(tmp_path / "data").spawn("restore", str(made.file))
    wait_until(lambda: processes_in(tmp_path / "data"), seconds=60, what="a server of the restore")
    process.kill()
    assert process.wait() == -signal.SIGKILL
    wait_until(lambda: not processes_in(tmp_path / "data"), seconds=60, what="the end of the servers")
    assert not processes_in(tmp_path / "data"), "none has come after it"


def test_verify_tells_a_whole_backup_from_what_is_none(made: Made, settings: Settings, tmp_path: Path) -> None:
    assert Ragq(tmp_path / "data").run("backup", "--verify", str(made.file)).returncode == 0
    (tmp_path / "letter").write_text("Dear reader,\n")
    for name, why in (("letter", "damaged or cut"), ("nothing", "cannot be read")):
        with pytest.raises(PermanentError, match=why):
            verify(settings, functools.partial(open_source, str(tmp_path / name)), ignore)


def test_a_backup_of_a_newer_database_is_refused(made: Made, settings: Settings) -> None:
    tar = io.BytesIO(gzip.decompress(made.file.read_bytes()))
    newer = io.BytesIO()
    with tarfile.open(fileobj=tar) as old, tarfile.open(fileobj=newer, mode="w") as new:
        for info in old:
            content = old.extractfile(info)
            assert content
            data = content.read()
            if info.name == MANIFEST:
                data = data.replace(b'"0001_start.sql"', b'"0001_start.sql", "9999_later.sql"')
                info.size = len(data)
            new.addfile(info, io.BytesIO(data))
    with pytest.raises(PermanentError, match=r"newer than this version's \(9999_later\.sql\)"):
        check(settings, gzip.compress(newer.getvalue(), 1))


def check(settings: Settings, data: bytes) -> None:
    verify(settings, lambda: io.BufferedReader(io.BytesIO(data)), ignore)


def unzip(data: bytes) -> bytes | None:
    """None where gzip itself finds it damaged."""
    try:
        return gzip.decompress(data)
    except (EOFError, OSError, zlib.error):
        return None


def flip(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]


@dataclass
class System:
    """A database and a queue of its own, and a folder for files."""

    settings: Settings
    database: Database
    queue: JobQueue

    async def back_up(self, target: Path | str, **changed: Any) -> None:
        with create(str(target)) as (_, file):
            await back_up(self.settings.model_copy(update=changed), file, ignore)

    async def restore(self, source: Path | str, **changed: Any) -> None:
        settings = self.settings.model_copy(update=changed)
        opener = functools.partial(open_source, str(source))
        await restore(settings, opener, verify(settings, opener, ignore), ignore)


@pytest.fixture
async def systems(
    settings: Settings, valkey: Valkey, database_url: str, tmp_path: Path
) -> AsyncIterator[tuple[System, System]]:
    """A migrated system, and one that nobody has used."""
    with valkey.connect() as connection:
        connection.flushall()
    opened = []
    for name in ("first", "second"):
        with psycopg.connect(database_url, autocommit=True) as server:
            server.execute(f"DROP DATABASE IF EXISTS {name}")
            server.execute(f"CREATE DATABASE {name}")
        url = database_url.replace("/ragq?", f"/{name}?")
        (tmp_path / name).mkdir()
        own = settings.model_copy(
            update={
                "key_prefix": name,
                "database_url": SecretStr(url),
                "valkey_url": SecretStr(valkey.url),
                "data_dir": tmp_path / name,
            }
        )
        opened.append(System(own, await Database.open(own, url, connections=2), JobQueue(own, valkey.url)))
    first, second = opened
    await first.database.migrate(embedding_model=settings.embedding_name)
    yield first, second
    for system in opened:
        await system.queue.close()
        await system.database.close()


async def test_a_restored_queue_keeps_the_order_and_the_time_that_was_left(
    systems: tuple[System, System], valkey: Valkey, tmp_path: Path
) -> None:
    first, second = systems
    for number in range(30):
        await first.queue.enqueue(new_job(f"resp_{number:032x}"))
    [claimed] = (await first.queue.claim("w", [("queries", 1)], in_flight=0)).jobs
    assert claimed.id == f"resp_{0:032x}"
    with valkey.connect() as connection:  # what is no job is passed over
        connection.set("first:job:resp_spoilt", "not a hash")
    await first.back_up(tmp_path / "a.backup")
    await second.restore(tmp_path / "a.backup")
    assert await second.queue.statuses(["resp_spoilt"]) == [None]
    claim = await second.queue.claim("w", [("queries", 100)], in_flight=0)
    assert [job.id for job in claim.jobs] == [f"resp_{number:032x}" for number in range(30)]
    assert claim.jobs[0].attempt == claimed.attempt + 1
    assert abs(claim.jobs[0].deadline - claimed.deadline) < 5


async def test_a_paused_queue_is_still_paused_after_a_restore(systems: tuple[System, System], tmp_path: Path) -> None:
    first, second = systems
    await first.queue.controls.set_paused(QueueName.DOCUMENTS, paused=True)
    await first.back_up(tmp_path / "a.backup")
    await second.restore(tmp_path / "a.backup")
    assert await second.queue.controls.list_paused() == {"documents"}


async def test_an_answer_that_ended_while_the_backup_ran_is_not_asked_again(
    systems: tuple[System, System], tmp_path: Path
) -> None:
    first, second = systems
    for name in ("ended", "deleted", "waits"):
        await first.queue.enqueue(new_job(f"resp_{name}"))
    rows = "INSERT INTO responses (id, tenant_id, created_at, ended_at, job) VALUES ('resp_{}', 'default', now(), now() {}, {})"
    async with (
        first.database.for_all().connection() as connection
    ):  # as they are when PostgreSQL is read, after the queue
        await connection.execute(rows.format("ended", "+ interval '1 minute'", "'{}'"))
        await connection.execute(rows.format("deleted", "- interval '1 year'", "NULL"))
    await first.back_up(tmp_path / "a.backup")
    await second.restore(tmp_path / "a.backup")
    statuses = await second.queue.statuses(["resp_ended", "resp_deleted", "resp_waits"])
    assert statuses == [None, None, JobStatus.QUEUED]


async def test_a_backup_of_an_older_database_is_migrated(systems: tuple[System, System], tmp_path: Path) -> None:
    old, new = systems
    *before, last = read_migrations()
    async with old.database.session() as connection, connection.transaction():
        await connection.execute("DROP SCHEMA public CASCADE")
        await connection.execute("CREATE SCHEMA public")
        await run_migrations(connection, old.settings, only=before)
        await connection.execute("INSERT INTO tenants (id) VALUES ('acme')")
    await old.back_up(tmp_path / "old.backup")
    await new.restore(tmp_path / "old.backup")
    async with new.database.for_all().connection() as connection:
        assert await find_pending(connection) == []
        rows = await (await connection.execute("SELECT id FROM tenants ORDER BY id")).fetchall()
    assert [row[0] for row in rows] == ["acme", "default"]
    assert last not in before


async def test_vectors_of_another_model_are_restored_into_their_column(
    systems: tuple[System, System], tmp_path: Path
) -> None:
    first, second = systems
    changes = [
        "ALTER TABLE chunks DROP COLUMN embedding, ADD COLUMN embedding_2 halfvec(8)",
        "INSERT INTO facts VALUES ('embedding_column', 'embedding_2')",
        """INSERT INTO chunks (vector_store_id, file_id, ordinal, tenant_id, start_offset, end_offset, token_count, text, embedding_2)
           VALUES ('vs_1', 'file-1', 0, 'default', 0, 4, 1, 'text', '[1,2,3,4,5,6,7,0.5]')""",
    ]
    async with first.database.for_all().connection() as connection:
        for change in changes:
            await connection.execute(change)
    await first.back_up(tmp_path / "a.backup")
    await second.restore(tmp_path / "a.backup")
    async with second.database.for_all().connection() as connection:
        rows = await (await connection.execute("SELECT embedding_2::text, text_search FROM chunks")).fetchall()
    assert [row[0] for row in rows] == ["[1,2,3,4,5,6,7,0.5]"]


async def test_an_interrupted_restore_is_run_again_and_nothing_starts_before(
    systems: tuple[System, System], tmp_path: Path
) -> None:
    first, second = systems
    await first.queue.enqueue(new_job("resp_1"))
    await first.back_up(tmp_path / "a.backup")
    with psycopg.connect(second.settings.database_url.get_secret_value()) as other:  # type: ignore[union-attr]
        other.execute("CREATE TABLE files ()")
        other.commit()
    with pytest.raises(psycopg.errors.DuplicateTable):
        await second.restore(tmp_path / "a.backup")
    with psycopg.connect(second.settings.database_url.get_secret_value()) as other:  # type: ignore[union-attr]
        other.execute("DROP TABLE files")
        other.commit()
    with pytest.raises(ConfigurationError, match="restore of this system is not complete"):
        await prepare(second.settings)
    await second.restore(tmp_path / "a.backup")
    await prepare(second.settings)
    assert await second.queue.statuses(["resp_1"]) == [JobStatus.QUEUED]


async def test_a_restore_that_was_cut_off_after_the_commit_is_completed(
    systems: tuple[System, System], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = systems
    await first.queue.enqueue(new_job("resp_1"))
    (tmp_path / "first" / "files").mkdir()
    (tmp_path / "first" / "files" / ("0" * 64)).write_bytes(b"of no file")
    await first.back_up(tmp_path / "a.backup")
    await first.back_up(tmp_path / "b.backup")
    with monkeypatch.context() as broken:
        broken.setattr(QueueBackup, "end", fail)
        with pytest.raises(UnavailableError):
            await second.restore(tmp_path / "a.backup")
    with pytest.raises(ConfigurationError, match="restore of this system is not complete"):
        await prepare(second.settings)
    with pytest.raises(ConfigurationError, match="PostgreSQL has 1 tenants"):
        await second.restore(tmp_path / "b.backup")
    await second.restore(tmp_path / "a.backup")
    await prepare(second.settings)
    assert await second.queue.statuses(["resp_1"]) == [JobStatus.QUEUED]
    assert await BlobStore(second.settings).list_names() == []
    async with second.database.for_all().connection() as connection:
        assert "restored" not in await read_facts(connection)


async def fail(*_: object) -> None:
    raise UnavailableError("Valkey does not answer.")


async def test_only_an_empty_system_is_restored_into(systems: tuple[System, System], tmp_path: Path) -> None:
    first, second = systems
    await first.back_up(tmp_path / "a.backup")
    with pytest.raises(ConfigurationError, match="PostgreSQL has 1 tenants, 0 files, 0 answers"):
        await first.restore(tmp_path / "a.backup")
    await second.queue.enqueue(new_job("resp_1"))
    with pytest.raises(ConfigurationError, match="Valkey has 1 jobs"):
        await second.restore(tmp_path / "a.backup")


async def test_an_encrypted_backup_needs_its_key(systems: tuple[System, System], tmp_path: Path) -> None:
    first, second = systems
    await first.back_up(tmp_path / "a.backup", backup_key=SecretStr(KEY))
    whole = (tmp_path / "a.backup").read_bytes()
    assert whole.startswith(MAGIC)
    with_key = first.settings.model_copy(update={"backup_key": SecretStr(KEY)})
    with pytest.raises(PermanentError, match="is encrypted: set RAGQ_BACKUP_KEY"):
        check(first.settings, whole)
    with pytest.raises(PermanentError, match="RAGQ_BACKUP_KEY is not the key"):
        check(first.settings.model_copy(update={"backup_key": SecretStr(KEY[::-1])}), whole)
    for place in range(len(MAGIC), len(whole), len(whole) // 7):
        with pytest.raises(PermanentError):
            check(with_key, flip(whole, place))
    with pytest.raises(PermanentError):
        check(with_key, whole[:-1])
    await second.restore(tmp_path / "a.backup", backup_key=SecretStr(KEY))
    await first.back_up(tmp_path / "plain.backup")
    with pytest.raises(PermanentError, match="is not encrypted: unset RAGQ_BACKUP_KEY"):
        check(with_key, (tmp_path / "plain.backup").read_bytes())


async def test_an_encrypted_backup_cut_between_two_pieces_is_refused(
    systems: tuple[System, System], tmp_path: Path
) -> None:
    first, _ = systems
    (tmp_path / "first" / "files").mkdir()
    (tmp_path / "first" / "files" / "a").write_bytes(b"".join(n.to_bytes(4, "big") for n in range(1 << 17)))
    await first.back_up(tmp_path / "a.backup", backup_key=SecretStr(KEY))
    with_key = first.settings.model_copy(update={"backup_key": SecretStr(KEY)})
    piece, header = PIECE_BYTES + 16, len(MAGIC) + 16
    whole = (tmp_path / "a.backup").read_bytes()
    assert len(whole) > header + 2 * piece
    with pytest.raises(PermanentError, match="damaged or cut"):
        check(with_key, whole[: header + 2 * piece])
    swapped = whole[:header] + whole[header + piece : header + 2 * piece] + whole[header : header + piece]
    with pytest.raises(PermanentError):
        check(with_key, swapped + whole[header + 2 * piece :])


async def test_a_backup_in_a_bucket_is_named_by_the_time(systems: tuple[System, System], tmp_path: Path) -> None:
    first, second = systems
    (tmp_path / "bucket").mkdir()
    await first.back_up(f"file://{tmp_path}/bucket/")
    [made] = (tmp_path / "bucket").iterdir()
    assert made.name.startswith("ragq-")
    with pytest.raises(PermanentError, match="exists"):
        await first.back_up(f"file://{made}")
    await second.restore(f"file://{made}")


async def test_a_failed_backup_leaves_no_file(systems: tuple[System, System], tmp_path: Path) -> None:
    _, unused = systems
    with pytest.raises(ConfigurationError, match="nothing of ragq"):
        await unused.back_up(tmp_path / "a.backup")
    assert {path.name for path in tmp_path.iterdir()} == {"first", "second"}  # noqa: ASYNC240  (a test)
