"""Uploaded bytes, kept under the SHA-256 of their content: a folder, S3, GCS or Azure by URL."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import BinaryIO

import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import LocalStore, from_url

from ragq.errors import ConfigurationError, UnavailableError
from ragq.settings import Settings


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (NotFoundError, FileNotFoundError) as error:  # obstore raises the one or the other
        raise UnavailableError(
            "The file's bytes are not in the blob store.", detail=error, code="blob_missing"
        ) from error
    except (BaseError, OSError) as error:
        raise UnavailableError(
            "The blob store does not answer. Try again later; the log says why.", detail=error, code="blobs_unavailable"
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
            what = "RAGQ_BLOB_URL" if url else "RAGQ_DATA_DIR (for want of RAGQ_BLOB_URL)"
            raise ConfigurationError(f"{what} names no place where files can be stored.", detail=error) from error

    async def put(self, name: str, file: BinaryIO) -> None:
        """Store an open file's bytes; a name that exists is written again with the same bytes."""
        with _translated():
            await obstore.put_async(self._store, name, file)

    async def delete(self, name: str) -> None:
        """Delete bytes; unknown names are no error."""
        with _translated(), contextlib.suppress(NotFoundError, FileNotFoundError):
            await obstore.delete_async(self._store, name)

    async def exists(self, name: str) -> bool:
        """Whether there are bytes of this name."""
        with _translated():
            try:
                await obstore.head_async(self._store, name)
            except (NotFoundError, FileNotFoundError):
                return False
        return True

    async def list_names(self) -> list[str]:
        """List the names of all bytes."""

        def read() -> list[str]:  # in a thread: obstore's own asynchronous listing aborts the process at its exit
            return [entry["path"] for page in obstore.list(self._store) for entry in page]

        with _translated():
            return await asyncio.to_thread(read)

    async def stream(self, name: str) -> AsyncIterator[bytes]:
        """Yield the bytes in pieces of about 1 MB."""
        with _translated():
            result = await obstore.get_async(self._store, name)
            async for piece in result.stream(min_chunk_size=1 << 20):
                yield bytes(piece)

    @contextlib.asynccontextmanager
    async def as_file(self, name: str) -> AsyncIterator[Path]:
        """Give the bytes as a temporary file, deleted at the end."""
        with tempfile.NamedTemporaryFile(prefix="ragq-") as file:
            async for piece in self.stream(name):
                file.write(piece)
            file.flush()
            yield Path(file.name)
