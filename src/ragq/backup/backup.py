"""What `ragq backup` does. The order makes a restore whole: files, the queue, PostgreSQL, and the files that came meanwhile.

A job that ends after the queue was read is in the archive of answers that PostgreSQL then shows. A file that a row of PostgreSQL names was
written before the row.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from tempfile import TemporaryFile
from typing import BinaryIO, Literal

import msgspec

import ragq
from ragq.backup import tables
from ragq.backup.format import FORMAT, About, BackupWriter, Manifest
from ragq.backup.queue import UNFINISHED, Key, QueueBackup
from ragq.client.valkey_client import pairs
from ragq.errors import ConfigurationError, UnavailableError
from ragq.settings import Settings
from ragq.storage.blobs import BlobStore
from ragq.storage.database import Database, find_done
from ragq.storage.search.vector_column import read_facts

QUEUE, FILES, TABLE = "queue", "files", "table-"


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """A step of a backup or a restore.

    Attributes:
        part: `files`, `queue` or `table-NAME`; the backup's name at the end.
        count: Files, keys or rows so far.
        bytes: Bytes of them so far.
    """

    status: Literal["writing", "verifying", "restoring", "written", "verified", "restored"]
    part: str
    count: int = 0
    bytes: int = 0


Report = Callable[[Progress], None]


async def back_up(settings: Settings, file: BinaryIO, report: Report) -> Manifest:
    """Write a backup of a running system.

    Args:
        settings: With the addresses of Valkey and PostgreSQL.

    Raises:
        UnavailableError: A server or the blob store does not answer.
        ConfigurationError: The database has not been used by ragq.
    """
    assert settings.valkey_url
    assert settings.database_url
    key = settings.backup_key
    writer = BackupWriter(file, About(FORMAT, ragq.__version__, time.time()), key.get_secret_value() if key else None)
    queue = QueueBackup(settings.valkey_url.get_secret_value(), settings.key_prefix)
    database = await Database.open(settings, settings.database_url.get_secret_value(), connections=1)
    try:
        return await _Backup(settings, writer, queue, report).run(database)
    finally:
        await database.close()
        await queue.close()


class _Backup:
    def __init__(self, settings: Settings, writer: BackupWriter, queue: QueueBackup, report: Report) -> None:
        self._settings = settings
        self._writer = writer
        self._queue = queue
        self._report = report
        self._blobs = BlobStore(settings)
        self._written = set[str]()
        self._pending: dict[bytes, bool] = {}

    async def run(self, database: Database) -> Manifest:
        await self._write_files()
        queue_time_ms = await self._queue.now_ms()
        await self._write_queue()
        async with database.session() as connection:
            await tables.begin_snapshot(connection)
            if not (migrations := await find_done(connection)):
                raise ConfigurationError("The database has nothing of ragq: is RAGQ_DATABASE_URL right?")
            found = await tables.read_tables(connection)
            for name, table in found.items():
                await self._write_table(tables.copy_out(connection, name, table), f"{TABLE}{name}")
            facts = await read_facts(connection)
            version = connection.info.parameter_status("server_version") or ""
        await self._write_files()
        manifest = Manifest(
            about=self._writer.about,
            ended_at=time.time(),
            key_prefix=self._settings.key_prefix,
            queue_time_ms=queue_time_ms,
            pending=sum(self._pending.values()),
            postgresql=version,
            migrations=migrations,
            facts=facts,
            tables=found,
            parts=self._writer.parts,
        )
        self._writer.finish(manifest)
        return manifest

    async def _write_files(self) -> None:
        """Write the blob store's bytes that are not in the backup yet. What is deleted meanwhile is passed over."""
        for name in await self._blobs.list_names():
            if name not in self._written:
                await self._write_file(name)
                self._written.add(name)

    async def _write_file(self, name: str) -> None:
        with TemporaryFile() as copy:
            try:
                async for piece in self._blobs.stream(name):
                    copy.write(piece)
            except UnavailableError as error:
                if error.code != "blob_missing":
                    raise
                return
            size = copy.tell()
            copy.seek(0)
            self._writer.add_file(FILES, name, size, copy)
        self._tell(FILES)

    async def _write_queue(self) -> None:
        number = 0
        async for keys in self._queue.read():
            for key in keys:
                self._note(key)
            self._writer.add(QUEUE, f"{number:06}", msgspec.msgpack.encode(keys), count=len(keys))
            self._tell(QUEUE)
            number += 1

    def _note(self, key: Key) -> None:
        if key.name.startswith(b"job:"):
            self._pending[key.name] = pairs(key.value).get(b"status") in UNFINISHED

    async def _write_table(self, pieces: AsyncIterator[tuple[bytes, int]], part: str) -> None:
        number = 0
        async for piece, rows in pieces:
            self._writer.add(part, f"{number:06}", piece, count=rows)
            self._tell(part)
            number += 1

    def _tell(self, part: str) -> None:
        kept = self._writer.parts[part]
        self._report(Progress(status="writing", part=part, count=kept.count, bytes=kept.bytes))
