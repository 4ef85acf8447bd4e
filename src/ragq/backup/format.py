"""The backup of a backup: a tar file in gzip, perhaps encrypted, whose last entry is the manifest.

Each entry is `PART/NAME`; a part is `queue`, `files` or `table-NAME`. The manifest has the SHA-256 of each part over the names, lengths and contents of its entries in their order.
A backup without its manifest is not complete.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, cast

import msgspec

from ragq.backup.encryption import MAGIC, DecryptingReader, EncryptingWriter
from ragq.errors import PermanentError, RagqError

FORMAT = 1
ABOUT, MANIFEST = "about.json", "manifest.json"
COMPRESSION = 1  # half of the CPU of the default, and 10 % more bytes
READ_BYTES = 1 << 20
BROKEN = (tarfile.TarError, zlib.error, EOFError, OSError, ValueError, msgspec.MsgspecError)  # of a damaged backup
DAMAGED = "The backup is damaged or cut"


class About(msgspec.Struct, frozen=True):
    """What made a backup; its first entry.

    Attributes:
        begun_at: Seconds since 1970.
    """

    format: int
    ragq: str
    begun_at: float


class Part(msgspec.Struct, kw_only=True):
    """What a backup has of one part.

    Attributes:
        count: Rows of a table, keys of the queue, or files.
    """

    entries: int = 0
    bytes: int = 0
    count: int = 0
    sha256: str = ""


class Table(msgspec.Struct, frozen=True):
    """Columns of a table of PostgreSQL, by name, with their types."""

    columns: dict[str, str]


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup contains; its last entry.

    Attributes:
        queue_time_ms: Time of Valkey's clock at which the queue was read, ms since 1970.
        migrations: Those that had run on the database.
        tables: By name, each after those that it refers to.
        pending: Jobs that had not ended.
    """

    about: About
    ended_at: float
    key_prefix: str
    queue_time_ms: int
    pending: int
    postgresql: str
    migrations: list[str]
    facts: dict[str, str]
    tables: dict[str, Table]
    parts: dict[str, Part]

    def count(self, part: str) -> int:
        return self.parts[part].count if part in self.parts else 0


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry while it is read; `file` has its bytes until the next entry is asked for."""

    part: str
    name: str
    size: int
    file: BinaryIO


class BackupWriter:
    """Writes a backup; bounded memory, no seeks. Without `finish` it is not complete."""

    def __init__(self, file: BinaryIO, about: About, passphrase: str | None) -> None:
        self.about = about
        self.parts: dict[str, Part] = {}
        self._digests: dict[str, hashlib._Hash] = {}
        self._encrypted = EncryptingWriter(file, passphrase) if passphrase else None
        inner = cast("BinaryIO", self._encrypted or file)
        self._gzip = gzip.GzipFile("", "wb", COMPRESSION, inner, mtime=0)
        self._tar = tarfile.TarFile(mode="w", fileobj=self._gzip, format=tarfile.GNU_FORMAT)
        self._add(ABOUT, msgspec.json.encode(about))

    def add(self, part: str, name: str, data: bytes, *, count: int = 0) -> None:
        """Add an entry; `count` of its rows or keys."""
        self.add_file(part, name, len(data), io.BytesIO(data), count=count)

    def add_file(self, part: str, name: str, size: int, file: BinaryIO, *, count: int = 1) -> None:
        """Add an entry of so many bytes from a file."""
        kept = self.parts.setdefault(part, Part())
        digest = self._digests.setdefault(part, hashlib.sha256())
        kept.entries, kept.bytes, kept.count = kept.entries + 1, kept.bytes + size, kept.count + count
        digest.update(_frame(name, size))
        self._add_file(f"{part}/{name}", size, _Hashed(file, digest))

    def finish(self, manifest: Manifest) -> None:
        """Add the manifest, with the parts' checksums, and end the backup; the file stays open."""
        for part, digest in self._digests.items():
            self.parts[part].sha256 = digest.hexdigest()
        self._add(MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)))
        self._tar.close()
        self._gzip.close()
        if self._encrypted:
            self._encrypted.close()

    def _add(self, path: str, data: bytes) -> None:
        self._add_file(path, len(data), io.BytesIO(data))

    def _add_file(self, path: str, size: int, file: BinaryIO | _Hashed) -> None:
        entry = tarfile.TarInfo(path)
        entry.size, entry.mtime, entry.mode = size, int(self.about.begun_at), 0o600
        self._tar.addfile(entry, cast("BinaryIO", file))
        self._tar.members = []  # type: ignore[attr-defined]  # or it remembers each


class BackupReader:
    """Reads a backup once, from its beginning to its end."""

    def __init__(self, file: io.BufferedReader, passphrase: str | None) -> None:
        self._file = file
        self._passphrase = passphrase
        self._manifest: Manifest | None = None

    @property
    def manifest(self) -> Manifest:
        """What the backup contains; after all `entries` have been read."""
        assert self._manifest
        return self._manifest

    def entries(self) -> Iterator[Entry]:
        """Yield the entries. What the caller leaves of one is read, too, since the checksums are compared at the end.

        Raises:
            PermanentError: It is not a backup that this version reads, the key is wrong, or it is damaged.
        """
        digests: dict[str, hashlib._Hash] = {}
        with _explain_damage():
            file = self._decrypted()
            with gzip.GzipFile(fileobj=file) as unzipped, tarfile.open(mode="r|", fileobj=unzipped) as tar:
                _check_about(tar)
                for info, content in _members(tar):
                    if info.name == MANIFEST:
                        self._manifest = msgspec.json.decode(content.read(), type=Manifest)
                        continue
                    part, _, name = info.name.partition("/")
                    hashed = _Hashed(content, digests.setdefault(part, hashlib.sha256()))
                    hashed.digest.update(_frame(name, info.size))
                    yield Entry(part, name, info.size, cast("BinaryIO", hashed))
                    hashed.drain()
                while unzipped.read(READ_BYTES):  # to the checksum of gzip
                    pass
            self._compare(digests)

    def _decrypted(self) -> BinaryIO:
        if self._file.peek(len(MAGIC))[: len(MAGIC)] != MAGIC:
            if self._passphrase is not None:  # it may have been put in the place of one that was
                raise PermanentError("The backup is not encrypted: unset RAGQ_BACKUP_KEY to read it all the same.")
            return self._file
        if self._passphrase is None:
            raise PermanentError("The backup is encrypted: set RAGQ_BACKUP_KEY to the key that it was made with.")
        return io.BufferedReader(DecryptingReader(self._file, self._passphrase), READ_BYTES)

    def _compare(self, digests: dict[str, hashlib._Hash]) -> None:
        if self._manifest is None:
            raise PermanentError(f"{DAMAGED}: it has no manifest at its end.")
        found = {part: digest.hexdigest() for part, digest in digests.items()}
        wanted = {name: part.sha256 for name, part in self._manifest.parts.items()}
        if wrong := sorted(part for part in found.keys() | wanted.keys() if found.get(part) != wanted.get(part)):
            raise PermanentError(f"{DAMAGED}: the checksum of {', '.join(wrong)} is wrong.")


class _Hashed:
    """A file to read, whose bytes are added to a digest."""

    def __init__(self, file: BinaryIO, digest: hashlib._Hash) -> None:
        self._file = file
        self.digest = digest

    def read(self, size: int = -1) -> bytes:
        with _explain_damage():
            data = bytes(self._file.read(size))
        self.digest.update(data)
        return data

    def drain(self) -> None:
        while self.read(READ_BYTES):
            pass


def _frame(name: str, size: int) -> bytes:
    """What tells the entries of a part from each other in its checksum."""
    return f"{name}\0{size}\0".encode()


def _check_about(tar: tarfile.TarFile) -> None:
    first = tar.next()
    content = tar.extractfile(first) if first and first.name == ABOUT else None
    if content is None:
        raise PermanentError("It is not a backup of ragq.")
    about = msgspec.json.decode(content.read(), type=About)
    if about.format > FORMAT:
        raise PermanentError(
            f"The backup was made by ragq {about.ragq}, in a newer form than this version reads. Restore it with that version."
        )


def _members(tar: tarfile.TarFile) -> Iterator[tuple[tarfile.TarInfo, BinaryIO]]:
    while info := tar.next():
        content = tar.extractfile(info)
        if content is None:
            raise PermanentError(f"{DAMAGED}: {info.name[:80]!r} is not a file.")
        yield info, cast("BinaryIO", content)
        tar.members = []  # type: ignore[attr-defined]


@contextlib.contextmanager
def _explain_damage() -> Iterator[None]:
    try:
        yield
    except RagqError:
        raise
    except BROKEN as error:
        raise PermanentError(f"{DAMAGED}.", detail=error) from error
