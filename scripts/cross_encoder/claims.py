"""Train what tells whether some words of a sentence are the answer, on the vectors of the cross-encoder, which stays as it is."""

from __future__ import annotations

import multiprocessing
import random
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from export import LAST, POOLED, add_claim
from onnx import TensorProto, helper
from squad import Example, Sentence
from torch import nn
from torch.nn import functional

from ragq.client.embedding_client import load_tokenizer
from ragq.client.minilm.cross_encoder import make_inputs
from ragq.client.minilm.graph import fold, join, read_model
from ragq.client.minilm.session import open_session

QUESTIONS = 60_000  # that are used
NEAR, SAME, FAR = 2, 1, 1  # wrong answers of one: of other sentences of its paragraph, of its own, of other paragraphs
FAR_TRIED = 12  # questions of the article, of which one of another paragraph is looked for
INNER = 64
EPOCHS, BATCH, RATE = 8, 256, 2e-3
ASIDE = 20  # every such question is kept aside
ALARMS = 0.04  # of right answers, at which the wrong ones found are shown


class Claim(NamedTuple):
    """A question, a sentence, the first and the last token of what is said to be the answer, and whether it is."""

    question: list[int]
    sentence: list[int]
    answer: tuple[int, int]
    is_right: bool


class Claims:
    """Makes claims: each question with its answer, and with answers of other questions in their sentences."""

    def __init__(self, examples: Sequence[Example], sentences: Sequence[Sentence], chance: random.Random) -> None:
        self._sentences = sentences
        self._chance = chance
        self._of_paragraph: dict[int, list[Example]] = defaultdict(list)
        self._of_article: dict[int, list[Example]] = defaultdict(list)
        for one in examples:
            self._of_paragraph[sentences[one.gold].paragraph].append(one)
            self._of_article[one.article].append(one)
        vocabulary = load_tokenizer().get_vocab()
        self._digits = {number for token, number in vocabulary.items() if re.search(r"\d", token)}

    def make(self, example: Example) -> Iterator[Claim]:
        """Yield the right claim, and wrong ones."""
        yield self._claim(example, example, is_right=True)
        paragraph = self._sentences[example.gold].paragraph
        near = [one for one in self._of_paragraph[paragraph] if self._is_other(one, example)]
        article = self._of_article[example.article]
        far = [
            one
            for one in self._chance.sample(article, min(FAR_TRIED, len(article)))
            if self._sentences[one.gold].paragraph != paragraph and self._is_other(one, example)
        ]
        same = [one for one in near if one.gold == example.gold]
        other = [one for one in near if one.gold != example.gold]
        for found, count in ((other, NEAR), (same, SAME), (far, FAR)):
            for one in self._chance.sample(found, min(count, len(found))):
                yield self._claim(example, one, is_right=False)

    def _claim(self, asked: Example, said: Example, *, is_right: bool) -> Claim:
        return Claim(asked.question, self._sentences[said.gold].tokens, said.answer, is_right)

    def _is_other(self, one: Example, example: Example) -> bool:
        """Tell whether it has another answer, with a number if the right one has."""
        first, last = example.answer
        is_apart = one.gold != example.gold or one.answer[0] > last or one.answer[1] < first
        said, right = set(self._words(one)), set(self._words(example))
        return is_apart and said != right and said.isdisjoint(self._digits) == right.isdisjoint(self._digits)

    def _words(self, example: Example) -> list[int]:
        first, last = example.answer
        return self._sentences[example.gold].tokens[first : last + 1]


def train_claims(path: Path, examples: Sequence[Example], sentences: Sequence[Sentence], chance: random.Random) -> None:
    """Add to the exported cross-encoder what tells whether marked words are the answer."""
    claims = Claims(examples, sentences, chance)
    chosen = chance.sample(list(examples), min(QUESTIONS, len(examples)))
    made = [list(claims.make(one)) for one in chosen]
    halves = [(path, made[start::2]) for start in range(2)]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        read = pool.starmap(_read, halves)
    vectors, right, aside = (np.concatenate(parts) for parts in zip(*read, strict=True))
    head = _fit(vectors, right, aside)
    _show(head, vectors[aside], right[aside])
    add_claim(path, {name: tensor.numpy() for name, tensor in head.state_dict().items()})


def _read(path: Path, made: list[list[Claim]]) -> tuple[Any, Any, Any]:
    """Read claims: the vectors of each, whether it is right, and whether it is kept aside."""
    session = _open(path)
    vectors, right, aside = [], [], []
    for place, claims in enumerate(made):
        known: dict[tuple[int, ...], Any] = {}
        for one in claims:
            key = tuple(one.sentence)
            if key not in known:
                known[key] = _run(session, one)
            pooled, last = known[key]
            first = len(one.question) + 2
            said = last[0, first + one.answer[0] : first + one.answer[1] + 1].mean(0)
            vectors.append(np.concatenate([pooled[0], said]).astype(np.float16))
            right.append(one.is_right)
            aside.append(place % ASIDE == 0)
    return np.stack(vectors), np.array(right), np.array(aside)


def _run(session: Any, claim: Claim) -> Any:
    inputs = make_inputs(claim.question, claim.sentence)
    del inputs["answer"]
    return session.run([POOLED, LAST], inputs)


def _open(path: Path) -> Any:
    """Open the exported file so that it shows its vectors."""
    proto = onnx.load_from_string(path.read_bytes())
    for name, shape in ((POOLED, [1, "all"]), (LAST, [1, "tokens", "all"])):
        proto.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    return open_session(join(fold(read_model()), proto.SerializeToString()))


def _fit(vectors: Any, right: Any, aside: Any) -> nn.Sequential:
    """Fit two layers on the claims that are not kept aside."""
    torch.manual_seed(1)
    chosen = np.random.default_rng(1)
    seen = np.flatnonzero(~aside)
    x, y = torch.from_numpy(vectors), torch.from_numpy(right.astype(np.float32))
    head = nn.Sequential(
        nn.Dropout(0.1), nn.Linear(vectors.shape[1], INNER), nn.GELU(), nn.Dropout(0.2), nn.Linear(INNER, 1)
    )
    optimizer = torch.optim.AdamW(head.parameters(), lr=RATE, weight_decay=0.01)
    steps = EPOCHS * -(-len(seen) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    for epoch in range(EPOCHS):
        total = 0.0
        chosen.shuffle(seen)
        for start in range(0, len(seen), BATCH):
            batch = seen[start : start + BATCH]
            loss = functional.binary_cross_entropy_with_logits(head(x[batch].float())[:, 0], y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(batch)
        print(f"claims, epoch {epoch + 1} of {EPOCHS}, loss {total / len(seen):.3f}", flush=True)
    return head.eval()


def _show(head: nn.Sequential, vectors: Any, right: Any) -> None:
    with torch.no_grad():
        odds = head(torch.from_numpy(vectors).float())[:, 0].numpy()
    limit = np.quantile(odds[right], ALARMS)
    print(
        f"of wrong answers kept aside {(odds[~right] < limit).mean():.3f} are found at {ALARMS:.0%} of the right ones"
    )
