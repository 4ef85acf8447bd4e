"""Measure the check of citations over the HTTP API: a scripted LLM says true and false things about XQuAD; prints JSON.

Each statement stands in an answer of its own, with the marker of the right source, of a wrong one, or without a marker.
The statements are sentences of a paragraph and short answers, true as they are and made false by another answer of the
same paragraph or of another one, by another digit, or by a negation; pairs of such sentences about two paragraphs, joined
into one with the marker of each behind it, both at the end, or none; and, for English, those of `data/paraphrases.json`, which
were written by hand. The paragraphs are files of four formats by turns. Each quote is compared with the bytes of a
text file at its offsets; of HTML and DOCX, with the paragraph and with the text that ragq shows of the file.
"""

from __future__ import annotations

import argparse
import asyncio
import html
import io
import json
import random
import re
import socket
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from benchmarks.evaluate import measure_with_service
from ragq.api_client import ApiClient
from ragq.rag.sentences import find_sentences

PARAPHRASES = Path(__file__).parent / "data" / "paraphrases.json"
FIRST = 120  # the paragraphs before were used to tune the check
AT_ONCE = 4
MARKERS = ("right", "wrong", "none")
JOINED = ("{} [#1]{} {} [#2].", "{}{} {} [#1][#2].", "{}{} {}.")
JOINTS = {"en": ", and", "de": ", und", "es": " y", "hi": " और"}
JOINED_CHARACTERS = 130  # of each sentence, at most
NEGATED = {
    "en": (r" (is|was|were|are|had|has|can|could|will|would) ", r" \1 not "),
    "de": (r" (ist|war|waren|sind|hatte|wurde|wurden|wird|kann|hat) ", r" \1 nicht "),
    "es": (r" (es|fue|era|son|fueron|está|había|ha|puede|tiene) ", r" no \1 "),
    "hi": (r" (है|था|थे|थी|हैं)(?=[ ।])", r" नहीं \1"),
}
FORMATS = ("txt", "md", "html", "docx")
SOURCE = re.compile(r"source \[(\d+)\] (\d+)\.(?:txt|md|html|docx)")
DOCX = {
    "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    '<Override PartName="/word/document.xml" ContentType='
    '"application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/></Types>',
    "_rels/.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship '
    'Id="r1" Target="word/document.xml" '
    'Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"/></Relationships>',
    "word/document.xml": '<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body>'
    '<w:p><w:r><w:t xml:space="preserve">{}</w:t></w:r></w:p></w:body></w:document>',
}


@dataclass(frozen=True, slots=True)
class Case:
    """A statement about a paragraph."""

    kind: str
    is_true: bool
    paragraph: int
    question: str
    text: str
    marker: str = "right"
    second: int | None = None  # another paragraph that it is about


def make_cases(paragraphs: list[dict[str, Any]], language: str, count: int) -> list[Case]:
    """Make `count` statements, half of them true, from the paragraphs that were not used to tune the check."""
    chosen = random.Random(language)
    asked = [(n, qa) for n in range(FIRST, len(paragraphs)) for qa in paragraphs[n]["qas"]]
    chosen.shuffle(asked)
    made = [case for n, qa in asked for case in _vary(paragraphs, n, qa, asked, language, chosen)]
    halves = [[one for one in made if one.is_true is truth] for truth in (True, False)]
    for half in halves:
        chosen.shuffle(half)
    cases = [one for half in halves for one in half[: count // 2]]
    return [_with_marker(one, number) for number, one in enumerate(cases)]


def _with_marker(case: Case, number: int) -> Case:
    return Case(case.kind, case.is_true, case.paragraph, case.question, case.text, MARKERS[number % len(MARKERS)])


def _vary(
    paragraphs: list[dict[str, Any]],
    n: int,
    qa: dict[str, Any],
    asked: list[tuple[int, dict[str, Any]]],
    language: str,
    chosen: random.Random,
) -> Iterator[Case]:
    context, question, answer = paragraphs[n]["context"], qa["question"], qa["answers"][0]
    gold, place = answer["text"], answer["answer_start"]
    spans = [context[first:last] for first, last in find_sentences(context) if first <= place < last]
    if not spans or gold not in spans[0]:
        return
    sentence, short = spans[0], question.strip(" ?।¿") + ": "
    is_number = bool(re.search(r"\d", gold))
    others = [
        other["answers"][0]["text"]
        for _, other in asked
        if bool(re.search(r"\d", other["answers"][0]["text"])) == is_number
    ]
    near = [one["answers"][0]["text"] for one in paragraphs[n]["qas"]]
    near = [one for one in near if one in others and one.lower() not in sentence.lower()]
    far = [one for one in chosen.sample(others, 40) if one.lower() not in f"{context} {question}".lower()]
    yield Case("sentence", True, n, question, sentence)
    yield Case("short answer", True, n, question, f"{short}{gold}.")
    for kind, wrong in [("elsewhere", far[:1]), ("same paragraph", near[:1])]:
        for one in wrong:
            yield Case(f"sentence, answer from {kind}", False, n, question, sentence.replace(gold, one))
            yield Case(f"short answer from {kind}", False, n, question, f"{short}{one}.")
    if is_number:
        changed = re.sub(r"\d(?=\D*$)", lambda digit: str((int(digit.group()) + chosen.randint(1, 8)) % 10), gold)
        if changed not in context:
            yield Case("sentence, other digit", False, n, question, sentence.replace(gold, changed))
    negated, was = re.subn(*NEGATED[language], sentence, count=1)
    if was and not re.search(r" (not|nicht|no|never|nunca|नहीं) ", sentence):
        yield Case("sentence, negated", False, n, question, negated)


def join_cases(paragraphs: list[dict[str, Any]], language: str) -> list[Case]:
    """Join pairs of sentences of different paragraphs: both true, or one of them with an answer from elsewhere."""
    chosen = random.Random(language)
    asked = [(n, qa) for n in range(FIRST, len(paragraphs)) for qa in paragraphs[n]["qas"]]
    made = [list(_vary(paragraphs, n, qa, asked, language, chosen)) for n, qa in asked]
    pairs = [
        (one[0], wrong)
        for one in made
        for wrong in [next((case for case in one if case.kind == "sentence, answer from elsewhere"), None)]
        if wrong and len(one[0].text) <= JOINED_CHARACTERS
    ]
    chosen.shuffle(pairs)
    return [
        _join(first, second, JOINED[number % len(JOINED)], JOINTS[language])
        for number, ((true, wrong), (other, false)) in enumerate(zip(pairs[::2], pairs[1::2], strict=False))
        for first, second in ((true, other), (wrong, other), (true, false))
        if true.paragraph != other.paragraph
    ]


def _join(first: Case, second: Case, form: str, joint: str) -> Case:
    text = form.format(first.text.rstrip(" .।"), joint, second.text.rstrip(" .।"))
    is_true, question = first.is_true and second.is_true, f"{first.question} {second.question}"
    return Case("joined", is_true, first.paragraph, question, text, second=second.paragraph)


def read_paraphrases() -> list[Case]:
    """Read the statements that were written by hand."""
    written = json.loads(PARAPHRASES.read_text())["statements"]
    return [
        Case("paraphrase", truth == "true", one["paragraph"], one["question"], one[truth])
        for one in written
        for truth in ("true", "false")
    ]


class ScriptedLlm:
    """Says the statement of a case, which a request names by its seed, with the marker that the case has."""

    def __init__(self, cases: list[Case]) -> None:
        self._cases = cases

    async def complete(self, request: web.Request) -> web.Response:
        """Answer a chat request."""
        body = await request.json()
        case = self._cases[body["seed"]]
        numbers = {int(name): int(number) for number, name in SOURCE.findall(str(body["messages"]))}
        right, second = numbers.get(case.paragraph), numbers.get(case.second or 0)
        wrong = next((number for name, number in numbers.items() if name != case.paragraph), None)
        number = {"right": right, "wrong": wrong, "none": None}[case.marker]
        text = case.text.rstrip(" .") + (f" [{number}]." if number else ".")
        if case.kind == "joined":
            text, right = case.text.replace("#1", str(right)).replace("#2", str(second)), right and second
        message = {"role": "assistant", "content": text if right else "nothing"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return web.json_response({"object": "chat.completion", "choices": [choice]})


def write_file(number: int, text: str) -> tuple[str, bytes]:
    """Write a paragraph as a file; its format depends on its number."""
    form = FORMATS[number % len(FORMATS)]
    if form == "docx":
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for name, part in DOCX.items():
                archive.writestr(name, part.format(html.escape(text)) if "{}" in part else part)
        return f"{number}.docx", packed.getvalue()
    page = {
        "txt": text,
        "md": f"# Paragraph {number}\n\n{text}\n",
        "html": f'<!DOCTYPE html><meta charset="utf-8"><title>{number}</title><p>{html.escape(text)}</p>',
    }[form]
    return f"{number}.{form}", page.encode()


@dataclass(frozen=True, slots=True)
class Original:
    """A paragraph, its file as it was written, and the text that ragq shows of the file."""

    paragraph: str
    written: bytes
    shown: str

    def holds(self, passage: dict[str, Any]) -> bool:
        """Tell whether a quote stands at its offsets, word for word."""
        quote, place = str(passage["quote"]), slice(passage["start"], passage["end"])
        if passage["filename"].endswith((".txt", ".md")):
            return self.written.decode()[place] == quote
        return quote in self.paragraph and self.shown[place] == quote


async def evaluate(client: ApiClient, paragraphs: list[dict[str, Any]], cases: list[Case]) -> dict[str, Any]:
    """Ingest the paragraphs, ask for each case, and compare the verdicts with the truth."""
    store = (await client.call("POST", "/v1/vector_stores", json={"name": "XQuAD"}))["id"]
    slots = asyncio.Semaphore(AT_ONCE)

    files: dict[int, str] = {}

    async def put(number: int, text: str) -> None:
        name, written = write_file(number, text)
        form = aiohttp.FormData({"purpose": "assistants"})
        form.add_field("file", written, filename=name)
        async with slots:
            file = await client.call("POST", "/v1/files", data=form)
            await client.call("POST", f"/v1/vector_stores/{store}/files", json={"file_id": file["id"]})
        files[number] = file["id"]

    async def read(number: int, text: str) -> Original:
        async with slots:
            page = await client.call("GET", f"/v1/vector_stores/{store}/files/{files[number]}/content")
        return Original(text, write_file(number, text)[1], page["data"][0]["text"])

    async def ask(number: int, case: Case) -> dict[str, Any]:
        body = {"model": "ragq", "seed": number, "vector_store_ids": [store]}
        async with slots:
            shown: dict[str, Any] = await client.call(
                "POST",
                "/v1/chat/completions",
                json=body | {"messages": [{"role": "user", "content": case.question}]},
            )
        return shown

    await asyncio.gather(*(put(number, one["context"]) for number, one in enumerate(paragraphs)))
    while (await client.call("GET", f"/v1/vector_stores/{store}"))["file_counts"]["in_progress"]:
        await asyncio.sleep(0.2)
    originals = await asyncio.gather(*(read(number, one["context"]) for number, one in enumerate(paragraphs)))
    shown = await asyncio.gather(*(ask(number, case) for number, case in enumerate(cases)))
    return _count(originals, list(zip(cases, shown, strict=True)))


def _count(originals: list[Original], asked: list[tuple[Case, dict[str, Any]]]) -> dict[str, Any]:
    counts, kinds = Counter[str](), dict[str, Counter[str]]()
    for case, shown in asked:
        message = shown["choices"][0]["message"]
        if message["content"] == "nothing":
            counts["not retrieved"] += 1
            continue
        is_flagged = shown["support"]["unsupported"] > 0
        kind = kinds.setdefault(f"{'true' if case.is_true else 'false'}: {case.kind}", Counter())
        kind.update(["all", *(["unsupported"] if is_flagged else [])])
        group = case.kind if case.kind in ("paraphrase", "joined") else "made"
        counts.update([f"{group} {case.is_true}", *([f"{group} {case.is_true} flagged"] if is_flagged else [])])
        names = [one["citation"]["filename"] for one in message["annotations"]]
        if case.is_true and case.marker == "wrong":
            counts.update(
                [
                    "wrong markers",
                    *(["moved"] if names == [f"{case.paragraph}.{FORMATS[case.paragraph % len(FORMATS)]}"] else []),
                ]
            )
        for one in message["annotations"]:
            passage = one["citation"]
            name, form = passage["filename"].split(".")
            is_verbatim = originals[int(name)].holds(passage)
            counts.update(["quotes", form, *(["verbatim", f"{form} verbatim"] if is_verbatim else [])])
    return {
        "statements": counts["made True"] + counts["made False"],
        "unsupported_found": _share(counts, "made False"),
        "false_alarms": _share(counts, "made True"),
        "paraphrases_unsupported_found": _share(counts, "paraphrase False"),
        "paraphrases_false_alarms": _share(counts, "paraphrase True"),
        "joined_unsupported_found": _share(counts, "joined False"),
        "joined_false_alarms": _share(counts, "joined True"),
        "wrong_markers_moved": [counts["moved"], counts["wrong markers"]],
        "quotes_verbatim": [counts["verbatim"], counts["quotes"]],
        "quotes_verbatim_by_format": {form: [counts[f"{form} verbatim"], counts[form]] for form in FORMATS},
        "paragraph_not_retrieved": counts["not retrieved"],
        "unsupported_by_kind": {name: [one["unsupported"], one["all"]] for name, one in sorted(kinds.items())},
    }


def _share(counts: Counter[str], name: str) -> float | None:
    return round(counts[f"{name} flagged"] / counts[name], 3) if counts[name] else None


def main() -> None:
    """Start a service with a scripted LLM in a temporary folder, print the figures, and stop it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="?", type=Path, default=Path(), help="the folder of xquad.en.json")
    parser.add_argument("--language", choices=sorted(NEGATED), default="en")
    parser.add_argument("--statements", type=int, default=1200)
    arguments = parser.parse_args()
    path = arguments.data / f"xquad.{arguments.language}.json"
    if not path.is_file():
        sys.exit(f"{path} is not there: name its folder, as in `make evaluate-citations DATA=FOLDER`.")
    paragraphs = [one for article in json.loads(path.read_text())["data"] for one in article["paragraphs"]]
    cases = make_cases(paragraphs, arguments.language, arguments.statements) + join_cases(
        paragraphs, arguments.language
    )
    if arguments.language == "en":
        cases += read_paraphrases()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    async def measure(client: ApiClient) -> dict[str, Any]:
        application = web.Application(client_max_size=64 << 20)
        application.router.add_post("/v1/chat/completions", ScriptedLlm(cases).complete)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        figures = await evaluate(client, paragraphs, cases)
        await runner.cleanup()
        return figures

    measure_with_service(measure, llm_base_url=f"http://127.0.0.1:{port}/v1", llm_model="scripted")


if __name__ == "__main__":
    main()
