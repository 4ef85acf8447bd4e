"""all-MiniLM-L6-v2 on the CPU: texts in, vectors out, without a network or an event loop."""

from __future__ import annotations

import math
import re
from collections.abc import Generator, Iterator

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from ragq.client.minilm.graph import END, START, fold, read_model
from ragq.client.minilm.session import open_session
from ragq.tasks import run_through

Vectors = NDArray[np.float32]

DIMENSIONS = 384
WINDOW_TOKENS = 256  # special tokens included; the model was trained on no more

PIECE_CHARACTERS = 20_000  # tokenized in one step, in a few milliseconds
MOST_WORD_CHARACTERS = 200  # a longer one is a single unknown token


class MiniLM:
    """The loaded model; use it from one thread at a time."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._session = open_session(fold(read_model()))
        self._tokenizer = tokenizer

    def embed(self, text: str) -> Vectors:
        return run_through(self.embed_in_steps(text))

    def embed_in_steps(self, text: str) -> Generator[None, None, Vectors]:
        """Embed a text of any length: the mean of its tokens' vectors, over as many windows as it takes, one a step."""
        ids: list[int] = []
        for piece in _cut(text):
            if ids:
                yield
            ids += self._tokenizer.encode(piece, add_special_tokens=False).ids
        window_count = max(1, math.ceil(len(ids) / (WINDOW_TOKENS - 2)))
        vector = np.zeros(DIMENSIONS, dtype=np.float32)
        for number, part in enumerate(np.array_split(np.array(ids, dtype=np.int64), window_count)):
            if number:
                yield
            vector += self._run(part).sum(axis=0)
        return vector / np.linalg.norm(vector)

    def _run(self, ids: NDArray[np.int64]) -> Vectors:
        """Compute the vector of every token of one window: (tokens + 2, dimensions).

        One window at a time: on a single thread batches gain nothing, and padding costs time and memory.
        """
        tokens = np.concatenate([[START], ids, [END]]).reshape(1, -1)
        inputs = {"input_ids": tokens, "attention_mask": np.ones_like(tokens), "token_type_ids": np.zeros_like(tokens)}
        vectors: Vectors = self._session.run(None, inputs)[0][0]
        return vectors


def _cut(text: str) -> Iterator[str]:
    """Cut a long text where white space is, which is where words end for the tokenizer, too."""
    start = 0
    while len(text) - start > PIECE_CHARACTERS:
        end = start + PIECE_CHARACTERS
        spaces = re.finditer(r"\s", text[end - MOST_WORD_CHARACTERS : end])
        cut = end - MOST_WORD_CHARACTERS + max((space.start() for space in spaces), default=MOST_WORD_CHARACTERS)
        yield text[start:cut]
        start = cut
    yield text[start:]
