"""Many clients on the streams of one API process: how late does a token reach a client, and which resources remain?

`python -m benchmarks.streams`: 40 questions with answers at 25 tokens a second, and 500 readers spread over them.
The fake LLM numbers its words, so a reader knows when the newest word it holds was due.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.drill.audit import percentile
from tests.servers import FakeLlm, Ragq

RESULTS = Path(__file__).parent / "results" / "streams.json"
RATE = 25.0
SECONDS = 20
LIMIT_SECONDS = 0.25
GONE_SECONDS = 10  # after the last reader disconnects
BLOCKS = re.compile(r"^ragq_python_blocks (\S+)$", re.MULTILINE)
WORD = re.compile(rb"w(\d+) ")


class Reader:
    """A client that only reads bytes, and records when the newest word arrived."""

    def __init__(self, job: int) -> None:
        self.job = job
        self.seen: list[tuple[float, int]] = []
        self.is_whole = False

    async def read(self, session: aiohttp.ClientSession, url: str) -> None:
        async with session.get(url, params={"stream": "true"}) as reply:
            async for piece in reply.content.iter_any():
                words = WORD.findall(piece)
                self.is_whole = self.is_whole or b"event: response.completed" in piece
                if words and b"output_text.done" not in piece:
                    self.seen.append((time.time(), int(words[-1])))


async def measure(ragq: Ragq, llm: FakeLlm, *, jobs: int, readers: int) -> dict[str, Any]:
    """Ask and read the streams, then disconnect a second crowd in the middle; returns the figures.

    The base is measured after one reader per job has finished, because a process loads modules at its first stream.
    """
    api = ragq.pids["api"]
    async with aiohttp.ClientSession(ragq.url) as session:
        cold = await footprint(session, api)
        _, reading = await read_along(session, ragq.url, range(jobs), jobs)
        await reading
        base = await settled(session, api)
        crowd, reading = await read_along(session, ragq.url, range(jobs, 2 * jobs), readers)
        await asyncio.sleep(SECONDS / 2)
        open_ = await footprint(session, api)
        await reading
        after_first = await settled(session, api)
        began = {int(seen["job"]): seen["time"] for seen in map(json.loads, llm.witness.read_text().splitlines())}
        _, reading = await read_along(session, ragq.url, range(2 * jobs, 3 * jobs), readers)
        await asyncio.sleep(SECONDS / 4)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        after_second = await settled(session, api)
    delays = [at - (began[one.job] + word / RATE) for one in crowd for at, word in one.seen]
    return {
        "jobs": jobs,
        "readers": readers,
        "readers_that_saw_the_end": sum(one.is_whole for one in crowd),
        "pieces": len(delays),
        "delay_seconds": {f"p{percent}": percentile(delays, percent) for percent in (50, 95, 99, 100)},
        "api_cold": cold,
        "api_base": base,
        "api_with_readers": open_,
        "api_after_they_ended": after_first,
        "api_after_a_second_crowd_dropped": after_second,
    }


async def read_along(
    session: aiohttp.ClientSession, url: str, jobs: range, readers: int
) -> tuple[list[Reader], asyncio.Task[None]]:
    """Ask a question for each job, and start readers spread over them; returns the readers and their tasks."""
    ids = {number: await ask(session, number) for number in jobs}
    crowd = [Reader(jobs[number % len(jobs)]) for number in range(readers)]

    async def read_all() -> None:
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with aiohttp.ClientSession(url, connector=connector, timeout=aiohttp.ClientTimeout(300)) as own:
            await asyncio.gather(*(one.read(own, f"/v1/responses/{ids[one.job]}") for one in crowd))

    return crowd, asyncio.create_task(read_all())


async def ask(session: aiohttp.ClientSession, number: int) -> str:
    words = " ".join(f"w{n}" for n in range(int(RATE * SECONDS)))
    question = f"[[fake job={number} rate={RATE} text='{words} end.']] How tall is it?"
    body = {"input": question, "background": True, "stream": True, "vector_store_ids": []}
    async with session.post("/v1/responses", json=body) as reply:
        assert reply.status == 200, await reply.text()
        async for line in reply.content:
            if line.startswith(b"data:"):
                return str(json.loads(line[5:])["response"]["id"])
    raise AssertionError


async def settled(session: aiohttp.ClientSession, pid: int) -> dict[str, float]:
    """The footprint a while after the clients have disconnected."""
    await asyncio.sleep(GONE_SECONDS)
    return await footprint(session, pid)


async def footprint(session: aiohttp.ClientSession, pid: int) -> dict[str, float]:
    """Open descriptors, resident megabytes, and blocks in use by Python objects, of the API process."""
    rss = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    async with session.get("/metrics") as reply:
        blocks = BLOCKS.search(await reply.text())
    assert blocks
    return {
        "descriptors": len(list(Path(f"/proc/{pid}/fd").iterdir())),
        "rss_mb": round(int(rss.split()[1]) / 1024, 1),
        "blocks": int(float(blocks[1])),
    }


def main() -> None:
    """Run it, and write the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.streams", description=__doc__)
    parser.add_argument("--jobs", type=int, default=40)
    parser.add_argument("--readers", type=int, default=500)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ragq-streams-") as folder:
        llm = FakeLlm(Path(folder))
        ragq = Ragq(
            Path(folder) / "data",
            *("--document-workers", "0"),
            RAGQ_LLM_BASE_URL=llm.base_url,
            RAGQ_LLM_MODEL="fake",
            RAGQ_MAX_QUESTION_CHARACTERS=100_000,
        ).start()
        try:
            figures = asyncio.run(measure(ragq, llm, jobs=arguments.jobs, readers=arguments.readers))
        finally:
            ragq.stop()
            llm.stop()
    machine = {"cpus": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()}
    arguments.out.parent.mkdir(exist_ok=True)
    arguments.out.write_text(json.dumps({"machine": machine, **figures}, indent=2) + "\n")
    print(json.dumps(figures, indent=2))
    late = figures["delay_seconds"]["p99"]
    print(f"{arguments.out}: p99 {late} s, at most {LIMIT_SECONDS} wanted")
    base = figures["api_base"]
    left = [figures[name] for name in ("api_after_they_ended", "api_after_a_second_crowd_dropped")]
    kept = any(one["descriptors"] > base["descriptors"] or one["blocks"] > 1.05 * base["blocks"] for one in left)
    print("Descriptors and blocks in use are", "NOT" if kept else "", "what they were before.")
    sys.exit(late > LIMIT_SECONDS or kept)


if __name__ == "__main__":
    main()
