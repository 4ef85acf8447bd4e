"""Draw a page of a PDF with a passage marked in it, as a PNG."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator

import numpy as np
import pypdfium2

from ragq.parsing.writer import UnreadableError

PIXELS = 1400  # of the longer side
MARK = (255, 224, 102)  # what is white under a mark becomes this; what is black stays black
MAX_CELLS = 200  # of a quote that are looked for
MAX_QUOTE_CHARACTERS = 20_000  # that are looked for
MIN_PART_CHARACTERS = 2  # a part of a row that is looked for by itself

Box = tuple[float, float, float, float]  # left, bottom, right, top, in points

_CELLS = re.compile(r";\s|:\s")


def draw(data: bytes, number: int, quote: str) -> bytes:
    """Draw page `number`, from 1. A quote that does not stand there as it is, is marked part by part.

    Raises:
        UnreadableError: The file is no PDF, or has no such page.
    """
    try:
        pdf = pypdfium2.PdfDocument(data)
        page = pdf[number - 1]
        scale = PIXELS / max(1.0, *page.get_size())
        bitmap = page.render(scale=scale, rev_byteorder=True, prefer_bgrx=True)
        pixels = bitmap.to_numpy()[:, :, :3].copy()
        for box in find_boxes(page.get_textpage(), quote):
            _mark(pixels, page, bitmap, box)
    except (pypdfium2.PdfiumError, IndexError) as error:
        raise UnreadableError("The page cannot be drawn.") from error
    return _write_png(pixels)


def find_boxes(text_page: pypdfium2.PdfTextPage, quote: str) -> list[Box]:
    """Find where a quote stands on a page: a box for each of its lines; nothing if it is not there."""
    text = text_page.get_text_range()
    letters, places = _join_letters(text)
    boxes: list[Box] = []
    for part in _find_parts(quote[:MAX_QUOTE_CHARACTERS], letters):
        first = letters.index(part)
        start, end = places[first], places[first + len(part) - 1] + 1
        boxes += (
            text_page.get_rect(rectangle) for rectangle in range(text_page.count_rects(index=start, count=end - start))
        )
    return boxes


def _find_parts(quote: str, letters: str) -> Iterator[str]:
    """Yield the quote's letters if they stand on the page; else those of its cells that do, once."""
    whole, _ = _join_letters(quote)
    if whole and whole in letters:
        yield whole
        return
    for cell in _CELLS.split(quote, MAX_CELLS)[:MAX_CELLS]:
        part, _ = _join_letters(cell)
        if len(part) >= MIN_PART_CHARACTERS and letters.count(part) == 1:
            yield part


def _join_letters(text: str) -> tuple[str, list[int]]:
    """The letters and digits of a text without what is between them, and where each stands."""
    places = [place for place, character in enumerate(text) if character.isalnum()]
    return "".join(text[place] for place in places), places


def _mark(pixels: np.ndarray, page: pypdfium2.PdfPage, bitmap: pypdfium2.PdfBitmap, box: Box) -> None:
    converter = bitmap.get_posconv(page)
    corners = [converter.to_bitmap(x, y) for x, y in ((box[0], box[1]), (box[2], box[3]))]
    (left, right), (top, bottom) = (sorted(axis) for axis in zip(*corners, strict=True))
    part = pixels[max(0, top - 1) : bottom + 1, max(0, left - 1) : right + 1]
    np.minimum(part, np.array(MARK, dtype=np.uint8), out=part)


def _write_png(pixels: np.ndarray) -> bytes:
    """Write RGB pixels of shape (height, width, 3) as a PNG."""
    height, width, _ = pixels.shape
    rows = np.zeros((height, 1 + width * 3), dtype=np.uint8)  # each row begins with its filter, none
    rows[:, 1:] = pixels.reshape(height, -1)
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows.tobytes(), 6)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    )
