"""Pictures: scans and screenshots, read by OCR."""

from __future__ import annotations

import struct

from ragq.models import PlaceKind
from ragq.parsing.ocr import INSTALL
from ragq.parsing.writer import DocumentWriter, UnreadableError

MAX_PAGES = 1000


def read(data: bytes, filename: str, document: DocumentWriter) -> None:
    """Write the text of a picture, or of each page of a TIFF."""
    del filename
    if not document.ocr.is_available:
        raise UnreadableError(f"To read the text of pictures, {INSTALL}.", "no_text")
    pages = count_pages(data)
    texts = document.ocr.read_pages(data, pages=pages)
    if not any(texts):
        raise UnreadableError("OCR found no text in the picture.", "no_text")
    for number, text in enumerate(texts, start=1):
        if pages > 1:
            document.start_place(PlaceKind.PAGE, number)
        document.add_text(text)
    document.progress(pages, pages)


def count_pages(data: bytes) -> int:
    """Count the pages of a TIFF; any other picture is one."""
    if data[:4] not in (b"II*\x00", b"MM\x00*"):
        return 1
    order = "<" if data[:2] == b"II" else ">"
    seen: set[int] = set()
    try:
        (place,) = struct.unpack_from(order + "I", data, 4)
        while place and place not in seen and len(seen) < MAX_PAGES:
            seen.add(place)
            (entries,) = struct.unpack_from(order + "H", data, place)
            (place,) = struct.unpack_from(order + "I", data, place + 2 + 12 * entries)
    except struct.error:
        pass
    return max(1, len(seen))
