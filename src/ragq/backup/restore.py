"""What `ragq restore` does: verify a backup, then write it into an empty Valkey, PostgreSQL and blob store.

PostgreSQL is written in one transaction, after everything else. Valkey has a key that says that a restore is unfinished; the transaction
writes its value into `facts`. A restore that was interrupted before the commit is run again from its beginning, and one that was interrupted
after it has both marks, and is only completed.
"""

from __future__ import annotations

import io
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import groupby
from tempfile import TemporaryFile
from typing import Any

import msgspec
from psycopg import AsyncConnection

from ragq.backup import tables
from ragq.backup.backup import FILES, QUEUE, TABLE, Progress, Report
from ragq.backup.format import BackupReader, Entry, Manifest
from ragq.backup.queue import Key, QueueBackup
from ragq.errors import ConfigurationError
from ragq.settings import Settings
from ragq.storage.audit import list_unowned_bytes
from ragq.storage.blobs import BlobStore
from ragq.storage.database import Database

OpenSource = Callable[[], AbstractContextManager[io.BufferedReader]]


def verify(settings: Settings, open_source: OpenSource, report: Report) -> Manifest:
    """Read a whole backup and compare its checksums.

    Raises:
        PermanentError: It is damaged, cut or of a newer version, or the key is wrong.
    """
    with open_source() as file:
        reader = BackupReader(file, _passphrase(settings))
        counts: dict[str, list[int]] = {}
        for entry in reader.entries():
            seen = counts.setdefault(entry.part, [0, 0])
            seen[0], seen[1] = seen[0] + 1, seen[1] + entry.size
            report(Progress(status="verifying", part=entry.part, count=seen[0], bytes=seen[1]))
        tables.check_known(reader.manifest)
        return reader.manifest


async def restore(settings: Settings, open_source: OpenSource, manifest: Manifest, report: Report) -> None:
    """Restore a backup.

    Args:
        settings: With the addresses of Valkey and PostgreSQL, which no ragq uses.
        manifest: The result of `verify`.

    Raises:
        PermanentError: It changed since it was verified.
        ConfigurationError: The system is not empty; the message says what is there.
        UnavailableError: A server or the blob store does not answer: run it again.
    """
    assert settings.valkey_url
    assert settings.database_url
    queue = QueueBackup(settings.valkey_url.get_secret_value(), settings.key_prefix)
    database = await Database.open(settings, settings.database_url.get_secret_value(), connections=1)
    try:
        run = _Restore(settings, manifest, queue, BlobStore(settings), report)
        if not await run.is_written(database):
            await run.check_empty(database)
            with open_source() as file:
                await run.write(database, BackupReader(file, _passphrase(settings)))
        await run.complete(database)
    finally:
        await database.close()
        await queue.close()


class _Restore:
    def __init__(
        self, settings: Settings, manifest: Manifest, queue: QueueBackup, blobs: BlobStore, report: Report
    ) -> None:
        self._settings = settings
        self._manifest = manifest
        self._queue = queue
        self._blobs = blobs
        self._report = report
        self._source = f"{manifest.about.begun_at!r} "  # with which the marks of this backup's restores begin

    async def is_written(self, database: Database) -> bool:
        """Whether this backup was written here, and only the end of its restore is missing."""
        mark = await self._queue.read_mark()
        if not mark.startswith(self._source):
            return False
        async with database.session() as connection:
            return await tables.read_mark(connection) == mark

    async def check_empty(self, database: Database) -> None:
        """Refuse a system with data; that of a restore that was interrupted may be there."""
        await database.check_suitable()
        async with database.session() as connection:
            found = {"PostgreSQL": await tables.describe_rows(connection)}
        found["Valkey"] = await self._queue.describe()
        if not await self._queue.read_mark():
            count = len(await self._blobs.list_names())
            found["the blob store"] = f"{count} files" if count else ""
        if there := "; ".join(f"{where} has {what}" for where, what in found.items() if what):
            raise ConfigurationError(
                f"A backup is restored into an empty system, and this one is not: {there}. Name another data folder, or an "
                "empty database, an empty Valkey and an empty blob store."
            )

    async def write(self, database: Database, reader: BackupReader) -> None:
        """Write everything; PostgreSQL's transaction, which is the last, has the mark of this run."""
        mark = self._source + secrets.token_hex(8)
        await self._queue.begin(mark)
        async with database.session() as connection, connection.transaction():
            await tables.prepare(connection, self._settings, self._manifest)
            for part, entries in groupby(reader.entries(), key=lambda entry: entry.part):
                await self._write(connection, part, entries)
            await tables.finish(connection, self._settings, self._manifest)
            ended, deleted = await tables.find_ended(connection, self._manifest.queue_time_ms)
            await self._queue.finish(
                later_ms=await self._queue.now_ms() - self._manifest.queue_time_ms,
                ttl_seconds=self._settings.result_ttl_seconds,
                ended=ended,
                deleted=deleted,
            )
            await tables.write_mark(connection, mark)

    async def complete(self, database: Database) -> None:
        """Do what comes after PostgreSQL's commit, and let processes start. It may be done again."""
        # Files that came, or were deleted, around PostgreSQL's snapshot.
        for name in await list_unowned_bytes(database, self._blobs):
            await self._blobs.delete(name)
        async with database.session() as connection:
            await connection.execute("SET statement_timeout = 0")
            await connection.execute("ANALYZE")
            await self._queue.end()
            await tables.delete_mark(connection)

    async def _write(self, connection: AsyncConnection[Any], part: str, entries: Iterator[Entry]) -> None:
        counted = self._counted(part, entries)
        if part == FILES:
            for entry in counted:
                await self._write_file(entry)
        elif part == QUEUE:
            for entry in counted:
                await self._queue.write(msgspec.msgpack.decode(entry.file.read(), type=list[Key]))
        else:
            name = part.removeprefix(TABLE)
            await tables.copy_in(connection, name, self._manifest.tables[name], (e.file.read() for e in counted))

    async def _write_file(self, entry: Entry) -> None:
        with TemporaryFile() as copy:  # the blob store's client seeks
            shutil.copyfileobj(entry.file, copy)
            copy.seek(0)
            await self._blobs.put(entry.name, copy)

    def _counted(self, part: str, entries: Iterator[Entry]) -> Iterator[Entry]:
        done = size = 0
        for entry in entries:
            yield entry
            done, size = done + 1, size + entry.size
            self._report(Progress(status="restoring", part=part, count=done, bytes=size))


def _passphrase(settings: Settings) -> str | None:
    return settings.backup_key.get_secret_value() if settings.backup_key else None
