"""Ingest: how close is it to the embedding model's own speed, and what do the other steps and memory cost?

`python -m benchmarks.ingest` sends documents of `benchmarks.corpus` over HTTP to a new `ragq up`, first 100 and then 1,000,
each time into an empty database. The model's own speed is that of the same chunks in a process alone on the machine: the
best of three rounds before and three after. The steps without embedding are compared with LangChain on the same files,
PostgreSQL and vectors, for short notes and for long reports. With so few chunks there is no vector index; "indexed" runs
have one, as beyond 20,000 chunks. PostgreSQL's buffers are reported apart from other memory, since any data fills them.
"""

from __future__ import annotations

import concurrent.futures
import json
import multiprocessing
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import numpy as np
import psycopg

from benchmarks.corpus import ROOT, Made, write_notes, write_reports
from benchmarks.harness import PEERS, Report, arguments, cpu_seconds, draw_bars, pss_mb, tree
from benchmarks.ingest_parts import collect_chunks, embed_alone, run_without_embedding, upload
from ragq.storage.vector_index import write_index
from tests.servers import Ragq

T = TypeVar("T")

CEILING_SHARE = 0.9
TIMES_LANGCHAIN = 5
FLAT = 1.1
WORKER = "documents worker 1"
UNBUFFERED = "all but PostgreSQL's buffers"
STAGES = ("parse", "split", "embed", "store")
SAMPLE_SECONDS = 0.5
WARM_SECONDS = 2
TOKENIZER = ROOT / "src/ragq/client/all-MiniLM-L6-v2.tokenizer.json"


def alone(function: Callable[..., T], *given: Any) -> T:
    """Call a function in a new process."""
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *given).result()


def measure_ceiling(texts: list[str]) -> dict[str, float]:
    """Chunks per second through the model: one process with one thread, like a document worker, and two at once."""
    print(f"{len(texts)} chunks through the model alone …", file=sys.stderr)
    one = alone(embed_alone, texts)
    with concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        two = list(pool.map(embed_alone, [texts, texts]))
    return {"one_process": round(one, 2), "two_processes": round(sum(two), 2)}


class Watch(threading.Thread):
    """Samples the memory of the processes of a `ragq up` and records their CPU; shared memory counts once."""

    def __init__(self, ragq: Ragq) -> None:
        super().__init__(daemon=True)
        self._pids = ragq.pids | {"all": ragq.pid}
        self._before = {name: cpu_seconds(pid) for name, pid in self._pids.items()}
        self._over = threading.Event()
        self.peak_mb: dict[str, float] = defaultdict(float)

    def run(self) -> None:
        while not self._over.wait(SAMPLE_SECONDS):
            now = {name: pss_mb(pid) for name, pid in self._pids.items()}
            now[UNBUFFERED] = round(now["all"] - buffers_mb(self._pids["PostgreSQL"]), 1)
            for name, held in now.items():
                self.peak_mb[name] = max(self.peak_mb[name], held)

    def end(self) -> dict[str, dict[str, float]]:
        """Stop; returns peak memory and CPU by process."""
        used = {name: round(cpu_seconds(pid) - self._before[name], 1) for name, pid in self._pids.items()}
        self._over.set()
        self.join()
        return {"peak_mb": dict(self.peak_mb), "cpu_seconds": used}


def buffers_mb(pid: int) -> float:
    """Shared memory of a process and its descendants; PostgreSQL's buffers are in it."""
    total = 0
    for one in tree(pid):
        with suppress(OSError):
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss_Shmem:"))
    return total / 1024


def ingest(
    folder: Path, documents: list[Made], vectors: Path | None = None, *, workers: int = 1, indexed: bool = False
) -> dict[str, Any]:
    """Send documents to a new `ragq up` and wait until all are searchable."""
    print(f"ragq ingests {len(documents)} documents …", file=sys.stderr)
    ragq = Ragq(folder, "--query-workers", "0", "--document-workers", str(workers)).start()
    try:
        if indexed:
            make_index(ragq)
        time.sleep(WARM_SECONDS)
        watch = Watch(ragq)
        watch.start()
        seconds, uploaded = alone(upload, ragq.url, [made.path for made in documents])
        resources = watch.end()
        chunks = count_chunks(ragq, vectors)
        stages = read_stages(ragq)
    finally:
        ragq.stop()
    pages = sum(made.pages for made in documents)
    return {
        "documents": len(documents),
        "pages": pages,
        "chunks": chunks,
        "seconds": round(seconds, 2),
        "uploaded_after_seconds": round(uploaded, 2),
        "chunks_per_second": round(chunks / seconds, 2),
        "pages_per_second": round(pages / seconds, 2),
        "stage_ms_a_document": stages,
        **resources,
    }


def count_chunks(ragq: Ragq, vectors: Path | None) -> int:
    """Count the stored chunks; with `vectors`, write the vectors to that file."""
    with psycopg.connect(database_url(ragq)) as connection:
        if vectors:
            rows = connection.execute("SELECT embedding::float4[] FROM chunks").fetchall()
            np.save(vectors, np.array([row[0] for row in rows], dtype=np.float32))
        found = connection.execute("SELECT count(*) FROM chunks").fetchone()
    assert found
    return int(found[0])


def make_index(ragq: Ragq) -> None:
    """Create the vector index, as ragq does when there are many chunks."""
    with psycopg.connect(database_url(ragq), autocommit=True) as connection:
        connection.execute(write_index())


def database_url(ragq: Ragq) -> str:
    return ragq.services["database_url"]


def read_stages(ragq: Ragq) -> dict[str, float]:
    """Time of each stage by the worker's metrics, including waits, in ms per document."""
    target = httpx2.get(f"{ragq.url}/metrics/targets", timeout=10).json()[0]["targets"][0]
    samples = dict(
        line.rsplit(" ", 1)
        for line in httpx2.get(f"http://{target}/metrics", timeout=10).text.splitlines()
        if line.startswith("ragq_stage_seconds_")
    )
    stages = {}
    for stage in STAGES:
        label = f'{{stage="{stage}"}}'
        if total := float(samples.get(f"ragq_stage_seconds_count{label}", 0)):
            stages[stage] = round(1000 * float(samples[f"ragq_stage_seconds_sum{label}"]) / total, 1)
    return stages


@contextmanager
def database_alone(folder: Path) -> Iterator[Ragq]:
    """A `ragq up` without workers, so that its PostgreSQL has the machine for itself."""
    ragq = Ragq(folder, "--query-workers", "0", "--document-workers", "0").start()
    try:
        yield ragq
    finally:
        ragq.stop()


def measure_langchain(ragq: Ragq, name: str, documents: list[Made], *options: str) -> dict[str, Any]:
    """Run LangChain's parts over the documents, into a database of its own in ragq's PostgreSQL."""
    print(f"LangChain {' '.join(options)} {len(documents)} documents …", file=sys.stderr)
    with psycopg.connect(database_url(ragq), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    done = subprocess.run(
        [
            *(PEERS / "python", "-W", "ignore", "-m", "benchmarks.peers.langchain_ingest", "--tokenizer", TOKENIZER),
            *("--database", database_url(ragq).replace("@/ragq?", f"@/{name}?"), *options),
        ],
        input=json.dumps([str(made.path) for made in documents]) + "\n",
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return rates(json.loads(done.stdout), documents)


def rates(run: dict[str, Any], documents: list[Made]) -> dict[str, Any]:
    """Pages and chunks per second, in total and by stage, without the first document, a warm-up."""
    pages, chunks = sum(made.pages for made in documents[1:]), run["chunks"]
    by_stage = {
        stage: {"pages_per_second": round(pages / seconds, 1), "chunks_per_second": round(chunks / seconds, 1)}
        for stage, seconds in run["stages"].items()
        if seconds
    }
    per_second = {"pages_per_second": round(pages / run["seconds"], 1)}
    return {"pages": pages, "chunks": chunks, "seconds": round(run["seconds"], 2), **per_second, "stages": by_stage}


def compare(folder: Path, documents: list[Made], vectors: Path) -> dict[str, Any]:
    """Measure everything but embedding: ragq in three ways, LangChain in four.

    ragq ingests one document at a time, or as many as a worker holds, without a vector index and with one. Each run has
    an empty database, because an index accepts a vector that it already has at no cost.
    """
    folder.mkdir()
    runs = {}
    for name, at_once in (("ragq_one_at_a_time", 1), ("ragq", 0), ("ragq_indexed", 0)):
        with database_alone(folder / name) as ragq:
            if name == "ragq_indexed":
                make_index(ragq)
            given = (folder / name, database_url(ragq), [made.path for made in documents], vectors, at_once)
            runs[name] = rates(alone(run_without_embedding, *given), documents)
    ways: dict[str, tuple[str, ...]] = {
        "langchain": (),
        "langchain_20_together": ("--together", "20"),
        "langchain_hnsw": ("--index",),
        "langchain_hnsw_20_together": ("--index", "--together", "20"),
    }
    with database_alone(folder / "langchain") as ragq:
        for name, options in ways.items():
            runs[name] = measure_langchain(ragq, name, documents, "--vectors", str(vectors), *options)
    return runs


def run(report: Report, folder: Path, count: int) -> None:
    documents = write_notes(folder / "notes", count)
    reports = write_reports(folder / "reports", max(3, count // 25))
    few = documents[: max(2, count // 10)]
    texts = alone(collect_chunks, [made.path for made in documents[:: max(1, count // 14)]])
    vectors = folder / "vectors.npy"
    before = measure_ceiling(texts)
    small = ingest(folder / "few", few)
    large = ingest(folder / "many", documents, vectors)
    indexed = ingest(folder / "indexed", few, indexed=True)
    two_workers = ingest(folder / "two", few, workers=2)
    after = measure_ceiling(texts)
    ceiling = max(before["one_process"], after["one_process"])
    report.figures = {
        "embedding_alone_chunks_per_second": {"texts": len(texts), "before": before, "after": after},
        "ingest": {str(len(few)): small, str(count): large},
        "ingest_indexed": indexed,
        "ingest_by_two_workers": two_workers,
        "share_of_ceiling": {
            str(run["documents"]): round(run["chunks_per_second"] / ceiling, 3) for run in (small, large)
        },
        "without_embedding": {
            "notes": compare(folder / "compare", documents[: max(3, count // 5)], vectors),
            "reports": compare(folder / "compare-reports", reports, vectors),
        },
    }
    with database_alone(folder / "whole") as ragq:
        report.figures["langchain_whole"] = measure_langchain(ragq, "whole", few)
    check(report, small, large)


def check(report: Report, small: dict[str, Any], large: dict[str, Any]) -> None:
    figures = report.figures
    share = figures["share_of_ceiling"][str(large["documents"])]
    figures["times_langchain"] = {
        kind: times_langchain(runs) for kind, runs in figures["without_embedding"].items()
    } | {
        "whole": round(small["pages_per_second"] / figures["langchain_whole"]["pages_per_second"], 2),
        "whole_by_two_workers": round(
            figures["ingest_by_two_workers"]["pages_per_second"] / figures["langchain_whole"]["pages_per_second"], 2
        ),
    }
    grown = {name: round(large["peak_mb"][name] / peak, 3) for name, peak in small["peak_mb"].items()}
    figures["memory_grown"] = grown
    for kind in figures["without_embedding"]:
        times = figures["times_langchain"][kind]["fastest"]
        words = f"parse, split and store {kind} {times} times as fast as LangChain (at least {TIMES_LANGCHAIN} times)"
        report.checks[words] = times >= TIMES_LANGCHAIN
    report.checks |= {
        f"ingest at {share:.0%} of the model's own speed (at least {CEILING_SHARE:.0%})": share >= CEILING_SHARE,
        f"peak memory of the document worker {grown[WORKER]} times (at most {FLAT})": grown[WORKER] <= FLAT,
        f"peak memory of {UNBUFFERED} {grown[UNBUFFERED]} times (at most {FLAT})": grown[UNBUFFERED] <= FLAT,
    }


def times_langchain(runs: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Speed of ragq relative to the fastest way of LangChain: of all ways, and of those with a vector index."""
    speed = {name: run["pages_per_second"] for name, run in runs.items()}
    fastest = max(found for name, found in speed.items() if name.startswith("langchain"))
    indexed = max(found for name, found in speed.items() if name.startswith("langchain_hnsw"))
    return {"fastest": round(speed["ragq"] / fastest, 2), "indexed": round(speed["ragq_indexed"] / indexed, 2)}


def draw(report: Report, out: Path) -> None:
    figures = report.figures
    speed = {f"ragq, {name} documents": run["chunks_per_second"] for name, run in figures["ingest"].items()}
    ceiling = figures["embedding_alone_chunks_per_second"]
    langchain = figures["langchain_whole"]
    draw_bars(
        out,
        {
            "Chunks a second": {
                "model alone, before": ceiling["before"]["one_process"],
                "model alone, after": ceiling["after"]["one_process"],
                **speed,
                "ragq, into an index of vectors": figures["ingest_indexed"]["chunks_per_second"],
                "ragq, two document workers": figures["ingest_by_two_workers"]["chunks_per_second"],
                "LangChain's own, all cores": round(langchain["chunks"] / langchain["seconds"], 2),
            },
            **{
                f"Pages of {kind} a second without embedding": {
                    name.replace("_", " "): run["pages_per_second"] for name, run in runs.items()
                }
                for kind, runs in figures["without_embedding"].items()
            },
            "Peak memory (PSS), MB": {
                f"{name}, {documents} documents": run["peak_mb"][name]
                for name in (WORKER, UNBUFFERED, "all")
                for documents, run in figures["ingest"].items()
            },
        },
    )


def main() -> None:
    """Run it, and write figures and chart."""
    parser = arguments("ingest", __doc__)
    parser.add_argument("--documents", type=int, default=1000)
    options = parser.parse_args()
    report = Report("ingest")
    with report.watching(), tempfile.TemporaryDirectory(prefix="ragq-ingest-") as folder:
        run(report, Path(folder), options.documents)
    draw(report, options.out)
    sys.exit(report.publish(options.out))


if __name__ == "__main__":
    main()
