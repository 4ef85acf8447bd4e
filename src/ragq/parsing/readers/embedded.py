"""What an archive of Office or OpenDocument holds beside its own text: files of other programs, and pictures."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import olefile

from ragq.parsing.archives import DAMAGED, Archive
from ragq.parsing.kinds import open_ole
from ragq.parsing.writer import DocumentWriter, UnreadableError

LEAST_PICTURE_BYTES = 10_000  # smaller ones are logos and icons
MOST_CHARACTERS = 1_000  # of a document whose pictures are read: those in a longer text repeat it, in worse words

_OBJECT = re.compile(r"(?:word|ppt|xl)/embeddings/[^/]+")
_PICTURE = re.compile(r"(?:(?:word|ppt|xl)/media|Pictures)/[^/]+\.(?:png|jpe?g|tiff?|gif|bmp|webp)", re.IGNORECASE)
_NUMBER = re.compile(r"[0-9]{1,9}")
_PACKAGE = "Package"  # the stream of an OLE object that holds a file of the newer Office


def write_embedded(archive: Archive, document: DocumentWriter) -> None:
    """Write embedded files as attachments, the data of charts among them, and then the text of large pictures.

    Pictures are read if they may be what the document says, as in a scan within a text, or slides of pictures.
    """
    names = sorted(archive.names, key=lambda name: ([int(number) for number in _NUMBER.findall(name)], name))
    for name in filter(_OBJECT.fullmatch, names):
        with warn_of(name, document):
            document.add_attachment(unpack(archive.read(name)), name.rpartition("/")[2])
    for name in filter(_PICTURE.fullmatch, names) if document.length <= MOST_CHARACTERS else ():
        if archive.size(name) >= LEAST_PICTURE_BYTES:
            with warn_of(name, document):
                document.add_picture(archive.read(name), name.rpartition("/")[2])


@contextmanager
def warn_of(name: str, document: DocumentWriter) -> Iterator[None]:
    """Warn of a part that cannot be read: the document around it was."""
    try:
        yield
    except UnreadableError as error:
        document.warn(f"{name}: {error}")


def unpack(data: bytes) -> bytes:
    """Take a file out of the OLE object around it; an object that is a document itself stays."""
    if not data.startswith(olefile.MAGIC):
        return data
    with open_ole(data) as container:
        try:
            return container.openstream(_PACKAGE).read() if container.exists(_PACKAGE) else data
        except (OSError, ValueError, IndexError, struct.error) as error:  # as `open_ole`
            raise UnreadableError(DAMAGED) from error
