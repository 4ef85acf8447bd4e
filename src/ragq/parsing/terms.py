"""What those who send a file and the child process that reads it both know.

Every API process and worker has this; what reads files is loaded only where one is read.
"""

from __future__ import annotations

import re

OUT_OF_MEMORY = 86  # exit code; as a rule the traceback of a MemoryError finds no memory either
OCR_REST_SECONDS = 5  # beyond the time of a page for OCR, so that the next can begin when it ran out
# What is never read, so that it is refused before it is sent; everything else is judged by its content.
REFUSED_EXTENSIONS = frozenset(
    ".7z .a .aac .apk .avi .bin .bz2 .class .dat .db .dll .dmg .dylib .exe .flac .gz .iso .jar .lib .m4a .m4v .mkv .mov .mp3"
    " .mp4 .mpeg .mpg .msi .o .ogg .otf .pkl .pyc .rar .rpm .so .sqlite .tar .tgz .ttf .wasm .wav .webm .wmv .woff .woff2"
    " .xz .zip .zst".split()
)

_UNWANTED = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufeff\ufffe\uffff]")


def too_long(max_characters: int) -> str:
    """Say that a text is too long."""
    return f"The file has more than {max_characters:,} characters of text: split it, or raise RAGQ_MAX_FILE_BYTES."


def clean(text: str) -> str:
    """Take out what is no text: control characters, lone surrogates, carriage returns."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if text.replace("\n", "").isprintable():
        return text
    text = _UNWANTED.sub("", text)
    return text.encode("utf-8", "ignore").decode()
