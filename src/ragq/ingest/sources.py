"""What a source of documents is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import PurePosixPath
from typing import BinaryIO, Protocol

from ragq.parsing.terms import REFUSED_EXTENSIONS


@dataclass(frozen=True, slots=True)
class Item:
    """A document of a source.

    Attributes:
        name: Its name in the store.
        bytes: Its size; None if that is not known before it is read.
        modified: When it changed last, in microseconds since 1970; None if the source does not say.
        key: What the source finds it by.
    """

    name: str
    bytes: int | None
    modified: int | None
    key: str


class Source(Protocol):
    """A folder, a bucket or a website.

    Attributes:
        prefix: What the names of its documents begin with, and no others; empty if nothing of it can vanish.
        is_complete: Whether the last listing left nothing out for a limit; if it did, nothing can be said to have vanished.
    """

    prefix: str
    is_complete: bool

    def takes(self, name: str) -> bool:
        """Whether a document of this name, which begins with the prefix, would be listed if it were there."""

    def list_items(self) -> AsyncIterator[Item]:
        """List the documents, without reading them.

        Raises:
            PermanentError: The source cannot be listed; the message gives the reason.
        """

    def open(self, item: Item) -> AbstractAsyncContextManager[BinaryIO]:
        """Open a document's bytes.

        Raises:
            PermanentError: It cannot be read; the message gives the reason.
        """


@dataclass(frozen=True, slots=True)
class Choice:
    """Which documents of a source are wanted: patterns such as `*.pdf` or `reports/*`, of a name or a path."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def takes(self, path: str) -> bool:
        """Whether a path, relative to its source, is wanted. Hidden files and what is never read are not."""
        parts = PurePosixPath(path).parts
        if any(part.startswith(".") for part in parts) or PurePosixPath(path).suffix.lower() in REFUSED_EXTENSIONS:
            return False
        return (not self.include or _matches(path, self.include)) and not _matches(path, self.exclude)


def _matches(path: str, patterns: tuple[str, ...]) -> bool:
    parents = [str(parent) for parent in PurePosixPath(path).parents][:-1]
    named = [path, *parents, *PurePosixPath(path).parts]
    return any(fnmatch(name, pattern.rstrip("/")) for pattern in patterns for name in named)
