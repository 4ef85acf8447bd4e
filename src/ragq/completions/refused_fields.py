"""Find out which field of a request a server refuses, and leave it out from then on.

A field is found by its name in the error's `param` or words. Some servers know a field but not this value of it
("Unsupported value: 'temperature' does not support 0.1 with this model"); then only this value is left out.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from ragq.completions.server_errors import ServerError

REMEMBERED_SECONDS: Final = 600.0  # after an upgrade the server may know the field
MAX_REMEMBERED: Final = 1000
_REFUSES_FIELD: Final = re.compile(
    r"unsupported|unrecogni[sz]ed|unknown|not (yet )?(fully )?supported|(does not|doesn't|that) support|cannot find field"
    r"|extra (inputs|fields)|extra_forbidden|not permitted|not allowed|unexpected|not implemented|incompatible"
    r"|requires? (the )?[`'\"]?--",
    re.IGNORECASE,
)
_REFUSES_VALUE: Final = re.compile(
    r"(unsupported|invalid|supported|allowed) values?|value (error|is)|does not support .{1,60} with this model",
    re.IGNORECASE,
)
_OTHER_NAMES: Final[dict[str, tuple[str, ...]]] = {
    "tools": ("tool use", "tool choice", "tool calling", "function calling"),
    "reasoning_effort": ("thinking", "reasoning.effort"),
}
_NEEDS: Final = {"tool_choice": "tools", "parallel_tool_calls": "tools", "top_logprobs": "logprobs"}  # else 400
_COMMON_WORDS: Final = frozenset(("user", "stop", "seed", "tools", "metadata"))  # they occur in messages by chance
_QUOTED_ONLY: Final = frozenset(("model", "messages", "stream"))
_EXACT: Final = frozenset(("tools", "tool_choice", "stop", "logit_bias", "metadata", "user"))
"""A wrong value of these is the client's mistake, which it must see; other values the server may replace by its default."""


class RefusedFields:
    """The fields that one server refused lately."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: dict[tuple[str, str | None], float] = {}  # (name, value or None for any)

    def leave_out(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """A copy of the request without None values and refused fields, and without what makes no sense without them."""
        sent = {name: value for name, value in request.items() if value is not None}
        if self._until:
            limit = sent.get("max_tokens")
            sent = {name: value for name, value in sent.items() if not self._is_refused(name, value)}
            if limit is not None and "max_tokens" not in sent and not self._is_refused("max_completion_tokens", limit):
                sent["max_completion_tokens"] = limit
            if request.get("tool_choice") == "none" and "tool_choice" not in sent:
                sent.pop("tools", None)
        for name, needed in _NEEDS.items():
            if needed not in sent:
                sent.pop(name, None)
        return sent

    def learn(self, error: ServerError, sent: Mapping[str, Any], *, needs_words: bool = False) -> tuple[str, bool]:
        """Find the field that an error refuses.

        Args:
            needs_words: The status may have another cause: believe only words that say that a field is not supported.

        Returns:
            Its name, "" if there is none; and whether `leave_out` leaves it out now, so that another try makes sense.
        """
        refuses_field = bool(_REFUSES_FIELD.search(error.words) or _REFUSES_FIELD.search(error.names))
        if needs_words and not refuses_field:
            return "", False
        name = _find_name(error, sent, refuses_field=refuses_field)
        refuses_field = refuses_field and not _REFUSES_VALUE.search(f"{error.words} {error.names}")
        if not name or _is_essential(name, sent) or (name in _EXACT and not refuses_field):
            return name, False
        if name == "max_tokens" and "max_completion_tokens" in error.words:
            refuses_field = True  # by its old name
        elif not refuses_field and name in ("max_tokens", "max_completion_tokens"):
            self._remember("max_completion_tokens", repr(sent[name]))
            name, sent = "max_tokens", {"max_tokens": sent[name]}
        self._remember(name, None if refuses_field else repr(sent[name]))
        return name, True

    def _remember(self, name: str, value: str | None) -> None:
        while len(self._until) >= MAX_REMEMBERED:
            del self._until[next(iter(self._until))]
        self._until[name, value] = self._clock() + REMEMBERED_SECONDS

    def _is_refused(self, name: str, value: object) -> bool:
        until = self._until.get((name, None)) or self._until.get((name, repr(value)))
        return until is not None and self._clock() < until


def _find_name(error: ServerError, sent: Mapping[str, Any], *, refuses_field: bool) -> str:
    """The sent field that an error names: in `param`, else the first in its words."""
    param = re.sub(r"^body\.", "", error.param)
    for name in sent:
        if re.match(rf"({re.escape(name)}|{re.escape(_camel(name))})\b", param):
            return name
    found = [(match.start(), name) for name in sent if (match := _search(name, error.words, is_refusal=refuses_field))]
    return min(found, default=(0, ""))[1]


def _search(name: str, words: str, *, is_refusal: bool) -> re.Match[str] | None:
    if name in _QUOTED_ONLY or (name in _COMMON_WORDS and not is_refusal):
        return re.search(rf"[\"'`.]{name}[\"'`.\[]|\b{name}[.\[]", words)
    names = "|".join(map(re.escape, (name, _camel(name), *(_OTHER_NAMES.get(name, ()) if is_refusal else ()))))
    return re.search(rf"\b({names})\b", words, re.IGNORECASE)


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))


def _is_essential(name: str, sent: Mapping[str, Any]) -> bool:
    """Whether the answer would be another than was asked for without this field."""
    choice = sent.get("tool_choice", "auto")
    if name == "response_format":
        return bool(sent[name] != {"type": "text"})
    return name in _QUOTED_ONLY or (name in ("tools", "tool_choice") and choice not in ("auto", "none"))
