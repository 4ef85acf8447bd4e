"""The terms of a question, and those of passages that mean the same."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache

from ragq.rag.blocks import asks_what_to_do
from ragq.rag.sentences import find_terms
from ragq.rag.synonyms.table import LANGUAGES, Synonyms
from ragq.rag.synonyms.task import FILLERS, LITTLE_EMPHASIS
from ragq.rag.words import fold, stem

NEAR_SHARE = 0.5  # of a term's weight that a word which means the same gets
NEAR = "≈"  # begins what stands for a term and all that mean the same; no term has it
LEAST_STEM = 4  # characters
ENDING = 3  # characters that an inflected word may have after its stem
_NONE: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class _Forms:
    """How passages may write a word: as a term, as one that begins so, or with a hyphen, by the terms of its parts."""

    term: str | None
    stems: frozenset[str]
    parts: frozenset[str]


class NearTerms:
    """Marks of terms that a question's own stand for, in another form or as a word that means the same."""

    def __init__(self, question: str, synonyms: Synonyms) -> None:
        is_task = asks_what_to_do(question)
        self._little = _little_terms() if is_task else _NONE
        self._heads: set[str] = set()
        self._terms: dict[str, set[str]] = {}
        self._stems: dict[str, set[str]] = {}
        self._compounds: list[tuple[frozenset[str], str]] = []
        for meant in synonyms.find(question, is_task=is_task):
            terms = [(term, word) for word in meant.words for term in find_terms(word)]
            telling = [one for one in terms if one[0] not in self._little]
            for head, word in (telling or terms)[:1]:
                self._heads.add(head)
                self._add(NEAR + head, _read_forms(word))
                for forms in map(_read_forms, meant.others):
                    if not forms.parts <= self._little:
                        self._add(NEAR + head, forms)

    def _add(self, mark: str, forms: _Forms) -> None:
        if forms.term is None:
            self._compounds.append((forms.parts, mark))
        else:
            self._terms.setdefault(forms.term, set()).add(mark)
        for one in forms.stems:
            self._stems.setdefault(one, set()).add(mark)

    def mark(self, terms: set[str]) -> set[str]:
        """The terms, and a mark for each term of the question that they have, or have another word for."""
        if not self._heads:
            return terms
        found = set[str]()
        for term in terms:
            found |= self._terms.get(term, _NONE)
            for end in range(max(LEAST_STEM, len(term) - ENDING), len(term) + 1):
                found |= self._stems.get(term[:end], _NONE)
        found.update(mark for parts, mark in self._compounds if parts <= terms)
        return terms | found if found else terms

    def spread(self, term: str) -> dict[str, float]:
        """The shares of a question's term and of its mark, if it has one, in the term's weight."""
        return {one: self.share(one) for one in ((term, NEAR + term) if term in self._heads else (term,))}

    def share(self, one: str) -> float:
        """The share of a question's term, or of a mark, in the weight of that term."""
        return NEAR_SHARE if one.startswith(NEAR) else 1 - NEAR_SHARE if one in self._heads else 1.0

    def emphasis(self, term: str) -> float:
        """By what the weight of a question's term is multiplied."""
        return LITTLE_EMPHASIS if term in self._little else 1.0


@lru_cache(maxsize=4096)
def _read_forms(word: str) -> _Forms:
    terms = frozenset(find_terms(word))
    stems = {fold(stem(word.casefold(), language)) for language in LANGUAGES} if "-" not in word else set()
    (term,) = terms if len(terms) == 1 else (None,)
    return _Forms(term, frozenset(one for one in stems if len(one) >= LEAST_STEM), terms)


@cache
def _little_terms() -> frozenset[str]:
    return frozenset(find_terms(" ".join(FILLERS)))
