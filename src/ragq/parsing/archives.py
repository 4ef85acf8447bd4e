"""ZIP archives that nobody has vouched for: EPUB, OpenDocument and the newer Office formats are such."""

from __future__ import annotations

import io
import lzma
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from xml.etree.ElementTree import Element, ParseError

import defusedxml.ElementTree
from defusedxml import DefusedXmlException

from ragq.parsing.writer import UnreadableError

MAX_ENTRIES = 20_000
MAX_UNPACKED_BYTES = 400_000_000  # all entries together
MAX_PART_BYTES = 200_000_000

DAMAGED = "The file is damaged: open it in its program, save it again and upload that."
ENCRYPTED = "The file is encrypted and needs a password: remove the password and upload it again."

# zipfile names few of its errors. Beside its own come those of the three decompressors and of the end of the data;
# ValueError for names that are no text and for offsets before the beginning; KeyError for a part that is missing;
# RuntimeError, and what is derived from it, for versions, methods and flags that zipfile does not know; OSError from bzip2.
_DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError, KeyError, RuntimeError, OSError)
_IS_ENCRYPTED = 1  # of an entry's flags
_PIECE = 1 << 20


class Archive:
    """A ZIP archive in memory. What it holds is never written to a disk."""

    def __init__(self, data: bytes) -> None:
        """Open it.

        Raises:
            UnreadableError: It is damaged, encrypted, or holds too much.
        """
        with _refusing_damage():
            self._archive = zipfile.ZipFile(io.BytesIO(data))
        entries = self._archive.infolist()
        self.names = frozenset(entry.filename for entry in entries)
        if len(entries) > MAX_ENTRIES or sum(entry.file_size for entry in entries) > MAX_UNPACKED_BYTES:
            raise UnreadableError(
                f"The file unpacks to more than {MAX_ENTRIES:,} parts or {MAX_UNPACKED_BYTES // 1_000_000} MB.",
                "too_large",
            )
        if any(entry.flag_bits & _IS_ENCRYPTED for entry in entries):
            raise UnreadableError(ENCRYPTED, "encrypted")

    def size(self, prefix: str) -> int:
        """How many bytes the parts in a folder unpack to, as the archive says."""
        return sum(entry.file_size for entry in self._archive.infolist() if entry.filename.startswith(prefix))

    def read(self, name: str) -> bytes:
        """Unpack a part; no more bytes than the archive says that it has are ever unpacked.

        Raises:
            UnreadableError: There is no such part, or it is damaged or too large.
        """
        with _refusing_damage():
            if self._archive.getinfo(name).file_size > MAX_PART_BYTES:
                raise UnreadableError(
                    f"A part of the file has more than {MAX_PART_BYTES // 1_000_000} MB.", "too_large"
                )
            return self._archive.read(name)

    def read_xml(self, name: str) -> Element:
        """Parse a part as XML, without entities and external references.

        Raises:
            UnreadableError: As `read`.
        """
        return parse_xml(self.read(name))

    def check_parts(self, suffixes: tuple[str, ...]) -> None:
        """Check that parts unpack to what the archive says, for readers that do not.

        Raises:
            UnreadableError: One does not.
        """
        with _refusing_damage():
            for name in self.names:
                if name.endswith(suffixes):
                    with self._archive.open(name) as part:
                        while part.read(_PIECE):
                            pass


@contextmanager
def _refusing_damage() -> Iterator[None]:
    """Refuse a file for what zipfile raises when its bytes are wrong."""
    try:
        yield
    except _DAMAGE as error:
        raise UnreadableError(DAMAGED) from error


def parse_xml(data: bytes) -> Element:
    """Parse XML that may be hostile. How deep it nests is for the reader to notice, as a RecursionError.

    Raises:
        UnreadableError: It is not well-formed, or defines entities.
    """
    try:
        return defusedxml.ElementTree.fromstring(data)  # type: ignore[no-any-return]
    except (ParseError, DefusedXmlException, ValueError, LookupError) as error:
        raise UnreadableError(DAMAGED) from error


def local_name(element: Element) -> str:
    """An element's name without its namespace."""
    return element.tag.rpartition("}")[2]


def attribute(element: Element, name: str) -> str:
    """An attribute's value whatever its namespace; empty if it has none."""
    for key, value in element.items():
        if key.rpartition("}")[2] == name:
            return value
    return ""


def first_text(root: Element, names: Iterable[str]) -> str:
    """The text of the first element that has one of these local names and any text."""
    wanted = frozenset(names)
    for element in root.iter():
        if (
            isinstance(element.tag, str)
            and local_name(element) in wanted
            and (text := "".join(element.itertext()).strip())
        ):
            return text
    return ""
