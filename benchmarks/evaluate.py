"""Measure retrieval over the HTTP API: XQuAD's paragraphs as files, its questions as searches; prints JSON."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp

from ragq.api_client import ApiClient
from ragq.settings import read_settings
from ragq.up import Fleet

AT_ONCE = 6
DEPTH = 10


async def evaluate(client: ApiClient, path: Path) -> dict[str, float]:
    """Ingest every paragraph, search with every question, and compare the found paragraphs with the right one."""
    articles = json.loads(path.read_text())["data"]
    paragraphs = [paragraph for article in articles for paragraph in article["paragraphs"]]
    questions = [(qa["question"], f"{n}.txt") for n, one in enumerate(paragraphs) for qa in one["qas"]]
    store = (await client.call("POST", "/v1/vector_stores", json={"name": "XQuAD"}))["id"]
    slots = asyncio.Semaphore(AT_ONCE)

    async def put(number: int, text: str) -> None:
        form = aiohttp.FormData({"purpose": "assistants"})
        form.add_field("file", text.encode(), filename=f"{number}.txt")
        async with slots:
            file = await client.call("POST", "/v1/files", data=form)
            await client.call("POST", f"/v1/vector_stores/{store}/files", json={"file_id": file["id"]})

    async def rank(question: str, right: str) -> int | None:
        body = {"query": question, "max_num_results": 2 * DEPTH}
        async with slots:
            page = await client.call("POST", f"/v1/vector_stores/{store}/search", json=body)
        names = list(dict.fromkeys(result["filename"] for result in page["data"]))[:DEPTH]
        return names.index(right) + 1 if right in names else None

    started = time.monotonic()
    await asyncio.gather(*(put(number, one["context"]) for number, one in enumerate(paragraphs)))
    while (await client.call("GET", f"/v1/vector_stores/{store}"))["file_counts"]["in_progress"]:
        await asyncio.sleep(0.2)
    ingested = time.monotonic()
    ranks = await asyncio.gather(*(rank(*one) for one in questions))
    return {
        "paragraphs": len(paragraphs),
        "questions": len(questions),
        "recall_at_1": round(sum(one == 1 for one in ranks) / len(ranks), 4),
        f"recall_at_{DEPTH}": round(sum(one is not None for one in ranks) / len(ranks), 4),
        f"mrr_at_{DEPTH}": round(sum(1 / one for one in ranks if one) / len(ranks), 4),
        "ingest_seconds": round(ingested - started, 1),
        "search_seconds": round(time.monotonic() - ingested, 1),
    }


def run_with_service(
    description: str | None, name: str, target: str, evaluate: Callable[[ApiClient, Path], Awaitable[dict[str, Any]]]
) -> None:
    """Start a service in a temporary folder, print the figures of an evaluation, and stop it.

    Args:
        name: Of the file in the folder that the command line names.
        target: Of make, for the hint when the file is not there.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("data", nargs="?", type=Path, default=Path(), help=f"the folder of {name}")
    path = parser.parse_args().data / name
    if not path.is_file():
        sys.exit(f"{path} is not there: name its folder, as in `make {target} DATA=FOLDER`.")

    async def run(url: str) -> None:
        async with ApiClient(url) as client:
            print(json.dumps(await evaluate(client, path), indent=2))

    with tempfile.TemporaryDirectory(prefix="ragq-evaluate-") as folder:
        settings = read_settings().model_copy(update={"data_dir": Path(folder), "port": 0})
        with Fleet(settings, query_workers=1, document_workers=1) as fleet:
            fleet.start()
            asyncio.run(run(fleet.url))


if __name__ == "__main__":
    run_with_service(__doc__, "xquad.en.json", "evaluate", evaluate)
