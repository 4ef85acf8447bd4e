"""A cross-encoder: it reads a question and a sentence together, and tells how well the one answers the other.

The lower three layers are MiniLM's; `cross_encoder.onnx` has three that were trained for this (`scripts/cross_encoder`).
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragq.client.embedding_client import load_tokenizer
from ragq.client.tenancy.turn_thread import TurnThread
from ragq.rag.confidence import Reading
from ragq.rag.sentences import Span
from ragq.tasks import give_back_memory

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

UPPER_LAYERS = Path(__file__).with_name("cross_encoder.onnx")
QUESTION_TOKENS, TEXT_TOKENS = 40, 190  # as many as it was trained with; what is longer is cut


class CrossEncoder:
    """Reads in a thread of its own; the model is loaded when it is first needed."""

    def __init__(self) -> None:
        self._session: InferenceSession | None = None
        self._thread = TurnThread("reading")

    async def read(self, question: str, sentence: str, answer: Sequence[Span] = ()) -> Reading:
        """Tell how well a sentence answers a question in English.

        Args:
            answer: Where in the sentence the words stand that are said to be the answer.
        """
        return await self._thread.run("questions", self._read_at_once(question, sentence, answer))

    def _read_at_once(self, question: str, sentence: str, answer: Sequence[Span]) -> Generator[None, None, Reading]:
        yield from ()  # one step
        return self._read(question, sentence, answer)

    def _read(self, question: str, sentence: str, answer: Sequence[Span]) -> Reading:
        tokenizer = load_tokenizer()
        asked = tokenizer.encode(question, add_special_tokens=False).ids[:QUESTION_TOKENS]
        said = tokenizer.encode(sentence, add_special_tokens=False)
        marked = [
            place
            for place, (start, end) in enumerate(said.offsets[:TEXT_TOKENS])
            if any(start < last and first < end for first, last in answer)
        ]
        score, claim = self._load().run(["score", "claim"], make_inputs(asked, said.ids[:TEXT_TOKENS], marked))
        return Reading(float(score[0, 0]), float(claim[0, 0]))

    def _load(self) -> InferenceSession:
        if self._session is None:
            from ragq.client.minilm.graph import fold, join, read_model  # noqa: PLC0415
            from ragq.client.minilm.session import open_session  # noqa: PLC0415

            self._session = open_session(join(fold(read_model()), UPPER_LAYERS.read_bytes()))
            give_back_memory()  # 80 MB that both models took while they were opened
        return self._session

    async def close(self) -> None:
        await self._thread.close()


def make_inputs(asked: Sequence[int], said: Sequence[int], marked: Sequence[int] = ()) -> dict[str, Any]:
    """Make the model's inputs of the token ids of a question and a sentence.

    Args:
        marked: Places of the sentence's tokens that are said to be the answer.
    """
    import numpy as np  # noqa: PLC0415  (only the processes that need it pay for it)

    from ragq.client.minilm.graph import END, START  # noqa: PLC0415

    ids = np.array([[START, *asked, END, *said, END]], dtype=np.int64)
    of_sentence = np.zeros_like(ids)
    of_sentence[:, len(asked) + 2 :] = 1
    shared = np.isin(ids, list({*asked} & {*said})).astype(np.int64)
    answer = np.zeros(ids.shape, dtype=np.float32)
    if marked:
        answer[0, [len(asked) + 2 + place for place in marked]] = 1 / len(marked)
    return {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "token_type_ids": of_sentence,
        "marks": shared + 2 * of_sentence,
        "answer": answer,
    }
