"""Estimate the tokens of a question, in the API process: the LLM's own tokenizer is not known.

MiniLM's tokenizer comes with ragq. Beside OpenAI's cl100k_base it counts 1 % less to 2 % more in English prose, 18 % more in
German and Spanish, 24 % more in Python and 32 % more in JSON.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from ragq.models import Question
from ragq.rag.conversation import text_of
from ragq.rag.prompt import build_messages

MESSAGE_TOKENS = 4  # around each message, in the usual chat templates
SLICE_CHARACTERS = 10_000  # encoded at once: the encoding of a megabyte would take 120 MB
FENCE = re.compile(r"<<[0-9a-f]{16}>>")  # made up anew for each prompt, while a count should stay the same
ANY_FENCE = "<<0123456789abcdef>>"
UNKNOWN_CHARACTERS = 3  # of a token, in a word that the tokenizer does not know, such as a key or base64


async def count_tokens(question: Question) -> int:
    """Estimate the tokens of the messages and tools that an LLM would be sent, without sources, images and files."""
    messages, _ = build_messages(question, [], budget_tokens=0)
    texts = [*(text for message in messages for text in _texts(message)), *_declarations(question)]
    return MESSAGE_TOKENS * len(messages) + await asyncio.to_thread(
        _count, [FENCE.sub(ANY_FENCE, one) for one in texts]
    )


def _texts(message: dict[str, Any]) -> Iterator[str]:
    yield text_of(message)
    for call in message.get("tool_calls") or ():
        yield f"{call['function']['name']} {call['function']['arguments']}"


def _declarations(question: Question) -> Iterator[str]:
    for tool in question.options.get("tools") or ():
        yield json.dumps(tool["function"], ensure_ascii=False)
    if form := question.options.get("response_format"):
        yield json.dumps(form, ensure_ascii=False)


def _count(texts: Iterable[str]) -> int:
    from ragq.client.embedding_client import load_tokenizer  # noqa: PLC0415  (10 MB, for the first request that counts)

    tokenizer = load_tokenizer()
    unknown = tokenizer.token_to_id("[UNK]")
    tokens = 0
    for text in texts:
        for first in range(0, len(text), SLICE_CHARACTERS):
            encoding = tokenizer.encode(text[first : first + SLICE_CHARACTERS], add_special_tokens=False)
            for id_, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
                tokens += 1 if id_ != unknown else -(-(end - start) // UNKNOWN_CHARACTERS)
    return tokens
