"""A sentence that a statement is compared with."""

from __future__ import annotations

from functools import cached_property, lru_cache

from ragq.rag.citing.lexicon import PRONOUNS
from ragq.rag.citing.wording import Kind, Word, read_words
from ragq.rag.sentences import Span

_SIGNS = "*_\"'”“’‘«»()[]{},.;:!?-–—"


class Sentence:
    """A sentence of a source, or the question; its words are read when it is looked at closely."""

    def __init__(self, source: int, span: Span, text: str) -> None:
        self.source = source
        self.span = span
        self._text = text

    @cached_property
    def words(self) -> list[Word]:
        return read_words(self._text)

    @cached_property
    def keys(self) -> set[str]:
        return keys_of(self.words)

    @cached_property
    def loose(self) -> set[str]:
        return {word.loose for word in self.words if word.loose}

    @cached_property
    def goes_on(self) -> bool:
        """Whether it begins with a pronoun, which stands for something in the sentence before."""
        return any(word.strip(_SIGNS).casefold() in PRONOUNS for word in self._text[:100].split()[:4])

    def holds(self, word: Word) -> bool:
        return not self.keys.isdisjoint(word.keys) or bool(
            word.loose and word.loose in self.loose and not word.is_exact
        )


def keys_of(words: list[Word]) -> set[str]:
    """What the words are compared by, those that say little left out."""
    return {key for word in words if word.kind is not Kind.STOP for key in word.keys}


@lru_cache(maxsize=2000)  # the sources of many questions are parts of one document
def read_name(name: str) -> frozenset[str]:
    """What the words of a source's name and heading are compared by."""
    return frozenset(keys_of(read_words(name.replace("_", " "))))
