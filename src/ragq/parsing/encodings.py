"""Decode text files, whatever their encoding is."""

from __future__ import annotations

import codecs
import re

from charset_normalizer import CharsetMatch, from_bytes

from ragq.parsing.writer import DocumentWriter, UnreadableError

CANDIDATES = (
    "cp1252", "cp1250", "iso8859_2", "cp1251", "koi8_r", "cp1253", "cp1254", "cp932", "euc_jp", "gb18030", "big5", "euc_kr",
    "utf_16_le", "utf_16_be", "utf_32_le", "utf_32_be",
)  # fmt: skip
"""What text that is not UTF-8 can be; of those that fit alike, the first. More would make it a matter of luck."""

LOOKED_AT = 8192
DETECTED_BYTES = 200_000  # the encoding is told by as many
MAX_CONTROL_SHARE = 0.1  # of a text's first characters; in binary files and in UTF-16 and UTF-32, it is far more
MIN_VALID = 3  # sequences of UTF-8 for each byte that is none: then the text is UTF-8 with errors

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_WEB_NAMES = {"iso8859-1": "cp1252", "ascii": "cp1252", "shift_jis": "cp932", "gb2312": "gb18030", "gbk": "gb18030"}
_ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]{0,50}[ -/]{0,5}[@-~]|\][^\x07\x1b]{0,500}(?:\x07|\x1b\\)|[()][0-9A-B]|[@-Z\\^_=>78c])|[^\n]\x08"
)
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f]")
_BINARY = re.compile(rb"[\x00-\x07\x0e-\x1a\x1c-\x1f]")
_LONE_RETURN = re.compile(r"\r(?!\n)")
_MULTIBYTE = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")


def decode(data: bytes, document: DocumentWriter, declared: str = "") -> str:
    """Decode text by its byte order mark, as UTF-8, as it says itself, or as what it looks like.

    What is no text in it is left out, and a line end is one wherever it is a carriage return alone. What was done is
    noted in the document.

    Args:
        declared: The encoding that the file names itself.

    Raises:
        UnreadableError: It is binary, in an unknown encoding, or empty.
    """
    text, document.encoding = _decode(data, declared, document)
    if _CONTROLS.search(text):
        text = _strip(text, document)
    if not text or text.isspace():
        raise UnreadableError("No text found: the file holds only white space.", "no_text")
    return _LONE_RETURN.sub("\n", text)


def _decode(data: bytes, declared: str, document: DocumentWriter) -> tuple[str, str]:
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS if data.startswith(mark)), "")
    if encoding:
        return _replace_errors(data, encoding, document), encoding
    start = data[:LOOKED_AT]
    looks_binary = len(_BINARY.findall(start)) > len(start) * MAX_CONTROL_SHARE
    for name in () if looks_binary else ("utf-8", _normalize(declared)):
        try:
            return data.decode(name), name
        except (UnicodeDecodeError, LookupError):
            continue
    if not looks_binary and _is_nearly_utf8(data):
        return _replace_errors(data, "utf-8", document), "utf-8"
    if encoding := _detect(data):
        return _replace_errors(data, encoding, document), encoding
    if looks_binary or 0 in start:
        raise UnreadableError("The file is binary, not text, and of a kind that is not read.", "unsupported_file")
    raise UnreadableError("The encoding of the file is unknown: save it as UTF-8 text.", "wrong_encoding")


def _detect(data: bytes) -> str:
    """Tell the encoding by what the text would be; empty if it would be none."""
    end = DETECTED_BYTES - DETECTED_BYTES % 4
    matches: list[CharsetMatch] = list(from_bytes(data[:end], cp_isolation=list(CANDIDATES), enable_fallback=False))
    best = min(matches, key=_rank, default=None)
    alike = [name for name in CANDIDATES if best and name in best.could_be_from_charset]  # they give the same text
    return alike[0] if alike else ""


def _rank(match: CharsetMatch) -> tuple[float, float, int]:
    return round(match.chaos, 2), -round(match.coherence, 2), CANDIDATES.index(match.encoding)


def _is_nearly_utf8(data: bytes) -> bool:
    valid = len(_MULTIBYTE.findall(data))
    return valid >= MIN_VALID * max(1, data.decode("utf-8", "replace").count("\ufffd"))


def _replace_errors(data: bytes, encoding: str, document: DocumentWriter) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        text = data.decode(encoding, "replace")
    count = text.count("\ufffd")
    document.warn(f"{count:,} {'byte is' if count == 1 else 'bytes are'} not {encoding}: shown as \ufffd.")
    return text


def _strip(text: str, document: DocumentWriter) -> str:
    """Leave out terminals' colours and control characters.

    Raises:
        UnreadableError: There are so many that the file is binary.
    """
    text, escapes = _ESCAPES.subn("", text)
    if escapes:
        document.warn(f"{escapes:,} codes for colours and the cursor were left out.")
    if len(_CONTROLS.findall(text[:LOOKED_AT])) > len(text[:LOOKED_AT]) * MAX_CONTROL_SHARE:
        raise UnreadableError("The file is binary, not text, and of a kind that is not read.", "unsupported_file")
    text, controls = _CONTROLS.subn("", text)
    if controls:
        document.warn(f"{controls:,} control characters were left out.")
    return text


def _normalize(declared: str) -> str:
    try:
        name = codecs.lookup(declared).name if declared else ""
    except LookupError:
        return ""
    is_text = name.startswith(("utf", "iso", "cp", "koi8", "euc", "shift", "big5", "gb", "mac", "tis", "ascii"))
    return _WEB_NAMES.get(name, name) if is_text else ""
