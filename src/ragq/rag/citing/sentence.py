"""A sentence that a statement is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

from ragq.rag.citing.lexicon import PRONOUNS
from ragq.rag.citing.wording import Kind, Word, read_words
from ragq.rag.sentences import Span

BARE_WORDS = 6  # of a statement without the question's words that is a bare answer, not more about the subject

_SIGNS = "*_\"'”“’‘«»()[]{},.;:!?-–—"


class Sentence:
    """A sentence of a source, or the question; its words are read when it is looked at closely."""

    def __init__(self, source: int, span: Span, text: str) -> None:
        self.source = source
        self.span = span
        self.text = text

    @cached_property
    def words(self) -> list[Word]:
        return read_words(self.text)

    @cached_property
    def keys(self) -> set[str]:
        return keys_of(self.words)

    @cached_property
    def loose(self) -> set[str]:
        return {word.loose for word in self.words if word.loose}

    @cached_property
    def goes_on(self) -> bool:
        """Whether it begins with a pronoun, which stands for something in the sentence before."""
        return goes_on(self.text)

    def holds(self, word: Word) -> bool:
        return not self.keys.isdisjoint(word.keys) or bool(
            word.loose and word.loose in self.loose and not word.is_exact
        )


@dataclass(frozen=True, slots=True)
class Said:
    """The words of a statement.

    Attributes:
        own: Those that neither the question nor talk about the sources has; if there are none, those of the value, or all.
    """

    words: list[Word]
    content: list[Word]
    own: list[Word]
    asked: list[Word]  # what of the question it must fit: its words that are repeated, or all of them
    repeats: bool
    value: list[Word] | None  # what follows the colon, if the words before it are the question's
    subject: list[Word]  # what stands before the colon that the question does not have

    @property
    def in_order(self) -> list[Word]:
        """The words that may stand in the order of a sentence: a label stands in none with its value."""
        return self.words if self.value is None else self.value

    @property
    def is_bare(self) -> bool:
        """Whether it is a few words that only the question tells what they are about."""
        return len(self.in_order) <= BARE_WORDS and (self.value is not None or not self.repeats)

    @property
    def is_answer(self) -> bool:
        """Whether it is a short answer to the question, not more about the subject."""
        is_short = len(self.own) <= len(self.asked) if self.repeats else self.is_bare
        return bool(self.own) and (self.value is not None or is_short)


def goes_on(text: str) -> bool:
    """Tell whether a sentence begins with a pronoun, which stands for something in the sentence before."""
    return any(word.strip(_SIGNS).casefold() in PRONOUNS for word in text[:100].split()[:4])


def keys_of(words: list[Word]) -> set[str]:
    """What the words are compared by, those that say little left out."""
    return {key for word in words if word.kind is not Kind.STOP for key in word.keys}


@lru_cache(maxsize=2000)  # the sources of many questions are parts of one document
def read_name(name: str) -> frozenset[str]:
    """What the words of a source's name and heading are compared by."""
    return frozenset(keys_of(read_words(name.replace("_", " "))))
