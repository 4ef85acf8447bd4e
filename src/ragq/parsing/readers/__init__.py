"""A reader for each format: bytes in, a document written.

Each module has `read(data, filename, document)`. It trusts nothing in the file, runs in a child process under limits, and
raises UnreadableError with what a person can do about it.
"""

from __future__ import annotations

from importlib import import_module

from ragq.parsing.archives import DAMAGED
from ragq.parsing.kinds import Kind, detect
from ragq.parsing.writer import DocumentWriter, UnreadableError

MODULES = {
    Kind.PDF: "pdf.reader",
    Kind.IMAGE: "image",
    Kind.MARKDOWN: "markdown",
    **dict.fromkeys((Kind.DOCX, Kind.DOC, Kind.PPTX, Kind.PPT), "office"),
    **dict.fromkeys((Kind.XLSX, Kind.XLS), "spreadsheets"),
    **dict.fromkeys((Kind.ODT, Kind.ODS, Kind.ODP), "opendocument"),
    Kind.HTML: "html",
    Kind.CSV: "delimited",
    Kind.EPUB: "epub",
    **dict.fromkeys((Kind.EML, Kind.MSG), "mail"),
    Kind.RTF: "rtf",
    Kind.NOTEBOOK: "notebook",
}
"""The module that reads a kind; what has none is read as plain text."""


def load() -> None:
    """Import all readers, so that a process that is forked has them."""
    for module in {*MODULES.values(), "text"}:
        import_module(f"{__name__}.{module}")


def read(data: bytes, filename: str, document: DocumentWriter) -> None:
    """Write what is in a file.

    Raises:
        UnreadableError: It cannot be read.
    """
    module = MODULES.get(detect(data, filename), "text")
    try:
        import_module(f"{__name__}.{module}").read(data, filename, document)
    except RecursionError as error:
        raise UnreadableError("What is in the file nests too deep.") from error
    except BaseException as error:
        if type(error).__module__ != "pyo3_runtime":  # a library in Rust that panics; its class cannot be imported
            raise
        raise UnreadableError(DAMAGED) from error
