"""Objects of a bucket: s3://, gs:// and az:// URLs, with the credentials that the cloud's own tools use."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import BinaryIO

import obstore
from obstore.exceptions import BaseError
from obstore.store import from_url

from ragq.errors import ConfigurationError, PermanentError
from ragq.ingest.sources import Choice, Item

SCHEMES = ("s3://", "gs://", "az://", "azure://", "abfs://", "file://")


class BucketSource:
    """What a bucket holds below the path of its URL."""

    def __init__(self, url: str, choice: Choice) -> None:
        self.prefix = url.rstrip("/") + "/"
        self.is_complete = True
        self._choice = choice
        try:
            self._store = from_url(url)
        except (BaseError, ValueError, OSError) as error:
            raise ConfigurationError(f"{url} is no bucket that can be opened: {error}") from error

    def takes(self, name: str) -> bool:
        return self._choice.takes(name.removeprefix(self.prefix))

    async def list_items(self) -> AsyncIterator[Item]:
        """List the objects."""
        try:
            async for some in obstore.list(self._store):
                for found in some:
                    path = found["path"]
                    if found["size"] and self._choice.takes(path):
                        modified = int(found["last_modified"].timestamp() * 1_000_000)
                        yield Item(self.prefix + path, found["size"], modified, path)
        except BaseError as error:
            raise PermanentError(f"{self.prefix} cannot be listed: {error}") from error

    @asynccontextmanager
    async def open(self, item: Item) -> AsyncIterator[BinaryIO]:
        """Download an object."""
        try:
            found = await obstore.get_async(self._store, item.key)
            yield io.BytesIO(bytes(await found.bytes_async()))
        except BaseError as error:
            raise PermanentError(f"It cannot be read: {error}") from error
