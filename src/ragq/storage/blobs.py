"""Uploaded bytes, kept under the SHA-256 of their content: a folder, S3, GCS or Azure by URL."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import LocalStore, from_url

from ragq.errors import ConfigurationError, UnavailableError
from ragq.settings import Settings

_PART = "#"  # LocalStore writes to `<name>#<number>`, and renames the file when it is complete


@contextlib.contextmanager
def _translate_errors() -> Iterator[None]:
    try:
        yield
    except (NotFoundError, FileNotFoundError) as error:  # obstore raises either
        raise UnavailableError(
            "The file's bytes are not in the blob store.", detail=error, code="blob_missing"
        ) from error
    except (BaseError, OSError) as error:
        raise UnavailableError(
            "The blob store does not answer. Try again later; the log has the reason.",
            detail=error,
            code="blobs_unavailable",
        ) from error


class BlobStore:
    """Bytes by name."""

    def __init__(self, settings: Settings) -> None:
        url = settings.blob_url
        try:
            if url:
                self._store = from_url(url, mkdir=True) if url.startswith("file:") else from_url(url)
            else:
                self._store = LocalStore(settings.data_dir.resolve() / "files", mkdir=True)
        except (BaseError, ValueError, OSError) as error:
            what = "RAGQ_BLOB_URL" if url else "RAGQ_DATA_DIR (RAGQ_BLOB_URL is not set)"
            raise ConfigurationError(f"{what} is not a place where files can be stored.", detail=error) from error

    async def put(self, name: str, file: BinaryIO) -> None:
        """Store an open file's bytes; an existing name is overwritten with the same bytes.

        In a folder, the bytes are synced to disk before this returns, since accepted objects refer to them.
        """
        with _translate_errors():
            await obstore.put_async(self._store, name, file)
            if isinstance(self._store, LocalStore) and self._store.prefix:
                await asyncio.to_thread(_sync, Path(self._store.prefix), name)

    async def delete(self, name: str) -> None:
        """Delete bytes; an unknown name is not an error."""
        with _translate_errors(), contextlib.suppress(NotFoundError, FileNotFoundError):
            await obstore.delete_async(self._store, name)

    async def exists(self, name: str) -> bool:
        with _translate_errors():
            try:
                await obstore.head_async(self._store, name)
            except (NotFoundError, FileNotFoundError):
                return False
        return True

    async def list_names(self) -> list[str]:
        """List the names of all bytes."""

        def read() -> list[str]:  # in a thread: obstore's asynchronous listing aborts the process at exit
            return [entry["path"] for page in obstore.list(self._store) for entry in page]

        with _translate_errors():
            return await asyncio.to_thread(read)

    async def list_older(self, folder: str, seconds: float) -> list[str]:
        """List names in a folder of the store that were written longer ago."""
        limit = datetime.now(UTC) - timedelta(seconds=seconds)

        def read() -> list[str]:
            entries = (entry for page in obstore.list(self._store, folder) for entry in page)
            return [entry["path"] for entry in entries if entry["last_modified"] < limit]

        with _translate_errors():
            return await asyncio.to_thread(read)

    async def stream(self, name: str) -> AsyncIterator[bytes]:
        """Yield the bytes in pieces of about 1 MB."""
        with _translate_errors():
            result = await obstore.get_async(self._store, name)
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
        if not isinstance(self._store, LocalStore) or self._store.prefix is None:
            return set()
        return {part.name.partition(_PART)[0] for part in await asyncio.to_thread(_list_parts, self._store.prefix)}

    async def delete_unfinished(self, name: str) -> None:
        """Delete the partial files of these bytes; the caller holds their lock, so that no process is writing them."""
        if isinstance(self._store, LocalStore) and self._store.prefix is not None:
            for part in await asyncio.to_thread(_list_parts, self._store.prefix):
                if part.name.startswith(name + _PART):
                    part.unlink(missing_ok=True)

    async def delete_old_parts(self, folder: str, seconds: float) -> None:
        """Delete partial files in a folder of the store that were last written longer ago."""

        def delete(path: Path) -> None:
            for part in _list_parts(path) if path.is_dir() else ():
                with contextlib.suppress(FileNotFoundError):  # complete by now, or deleted by another process
                    if part.stat().st_mtime < time.time() - seconds:
                        part.unlink()

        if isinstance(self._store, LocalStore) and self._store.prefix is not None:
            with _translate_errors():
                await asyncio.to_thread(delete, Path(self._store.prefix, folder))


def _list_parts(folder: Path) -> list[Path]:
    return [entry for entry in Path(folder).iterdir() if _PART in entry.name]


def _sync(folder: Path, name: str) -> None:
    """Sync a file, its name and the name of its folder (it may be new), so that a power cut cannot undo them."""
    for one in (folder / name, *(folder / parent for parent in Path(name).parents)):
        descriptor = os.open(one, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
