"""Uploaded bytes, kept under the SHA-256 of their content: a folder, S3, GCS or Azure by URL."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ragq.errors import ConfigurationError, UnavailableError
from ragq.settings import Settings

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_PART = "#"  # LocalStore writes to `<name>#<number>`, and renames the file when it is complete


class _MissingError(UnavailableError):
    """The bytes are not there."""


@contextlib.contextmanager
def _translate_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        from obstore.exceptions import BaseError, NotFoundError  # noqa: PLC0415  (only the processes that need it pay for it)

        if isinstance(error, NotFoundError | FileNotFoundError):  # obstore raises either
            raise _MissingError(
                "The file's bytes are not in the blob store.", detail=error, code="blob_missing"
            ) from error
        if isinstance(error, BaseError | OSError):
            raise UnavailableError(
                "The blob store does not answer. Try again later; the log has the reason.",
                detail=error,
                code="blobs_unavailable",
            ) from error
        raise


class BlobStore:
    """Bytes by name.

    obstore takes 7 MB of the first process and 1.4 of each other, which import it to read or write bytes. The housekeeping
    looks into a folder without it, so that an idle process does not need it.
    """

    def __init__(self, settings: Settings) -> None:
        url = settings.blob_url
        if url:
            self._store = _open_url(url)
            self._folder: Path | None = getattr(self._store, "prefix", None) if url.startswith("file:") else None
        else:
            self._folder = settings.data_dir.resolve() / "files"
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise _not_a_place("RAGQ_DATA_DIR (RAGQ_BLOB_URL is not set)", error) from error

    @cached_property
    def _store(self) -> ObjectStore:
        from obstore.store import LocalStore  # noqa: PLC0415  (only the processes that need it pay for it)

        return LocalStore(self._folder, mkdir=True)

    async def put(self, name: str, file: BinaryIO) -> None:
        """Store an open file's bytes; an existing name is overwritten with the same bytes.

        In a folder, the bytes are synced to disk before this returns, since accepted objects refer to them.
        """
        with _translate_errors():
            await self._store.put_async(name, file)
            if self._folder:
                await asyncio.to_thread(_sync, self._folder, name)

    async def delete(self, name: str) -> None:
        """Delete bytes; an unknown name is not an error."""
        with contextlib.suppress(_MissingError), _translate_errors():
            await self._store.delete_async(name)

    async def exists(self, name: str) -> bool:
        try:
            with _translate_errors():
                await self._store.head_async(name)
        except _MissingError:
            return False
        return True

    async def list_names(self) -> list[str]:
        """List the names of all bytes."""

        def read() -> list[str]:  # in a thread: obstore's asynchronous listing aborts the process at exit
            return [entry["path"] for page in self._store.list() for entry in page]

        with _translate_errors():
            return await asyncio.to_thread(read)

    async def list_older(self, folder: str, seconds: float) -> list[str]:
        """List names in a folder of the store that were written longer ago."""
        limit = datetime.now(UTC) - timedelta(seconds=seconds)

        def read() -> list[str]:
            if self._folder:
                return list(_list_older(self._folder, folder, limit.timestamp()))
            entries = (entry for page in self._store.list(folder) for entry in page)
            return [entry["path"] for entry in entries if entry["last_modified"] < limit]

        with _translate_errors():
            return await asyncio.to_thread(read)

    async def stream(self, name: str) -> AsyncIterator[bytes]:
        """Yield the bytes in pieces of about 1 MB."""
        with _translate_errors():
            result = await self._store.get_async(name)
            async for piece in result.stream(min_chunk_size=1 << 20):
                yield bytes(piece)

    @contextlib.asynccontextmanager
    async def as_file(self, name: str) -> AsyncIterator[Path]:
        """Copy the bytes to an unnamed temporary file, which the OS deletes even if this process is killed."""
        with tempfile.TemporaryFile() as file:
            async for piece in self.stream(name):
                with _translate_errors():
                    file.write(piece)
            with _translate_errors():
                file.seek(0)
            yield Path(f"/dev/fd/{file.fileno()}")

    async def list_unfinished(self) -> set[str]:
        """List names with partial files in the folder, left by a killed process or being written now."""
        if not self._folder:
            return set()
        return {part.name.partition(_PART)[0] for part in await asyncio.to_thread(_list_parts, self._folder)}

    async def delete_unfinished(self, name: str) -> None:
        """Delete the partial files of these bytes; the caller holds their lock, so that no process is writing them."""
        if self._folder:
            for part in await asyncio.to_thread(_list_parts, self._folder):
                if part.name.startswith(name + _PART):
                    part.unlink(missing_ok=True)

    async def delete_old_parts(self, folder: str, seconds: float) -> None:
        """Delete partial files in a folder of the store that were last written longer ago."""

        def delete(path: Path) -> None:
            for part in _list_parts(path) if path.is_dir() else ():
                with contextlib.suppress(FileNotFoundError):  # complete by now, or deleted by another process
                    if part.stat().st_mtime < time.time() - seconds:
                        part.unlink()

        if self._folder:
            with _translate_errors():
                await asyncio.to_thread(delete, self._folder / folder)


def _open_url(url: str) -> ObjectStore:
    from obstore.exceptions import BaseError  # noqa: PLC0415  (only the processes that need it pay for it)
    from obstore.store import from_url  # noqa: PLC0415

    try:
        return from_url(url, mkdir=True) if url.startswith("file:") else from_url(url)
    except (BaseError, ValueError, OSError) as error:
        raise _not_a_place("RAGQ_BLOB_URL", error) from error


def _not_a_place(setting: str, error: Exception) -> ConfigurationError:
    return ConfigurationError(f"{setting} is not a place where files can be stored.", detail=error)


def _list_parts(folder: Path) -> list[Path]:
    return [entry for entry in folder.iterdir() if _PART in entry.name]


def _list_older(root: Path, folder: str, limit: float) -> Iterator[str]:
    """List names of complete files in a folder of the store, as obstore does."""
    for path in (root / folder).rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # complete by now, or deleted by another process
            if _PART not in path.name and path.is_file() and path.stat().st_mtime < limit:
                yield path.relative_to(root).as_posix()


def _sync(folder: Path, name: str) -> None:
    """Sync a file, its name and the name of its folder (it may be new), so that a power cut cannot undo them."""
    for one in (folder / name, *(folder / parent for parent in Path(name).parents)):
        descriptor = os.open(one, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
