"""How long does a search take in a store of a million chunks, and does it find what an exact search finds?

`python -m benchmarks.search`: stores of synthetic chunks (see `search_store`) in an embedded PostgreSQL, searched by
`Chunks.search` from one other process. A question is a chunk that is in no store: its vector, and ten consecutive words of
it; "common" has six of the most common words instead, without stop words. Each kind of search runs WARM_UP times before it
is measured, with one client and then with four.

Recall is the share of the 10 nearest chunks, by brute force over all vectors, among the 10 results of a search without
words.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from msgspec import convert
from numpy.typing import NDArray

from benchmarks import search_store as made
from benchmarks.harness import Report, arguments, draw_bars, percentiles, pss_mb
from ragq.embedded.services import EmbeddedServices
from ragq.models import AttributeFilter
from ragq.settings import Settings
from ragq.storage.database import Database
from ragq.storage.search.chunks import Chunks
from tests.servers import environment

WARM_UP, COUNTED, RECALL_QUESTIONS = 30, 500, 200
MAIN, MID = "vs_main", "vs_mid"
INGEST_SECONDS = 20.0
FILTERS: dict[str, dict[str, Any] | None] = {
    "plain": None,
    "filter_50_percent": {"type": "eq", "key": "even", "value": True},
    "filter_1_percent": {"type": "eq", "key": "shelf", "value": "s7"},
    "filter_0.1_percent": {"type": "eq", "key": "box", "value": 7},
}
LIMITS_MS = {"plain": 50, "filter_1_percent": 150, "common_words": 150}
RECALL = 0.97
TO_NEAREST = 10


@dataclass(frozen=True)
class Question:
    """A question to search for."""

    words: str
    common: str
    vector: made.Vectors


def make_questions(count: int, first: int = 0) -> list[Question]:
    """Make questions from chunks of files that are in no store, one per file."""
    vocabulary, _ = made.words()
    frequent = [word for word in vocabulary[20:80] if len(word) > 3]
    questions = []
    for file in range(made.QUESTION_FILES_FROM + first, made.QUESTION_FILES_FROM + first + count):
        drawn = np.random.default_rng(file).choice(frequent, 6, replace=False)
        text = make_text(file).split()[20:30]
        questions.append(Question(" ".join(text), " ".join(drawn), made.make_vectors(file)[0]))
    return questions


def make_text(file: int) -> str:
    return made.make_texts(file)[0]


class Searcher:
    """Runs timed searches, one kind after another."""

    def __init__(self, chunks: Chunks, seconds: float) -> None:
        self._chunks, self._seconds = chunks, seconds

    async def find(self, store: str, vector: made.Vectors, text: str, filters: dict[str, Any] | None) -> list[str]:
        scope = await self._chunks.find_scope(
            made.TENANT, [store], text, convert(filters, AttributeFilter) if filters else None
        )
        results = await self._chunks.search(scope, vector, limit=TO_NEAREST)
        assert results
        return [f"{result.file_id}/{result.start // 1000}" for result in results]

    async def time(self, store: str, kind: str, *, clients: int, count: int = COUNTED) -> dict[str, float]:
        """Search with up to `count` questions in a limited time, `clients` at once; returns percentiles in ms."""
        questions = make_questions(WARM_UP + count)
        filters = FILTERS.get(kind)

        async def ask(question: Question) -> float:
            text = question.common if kind == "common_words" else question.words
            started = time.perf_counter()
            await self.find(store, question.vector, text, filters)
            return time.perf_counter() - started

        for question in questions[:WARM_UP]:
            await ask(question)
        left, seconds, started = iter(questions[WARM_UP:]), list[float](), time.monotonic()

        async def client() -> None:
            while time.monotonic() < started + self._seconds and (question := next(left, None)):
                seconds.append(await ask(question))

        await asyncio.gather(*(client() for _ in range(clients)))
        rate = round(len(seconds) / (time.monotonic() - started), 1)
        return percentiles(seconds) | {"searches": len(seconds), "per_second": rate}

    async def sample(self, store: str, first: int, count: int = 20) -> list[float]:
        """Search with a few questions, from one client; returns seconds."""
        seconds = []
        for question in make_questions(count, first):
            started = time.perf_counter()
            await self.find(store, question.vector, question.words, None)
            seconds.append(time.perf_counter() - started)
        return seconds

    async def recall(self, store: str, kind: str, truth: list[list[str]]) -> float:
        """The share of the truly nearest chunks that a search without words finds."""
        shares = [
            len(set(near) & set(await self.find(store, question.vector, "", FILTERS[kind]))) / len(near)
            for question, near in zip(make_questions(len(truth)), truth, strict=True)
        ]
        return round(float(np.mean(shares)), 4)


def nearest(files: range, kind: str) -> list[list[str]]:
    """The chunks nearest to each question among these files, by brute force."""
    filters = FILTERS[kind]
    chosen = [file for file in files if not filters or made.attributes_of(file)[filters["key"]] == filters["value"]]
    questions = np.array([question.vector for question in make_questions(RECALL_QUESTIONS)])
    best: NDArray[np.float32] = np.empty((RECALL_QUESTIONS, 0), dtype=np.float32)
    names: NDArray[np.int64] = np.empty((RECALL_QUESTIONS, 0), dtype=np.int64)
    for block in (chosen[first : first + 200] for first in range(0, len(chosen), 200)):
        vectors = np.concatenate([made.make_vectors(file) for file in block])
        keys = np.array([file * 1000 + ordinal for file in block for ordinal in range(made.CHUNKS_A_FILE)])
        best = np.concatenate([best, questions @ vectors.T], axis=1)
        names = np.concatenate([names, np.broadcast_to(keys, (RECALL_QUESTIONS, len(keys)))], axis=1)
        order = np.argsort(-best, axis=1)[:, :TO_NEAREST]
        best, names = np.take_along_axis(best, order, axis=1), np.take_along_axis(names, order, axis=1)
    return [[f"{made.file_id(key // 1000)}/{key % 1000}" for key in row] for row in names.tolist()]


class PeakMemory(threading.Thread):
    """Watches the memory of a process and its descendants; use it with `with`."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid, self._ended = pid, threading.Event()
        self.peak_mb = 0.0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()

    def run(self) -> None:
        while not self._ended.wait(1):
            self.peak_mb = max(self.peak_mb, pss_mb(self._pid))


@contextlib.contextmanager
def postgresql(folder: Path) -> Iterator[tuple[str, int]]:
    """PostgreSQL as `ragq up` starts it, with the schema; yields its address and pid."""
    with EmbeddedServices(folder, valkey=False, postgres=True):
        state = json.loads((folder / "services.json").read_text())
        url = state["services"]["database_url"]
        asyncio.run(migrate(url))
        yield url, state["processes"]["PostgreSQL"]["pid"]


async def migrate(url: str) -> None:
    settings = Settings(_env_file=None)
    database = await Database.open(settings, url, connections=1)
    await database.migrate(embedding_model=settings.embedding_name)
    await database.close()


def built(folder: Path, chunks: int) -> dict[str, Any]:
    """Fill the stores, unless an earlier run did; returns the times of that run."""
    note = folder / f"built-{chunks}.json"
    if note.exists():
        return json.loads(note.read_text())  # type: ignore[no-any-return]
    stores = {MAIN: main_files(chunks), MID: mid_files()}
    with postgresql(folder) as (url, pid):
        idle_mb = pss_mb(pid)
        with PeakMemory(pid) as memory:
            figures = made.build(url, stores)
    figures |= {"postgresql_idle_mb": idle_mb, "postgresql_peak_mb": memory.peak_mb}
    note.write_text(json.dumps(figures))
    return figures


def main_files(chunks: int) -> range:
    return range(chunks // made.CHUNKS_A_FILE)


def mid_files() -> range:
    return range(made.MID_FILES_FROM, made.MID_FILES_FROM + made.MID_CHUNKS // made.CHUNKS_A_FILE)


def warm(folder: Path) -> None:
    """Read the files into the page cache, as after a build, so that searches do not wait for the disk."""
    for path in folder.glob("postgresql/cluster/base/*/*"):
        with path.open("rb") as file:
            while file.read(1 << 24):
                pass


async def measure(url: str, chunks: int, seconds: float) -> dict[str, Any]:
    """Measure every kind of search; returns the figures."""
    settings = Settings(_env_file=None)
    database = await Database.open(settings, url)
    searcher = Searcher(Chunks(settings, database), seconds)
    figures: dict[str, Any] = {}
    for kind in (*FILTERS, "common_words"):
        figures[kind] = {f"clients_{clients}": await searcher.time(MAIN, kind, clients=clients) for clients in (1, 4)}
        print(chunks, kind, json.dumps(figures[kind]), flush=True)
    figures["mid_store"] = {"clients_1": await searcher.time(MID, "plain", clients=1)}
    truths = {(MAIN, kind): nearest(main_files(chunks), kind) for kind in FILTERS}
    truths[MID, "plain"] = nearest(mid_files(), "plain")
    figures["recall_at_10"] = {
        f"{store} {kind}": await searcher.recall(store, kind, truth) for (store, kind), truth in truths.items()
    }
    figures["plain_while_ingesting"] = await while_ingesting(searcher, url)
    async with database.for_all().connection() as connection:  # so that the next run finds the same store
        await connection.execute("DELETE FROM files WHERE sha256 = filename")
    await database.close()
    return figures


async def while_ingesting(searcher: Searcher, url: str) -> dict[str, Any]:
    """Search while another process adds files to the store, as fast as two cores could embed them."""
    command = [sys.executable, "-m", "benchmarks.search_store", url, MAIN, str(INGEST_SECONDS)]
    ingest = await asyncio.create_subprocess_exec(*command, env=environment(), stdout=subprocess.PIPE)
    ended = asyncio.create_task(ingest.communicate())
    seconds: list[float] = []
    while not ended.done():
        seconds += await searcher.sample(MAIN, len(seconds))
    printed, _ = ended.result()
    return percentiles(seconds) | {"searches": len(seconds), "chunks_ingested": int(printed)}


def run(folder: Path, chunks: int, seconds: float) -> dict[str, Any]:
    """Build and measure one size."""
    figures: dict[str, Any] = {"build": built(folder, chunks)}
    warm(folder)
    with postgresql(folder) as (url, pid):
        figures |= asyncio.run(measure(url, chunks, seconds))
        figures["postgresql_mb_after"] = pss_mb(pid)
    return figures


def main() -> None:
    """Run it, and write the figures."""
    parser = arguments("search", __doc__)
    parser.add_argument("--chunks", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--seconds", type=float, default=10, help="for each kind of search and number of clients")
    parser.add_argument("--data", type=Path, help="a folder in which the stores are kept for the next run")
    options = parser.parse_args()
    report = Report("search")
    with tempfile.TemporaryDirectory(prefix="ragq-search-") as temporary, report.watching():
        for chunks in options.chunks:
            folder = (options.data or Path(temporary)) / str(chunks)
            folder.mkdir(parents=True, exist_ok=True)
            report.figures[f"{chunks:,} chunks"] = run(folder, chunks, options.seconds)
    judge(report)
    draw(report, options.out)
    sys.exit(report.publish(options.out))


def judge(report: Report) -> None:
    """Compare with the targets."""
    for size, figures in report.figures.items():
        for kind, limit in LIMITS_MS.items():
            found = figures[kind]["clients_1"]["p99"]
            report.checks[f"{size}, {kind}: p99 {found} ms <= {limit} ms"] = found <= limit
        for where, share in figures["recall_at_10"].items():
            report.checks[f"{size}, recall@10 of {where}: {share} >= {RECALL}"] = share >= RECALL


def draw(report: Report, out: Path) -> None:
    """Draw the p99 of each kind of search with one client, for each size."""
    kinds = [*FILTERS, "common_words"]
    panels = {
        f"{size}: p99 in ms": {kind.replace("_", " "): figures[kind]["clients_1"]["p99"] for kind in kinds}
        for size, figures in report.figures.items()
    }
    draw_bars(out, panels)


if __name__ == "__main__":
    main()
