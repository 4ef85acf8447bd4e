"""ZIP archives with wrong bytes: each is read or refused, whatever the library raises."""

from __future__ import annotations

import io
import random
import zipfile

import pytest

from ragq.parsing.archives import Archive
from ragq.parsing.writer import UnreadableError

PARTS = {"content.xml": b"<a>" + b"words " * 500 + b"</a>", "folder/part.xml": b"x" * 3000}


def make_archive(compression: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in PARTS.items():
            archive.writestr(name, data)
    return file.getvalue()


def spoil(data: bytes, lots: random.Random) -> bytes:
    """Cut an archive short, now and then, and change bytes, mostly in the headers at its beginning and its end."""
    spoilt = bytearray(data[: lots.randrange(1, len(data))] if lots.random() < 0.2 else data)
    for _ in range(lots.choice((1, 4, 16))):
        begin = lots.choice((0, max(0, len(spoilt) - 200), lots.randrange(len(spoilt))))
        spoilt[min(len(spoilt) - 1, begin + lots.randrange(60))] = lots.randrange(256)
    return bytes(spoilt)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_archive_with_wrong_bytes_is_read_or_refused(compression: int) -> None:
    data, lots = make_archive(compression), random.Random(compression)
    refused = 0
    for _ in range(2000):
        try:
            archive = Archive(spoil(data, lots))
            for name in archive.names:
                archive.read(name)
            archive.check_parts((".xml",))
        except UnreadableError:
            refused += 1
    assert 0 < refused < 2000
