"""Understand the error bodies of OpenAI-compatible servers, which agree on no form."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final

_CONTEXT_TOO_LONG: Final = re.compile(
    r"context.?(length|size|window|limit)"
    r"|(prompt|input)\b.{0,30} too (long|large)|too long for|too large for model|longer than the (model|maximum)"
    r"|reduce (the length of|your prompt)"
    r"|(prompt|input|requested|total)\b.{0,60}\bexceeds?\b.{0,30}\b(max|limit)|exceeded model token limit"
    r"|max\w* (prompt|input) length|`inputs` must have less|max_new_tokens`? must be|input length should be"
    r"|tokens in request more than max|too many (input |prompt )?tokens(?! per)",
    re.IGNORECASE,
)
_SAYS_NOTHING: Final = re.compile(
    r"(\d{3} )?(an? )?(unknown |internal |unexpected )?(server )?(error|failure|bad request|invalid request)( occurred)?"
    r"|something went wrong|(bad|invalid) request|provider returned error",
    re.IGNORECASE,
)
_STATUS_OF_NAMES: Final = (
    (re.compile(r"rate.?limit|too.?many.?requests|resource.?exhausted|throttl", re.IGNORECASE), 429),
    (re.compile(r"authentication|unauthori[sz]ed|unauthenticated|invalid.?api.?key", re.IGNORECASE), 401),
    (re.compile(r"payment.?required|billing", re.IGNORECASE), 402),
    (re.compile(r"permission|forbidden", re.IGNORECASE), 403),
    (re.compile(r"not.?found", re.IGNORECASE), 404),
    (re.compile(r"overloaded|unavailable|timeout", re.IGNORECASE), 503),
    (re.compile(r"bad.?request|invalid|unsupported|validation", re.IGNORECASE), 400),
)
MAX_WORDS: Final = 10_000  # characters
_MAX_DEPTH: Final = 5
_MAX_ITEMS: Final = 10


@dataclass(frozen=True, slots=True)
class ServerError:
    """What an error body says.

    Attributes:
        words: The message for people.
        names: The machine's names: code, type and status.
        param: The request's field at fault, "" if the server names none apart from the message.
        status: The HTTP status the body stands for; None if it does not say.
    """

    words: str
    names: str
    param: str
    status: int | None

    @property
    def is_context_too_long(self) -> bool:
        return bool(re.search("context_(length|size)", self.names) or _CONTEXT_TOO_LONG.search(self.words))

    @property
    def says_nothing(self) -> bool:
        """Whether the message gives no reason, or is a page."""
        words = self.words.strip(" .!\n")
        return not words or words.startswith("<") or bool(_SAYS_NOTHING.fullmatch(words))


def read_error(body: object) -> ServerError:
    """Read an error body, JSON or text."""
    while isinstance(body, list) and body:  # Gemini sends [{"error": …}]
        body = body[0]
    fields: dict[str, Any] = body if isinstance(body, dict) else {"message": body}
    inner = fields.get("error")
    if isinstance(inner, dict):
        fields = inner
    elif inner:  # xAI and Ollama send {"error": "…"}
        fields = fields | {"message": inner}
    names = [fields.get(name) for name in ("code", "type", "status", "status_code")]
    param = fields.get("param")
    return ServerError(
        _read_words(fields)[:MAX_WORDS],
        " ".join(str(name) for name in names if name is not None),
        param if isinstance(param, str) else "",
        _read_status(names),
    )


def _read_words(value: object, depth: int = 0) -> str:
    """The message in a value: messages may be lists (pydantic's), or objects written as JSON into a text."""
    if depth > _MAX_DEPTH:
        return ""
    if isinstance(value, str):
        parsed = _parse(value)
        return value if parsed is None else _read_words(parsed, depth + 1) or value
    if isinstance(value, list):
        return "; ".join(filter(None, (_read_words(one, depth + 1) for one in value[:_MAX_ITEMS])))
    if not isinstance(value, dict):
        return ""
    place = value.get("loc")
    before = [".".join(map(str, place))] if isinstance(place, list) else []
    names = ("message", "detail", "msg", "error")
    words = next((text for name in names if (text := _read_words(value.get(name), depth + 1))), "")
    metadata = value.get("metadata")  # OpenRouter quotes the provider in metadata.raw
    raw = _read_words(metadata.get("raw"), depth + 1) if isinstance(metadata, dict) else ""
    return ": ".join(filter(None, [*before, words, raw]))


def _parse(text: str) -> object:
    """The list or object that a text is; None if it is another text."""
    if text[:1] not in "{[" or not text:
        return None
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value


def _read_status(names: list[Any]) -> int | None:
    for name in names:
        if str(name).isdecimal() and int(name) in range(400, 600):
            return int(name)
    words = " ".join(str(name) for name in names if name is not None)
    return next((status for pattern, status in _STATUS_OF_NAMES if pattern.search(words)), None)
