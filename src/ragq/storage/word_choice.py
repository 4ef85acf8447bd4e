"""Choose which words of a question to search for. Common words match too many chunks to rank."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

MATCHES = 2_000  # most chunks that a search ranks; the ranking uses all words of the question


@dataclass(frozen=True, slots=True)
class WordShares:
    """The share of chunks that contain each common word; `rare` stands for every other word."""

    common: dict[str, float] = field(default_factory=dict)
    rare: float = 0.0

    def of(self, word: str) -> float:
        return self.common.get(word, self.rare)


def choose_words(words: Iterable[str], known: WordShares, chunks: int) -> str:
    """Write the tsquery that selects the chunks to rank: those with the rarest words, and not too many.

    It matches any of the rarest words, as many as stay under `MATCHES` together. If the rarest word alone exceeds that,
    it matches all of the rarest words, as many as needed: a single common word says little about a chunk.
    """
    rarest = sorted(words, key=lambda word: (known.of(word), word))
    kept = list[str]()
    if rarest and known.of(rarest[0]) * chunks > MATCHES:
        expected = float(chunks)
        while len(kept) < len(rarest) and expected > MATCHES:
            kept.append(rarest[len(kept)])
            expected *= known.of(kept[-1])
        return " & ".join(map(_quote, kept))
    expected = 0.0
    for word in rarest:
        expected += known.of(word) * chunks
        if expected > MATCHES:
            break
        kept.append(word)
    return " | ".join(map(_quote, kept))


def _quote(word: str) -> str:
    return "'" + word.replace("\\", "\\\\").replace("'", "''") + "'"
