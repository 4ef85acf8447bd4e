"""Ask for identifiers that are alike to the last character, present and absent, and measure what is found and answered.

With `--keep FOLDER` the documents and `questions.jsonl` are written there, for `ragq eval`; nothing is measured then.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.evaluate import measure_with_service
from ragq.api_client import ApiClient
from ragq.evaluation.formats import read_dataset
from ragq.evaluation.patience import patiently
from ragq.evaluation.store import fill_store

AT_ONCE = 4
PRESENT, ABSENT, UNASKED = 57, 7, 120  # identifiers of each kind; those unasked are in the documents, too
ALIKE = 8  # identifiers that differ from one by a character
LAYOUTS = ("csv", "md", "txt")
MONTHS = "January February March April May June July August September October November December".split()


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of identifier, and what is said of it.

    Attributes:
        make: Makes an identifier.
        columns: Of a table: the identifier's, and the value's.
        says: A sentence with `{id}` and `{value}`.
        asks: Questions with `{id}`, in the documents' words and in others.
        value: Makes a value.
    """

    make: Callable[[random.Random], str]
    columns: tuple[str, str]
    says: str
    asks: tuple[str, ...]
    value: Callable[[random.Random], str]


def _digits(count: int) -> Callable[[random.Random], str]:
    return lambda chosen: "".join([chosen.choice("123456789"), *chosen.choices("0123456789", k=count - 1)])


def _date(chosen: random.Random) -> str:
    return f"{chosen.randint(1, 28)} {chosen.choice(MONTHS)} {chosen.randint(1960, 2024)}"


def _price(chosen: random.Random) -> str:
    return f"{chosen.randint(10, 999)}.{chosen.randint(10, 99)} euros"


def _room(chosen: random.Random) -> str:
    return f"room {chosen.choice('ABCDEFGH')}{chosen.randint(100, 999)}"


def _version(chosen: random.Random) -> str:
    return ".".join(str(chosen.randint(1, most)) for most in (9, 19, 29))


KINDS = {
    "parts": Kind(
        lambda c: f"PPR-{_digits(4)(c)}",
        ("part", "price"),
        "The price of part {id} is {value}.",
        ("What is the price of part {id}?", "How much does {id} cost?", "price of {id}"),
        _price,
    ),
    "versions": Kind(
        _version,
        ("version", "released"),
        "Version {id} was released on {value}.",
        ("When was version {id} released?", "On which day did {id} come out?", "{id} released"),
        _date,
    ),
    "invoices": Kind(
        lambda c: f"2026{_digits(4)(c)}",
        ("invoice", "total"),
        "The total of invoice {id} is {value}.",
        ("What is the total of invoice {id}?", "How much was invoiced with {id}?", "{id}"),
        _price,
    ),
    "incidents": Kind(
        lambda c: f"INC-2024-00{_digits(3)(c)}",
        ("incident", "closed"),
        "Incident {id} was closed on {value}.",
        ("When was incident {id} closed?", "Since when is {id} over?", "{id}"),
        _date,
    ),
    "phones": Kind(
        lambda c: f"+1 {c.choice(('202', '212'))}-555-01{c.randint(10, 99)}",
        ("phone number", "room"),
        "The phone number {id} belongs to {value}.",
        ("Which room has the phone number {id}?", "Where does {id} ring?", "{id}"),
        _room,
    ),
    "vulnerabilities": Kind(
        lambda c: f"CVE-{c.randint(2022, 2024)}-{_digits(5)(c)}",
        ("vulnerability", "fixed"),
        "The vulnerability {id} was fixed on {value}.",
        ("When was {id} fixed?", "Since which day is there a patch for {id}?", "{id}"),
        _date,
    ),
    "addresses": Kind(
        lambda c: f"{c.choice(('desk', 'post', 'help'))}.{_digits(2)(c)}@{c.choice(('north', 'south'))}.example.org",
        ("address", "room"),
        "The e-mail address {id} belongs to {value}.",
        ("Which room has the e-mail address {id}?", "Who reads {id}?", "{id}"),
        _room,
    ),
    "drawings": Kind(
        lambda c: f"AB-{_digits(4)(c)}/{c.randint(1, 9)}",
        ("drawing", "approved"),
        "Drawing {id} was approved on {value}.",
        ("When was drawing {id} approved?", "On which day did somebody sign {id}?", "{id}"),
        _date,
    ),
}


@dataclass(frozen=True, slots=True)
class Case:
    """An identifier and a question for it, if it is asked for; without a value, no document has it."""

    kind: str
    layout: str
    identifier: str
    question: str
    value: str

    def write_line(self) -> str:
        """The question as `ragq eval` reads it."""
        line: dict[str, Any] = {"question": self.question}
        if self.value:
            line |= {"files": [f"{self.kind}.{self.layout}"], "contains": [self.value]}
        else:
            line["unanswerable"] = True
        return json.dumps(line, ensure_ascii=False)


def make_cases(seed: int) -> list[Case]:
    """Make the cases; of a kind each identifier and each value occurs once."""
    chosen = random.Random(seed)
    return [case for kind in KINDS for case in _make_kind(kind, chosen)]


def _make_kind(name: str, chosen: random.Random) -> Iterator[Case]:
    kind = KINDS[name]
    values: list[str] = []
    while len(values) < PRESENT + UNASKED:
        if (value := kind.value(chosen)) not in values:
            values.append(value)
    for place, identifier in enumerate(_make_alike(kind, chosen)):
        number = place - ABSENT
        ask = kind.asks[place // 2 % len(kind.asks)]
        asked = identifier.removeprefix("PPR-") if place % 2 else identifier
        yield Case(
            kind=name,
            layout=LAYOUTS[place % len(LAYOUTS)],
            identifier=identifier,
            question=ask.format(id=asked) if number < PRESENT else "",
            value=values[number] if number >= 0 else "",
        )


def _make_alike(kind: Kind, chosen: random.Random) -> list[str]:
    """Make identifiers in groups that differ by a digit changed, added or left out; shuffled."""
    count, identifiers = ABSENT + PRESENT + UNASKED, list[str]()
    while len(identifiers) < count:
        first = kind.make(chosen)
        near = [first, *(_change(first, chosen) for _ in range(ALIKE))]
        identifiers = list(dict.fromkeys([*identifiers, *near]))
    identifiers = identifiers[:count]
    chosen.shuffle(identifiers)
    return identifiers


def _change(identifier: str, chosen: random.Random) -> str:
    places = [place for place, one in enumerate(identifier) if one.isdigit()][-3:]
    place, digit = chosen.choice(places), chosen.choice("123456789")
    is_longer = chosen.random() < 0.25 and "+" not in identifier
    return identifier[:place] + digit + identifier[place + (not is_longer) :]


def write_set(cases: Sequence[Case], folder: Path) -> None:
    """Write the documents, and `questions.jsonl` beside their folder."""
    documents = folder / "documents"
    documents.mkdir(parents=True)
    for name, kind in KINDS.items():
        for layout in LAYOUTS:
            said = [case for case in cases if (case.kind, case.layout) == (name, layout) and case.value]
            (documents / f"{name}.{layout}").write_text(_write_document(kind, layout, said))
    (folder / "questions.jsonl").write_text("".join(case.write_line() + "\n" for case in cases if case.question))


def _write_document(kind: Kind, layout: str, cases: Sequence[Case]) -> str:
    pairs = [(case.identifier, case.value) for case in cases]
    label, value = kind.columns
    if layout == "csv":
        return "".join(f"{first},{second}\n" for first, second in [kind.columns, *pairs])
    if layout == "md":
        return f"# List by {label}\n\n" + "".join(f"- {label} {one}: {value} {said}\n" for one, said in pairs)
    sentences = [kind.says.format(id=one, value=said) for one, said in pairs]
    return "\n\n".join(" ".join(sentences[first : first + 5]) for first in range(0, len(sentences), 5)) + "\n"


async def evaluate(client: ApiClient, folder: Path, cases: Sequence[Case]) -> dict[str, Any]:
    """Search and ask for each case."""
    dataset = read_dataset(folder / "questions.jsonl", folder / "documents")
    slots, asked = asyncio.Semaphore(AT_ONCE), [case for case in cases if case.question]

    async def try_one(store: str, case: Case) -> dict[str, bool]:
        async with slots:
            return await _try(client, store, case)

    filling = fill_store(client, dataset, keep=False, concurrency=AT_ONCE, advance=lambda _: None)
    async with filling as store:
        tried = await asyncio.gather(*(try_one(store.id, case) for case in asked))
    return _count(list(zip(asked, tried, strict=True)))


async def _try(client: ApiClient, store: str, case: Case) -> dict[str, bool]:
    path = f"/v1/vector_stores/{store}/search"
    page = await patiently(lambda: client.call("POST", path, json={"query": case.question, "max_num_results": 5}))
    first = " ".join(part["text"] for hit in page["data"][:1] for part in hit["content"])
    tools = [{"type": "file_search", "vector_store_ids": [store]}]
    response = await patiently(lambda: client.ask(case.question, tools=tools, background=False, store=False))
    content = [item for item in response["output"] if item["type"] == "message"][-1]["content"][0]
    quotes = [one["quote"] for one in content["annotations"]]
    if not case.value:
        return {"absent refused": not quotes}
    return {
        "found first": _holds(first, case.identifier) and _holds(first, case.value),
        "answered": _holds(content["text"], case.value),
        "answered and cited": _holds(content["text"], case.value) and _holds("".join(quotes[:1]), case.identifier),
    }


def _holds(text: str, part: str) -> bool:
    """Whether a text has an identifier or a value, and not only as a part of a longer one."""
    place = text.find(part)
    while place >= 0:
        around = text[place - 1 : place] if place else "", text[place + len(part) : place + len(part) + 1]
        if not any(one.isalnum() for one in around):
            return True
        place = text.find(part, place + 1)
    return False


def _count(tried: Sequence[tuple[Case, dict[str, bool]]]) -> dict[str, Any]:
    totals, right, failures = Counter[str](), Counter[str](), []
    for case, measures in tried:
        for measure, is_right in measures.items():
            names = [measure, f"{measure}: {case.kind}, {case.layout if case.value else '-'}"]
            totals.update(names)
            right.update(names if is_right else [])
            if not is_right:
                failures.append(f"{measure}: {case.question} ({case.identifier}, {case.layout}: {case.value or '-'})")
    return {
        "questions": len(tried),
        **{name: round(right[name] / totals[name], 4) for name in totals if ":" not in name},
        "below 1": {
            name: f"{right[name]}/{all_}" for name, all_ in totals.items() if ":" in name and right[name] < all_
        },
        "failures": failures,
    }


def main() -> None:
    """Make the set, and measure it with a service in a temporary folder."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.identifier_set", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="write the set to a new folder")
    arguments = parser.parse_args()
    cases = make_cases(arguments.seed)
    if arguments.keep:
        write_set(cases, arguments.keep)
        return
    with tempfile.TemporaryDirectory(prefix="ragq-identifiers-") as folder:
        written = Path(folder) / "set"
        write_set(cases, written)
        measure_with_service(lambda client: evaluate(client, written, cases))


if __name__ == "__main__":
    main()
