r"""Decide whether a server's error message may be shown: it must not repeat a secret or what was sent to the server.

Only letters and digits are compared: those of the message as it is, and decoded from percent, HTML and `\u` escapes,
base64 and hexadecimal. The cost is linear in the length of what was sent.
"""

from __future__ import annotations

import base64
import binascii
import html
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final
from urllib.parse import unquote

MAX_QUOTED_CHARACTERS: Final = 300
MAX_READ_CHARACTERS: Final = 2 * MAX_QUOTED_CHARACTERS  # so that a repeat that begins in the quoted part is seen whole
SECRET_WINDOW: Final = 8  # a message that repeats this many consecutive letters of a secret is not shown
CONTENT_WINDOW: Final = 12  # the same for what was sent: finds any run of twice this length, some of this length
SHORTEST_CONTENT: Final = 8  # a shorter text occurs in many messages by chance
_NO_LETTER: Final = re.compile(r"[\W_]+")
_ENCODED: Final = re.compile(r"[A-Za-z0-9+/_-]{8,}")
_ESCAPE: Final = re.compile(r"\\u([0-9a-fA-F]{4})")
_URL_SAFE: Final = str.maketrans("-_", "+/")


def quote(message: str, secrets: Iterable[str], sent: Sequence[str]) -> str:
    """Format a message as `: message` on one line, shortened; or the reason not to show it; or "" if it is empty."""
    printable = "".join(sign if sign.isprintable() else " " for sign in message[:MAX_READ_CHARACTERS])
    text = " ".join(printable.split())
    if not text:
        return ""
    views = [_letters(view) for view in _views(text)]
    if any(_repeats_secret(views, _letters(secret)) for secret in secrets):
        return " (its message repeats a secret: not shown)"
    windows = {view[start : start + CONTENT_WINDOW] for view in views for start in range(len(view))}
    if any(_repeats(views, windows, _letters(content)) for content in sent):
        return " (its message repeats what was sent: not shown)"
    return f": {text[:MAX_QUOTED_CHARACTERS]}"


def _letters(text: str) -> str:
    return _NO_LETTER.sub("", text).casefold()


def _views(text: str) -> Iterator[str]:
    """Yield the text as it is and under each decoding."""
    yield text
    yield unquote(text)
    yield html.unescape(text)
    yield _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)
    for run in _ENCODED.findall(text):
        for start in range(4):  # a repeat may begin within a group of four
            digits = run[start:].translate(_URL_SAFE)
            yield base64.b64decode(digits[: len(digits) // 4 * 4]).decode(errors="ignore")
            yield _decode_hexadecimal(run[start:])


def _decode_hexadecimal(digits: str) -> str:
    try:
        return bytes.fromhex(digits[: len(digits) // 2 * 2]).decode(errors="ignore")
    except (ValueError, binascii.Error):
        return ""


def _repeats_secret(views: list[str], secret: str) -> bool:
    return bool(secret) and _repeats_any_part(views, secret, min(SECRET_WINDOW, len(secret)))


def _repeats(views: list[str], windows: set[str], content: str) -> bool:
    if len(content) < 2 * CONTENT_WINDOW:
        return len(content) >= SHORTEST_CONTENT and _repeats_any_part(views, content, SHORTEST_CONTENT)
    starts = range(0, len(content) - CONTENT_WINDOW + 1, CONTENT_WINDOW)
    return any(content[start : start + CONTENT_WINDOW] in windows for start in starts)


def _repeats_any_part(views: list[str], text: str, length: int) -> bool:
    parts = {text[start : start + length] for start in range(len(text) - length + 1)}
    return any(part in view for part in parts for view in views)
