"""Draft questions from one's own documents, without an LLM: a start for somebody who reads each of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from ragq.errors import DocumentError
from ragq.evaluation.dataset import Document
from ragq.models import ParsedDocument
from ragq.parsing.parser import Parser
from ragq.rag.sentences import find_sentences
from ragq.settings import Settings

OF_EACH = 3  # questions from headings, and from sentences, of a document
MIN_CHARACTERS, MAX_CHARACTERS = 40, 240  # of a sentence that makes a question
GAP = "___"
PARENT = " › "  # before a heading, those that it belongs to
# A number with what belongs to it, or a name: capitals after another word.
_FACT = re.compile(r"(?<![\w.])\d+(?:[.,:/-]\d+)*(?![\w-])|(?<=[a-z,] )[A-Z]\w+(?: [A-Z]\w+)*")


async def draft(documents: Sequence[Document], settings: Settings) -> tuple[list[dict[str, object]], list[str]]:
    """Draft questions from documents; returns lines for a data set, and the documents that cannot be read with the reason."""
    parser = Parser()
    lines, faults = list[dict[str, object]](), list[str]()
    try:
        for document in documents:
            assert isinstance(document.content, Path)
            try:
                parsed = await parser.parse(
                    document.content,
                    document.name,
                    timeout_seconds=settings.parse_timeout_seconds,
                    memory_bytes=settings.parse_memory_bytes,
                )
            except DocumentError as error:
                faults.append(f"{document.name}: {error.message}")
            else:
                lines += draft_from(document.name, parsed)
    finally:
        await parser.close()
    return list({line["question"]: line for line in lines}.values()), faults


def draft_from(name: str, parsed: ParsedDocument) -> Iterator[dict[str, object]]:
    """Ask about headings, and for a name or a number that a sentence has."""
    titles = [title for _, title in parsed.headings] or [parsed.title]
    for title in list(filter(None, titles))[:OF_EACH]:
        yield {"question": _ask_about(*title.split(PARENT)), "files": [name]}
    drafted = 0
    for start, end in find_sentences(parsed.text):
        sentence = " ".join(parsed.text[start:end].split())
        fact = _FACT.search(sentence)
        if fact and MIN_CHARACTERS <= len(sentence) <= MAX_CHARACTERS and drafted < OF_EACH:
            drafted += 1
            asked = f"{sentence[: fact.start()]}{GAP}{sentence[fact.end() :]}".rstrip(".")
            yield {"question": f"What completes this: {asked}?", "files": [name], "contains": [fact[0]]}


def _ask_about(*titles: str) -> str:
    """Ask about a heading, given below those that it belongs to."""
    if titles[-1].endswith("?"):
        return titles[-1]
    within = f" in {titles[0]}" if len(titles) > 1 else ""
    return f"What is said about {titles[-1]}{within}?"


def write_lines(lines: Sequence[dict[str, object]], path: Path) -> None:
    path.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
