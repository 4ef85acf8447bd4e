"""Measure answers from real files over the HTTP API: right file, right place, right words; prints a line a fact, then JSON.

DATA/documents has `files/` and `facts.json`: question, file, the words that the answer must hold, and the page or
another place where they stand.
"""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.evaluate import run_with_service
from ragq.api_client import ApiClient

DEPTH = 5
AT_ONCE = 4


async def evaluate(client: ApiClient, path: Path) -> dict[str, Any]:
    """Ingest every file, then search with each question and ask it."""
    facts = json.loads(path.read_text())
    store = (await client.call("POST", "/v1/vector_stores", json={"name": "documents"}))["id"]
    for document in sorted((path.parent / "files").iterdir()):
        form = aiohttp.FormData({"purpose": "assistants"})
        form.add_field("file", document.read_bytes(), filename=document.name)
        file = await client.call("POST", "/v1/files", data=form)
        await client.call("POST", f"/v1/vector_stores/{store}/files", json={"file_id": file["id"]})
    while (await client.call("GET", f"/v1/vector_stores/{store}"))["file_counts"]["in_progress"]:
        await asyncio.sleep(0.2)
    listed = await client.call("GET", f"/v1/vector_stores/{store}/files", params={"limit": 100})
    for one in listed["data"]:
        for message in [*one["warnings"], *([one["last_error"]["message"]] if one["last_error"] else [])]:
            print(f"{one['filename']}: {message}")
    read = {one["filename"] for one in listed["data"] if one["status"] == "completed"}
    slots = asyncio.Semaphore(AT_ONCE)

    async def judge(fact: dict[str, Any]) -> dict[str, bool]:
        async with slots:
            return await _judge(client, store, fact, is_read=fact["file"] in read)

    judged = await asyncio.gather(*map(judge, facts))
    for fact, one in zip(facts, judged, strict=True):
        missed = ", ".join(name for name, is_right in one.items() if not is_right)
        print(f"{fact['file']}: {fact['question']} {'MISSED ' + missed if missed else 'ok'}")
    return {"facts": len(facts)} | {name: sum(one[name] for one in judged) for name in judged[0]}


async def _judge(client: ApiClient, store: str, fact: dict[str, Any], *, is_read: bool) -> dict[str, bool]:
    body: dict[str, Any] = {"query": fact["question"], "max_num_results": 2 * DEPTH}
    hits = (await client.call("POST", f"/v1/vector_stores/{store}/search", json=body))["data"]
    names = list(dict.fromkeys(hit["filename"] for hit in hits))
    body = {"model": "ragq", "input": fact["question"], "tools": [{"type": "file_search", "vector_store_ids": [store]}]}
    response = await client.call("POST", "/v1/responses", json=body)
    answer = response["output"][-1]["content"][0]
    found = [hit for hit in hits if hit["filename"] == fact["file"]][:DEPTH]
    cited = [one for one in answer["annotations"] if one["filename"] == fact["file"]]
    return {
        "read": is_read,
        "file_first": names[:1] == [fact["file"]],
        f"file_in_{DEPTH}": fact["file"] in names[:DEPTH],
        "place": any(_is_place(fact, one) for one in cited or found),
        "answer": all(_plain(words) in _plain(answer["text"]) for words in fact["expected"]),
    }


def _is_place(fact: dict[str, Any], one: dict[str, Any]) -> bool:
    if fact["page"] is not None:
        return bool(one["page"] == fact["page"])
    return _plain(fact["where"] or "") in _plain(one["location"])


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().lower()


if __name__ == "__main__":
    run_with_service(__doc__, "documents/facts.json", "evaluate-documents", evaluate)
