"""Files and folders of this machine."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO

from ragq.errors import ConfigurationError, PermanentError
from ragq.ingest.sources import Choice, Item


class FolderSource:
    """A folder with those in it, or one file."""

    def __init__(self, path: Path, choice: Choice) -> None:
        if not path.exists():
            raise ConfigurationError(
                f"There is no {path}. Name files, folders, or URLs: https://, s3://, gs://, az://."
            )
        self.path = path.resolve()
        self.prefix = f"{self.path.name}/" if self.path.is_dir() else ""
        self.is_complete = True
        self._choice = choice

    def takes(self, name: str) -> bool:
        return self._choice.takes(name.removeprefix(self.prefix))

    async def list_items(self) -> AsyncIterator[Item]:
        """List the files by path; an empty file holds nothing, and is left out."""
        for path in self._walk() if self.path.is_dir() else [self.path]:
            name = path.relative_to(self.path.parent).as_posix()
            try:
                found = path.stat()
            except FileNotFoundError:
                continue  # it has just gone
            except OSError:
                yield Item(name, None, None, str(path))  # opening it will fail, with the reason
                continue
            if stat.S_ISREG(found.st_mode) and found.st_size:
                yield Item(name, found.st_size, found.st_mtime_ns // 1000, str(path))

    def _walk(self) -> Iterator[Path]:
        for folder, folders, names in os.walk(self.path, onerror=_refuse):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(names):
                path = Path(folder, name)
                if self._choice.takes(path.relative_to(self.path).as_posix()):
                    yield path

    @asynccontextmanager
    async def open(self, item: Item) -> AsyncIterator[BinaryIO]:
        """Open a file."""
        try:
            file = Path(item.key).open("rb")  # noqa: ASYNC230, SIM115  (a local file; closed below)
        except OSError as error:
            raise PermanentError(f"It cannot be read: {error.strerror}.") from error
        with file:
            yield file


def _refuse(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):  # it has just gone
        raise PermanentError(f"The folder {error.filename} cannot be listed: {error.strerror}.") from error
