"""Prefer the section whose title is what was asked."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache

from ragq.models import Chunk, SearchResult
from ragq.rag.sentences import find_terms

PARENT = " › "  # in a heading, after each of those that it belongs to
GAIN = 0.5  # of what a score lacks to 1, for the very title
NEARLY = 0.8  # overlap (Dice) of the terms of title and question, from which it is nearly the title
FEWEST_TERMS = 2  # in both, unless they are the same words: one says too little
_NUMBER = re.compile(r"\W*(?:\d+(?:\.\d+)*|[A-Z](?:\.\d+)+)[.)]?\s+(?=\w)")
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class _Title:
    number: str
    words: list[str]
    terms: set[str]

    def liken(self, other: _Title) -> float:
        """How nearly two titles are the same, 0…1; 0 if they are not nearly, as where each has a term or a number of its own."""
        if self.number and other.number and self.number != other.number:
            return 0.0
        if self.words and self.words == other.words:
            return 1.0
        if self.terms - other.terms and other.terms - self.terms:
            return 0.0
        both = len(self.terms & other.terms)
        overlap = 2 * both / max(1, len(self.terms) + len(other.terms))
        return overlap if both >= FEWEST_TERMS and overlap >= NEARLY else 0.0


def prefer_titles(question: str, found: list[SearchResult]) -> list[SearchResult]:
    """Raise the scores of sections that have the question, or nearly, as their title; returns all, best first."""
    asked = _read_title(question)
    return sorted((_raise(result, asked) for result in found), key=lambda one: -one.score)


def find_titles(passage: Chunk | SearchResult) -> list[str]:
    """The titles of the sections that a passage belongs to or begins, without their parents'."""
    headings = [passage.heading or "", *(heading for _, heading in passage.location.sections)]
    return [heading.rsplit(PARENT, 1)[-1] for heading in dict.fromkeys(headings)]


def _raise(result: SearchResult, asked: _Title) -> SearchResult:
    likeness = max(_read_title(title).liken(asked) for title in find_titles(result))
    return replace(result, score=result.score + GAIN * likeness * (1 - result.score)) if likeness else result


@lru_cache(maxsize=4096)
def _read_title(title: str) -> _Title:
    """Read a title, and apart from it a number before it."""
    number = _NUMBER.match(title)
    rest = title[number.end() :] if number else title
    return _Title(number[0].strip(" .)") if number else "", _WORD.findall(rest.casefold()), find_terms(rest))
