"""Questions end to end, with `ragq up`, the load and the LLM on one machine.

A real `ragq up` with local embedding holds the pages of `docs/`; a fake LLM takes a second for an answer. It measures
answers per second with one and with two query workers, CPU per answer of each process, the time that ragq adds to the
LLM's, memory, and the tutorial's worker (see `peers/tutorial`) for comparison. `--only` runs some of the parts.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import redis

from benchmarks import generator
from benchmarks.generator import finish, generate, start
from benchmarks.harness import Report, arguments, cpu_seconds, draw_bars, pss_mb
from benchmarks.tutorial import Tutorial
from ragq.embedded.services import read_services
from tests.servers import FakeLlm, Ragq, stop, wait_until

DOCUMENTS = Path(__file__).parent.parent / "docs"
LLM_SECONDS = 1.0
HELD_SECONDS = 20  # latency of the LLM while memory is measured
RATES = (5, 25, 50)
FORMS = ("What is said about {}", "Why does ragq need {}", "What happens to {} when a worker dies", "How is {} set up")
PARTS = ("memory", "throughput", "latency", "tutorial")
CONNECTIONS = 64
RQ_WORKERS = {"rq_worker": "rq.worker.Worker", "simple_worker": "rq.worker.SimpleWorker"}
MIDDLE = (0.2, 0.8)  # of the answers, without the start and the end


def write_questions(count: int, mark: str) -> list[str]:
    """Make different questions from the headings of the documents.

    Args:
        mark: Letters that make them new. With their number it is one word of letters, which no document has; with
            digits it would be a code, whose parts are searched for as well.
    """
    texts = [path.read_text() for path in sorted(DOCUMENTS.rglob("*.md"))]
    topics = [topic.strip("*` ") for text in texts for topic in re.findall(r"^#+ (.+)$", text, re.MULTILINE)]
    made = [form.format(topic) for form in FORMS for topic in topics]
    return [f"{made[number % len(made)]}? (q{mark}{_in_letters(number)})" for number in range(count)]


def _in_letters(number: int) -> str:
    return str(number).translate(str.maketrans("0123456789", "bcdfghjklm"))


@contextmanager
def service(folder: Path, llm: FakeLlm, **settings: object) -> Iterator[Ragq]:
    """A `ragq up` that accepts any number of questions and has the documents."""
    ragq = Ragq(
        folder,
        RAGQ_LLM_BASE_URL=llm.base_url,
        RAGQ_LLM_MODEL="fake",
        RAGQ_MAX_QUEUED=0,
        RAGQ_MAX_WAIT_SECONDS=0,
        **settings,
    ).start()
    try:
        yield ragq
    finally:
        ragq.stop()


def fill(ragq: Ragq, documents: Path = DOCUMENTS) -> None:
    """Ingest the documents and answer a few questions, so that everything is loaded."""
    ingested = ragq.run("ingest", str(documents))
    assert ingested.returncode == 0, ingested.stderr
    burst(ragq, write_questions(20, "f"))


def burst(ragq: Ragq, questions: list[str], route: str = "/chat", **more: Any) -> list[str]:
    """Ask all at once, and wait until all are answered and archived; returns their ids."""
    ids: list[str] = generate(
        generator.burst, ragq.url, route=route, more=more, questions=questions, connections=CONNECTIONS
    )["ids"]
    with valkey_of(ragq) as valkey:
        wait_until(lambda: valkey.zcard("ragq:unarchived") == 0, seconds=60, what="all are archived")
    return ids


def valkey_of(ragq: Ragq) -> redis.Redis:
    url = read_services(ragq.folder).valkey_url
    assert url
    return redis.Redis.from_url(url)


def measure_burst(
    ragq: Ragq, questions: list[str], *, others: dict[str, int] | None = None, **request: Any
) -> dict[str, Any]:
    """Answers per second, and CPU per answer.

    Args:
        others: Processes besides those of `ragq up`, by name.
    """
    pids = ragq.pids | (others or {})
    before = {name: cpu_seconds(pid) for name, pid in pids.items()}
    ids = burst(ragq, questions, **request)
    spent = {name: cpu_seconds(pid) - before[name] for name, pid in pids.items()}
    found = generate(generator.read, ragq.url, ids=ids)
    assert found["statuses"] == {"completed": len(questions)}, found
    return rates(ragq, ids) | {
        "cpu_ms_an_answer": {name: round(1000 * used / len(questions), 2) for name, used in spent.items()},
        "cpu_ms_an_answer_all": round(1000 * sum(spent.values()) / len(questions), 2),
        "cited": found["cited"],
        "median_ms": found["median_ms"],
    }


def rates(ragq: Ragq, ids: list[str]) -> dict[str, Any]:
    """Answers per second by Valkey's clock: from the first accept to the last result, and in the middle part."""
    with valkey_of(ragq) as valkey:
        pipeline = valkey.pipeline(transaction=False)
        for one in ids:
            pipeline.hmget(f"ragq:job:{one}", "created_ms", "ended_ms")
        stamps = [(int(created), int(ended)) for created, ended in pipeline.execute()]
    first, ends = min(created for created, _ in stamps), sorted(ended for _, ended in stamps)
    begin, end = (int(len(ends) * share) for share in MIDDLE)
    return {
        "answers": len(ids),
        "answers_per_second": round(1000 * len(ids) / (ends[-1] - first), 1),
        "answers_per_second_in_the_middle": round(1000 * (end - begin) / (ends[end] - ends[begin]), 1),
    }


def measure_throughput(ragq: Ragq, count: int, rounds: int) -> dict[str, Any]:
    """Measure one query worker, then the cost of its stages, then two workers."""
    asked = [write_questions(count, "abcdefgh"[number]) for number in range(rounds)]
    runs = [measure_burst(ragq, questions) for questions in asked]
    runs.sort(key=lambda one: float(one["answers_per_second"]))
    figures: dict[str, Any] = {"words_a_question": statistics.median(len(one.split()) for one in asked[0])}
    figures["one_worker"] = runs[len(runs) // 2] | {"rounds": [one["answers_per_second"] for one in runs]}
    figures["embedding_remembered"] = measure_burst(ragq, asked[-1])
    unsearched: dict[str, Any] = {"route": "/v1/responses", "background": True, "vector_store_ids": []}
    figures["without_search"] = measure_burst(ragq, write_questions(count, "n"), **unsearched)
    whole, remembered, unsearched_ = (
        figures[name]["cpu_ms_an_answer"]["queries worker 1"]
        for name in ("one_worker", "embedding_remembered", "without_search")
    )
    figures["worker_cpu_ms_by_stage"] = {
        "embedding": round(whole - remembered, 2),
        "search, prompt with sources, citing": round(remembered - unsearched_, 2),
        "queue, LLM call, result": unsearched_,
    }
    second = ragq.spawn("worker", "queries")
    try:
        wait_until(lambda: is_registered(ragq, second.pid), seconds=60, what="the second worker is there")
        burst(ragq, write_questions(2 * CONNECTIONS, "v"))
        more = {"queries worker 2": second.pid}
        figures["two_workers"] = measure_burst(ragq, write_questions(count, "t"), others=more)
    finally:
        stop(second)
    return figures


def is_registered(ragq: Ragq, pid: int) -> bool:
    with urllib.request.urlopen(f"{ragq.url}/status") as reply:
        return any(worker["pid"] == pid for worker in json.load(reply)["workers"])


def measure_latency(ragq: Ragq, llm: FakeLlm, seconds: float) -> dict[str, Any]:
    """Time of a foreground question beyond a direct call of the LLM; such a call is made between any two questions."""
    figures = {}
    for rate in RATES:
        asked = write_questions(int(rate * seconds), f"r{_in_letters(rate)}")
        pace = {"llm_url": llm.base_url, "rate": rate, "seconds": seconds, "questions": asked}
        found = generate(generator.paced, ragq.url, **pace)
        usual = found["direct"]["p50"]
        added = {name: round(found["ragq"][name] - usual, 1) for name in ("p50", "p95", "p99")}
        figures[f"{rate}/s"] = {"added_ms": added} | found
    return figures


def measure_memory(folder: Path, llm: FakeLlm, held: int) -> dict[str, Any]:
    """PSS of all processes of a new `ragq up`: idle, after a few answers, and with questions in flight."""
    with service(folder, llm, RAGQ_QUERY_CONCURRENCY=held) as ragq:
        figures: dict[str, Any] = {"idle_mb": pss_mb(ragq.pid)}
        fill(ragq)
        base = figures["idle_after_answers_mb"] = pss_mb(ragq.pid)
        by_process = {name: pss_mb(pid) for name, pid in ragq.pids.items()}
        questions = [f"[[fake latency={HELD_SECONDS}]] {one}" for one in write_questions(held, "m")]
        asking = start(generator.hold, ragq.url, questions=questions)
        wait_until(lambda: in_flight(llm) == held, seconds=HELD_SECONDS, what="all wait for the LLM")
        busy = figures["in_flight_mb"] = pss_mb(ragq.pid)
        figures["by_process_mb"] = {
            name: {"idle": by_process[name], "in_flight": pss_mb(pid)} for name, pid in ragq.pids.items()
        }
        assert finish(asking)["statuses"] == {"completed": held}
    return figures | {"in_flight": held, "mb_each": round((busy - base) / held, 3)}


def in_flight(llm: FakeLlm) -> int:
    with urllib.request.urlopen(llm.base_url.replace("/v1", "/stats")) as reply:
        return int(json.load(reply)["in_flight"])


def measure_tutorial(ragq: Ragq, llm: FakeLlm, count: int) -> dict[str, Any]:
    """Measure stock `rq worker`, and RQ's SimpleWorker, which does not fork, with twice as many questions."""
    tutorial = Tutorial(read_services(ragq.folder), llm.base_url)
    figures: dict[str, Any] = {"chunks": tutorial.ingest(DOCUMENTS)}
    for number, (name, worker_class) in enumerate(RQ_WORKERS.items(), 1):
        figures[name] = tutorial.measure(worker_class, write_questions(count * number, f"{name[0]}"))
    return figures


def check(report: Report) -> None:
    """Compare the measured figures with their targets."""
    figures, checks = report.figures, report.checks
    if throughput := figures.get("throughput"):
        ours = throughput["one_worker"]["answers_per_second"]
        checks["at least 60 answers/s from one query worker"] = ours >= 60
        for name, times in (("rq_worker", 250), ("simple_worker", 50)):
            if theirs := figures.get("tutorial", {}).get(name):
                ratio = figures["tutorial"][name]["times_slower"] = round(ours / theirs["answers_per_second"])
                checks[f"at least {times} times the tutorial's {name}"] = ratio >= times
    if latency := figures.get("latency"):
        for percent, limit in (("p50", 20), ("p99", 150)):
            checks[f"adds at 25/s {percent} at most {limit} ms"] = latency["25/s"]["added_ms"][percent] <= limit
    if memory := figures.get("memory"):
        idle = max(memory["idle_mb"], memory["idle_after_answers_mb"])
        checks["idle at most 600 MB"] = idle <= 600
        checks["at most 0.5 MB a question in flight"] = memory["mb_each"] <= 0.5


def draw(report: Report, out: Path) -> None:
    """Draw answers per second, added latency and CPU per answer, if all were measured."""
    if not set(PARTS) <= set(report.figures):
        return
    figures = report.figures
    one, two = (figures["throughput"][name] for name in ("one_worker", "two_workers"))
    peers = {
        name: figures["tutorial"][key] for name, key in (("tutorial", "rq_worker"), ("SimpleWorker", "simple_worker"))
    }
    panels: dict[str, dict[str, float | None]] = {
        "answers/s, LLM 1.0 s": {"ragq, one worker": one["answers_per_second"], "ragq, two": two["answers_per_second"]}
        | {name: peer["answers_per_second"] for name, peer in peers.items()},
        "CPU ms an answer": {"ragq, all processes": one["cpu_ms_an_answer_all"]}
        | {f"{name}, worker alone": peer["cpu_ms_an_answer"] for name, peer in peers.items()},
        "ms added to the LLM's second": {
            f"{percent} at {rate}": found["added_ms"][percent]
            for rate, found in figures["latency"].items()
            for percent in ("p50", "p99")
        },
    }
    draw_bars(out, panels)


def run(report: Report, given: argparse.Namespace) -> None:
    """Run the parts that were asked for."""
    with tempfile.TemporaryDirectory(prefix="ragq-answers-") as name, report.watching(), ExitStack() as stack:
        folder = Path(name)
        llm = FakeLlm(folder, latency=LLM_SECONDS)
        stack.callback(llm.stop)
        if "memory" in given.only:
            report.figures["memory"] = measure_memory(folder / "memory", llm, given.held)
        if set(given.only) == {"memory"}:
            return
        ragq = stack.enter_context(service(folder / "data", llm))
        fill(ragq)
        burst(ragq, write_questions(given.questions // 2, "w"))
        if "throughput" in given.only:
            report.figures["throughput"] = measure_throughput(ragq, given.questions, given.rounds)
        if "latency" in given.only:
            report.figures["latency"] = measure_latency(ragq, llm, given.seconds)
        if "tutorial" in given.only:
            report.figures["tutorial"] = measure_tutorial(ragq, llm, given.peer_questions)


def main() -> None:
    """Run it, and write the figures."""
    parser = arguments("answers", __doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--questions", type=int, default=800, help="Of each burst.")
    parser.add_argument(
        "--rounds", type=int, default=3, choices=range(1, 9), help="Bursts with one worker; the median counts."
    )
    parser.add_argument("--seconds", type=float, default=20, help="Of each rate of the latency.")
    parser.add_argument("--held", type=int, default=500, help="Questions in flight while memory is measured.")
    parser.add_argument(
        "--peer-questions", type=int, default=10, help="Of the tutorial; twice as many of SimpleWorker."
    )
    given = parser.parse_args()
    report = Report("answers")
    run(report, given)
    check(report)
    code = report.publish(given.out)
    draw(report, given.out)
    sys.exit(code)


if __name__ == "__main__":
    main()
