"""How much does one tenant's flood cost another?

A quiet tenant asks a question a second and adds a one-page file every ten seconds, first alone, then while a loud one has
10,000 questions and 2,000 documents waiting in a whole `ragq up` with a fake LLM. `--questions 800 --documents 40
--seconds 20` is a short form.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx2

from benchmarks.harness import Report, arguments, percentiles
from ragq.tasks import run_all
from tests.servers import KEY, FakeLlm, Ragq

LLM_SECONDS = 1.0
FILE_EVERY = 10  # seconds
AT_ONCE = 32
POLL_SECONDS = 0.01  # much shorter than what is measured
ANSWER_RATIO, FILE_RATIO = 1.5, 2.0
PAGE = "The lighthouse of Quorra number {} is {} metres tall. " + 20 * "Its lamp is lit at dusk and put out at dawn. "


class Tenant:
    """A tenant of its own, with a store."""

    def __init__(self, url: str, name: str) -> None:
        operator = {"Authorization": f"Bearer {KEY}"}
        with httpx2.Client(base_url=url, headers=operator) as client:
            client.post("/v1/admin/tenants", json={"id": name}).raise_for_status()
            key = client.post("/v1/admin/keys", json={"name": name, "tenant": name}).raise_for_status().json()["value"]
        self.http = httpx2.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=120)
        self._store = ""

    async def post(self, path: str, **options: Any) -> dict[str, Any]:
        answer = await self.http.post(path, **options)
        found: dict[str, Any] = answer.raise_for_status().json()
        return found

    async def open(self) -> None:
        self._store = (await self.post("/v1/vector_stores", json={"name": "pages"}))["id"]

    async def ask(self, number: int, *, background: bool = False) -> float:
        """Ask a question; returns the seconds until its answer, or until it was accepted."""
        tools = [{"type": "file_search", "vector_store_ids": [self._store]}]
        body = {"model": "ragq", "input": f"How tall is lighthouse {number}?", "tools": tools, "background": background}
        started = time.monotonic()
        await self.post("/v1/responses", json=body)
        return time.monotonic() - started

    async def add(self, number: int) -> str:
        """Put a page into the store; returns the path that tells its status."""
        page = PAGE.format(number, number).encode()
        given = {"files": {"file": (f"{number}.md", page)}, "data": {"purpose": "assistants"}}
        file = await self.post("/v1/files", **given)
        path = f"/v1/vector_stores/{self._store}/files"
        await self.post(path, json={"file_id": file["id"]})
        return f"{path}/{file['id']}"

    async def add_and_wait(self, number: int) -> float:
        """Put a page into the store; returns the seconds until it can be searched."""
        started = time.monotonic()
        path = await self.add(number)
        while (await self.http.get(path)).raise_for_status().json()["status"] != "completed":
            await asyncio.sleep(POLL_SECONDS)
        return time.monotonic() - started


async def observe(quiet: Tenant, seconds: int, first: int) -> dict[str, Any]:
    """Ask a question a second and add a file every ten seconds; returns how long they took, in ms."""
    answers, files = [], []
    async with asyncio.TaskGroup() as group:
        for second in range(seconds):
            answers.append(group.create_task(quiet.ask(first + second)))
            if second % FILE_EVERY == 0:
                files.append(group.create_task(quiet.add_and_wait(first + second)))
            await asyncio.sleep(1)
    return {
        "answer_ms": percentiles([task.result() for task in answers]),
        "file_ms": percentiles([task.result() for task in files]),
    }


async def measure(url: str, *, questions: int, documents: int, seconds: int) -> dict[str, Any]:
    """Observe the quiet tenant alone, then beside the loud one's flood."""
    quiet, loud = Tenant(url, "quiet"), Tenant(url, "loud")
    async with contextlib.AsyncExitStack() as closing:
        for tenant in (quiet, loud):
            closing.push_async_callback(tenant.http.aclose)
            await tenant.open()
        await quiet.add_and_wait(0)
        await quiet.ask(0)  # the models are loaded
        alone = await observe(quiet, seconds, 1000)
        await run_all((loud.add(number) for number in range(documents)), at_once=AT_ONCE)
        await run_all((loud.ask(number, background=True) for number in range(questions)), at_once=AT_ONCE)
        flooded = await observe(quiet, seconds, 2000)
        state = await closing.enter_async_context(httpx2.AsyncClient(base_url=url, headers=quiet.http.headers))
        state.headers["Authorization"] = f"Bearer {KEY}"
        waiting = {one["name"]: one["queued"] for one in (await state.get("/status")).json()["queues"] if one["queued"]}
    return {"alone": alone, "beside a flood": flooded, "still_waiting": waiting}


def main() -> int:
    """Run it, and write the figures."""
    parser = arguments("fairness", __doc__)
    parser.add_argument("--questions", type=int, default=10_000)
    parser.add_argument("--documents", type=int, default=2_000)
    parser.add_argument("--seconds", type=int, default=60, help="Of each of the two observations.")
    parser.add_argument(
        "--slots", type=int, default=20, help="Questions in flight: few, so that slots are scarce and not CPU."
    )
    given = parser.parse_args()
    report = Report("fairness")
    with tempfile.TemporaryDirectory(prefix="ragq-fairness-") as name, report.watching():
        folder = Path(name)
        with FakeLlm(folder, latency=LLM_SECONDS) as llm:
            more = {"RAGQ_LLM_BASE_URL": llm.base_url, "RAGQ_LLM_MODEL": "fake/model", "RAGQ_API_KEY": KEY}
            limits = {"RAGQ_MAX_QUEUED": 2 * given.questions, "RAGQ_MAX_WAIT_SECONDS": 0}
            ragq = Ragq(folder / "data", RAGQ_QUERY_CONCURRENCY=given.slots, **limits, **more).start()
            try:
                sizes = {"questions": given.questions, "documents": given.documents, "seconds": given.seconds}
                report.figures = asyncio.run(measure(ragq.url, **sizes))
            finally:
                ragq.stop()
    for what, ratio in (("answer", ANSWER_RATIO), ("file", FILE_RATIO)):
        alone, flooded = (report.figures[when][f"{what}_ms"]["p95"] for when in ("alone", "beside a flood"))
        report.checks[f"p95 of the quiet tenant's {what}s at most {ratio} times as long"] = flooded <= ratio * alone
    waiting = {
        name.partition(".")[0].partition("@")[0] for name in report.figures["still_waiting"] if name.endswith("@loud")
    }
    for queue, what in (("queries", "questions"), ("documents", "documents")):
        report.checks[f"the loud tenant's {what} waited all the time"] = queue in waiting
    return report.publish(given.out)


if __name__ == "__main__":
    sys.exit(main())
