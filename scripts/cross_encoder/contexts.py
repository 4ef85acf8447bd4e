"""Texts of different lengths around the sentence that answers a question, and others without an answer."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from squad import Example, Sentence

from ragq.client.minilm.cross_encoder import TEXT_TOKENS

AROUND = 2  # sentences on either side, at most
POOL = 512  # questions whose texts are put into batches by length
RIGHT = {
    "alone": 0.25,
    "around": 0.3,
    "whole": 0.45,
}  # shares of the sentence, of it with others around it, and of its paragraph
WRONG_ALONE = 0.5  # of the texts without an answer, of which there is one for each with one: a sentence
FIRST_FAR = 5  # of the sentences of other paragraphs, those with most of the question's words


@dataclass(frozen=True, slots=True)
class Context:
    """A question and a text, and the first and last token of the answer in it; None if it has none."""

    question: list[int]
    tokens: list[int]
    answer: tuple[int, int] | None

    def __len__(self) -> int:
        return len(self.question) + len(self.tokens) + 3


class Contexts:
    """Makes batches of texts.

    Args:
        tokens: Of a batch, with its padding.
    """

    def __init__(self, sentences: list[Sentence], tokens: int, chance: random.Random) -> None:
        self._sentences = sentences
        self._tokens = tokens
        self._chance = chance

    def make_batches(self, examples: list[Example]) -> Iterator[list[Context]]:
        """Yield batches of similar length, for ever."""
        while True:
            self._chance.shuffle(examples)
            for start in range(0, len(examples), POOL):
                made = [context for one in examples[start : start + POOL] for context in self._make(one)]
                batches = list(self._group(sorted(made, key=len)))
                self._chance.shuffle(batches)
                yield from batches

    def _group(self, made: list[Context]) -> Iterator[list[Context]]:
        batch: list[Context] = []
        for one in made:
            if batch and len(one) * (len(batch) + 1) > self._tokens:
                yield batch
                batch = []
            batch.append(one)
        yield batch

    def _make(self, example: Example) -> Iterator[Context]:
        yield self._make_right(example)
        if tokens := self._choose_wrong(example):
            yield Context(example.question, tokens, None)

    def _make_right(self, example: Example) -> Context:
        first = last = gold = example.gold
        kind = self._chance.choices(list(RIGHT), list(RIGHT.values()))[0]
        if kind == "around":
            first, last = gold - self._chance.randint(0, AROUND), gold + self._chance.randint(0, AROUND)
        elif kind == "whole":
            first, last = 0, len(self._sentences)
        places = self._bound(first, last, gold)
        before = sum(len(self._sentences[place].tokens) for place in places if place < gold)
        tokens = [token for place in places for token in self._sentences[place].tokens]
        start, end = example.answer
        return Context(example.question, tokens, (before + start, before + end))

    def _bound(self, first: int, last: int, gold: int) -> list[int]:
        """The sentences from first to last that are of the paragraph of one, as many as have no more than `TEXT_TOKENS`."""
        paragraph = self._sentences[gold].paragraph
        low = high = gold
        left = TEXT_TOKENS - len(self._sentences[gold].tokens)
        while True:
            more = [
                place
                for place, is_inside in ((low - 1, low > first), (high + 1, high < last))
                if is_inside and 0 <= place < len(self._sentences) and self._sentences[place].paragraph == paragraph
            ]
            fitting = [place for place in more if len(self._sentences[place].tokens) <= left]
            if not fitting:
                return list(range(low, high + 1))
            chosen = self._chance.choice(fitting)
            left -= len(self._sentences[chosen].tokens)
            low, high = min(low, chosen), max(high, chosen)

    def _choose_wrong(self, example: Example) -> list[int]:
        """Choose a text of the same paragraph, of another one with the question's words, or any."""
        chance = self._chance.random()
        gold, near, far = example.gold, example.near, example.far[:FIRST_FAR]
        is_alone = self._chance.random() < WRONG_ALONE
        if near and chance < 0.5:
            if is_alone:
                return self._sentences[self._chance.choice(near)].tokens
            places = [place for place in self._bound(gold - AROUND, gold + AROUND, gold) if place != gold]
        elif far and chance < 0.9:
            place = self._chance.choice(far)
            around = (0, 0) if is_alone else (self._chance.randint(0, AROUND), self._chance.randint(0, AROUND))
            places = self._bound(place - around[0], place + around[1], place)
        else:
            place = self._chance.randrange(len(self._sentences))
            places = self._bound(place, place + 1, place)
        return [token for place in places for token in self._sentences[place].tokens][:TEXT_TOKENS]
