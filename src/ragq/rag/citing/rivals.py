"""Sentences that may answer a question better than the one that a statement's answer is from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from ragq.rag.citing.alignment import is_form
from ragq.rag.citing.fits import Fits
from ragq.rag.citing.kinds import AnswerKind, has_kind, read_kind
from ragq.rag.citing.sentence import Said, Sentence
from ragq.rag.citing.wording import Word
from ragq.rag.confidence import Reading, bound_reading
from ragq.rag.sentences import Span

LOST = "Another sentence of the sources answers the question better."

# Tuned on statements about the first half of XQuAD and other articles of SQuAD.
MAX_LEAD = 0.33  # by which another sentence may fit the question better than the one that has the answer
MISFIT = 0.4  # by how much less, if the question asks for a name, time or number and the answer has none
CLOSER_SHARE = 1.2  # of what another answer in the same passage is closer to the question's words, by which it is less
DOUBT = 1.0  # of a lead: less of it says nothing for certain
MOST_BEHIND = 0.4  # by words, for a rival to count: one farther behind seldom reads so much better
MOST_RIVALS = 2  # that are kept
LITTLE_FIT = 0.25  # of a sentence with little of the question's words
_ENDS = (".", "!", "?")
# Logistic regression on the same statements, of what is wrong against what is right.
BIAS, RIVAL, OWN, CLAIM = -0.64, 1.95, -0.47, -0.65
LEAST_ODDS = 0.5  # for a statement to be unsupported: fewer right ones are
MOST_CLAIM = 8.0  # that counts, either way
NO_RIVAL = -1.0  # what counts as the best rival, with its lead, where there is none
LIKELY_READING = 0.7  # of a rival that answers the question


class Marked(NamedTuple):
    """A sentence, and where in it the words stand that are said to be the answer."""

    text: str
    answer: tuple[Span, ...] = ()


@dataclass(frozen=True, slots=True)
class Rivalry:
    """The sentence that an answer is from, and others that may have another answer.

    Attributes:
        rivals: With their leads, the greatest first: by how much they fit the question better than they may.
        is_odd: The answer itself is doubtful, rivals or none: it is not of the kind that is asked for, has the question's words
            alone, or is a few words from a sentence with little of the question.
    """

    own: Marked
    rivals: Sequence[tuple[Marked, float]]
    is_odd: bool = False

    @property
    def is_lost(self) -> bool:
        """Whether the words say that a rival answers the question clearly better."""
        return bool(self.rivals) and self.rivals[0][1] > 0

    @property
    def is_open(self) -> bool:
        """Whether a reading may decide."""
        return bool(self.own.answer) and (self.rivals[0][1] < DOUBT if self.rivals else self.is_odd)

    @property
    def sentences(self) -> list[Marked]:
        return [self.own, *(one for one, _ in self.rivals)]

    def find_unread(self, readings: Mapping[Marked, Reading]) -> Marked | None:
        """The next sentence to read; None if that of no other one is likely to change what `is_lost_as_read` tells.

        Args:
            readings: Of each sentence that was read.
        """
        if self.own not in readings:
            return self.own
        if self.is_lost_as_read(readings):
            return None
        return next(
            (
                one
                for one, lead in self.rivals
                if one not in readings and self._weigh(readings[self.own], lead + LIKELY_READING) > LEAST_ODDS
            ),
            None,
        )

    def is_lost_as_read(self, readings: Mapping[Marked, Reading]) -> bool:
        """Tell whether something else answers the question, as the sentences read that were read."""
        read = [lead + bound_reading(readings[one].score) for one, lead in self.rivals if one in readings]
        return self._weigh(readings[self.own], max(read, default=NO_RIVAL)) > LEAST_ODDS

    def _weigh(self, own: Reading, rival: float) -> float:
        """The log-odds that something else answers the question.

        Args:
            rival: The lead of the best rival, and what its reading says.
        """
        claim = min(max(own.claim, -MOST_CLAIM), MOST_CLAIM)
        return BIAS + RIVAL * rival + OWN * bound_reading(own.score) + CLAIM * claim


class Rivals:
    """Finds the rivals of passages that have the words of a statement.

    Args:
        asked: The question.
        sentences: Those of the sources.
        fits: How well they fit what the statement must fit of the question.
    """

    def __init__(self, asked: Sentence, sentences: Sequence[Sentence], said: Said, fits: Fits) -> None:
        self._asked = asked
        self._sentences = sentences
        self._said = said
        self._fits = fits

    def find(self, window: Sequence[int]) -> Rivalry:
        """Find sentences without the statement's own words that may answer the question better than those of a passage.

        Args:
            window: Positions of the sentences of the passage.
        """
        held = {place: sum(self._sentences[place].holds(word) for word in self._said.own) for place in window}
        most = max(held.values())
        own = max((place for place in window if held[place] == most), key=self._fits.of)
        misfits = self._misfits(window)
        lead = MAX_LEAD - CLOSER_SHARE * self._find_closer(window) - MISFIT * misfits
        found = self._fits.find_better(
            self._fits.of(own) + lead - MOST_BEHIND,
            self._sentences[own].source,
            lambda place: self._is_rival(place, window),
        )
        rivals = [(Marked(self._sentences[place].text), better - MOST_BEHIND) for better, place in found[:MOST_RIVALS]]
        return Rivalry(self._mark(own), rivals, misfits or self._repeats_question() or self._is_far(own))

    def _misfits(self, window: Sequence[int]) -> bool:
        """Tell whether the question asks for a name, time or number, and the statement has none."""
        words = [word for place in window for word in self._sentences[place].words]
        kind = self._kind
        return kind is not None and not has_kind(kind, self._said.own, (self._said.words, words))

    def _repeats_question(self) -> bool:
        """Tell whether a value behind the question's own words has no others."""
        own = (word for word in self._said.own if word.is_content)
        return self._said.value is not None and all(map(self._asked.holds, own))

    def _mark(self, place: int) -> Marked:
        """Mark the statement's own words in a sentence."""
        text, end = self._sentences[place].text, 0
        spans: list[Span] = []
        for word in self._sentences[place].words:
            start = text.find(word.text, end)
            if start < 0:
                continue  # a name that is read in one way, such as that of a country
            end = start + len(word.text)
            if any(is_form(one, word) for one in self._said.own):
                spans.append((start, end))
        return Marked(text, tuple(spans))

    def _is_far(self, place: int) -> bool:
        """Tell whether the statement is a few words from a sentence with little of the question, and not all of that sentence."""
        sentence = self._sentences[place]
        if not self._said.is_bare or self._fits.of(place) >= LITTLE_FIT or not sentence.text.endswith(_ENDS):
            return False
        words = (word for word in sentence.words if word.is_content)
        return any(not any(is_form(one, word) for one in self._said.content) for word in words)

    def _is_rival(self, place: int, window: Sequence[int]) -> bool:
        """Tell whether a sentence may have another answer than the statement."""
        sentence, said = self._sentences[place], self._said
        if all(map(sentence.holds, said.own)) or (place == window[-1] + 1 and sentence.goes_on):
            return False
        if place in window and any(
            self._sentences[other].holds(word) and not sentence.holds(word) for word in said.asked for other in window
        ):
            return False  # the rest of the passage goes on with what was asked
        return any(self._is_candidate(word, sentence.words) for word in sentence.words)

    def _is_candidate(self, word: Word, among: Sequence[Word]) -> bool:
        """Tell whether a word could be another answer than the statement's own words."""
        if not word.is_content or (self._kind and not has_kind(self._kind, [word], [among])):
            return False
        return not self._asked.holds(word) and not any(is_form(own, word) for own in self._said.own)

    def _find_closer(self, window: Sequence[int]) -> float:
        """By how much another answer in a passage is closer to the question's words than the statement's."""
        words = [word for place in window for word in self._sentences[place].words]
        asked = self._fits.locate(words)
        own = [
            self._fits.closeness(asked, place)
            for place, word in enumerate(words)
            if any(is_form(one, word) for one in self._said.own)
        ]
        if not own:  # such as the initials of a name
            return 0.0
        others = [
            self._fits.closeness(asked, place) for place, word in enumerate(words) if self._is_candidate(word, words)
        ]
        return max(0.0, max(others, default=0.0) - max(own))

    @cached_property
    def _kind(self) -> AnswerKind | None:
        return read_kind(self._asked.words)
