"""Ask the second half of XQuAD's questions, without an LLM, with the paragraph that answers each and without it.

The folder has `xquad.en.json` and the like. Retrieval is measured in each language named, answers in the first one. Unanswerable is the
same question with its own paragraph left out by a filter; its neighbours on the same subject stay.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.evaluate import measure_with_service
from ragq.api_client import ApiClient
from ragq.evaluation.asking import Examiner
from ragq.evaluation.dataset import Dataset, Question
from ragq.evaluation.formats import read_dataset
from ragq.evaluation.measures import holds_one
from ragq.evaluation.patience import patiently
from ragq.evaluation.store import fill_store
from ragq.models import CERTAIN

AT_ONCE = 4
SECOND_HALF = 120  # the number of its first paragraph, whose file is 120.txt
REFUSED = 0.85  # of the unanswerable questions, where a single limit is looked for


@dataclass(frozen=True, slots=True)
class Seen:
    """An answer: its text, its first quote, its confidence, and whether it quotes nothing."""

    text: str
    first: str
    confidence: float
    refuses: bool


def read_half(path: Path) -> Dataset:
    """Read XQuAD in one language; the questions are those about the second half of the paragraphs."""
    dataset = read_dataset(path)
    kept = [one for one in dataset.questions if min(int(name.split(".")[0]) for name in one.files) >= SECOND_HALF]
    return Dataset(dataset.name, kept, dataset.documents)


async def evaluate(client: ApiClient, folder: Path, languages: Sequence[str]) -> dict[str, Any]:
    """Measure each language in a store of its own."""
    figures: dict[str, Any] = {}
    for language in languages:
        dataset = read_half(folder / f"xquad.{language}.json")
        filling = fill_store(client, dataset, keep=False, concurrency=AT_ONCE, advance=lambda _: None)
        async with filling as store:
            examiner = Examiner(client, store.id, ["retrieval"])
            found = await examiner.examine_all(dataset.questions, concurrency=AT_ONCE, advance=lambda _: None)
            figures[language] = {
                "questions": len(found),
                **{
                    name: round(mean(one.measures.get(name, 0.0) for one in found), 4)
                    for name in ("recall_at_1", "recall_at_10")
                },
            }
            if language == languages[0]:
                figures[language] |= await _measure_answers(client, store.id, dataset.questions)
    return figures


async def _measure_answers(client: ApiClient, store: str, questions: Sequence[Question]) -> dict[str, float]:
    await _name_files(client, store)
    slots = asyncio.Semaphore(AT_ONCE)

    async def take(question: Question, left_out: str) -> Seen:
        async with slots:
            return await ask(client, store, question.text, left_out)

    answered = await asyncio.gather(*(take(one, "") for one in questions))
    unanswerable = await asyncio.gather(*(take(one, next(iter(one.files))) for one in questions))
    return _count(questions, answered, unanswerable)


async def _name_files(client: ApiClient, store: str) -> None:
    """Give each file its name as an attribute, which filters compare."""
    after: dict[str, str] = {}
    while True:
        page = await client.call("GET", f"/v1/vector_stores/{store}/files", params={"limit": "100", **after})
        for file in page["data"]:
            path = f"/v1/vector_stores/{store}/files/{file['id']}"
            await client.call("POST", path, json={"attributes": {"name": file["filename"]}})
        if not page["has_more"]:
            return
        after = {"after": page["last_id"]}


async def ask(client: ApiClient, store: str, question: str, left_out: str = "") -> Seen:
    """Ask a store, without the file of that name."""
    tool: dict[str, Any] = {"type": "file_search", "vector_store_ids": [store]}
    if left_out:
        tool["filters"] = {"type": "ne", "key": "name", "value": left_out}
    response = await patiently(lambda: client.ask(question, tools=[tool], background=False, store=False))
    content = [item for item in response["output"] if item["type"] == "message"][-1]["content"][0]
    quotes = [one["quote"] for one in content["annotations"]]
    return Seen(content["text"], quotes[0] if quotes else "", response["confidence"]["value"], not quotes)


def _count(questions: Sequence[Question], answered: Sequence[Seen], unanswerable: Sequence[Seen]) -> dict[str, float]:
    pairs = list(zip(questions, answered, strict=True))
    limit = sorted(one.confidence for one in unanswerable)[int(REFUSED * len(unanswerable))]  # refused below it
    figures = {
        "contains_gold": mean(holds_one(one.text, question.contains) for question, one in pairs),
        "first_quote_contains_gold": mean(holds_one(one.first, question.contains) for question, one in pairs),
        "refused_answerable": mean(one.refuses for one in answered),
        "not_certain_answerable": mean(one.confidence < CERTAIN for one in answered),
        "refused_or_not_certain_unanswerable": mean(one.confidence < CERTAIN for one in unanswerable),
        "refused_unanswerable": mean(one.refuses for one in unanswerable),
        "limit_that_refuses_85_of_100": limit,
        "refused_answerable_at_that_limit": mean(one.confidence < limit for one in answered),
    }
    return {name: round(float(value), 4) for name, value in figures.items()}


def main() -> None:
    """Measure with a service in a temporary folder."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.answer_set", description=__doc__)
    parser.add_argument("folder", type=Path, help="of xquad.en.json")
    parser.add_argument("--languages", nargs="+", default=["en", "de", "es", "hi"])
    arguments = parser.parse_args()
    for language in arguments.languages:
        if not (path := arguments.folder / f"xquad.{language}.json").is_file():
            sys.exit(f"{path} is not there: name its folder.")
    measure_with_service(lambda client: evaluate(client, arguments.folder, arguments.languages))


if __name__ == "__main__":
    main()
