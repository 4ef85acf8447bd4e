"""How well sentences fit a question. Of two that name something, the one that fits better has the answer."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import pairwise

from ragq.rag.citing.sentence import Sentence
from ragq.rag.citing.wording import Word

# Fitted to find the sentence that has the answer, on the first half of XQuAD.
MEANT_SHARE = 0.8  # what a word counts that stands in the sentence before, where a pronoun stands for it
NEAR_SHARE = 0.3  # what a word counts that stands in the sentence before, or in the source's name
PAIR_SHARE = 0.36  # what two neighbouring words of the question count that stand near each other, in the same order
PAIR_WORDS = 3  # how far apart they may be
OTHER_SOURCE = 0.1  # what a sentence of another source has to fit better
REACH = 10  # words, at which a word of the question counts about a third as close
CANDIDATES = 8  # sentences with most of the words, of which pairs are looked for


class Fits:
    """How well each sentence fits some words of a question: the share of them that it has, the rare ones weighing more.

    Args:
        asked: The words, in their order.
        places: Of each of them, the sentences that have it.
        about: The words of each source's name and heading.
    """

    def __init__(
        self,
        asked: list[Word],
        places: Mapping[Word, frozenset[int]],
        sentences: Sequence[Sentence],
        about: Callable[[int], frozenset[str]],
    ) -> None:
        self._asked = asked
        self._places = places
        self._sentences = sentences
        self._about = about
        self._known: dict[int, float] = {}

    @cached_property
    def _weights(self) -> dict[Word, float]:
        count = len(self._sentences) + 0.5
        rarity = {word: math.log(1 + count / (len(self._places[word]) + 0.5)) for word in self._asked}
        total = sum(rarity.values()) or 1
        return {word: one / total for word, one in rarity.items()}

    @cached_property
    def _covers(self) -> dict[int, float]:
        """The share of the words that each sentence has."""
        covers: dict[int, float] = defaultdict(float)
        for word, weight in self._weights.items():
            for place in self._places[word]:
                covers[place] += weight
        return covers

    def of(self, place: int) -> float:
        """How well a sentence fits: 0 to about 1.4."""
        if place not in self._known:
            self._known[place] = self._covers.get(place, 0.0) + self._cover_near(place) + PAIR_SHARE * self._pair(place)
        return self._known[place]

    def find_better(self, fit: float, source: int, is_rival: Callable[[int], bool]) -> list[tuple[float, int]]:
        """Find rivals that fit better, and by how much, the best first; only sentences with most of the words are tried.

        Args:
            source: Of the sentence that fits so well; one of another source has to fit better by `OTHER_SOURCE`.
        """
        nearest = sorted(self._covers, key=lambda place: (-self._covers[place], place))[:CANDIDATES]
        better = [
            (self.of(place) - OTHER_SOURCE * (self._sentences[place].source != source) - fit, place)
            for place in nearest
            if self._covers[place] + MEANT_SHARE * (1 - self._covers[place]) + PAIR_SHARE > fit  # else it cannot
        ]
        better.sort(key=lambda one: (-one[0], one[1]))
        return [(lead, place) for lead, place in better if lead > 0 and is_rival(place)]

    def locate(self, words: Sequence[Word]) -> dict[str, list[int]]:
        """Where in a passage the question's words stand, in order."""
        places: dict[str, list[int]] = {}
        for place, word in enumerate(words):
            for key in self._by_key.keys() & set(word.keys):
                places.setdefault(key, []).append(place)
        return places

    def closeness(self, asked: Mapping[str, Sequence[int]], position: int) -> float:
        """How close to a position the question's words stand: the share of them, each less the farther away it is.

        Args:
            asked: As of `locate`.
        """
        return sum(
            self._by_key[key] * math.exp(-_find_distance(places, position) / REACH) for key, places in asked.items()
        )

    @cached_property
    def _by_key(self) -> dict[str, float]:
        return {key: weight for word, weight in self._weights.items() for key in word.keys}

    def _cover_near(self, place: int) -> float:
        source = self._sentences[place].source
        before = place - 1 if place and self._sentences[place - 1].source == source else None
        share = MEANT_SHARE if self._sentences[place].goes_on else NEAR_SHARE
        about = self._about(source)
        near = 0.0
        for word, weight in self._weights.items():
            known = self._places[word]
            if place in known:
                continue
            if before in known:
                near += share * weight
            elif not about.isdisjoint(word.keys):
                near += NEAR_SHARE * weight
        return near

    def _pair(self, place: int) -> float:
        """The share of the question's pairs of neighbouring words that a sentence has."""
        at: dict[str, list[int]] = defaultdict(list)
        for position, word in enumerate(self._sentences[place].words):
            for key in word.keys:
                at[key].append(position)
        total = found = 0.0
        for first, second in pairwise(self._asked):
            weight = self._weights[first] + self._weights[second]
            total += weight
            if any(
                0 < after - before <= PAIR_WORDS
                for one in first.keys
                for before in at.get(one, ())
                for other in second.keys
                for after in at.get(other, ())
            ):
                found += weight
        return found / (total or 1)


def _find_distance(places: Sequence[int], position: int) -> int:
    """How far the nearest of some places, in order, is from a position."""
    after = bisect_left(places, position)
    return min(abs(place - position) for place in places[max(0, after - 1) : after + 1])
