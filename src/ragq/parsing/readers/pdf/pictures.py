"""The pictures on a page of a PDF: how much of it they cover, which hold no text, and how they look."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from ctypes import c_ubyte
from dataclasses import dataclass
from functools import cache

import pypdfium2
import pypdfium2.raw as pdfium

from ragq.parsing.ocr import Ocr
from ragq.parsing.readers.pdf.ruled import take_out_tables

DOTS_PER_INCH = 300
MAX_PIXELS = 16_000_000  # of a rendered page: A3 at 300 dots per inch
LOOKED_AT_OBJECTS = 2000
LEAST_SHARE = 0.08  # of the page that a picture covers, if it is read beside text; smaller ones are logos
MOST_CHARACTERS = 10  # of text that stands in such a picture: a scan with its text is not read again

Box = tuple[float, float, float, float]  # left, bottom, right, top, in points


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture on a page.

    Attributes:
        box: Where it is.
        digest: Of the place and of all pictures there: a letterhead has the same on each page.
    """

    box: Box
    digest: bytes


def measure_pictures(page: pdfium.FPDF_PAGE) -> tuple[float, int]:
    """Return which share of the page pictures cover, and how many curves are drawn on it."""
    covered, paths = 0.0, 0
    for drawn, kind in _iterate(page):
        if kind == pdfium.FPDF_PAGEOBJ_PATH:
            paths += 1
        elif kind in (pdfium.FPDF_PAGEOBJ_IMAGE, pdfium.FPDF_PAGEOBJ_FORM):
            covered += _measure(_read_box(drawn))
    return covered / _measure_page(page), paths


def find_pictures(page: pdfium.FPDF_PAGE, text_page: pdfium.FPDF_TEXTPAGE) -> list[Picture]:
    """Find the large pictures in which no text of the page stands, the highest first."""
    least = LEAST_SHARE * _measure_page(page)
    images = [(_read_box(drawn), drawn) for drawn, kind in _iterate(page) if kind == pdfium.FPDF_PAGEOBJ_IMAGE]
    large = dict.fromkeys(box for box, _ in images if _measure(box) >= least)
    found = [
        (left, bottom, right, top)
        for left, bottom, right, top in large
        if pdfium.FPDFText_GetBoundedText(text_page, left, top, right, bottom, None, 0) <= MOST_CHARACTERS
    ]

    @cache
    def hash_image(number: int) -> bytes:
        return _hash_image(*images[number])

    def digest(box: Box) -> bytes:
        there = (hash_image(number) for number, (other, _) in enumerate(images) if _overlap(box, other))
        return hashlib.sha256(repr(box).encode() + b"".join(there)).digest()

    return [Picture(box, digest(box)) for box in sorted(found, key=lambda box: (-box[3], box[0]))]


class Drawing:
    """A page as it looks, in shades of grey."""

    def __init__(self, page: pypdfium2.PdfPage) -> None:
        width, height = page.get_size()
        scale = min(DOTS_PER_INCH / 72, (MAX_PIXELS / max(1.0, width * height)) ** 0.5)
        self._page = page
        self._bitmap: pypdfium2.PdfBitmap | None = None  # the page cannot be drawn
        with contextlib.suppress(pypdfium2.PdfiumError):
            self._bitmap = page.render(scale=scale, grayscale=True, may_draw_forms=False)

    def read(self, ocr: Ocr, box: Box | None = None) -> str:
        """Read all of it, or what is in a box of the page, by OCR; the rows of ruled tables come last."""
        import numpy as np  # noqa: PLC0415  (few documents need it)

        width, height, pixels = self._cut(box)
        if not pixels:
            return ""
        parts = take_out_tables(np.frombuffer(pixels, np.uint8).reshape(height, width))
        if not parts:
            return "".join(ocr.read_pages(_write_pnm(width, height, pixels))[:1])
        texts = [
            "".join(ocr.read_pages(_write_pnm(part.shape[1], part.shape[0], part.tobytes()), is_block=is_block)[:1])
            for part, is_block in zip(parts, (False, True), strict=True)
        ]
        return "\n\n".join(filter(None, texts))

    def _cut(self, box: Box | None) -> tuple[int, int, bytes]:
        """Return the width, the height and the pixels; none if there is nothing."""
        bitmap = self._bitmap
        if bitmap is None:
            return 0, 0, b""
        left, top, right, bottom = 0, 0, bitmap.width, bitmap.height
        if box:
            converter = bitmap.get_posconv(self._page)
            corners = converter.to_bitmap(*box[:2]), converter.to_bitmap(*box[2:])
            (left, right), (top, bottom) = (sorted(axis) for axis in zip(*corners, strict=True))
            left, right = max(0, left), min(bitmap.width, right)
            top, bottom = max(0, top), min(bitmap.height, bottom)
            if left >= right or top >= bottom:
                return 0, 0, b""
        pixels = memoryview(bitmap.buffer).cast("B")
        rows = (pixels[row * bitmap.stride + left : row * bitmap.stride + right] for row in range(top, bottom))
        return right - left, bottom - top, b"".join(rows)


def _write_pnm(width: int, height: int, pixels: bytes) -> bytes:
    return b"P5 %d %d 255\n" % (width, height) + pixels


def _iterate(page: pdfium.FPDF_PAGE) -> Iterator[tuple[pdfium.FPDF_PAGEOBJECT, int]]:
    """Yield the first objects of a page and what each of them is."""
    for place in range(min(pdfium.FPDFPage_CountObjects(page), LOOKED_AT_OBJECTS)):
        drawn = pdfium.FPDFPage_GetObject(page, place)
        yield drawn, pdfium.FPDFPageObj_GetType(drawn)


def _read_box(drawn: pdfium.FPDF_PAGEOBJECT) -> Box:
    left, bottom, right, top = (pdfium.FS_FLOAT() for _ in range(4))
    pdfium.FPDFPageObj_GetBounds(drawn, left, bottom, right, top)
    return left.value, bottom.value, right.value, top.value


def _hash_image(box: Box, drawn: pdfium.FPDF_PAGEOBJECT) -> bytes:
    """Hash where a picture is, and its data as the file has them: nothing is unpacked."""
    size = pdfium.FPDFImageObj_GetImageDataRaw(drawn, None, 0)
    data = (c_ubyte * size)()
    pdfium.FPDFImageObj_GetImageDataRaw(drawn, data, size)
    hashed = hashlib.sha256(repr(box).encode())
    hashed.update(data)
    return hashed.digest()


def _overlap(box: Box, other: Box) -> bool:
    return box[0] <= other[2] and other[0] <= box[2] and box[1] <= other[3] and other[1] <= box[3]


def _measure(box: Box) -> float:
    return abs(box[2] - box[0]) * abs(box[3] - box[1])


def _measure_page(page: pdfium.FPDF_PAGE) -> float:
    return float(max(1.0, pdfium.FPDF_GetPageWidthF(page) * pdfium.FPDF_GetPageHeightF(page)))
