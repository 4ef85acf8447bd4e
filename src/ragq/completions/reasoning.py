"""Tell a model's reasoning from its answer where both come in one text.

Models mark their reasoning by a pair of tags at the start of the text: `<think>` (DeepSeek, Qwen, GLM, MiniMax),
`<thinking>`, `<thought>` (Gemini, EXAONE), `<reasoning>` (Reka), `<seed:think>` (Seed-OSS), `[THINK]` (Mistral),
`◁think▷` (Kimi). A tag further on is part of the answer.

With some chat templates the prompt ends with the opening tag, so that the text has the closing tag alone. The first such
answer is passed on as text while it streams, and only its end shows what was reasoning: what was passed on cannot be
taken back, and holding back every text of every model would end streaming. From then on the text of this endpoint's
model is held back until its closing tag: the template opened the tag for the model, so it will come. An answer that
ends without one was text after all, is passed on whole, and ends the holding back.
"""

from __future__ import annotations

import re
from typing import Final, Literal

Kind = Literal["text", "reasoning"]

_CLOSERS: Final = {
    f"<{name}>": f"</{name}>" for name in ("think", "thinking", "thought", "reasoning", "seed:think")
} | {
    "[THINK]": "[/THINK]",
    "◁think▷": "◁/think▷",
}
_LONGEST: Final = max(map(len, _CLOSERS.values()))
_MARKS: Final = tuple(_CLOSERS) + tuple(_CLOSERS.values())
_PREFIXES: Final = frozenset(mark[:length] for mark in _MARKS for length in range(len(mark)))
_FIRST_SIGNS: Final = re.compile("[<[◁]")  # of a tag
_CLOSER: Final = re.compile("|".join(map(re.escape, _CLOSERS.values())))
_OPENERS: Final = {closer: opener for opener, closer in _CLOSERS.items()}
_MAX_BLANK_CHARACTERS: Final = 100  # before the first tag


class Splitter:
    """Splits one answer's text, as it arrives, into reasoning and text.

    Args:
        is_opened: The template opens the tag: hold the text back until the closing tag.

    Attributes:
        is_passing: What comes is passed on as text, whatever it is.
        found_closer: A closing tag ended the reasoning whose opening tag the text does not have.
    """

    def __init__(self, *, is_opened: bool = False) -> None:
        self.is_passing = self.found_closer = False
        self._is_opened = is_opened
        self._mode: Literal["start", "held", "thinking", "after"] = "start"
        self._closer, self._tail, self._held = "", "", list[str]()
        self._is_blank = True  # nothing but white space since the last tag

    def feed(self, text: str) -> list[tuple[Kind, str]]:
        """Take in text; returns what can be passed on, in order."""
        if self.is_passing:
            return [("text", text)]
        text, self._tail = self._tail + text, ""
        if self._mode == "start":
            return self._start(text)
        if self._mode == "thinking":
            return self._think(text)
        return self._hold(text) if self._mode == "held" else self._follow(text)

    def end(self, *, is_cut: bool) -> list[tuple[Kind, str]]:
        """Take in the end; returns what was held back: the answer, or reasoning if the model met its output limit."""
        rest = "".join([*self._held, self._tail])
        self._held, self._tail = [], ""
        is_reasoning = self._mode == "thinking" or (self._mode == "held" and is_cut)
        return [("reasoning" if is_reasoning else "text", rest)] if rest else []

    def _start(self, text: str) -> list[tuple[Kind, str]]:
        begun = text.lstrip()
        if begun in _PREFIXES and len(text) <= _MAX_BLANK_CHARACTERS:
            self._tail = text
            return []
        mark = next((mark for mark in _MARKS if begun.startswith(mark)), "")
        if closer := _CLOSERS.get(mark):
            self._mode, self._closer = "thinking", closer
            return self._think(begun[len(mark) :])
        if mark:
            self.found_closer = True
            self._mode = "after"
            return self._follow(begun[len(mark) :])
        if self._is_opened:
            self._mode = "held"
            return self._hold(text)
        self.is_passing = True
        return [("text", text)]

    def _think(self, text: str) -> list[tuple[Kind, str]]:
        place = text.find(self._closer)
        thought = text[:place] if place >= 0 else self._keep_tail(text, (self._closer,))
        if self._is_blank:
            thought = thought.lstrip()
        made: list[tuple[Kind, str]] = [("reasoning", thought)] if thought else []
        self._is_blank = self._is_blank and not thought
        if place < 0:
            return made
        self._mode = "after"
        return made + self._follow(text[place + len(self._closer) :])

    def _hold(self, text: str) -> list[tuple[Kind, str]]:
        if match := _CLOSER.search(text):
            thought = "".join([*self._held, text[: match.start()]])
            self._held, self._mode, self.found_closer = [], "after", True
            return [("reasoning", thought), *self._follow(text[match.end() :])]
        self._held.append(self._keep_tail(text, tuple(_OPENERS)))
        return []

    def _follow(self, text: str) -> list[tuple[Kind, str]]:
        text = text.lstrip()
        self.is_passing = bool(text)
        return [("text", text)] if text else []

    def _keep_tail(self, text: str, closers: tuple[str, ...]) -> str:
        """Keep back an end that a closing tag may begin with; returns the rest."""
        start = max(0, len(text) - _LONGEST + 1)
        while match := _FIRST_SIGNS.search(text, start):
            start = match.start()
            tail = text[start:]
            if any(closer.startswith(tail) for closer in closers):
                self._tail = tail
                return text[:start]
            start += 1
        return text


def split_unopened(text: str) -> tuple[str, str] | None:
    """Split a whole text at a closing tag without an opening one: (reasoning, answer); None if it has none.

    A tag in code, which backticks mark, is text, and so is one after a quotation mark.
    """
    match = _CLOSER.search(text)
    if not match or _OPENERS[match[0]] in text[: match.start()]:
        return None
    before = text[: match.start()]
    if before.count("`") % 2 or before.endswith(('"', "'", "“", "«")):
        return None
    return before, text[match.end() :].lstrip()
