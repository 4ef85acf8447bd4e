"""Where backups lie: a file, or an object of a bucket (`s3://`, `gs://`, `az://`)."""

from __future__ import annotations

import contextlib
import io
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import obstore
from obstore.exceptions import BaseError
from obstore.store import from_url

from ragq.errors import PermanentError

if TYPE_CHECKING:
    from obstore import ReadableFile

BUFFER_BYTES = 10 << 20  # also the size of the parts in which a bucket gets an object


@contextlib.contextmanager
def create(target: str) -> Iterator[tuple[str, BinaryIO]]:
    """Write a new backup; gives its name and the file. It gets its name only if the block ends without an error.

    Args:
        target: A file that does not exist, a folder, or a URL. With a folder, or a `/` at its end, it gets a name with the time.

    Raises:
        PermanentError: It exists, or it cannot be written.
    """
    if target.endswith("/") or ("://" not in target and Path(target).is_dir()):
        target = f"{target.rstrip('/')}/ragq-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.backup"
    with _explain(target, "written"):
        yield from _create_object(target) if "://" in target else _create_file(Path(target))


def _create_object(url: str) -> Iterator[tuple[str, BinaryIO]]:
    folder, _, name = url.rpartition("/")
    store = from_url(folder)
    with contextlib.suppress(FileNotFoundError):
        obstore.head(store, name)
        raise PermanentError(f"{url} exists: choose another name.")
    writer = obstore.open_writer(store, name, buffer_size=BUFFER_BYTES)
    yield url, cast("BinaryIO", writer)
    writer.close()  # not after an error: it would make the object of what is there


def _create_file(path: Path) -> Iterator[tuple[str, BinaryIO]]:
    if path.exists():
        raise PermanentError(f"{path} exists: choose another name.")
    partial = path.with_name(f"{path.name}.part")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield str(path), file
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def open_source(source: str) -> Iterator[io.BufferedReader]:
    """Read a backup.

    Raises:
        PermanentError: It is not there, or it cannot be read.
    """
    with _explain(source, "read"):
        if "://" not in source:
            with Path(source).open("rb") as file:
                yield file
            return
        folder, _, name = source.rpartition("/")
        yield io.BufferedReader(_Object(obstore.open_reader(from_url(folder), name, buffer_size=BUFFER_BYTES)), 1 << 16)


class _Object(io.RawIOBase):
    """An object of a bucket as the `io` module wants a file."""

    def __init__(self, file: ReadableFile) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # any buffer of bytes
        data = self._file.read(len(buffer))
        buffer[: len(data)] = bytes(data)
        return len(data)


@contextlib.contextmanager
def _explain(place: str, what: str) -> Iterator[None]:
    try:
        yield
    except (BaseError, OSError) as error:
        raise PermanentError(f"{place} cannot be {what}.", detail=error) from error
