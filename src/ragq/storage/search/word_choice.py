"""Choose which words of a question to search for. Common words match too many chunks to rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

from ragq.rag.sentences import STOP_WORDS
from ragq.rag.synonyms.task import LITTLE_EMPHASIS
from ragq.rag.words import Word, question_words

MATCHES = 2_000  # most chunks that a search ranks; the ranking uses all chosen words
WORDS_STEP = 4  # of the number of words that a statement is made for
# A text that repeats a word ranks up to 1.64 times as high as one that has it once, as tables and lists do with their
# words; what has the identifier asked for must rank higher yet.
IDENTIFIER_EMPHASIS = 2.0
NEAR_EMPHASIS = 0.6  # of words that mean the same as one of the question, if no chunk has that one
RANKED_WORDS = 24  # of a long question the rarest: ranking takes a microsecond a word and chunk


@dataclass(frozen=True, slots=True)
class WordShares:
    """The share of chunks that contain each common word; `rare` stands for every other word."""

    common: dict[str, float] = field(default_factory=dict)
    rare: float = 0.0

    def of(self, word: Word) -> float:
        """The share of chunks that have the word in one of its forms, at most 1."""
        return min(1.0, sum(self.common.get(form, self.rare) for form in word.forms))

    def known(self, word: Word) -> float | None:
        """The share of a common word; None for a rare one, whose matches are counted."""
        return self.of(word) if any(form in self.common for form in word.forms) else None


@dataclass(frozen=True, slots=True)
class ChosenWords:
    """The words that rank chunks, and which of them also find them; padded, so that few statements are prepared.

    Attributes:
        ranking: Each as a tsquery of its forms; an empty one is padding.
        forms: Number of forms of each; of padding 0.
        emphasis: By which the weight that its rarity gives each is multiplied; of padding 0.
        shares: The share of chunks that have the word, where it is known.
        finds: Whether each chunk with the word is found, within `MATCHES`.
        found_by: The tsquery that a chunk must match.
        heads: The number, from 1, of the word that each means the same as, or its own.
        has_near: Some mean the same as others.
    """

    ranking: list[str]
    forms: list[int]
    emphasis: list[float]
    shares: list[float | None]
    finds: list[bool]
    found_by: str
    heads: list[int]
    has_near: bool

    @property
    def parameters(self) -> dict[str, object]:
        """As the search's SQL names them."""
        return {
            "words": self.ranking,
            "forms": self.forms,
            "emphasis": self.emphasis,
            "shares": self.shares,
            "finds": self.finds,
            "found_by": self.found_by,
            **({"heads": self.heads} if self.has_near else {}),
        }


def choose_words(words: Sequence[Word], known: WordShares, chunks: int, languages: tuple[str, ...] = ()) -> ChosenWords:
    """Choose the words that rank chunks, and those that find them: the rarest, and not too many.

    A chunk is found by any of the rarest words, as many as stay under `MATCHES` together. If the rarest word alone
    exceeds that, it must have all of the rarest words, as many as needed: a single common word says little about a chunk.
    Stop words count only in a question of nothing else.
    """
    stop = _stop_forms(languages)
    telling = [word for word in words if not set(word.forms) <= stop] or words
    rarest = sorted(telling, key=lambda word: (known.of(word), word.forms))[:RANKED_WORDS]
    is_any = not rarest or known.of(rarest[0]) * chunks <= MATCHES
    kept = _fewest(rarest, known, chunks) if is_any else _all_needed(rarest, known, chunks)
    widened = _widened(kept, known, chunks) if is_any else []
    ranked = [(number, word, _emphasis(word), word in kept) for number, word in enumerate(rarest, 1)]
    ranked += [
        (number, Word(word.near), NEAR_EMPHASIS * emphasis, word in widened)
        for number, word, emphasis, _ in ranked
        if word.near
    ]
    del ranked[RANKED_WORDS:]
    padding = -len(ranked) % WORDS_STEP if ranked else WORDS_STEP
    finding = [Word(word.forms + word.near) if word in widened else word for word in kept]
    return ChosenWords(
        [_match(word) for _, word, _, _ in ranked] + [""] * padding,
        [len(word.forms) for _, word, _, _ in ranked] + [0] * padding,
        [emphasis for _, _, emphasis, _ in ranked] + [0.0] * padding,
        [known.known(word) for _, word, _, _ in ranked] + [None] * padding,
        [is_any and finds for _, _, _, finds in ranked] + [False] * padding,
        (" | " if is_any else " & ").join(map(_match, finding)),
        [number for number, _, _, _ in ranked] + [len(ranked) + 1 + place for place in range(padding)],
        has_near=len(ranked) > len(rarest),
    )


def _emphasis(word: Word) -> float:
    return IDENTIFIER_EMPHASIS if word.is_identifier else LITTLE_EMPHASIS if word.says_little else 1.0


def _widened(kept: Sequence[Word], known: WordShares, chunks: int) -> list[Word]:
    """The words that also find chunks by others that mean the same, as many as stay under `MATCHES` with those that find by their own."""
    left = MATCHES - sum(known.of(word) for word in kept) * chunks
    widened = list[Word]()
    for word in sorted(kept, key=lambda word: known.of(Word(word.near))):
        left -= known.of(Word(word.near)) * chunks
        if left < 0:
            break
        widened.append(word)
    return widened


def _fewest(rarest: Sequence[Word], known: WordShares, chunks: int) -> list[Word]:
    kept, expected = list[Word](), 0.0
    for word in rarest:
        expected += known.of(word) * chunks
        if expected > MATCHES:
            break
        kept.append(word)
    return kept


def _all_needed(rarest: Sequence[Word], known: WordShares, chunks: int) -> list[Word]:
    kept, expected = list[Word](), float(chunks)
    while len(kept) < len(rarest) and expected > MATCHES:
        kept.append(rarest[len(kept)])
        expected *= known.of(kept[-1])
    return kept


@cache
def _stop_forms(languages: tuple[str, ...]) -> frozenset[str]:
    words = question_words(" ".join(sorted(STOP_WORDS)), languages)
    return frozenset(form for word in words for form in word.forms)


def _match(word: Word) -> str:
    forms = " | ".join(map(_quote, word.forms))
    return f"({forms})" if len(word.forms) > 1 else forms


def _quote(form: str) -> str:
    return "'" + form.replace("\\", "\\\\").replace("'", "''") + "'"
