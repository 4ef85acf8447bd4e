"""Tell what a file is: by its content, and by its name only where contents look alike."""

from __future__ import annotations

import io
import re
import struct
from enum import StrEnum
from pathlib import PurePath
from typing import Any

import olefile

from ragq.parsing.archives import DAMAGED, ENCRYPTED, Archive
from ragq.parsing.writer import UnreadableError


class Kind(StrEnum):
    """The formats that are read; `readers.MODULES` names the module for each."""

    PDF = "PDF"
    DOCX = "DOCX"
    PPTX = "PPTX"
    XLSX = "XLSX"
    DOC = "DOC"
    PPT = "PPT"
    XLS = "XLS"
    ODT = "ODT"
    ODS = "ODS"
    ODP = "ODP"
    RTF = "RTF"
    EPUB = "EPUB"
    MSG = "MSG"
    EML = "EML"
    HTML = "HTML"
    MARKDOWN = "Markdown"
    CSV = "CSV"
    NOTEBOOK = "notebook"
    IMAGE = "image"
    TEXT = "text"


# Of what is text, the name tells more.
TEXT_EXTENSIONS = {
    **dict.fromkeys((".md", ".markdown", ".mdx"), Kind.MARKDOWN),
    **dict.fromkeys((".html", ".htm", ".xhtml", ".xht"), Kind.HTML),
    **dict.fromkeys((".csv", ".tsv", ".tab", ".psv"), Kind.CSV),
    **dict.fromkeys((".eml", ".mht", ".mhtml"), Kind.EML),
    ".ipynb": Kind.NOTEBOOK,
}

_MAGIC = (
    (b"{\\rtf", Kind.RTF),
    (b"\x89PNG\r\n\x1a\n", Kind.IMAGE),
    (b"\xff\xd8\xff", Kind.IMAGE),
    (b"GIF87a", Kind.IMAGE),
    (b"GIF89a", Kind.IMAGE),
    (b"II*\x00", Kind.IMAGE),
    (b"MM\x00*", Kind.IMAGE),
)
_OTHERS = (
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (b"ID3", "audio"),
    (b"OggS", "audio"),
    (b"fLaC", "audio"),
    (b"\x1aE\xdf\xa3", "a video"),
    (b"SQLite format 3\x00", "a database"),
    (b"PAR1", "a Parquet file: export it as CSV"),
)
_BRANDS = {  # of the files that begin like MPEG-4
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"mif1", b"hevc"), "a HEIC picture: save it as JPEG or PNG"),
    **dict.fromkeys((b"avif", b"avis"), "an AVIF picture: save it as JPEG or PNG"),
    b"M4A ": "audio",
}
_IWORK = "Index/"
_CONTAINER = "META-INF/container.xml"
_ZIP = {"word/": Kind.DOCX, "ppt/": Kind.PPTX, "xl/": Kind.XLSX}
_MIME_TYPES = {
    "application/vnd.oasis.opendocument.text": Kind.ODT,
    "application/vnd.oasis.opendocument.spreadsheet": Kind.ODS,
    "application/vnd.oasis.opendocument.presentation": Kind.ODP,
    "application/vnd.oasis.opendocument.graphics": Kind.ODP,
    "application/epub+zip": Kind.EPUB,
}
_OLE = {
    "WordDocument": Kind.DOC,
    "PowerPoint Document": Kind.PPT,
    "Workbook": Kind.XLS,
    "Book": Kind.XLS,
    "__properties_version1.0": Kind.MSG,
}
_PDF = re.compile(rb"%PDF-\d")
_PDF_WITHIN = 1024
_SPACE = b"\xef\xbb\xbf\0\r\n\t "
_LOOKED_AT = 2048
_HTML = re.compile(
    rb"\s*(?:<\?xml[^>]{0,200}\?>\s*)?(?:<!--.{0,1000}?-->\s*)*<(?:!doctype\s+html|html)\b", re.IGNORECASE | re.DOTALL
)
_MAIL = re.compile(rb"(?:[A-Za-z][\w-]{0,60}:[^\n]{0,1000}\r?\n(?:[ \t][^\n]{0,1000}\r?\n)*){2,}")
_MAIL_FIELDS = re.compile(
    rb"^(?:received|return-path|message-id|mime-version|delivered-to):|^from:(?s:.*)^(?:subject|date):",
    re.IGNORECASE | re.MULTILINE,
)
_MAILBOX = re.compile(rb"From [^\n]{1,200}\d{4}\r?\n[A-Za-z-]{1,60}:")
_FLAT = re.compile(rb"office:mimetype=\"([\w./-]{1,100})\"")
_NOTEBOOK = re.compile(rb"\s*\{.{0,100}?\"(?:cells|nbformat|metadata|worksheets)\"\s*:", re.DOTALL)
_FRAGMENT = re.compile(rb"\s*<(?:table|body|head|meta|div|p|style)\b", re.IGNORECASE)
_OFFICE_EXTENSIONS = (".doc", ".xls", ".ppt", ".docx", ".xlsx", ".pptx")


def detect(data: bytes, filename: str) -> Kind:
    """Tell the kind of a file.

    Raises:
        UnreadableError: It is of a kind that is not read, or damaged.
    """
    if _is_pdf(data):
        return Kind.PDF
    if data.startswith(b"PK\x03\x04"):
        return _detect_zip(data)
    if data.startswith(olefile.MAGIC):
        return _detect_ole(data)
    if (data[:4] == b"RIFF" and data[8:12] == b"WEBP") or (data[:2] == b"BM" and data[6:10] == bytes(4)):
        return Kind.IMAGE
    for magic, kind in _MAGIC:
        if data.startswith(magic):
            return kind
    _refuse_others(data)
    suffix = PurePath(filename).suffix.lower()
    if suffix == ".pdf":
        raise UnreadableError("The file is not a PDF although its name says so.")
    return TEXT_EXTENSIONS.get(suffix) or _detect_text(data, suffix)


def _refuse_others(data: bytes) -> None:
    """Name what a file is, if it is of a known kind that is not read.

    Raises:
        UnreadableError: It is.
    """
    for magic, what in _OTHERS:
        if data.startswith(magic) and b"\x00" in data[:_LOOKED_AT]:
            raise _unsupported(what)
    if data[4:8] == b"ftyp":
        raise _unsupported(_BRANDS.get(data[8:12], "a video"))


def _is_pdf(data: bytes) -> bool:
    """Whether a file is a PDF; bytes may stand before its first line, as they do in a text about PDF."""
    found = _PDF.search(data[:_PDF_WITHIN])
    if not found:
        return False
    return not data[: found.start()].strip(_SPACE) or b"startxref" in data[-_LOOKED_AT:]


def _detect_text(data: bytes, suffix: str) -> Kind:
    start = data[:_LOOKED_AT].removeprefix(b"\xef\xbb\xbf")
    if _HTML.match(start) or (suffix in _OFFICE_EXTENSIONS and _FRAGMENT.match(start)):
        return Kind.HTML
    if _MAILBOX.match(start):
        return Kind.EML
    if (fields := _MAIL.match(data[: 8 * _LOOKED_AT])) and _MAIL_FIELDS.search(fields.group()):
        return Kind.EML
    if _NOTEBOOK.match(start) and b'"nbformat"' in data and b'"cell_type"' in data:
        return Kind.NOTEBOOK
    if flat := _FLAT.search(data[: 4 * _LOOKED_AT]):
        return _MIME_TYPES.get(flat[1].decode(), Kind.TEXT)
    return Kind.TEXT


def _detect_zip(data: bytes) -> Kind:
    archive = Archive(data)
    if "mimetype" in archive.names:
        mime_type = archive.read("mimetype")[:_LOOKED_AT].decode("ascii", "replace").strip()
        if kind := _MIME_TYPES.get(mime_type.removesuffix("-template")):
            return kind
    for folder, kind in _ZIP.items():
        if any(name.startswith(folder) for name in archive.names):
            return kind
    if _CONTAINER in archive.names:
        return Kind.EPUB
    if any(name.startswith(_IWORK) and name.endswith(".iwa") for name in archive.names):
        raise _unsupported("of Apple's Pages, Numbers or Keynote: export it as PDF")
    raise _unsupported("a ZIP archive: unpack it and upload what is in it")


def _detect_ole(data: bytes) -> Kind:
    with open_ole(data) as container:
        streams = {entry[0] for entry in container.listdir()}
    if "EncryptedPackage" in streams:
        raise UnreadableError(ENCRYPTED, "encrypted")
    for stream, kind in _OLE.items():
        if stream in streams:
            return kind
    raise _unsupported("of a kind that is not read")


def open_ole(data: bytes) -> Any:
    """Open the container of the old Office formats and of MSG.

    Raises:
        UnreadableError: It is damaged.
    """
    try:
        return olefile.OleFileIO(io.BytesIO(data))
    except (OSError, ValueError, IndexError, struct.error) as error:  # olefile raises OSError, and lets the others pass
        raise UnreadableError(DAMAGED) from error


def _unsupported(what: str) -> UnreadableError:
    return UnreadableError(f"The file is {what}.", "unsupported_file")
