"""Answers/s by number of query workers, and the cost of an answer in each part, from which a model predicts the limits.

`python -m benchmarks.scale` measures questions end to end (`ragq up`, local embedding, an LLM of 1.0 s): first with few
slots a worker, so that slots are the bottleneck, then with all slots, so that the machine's cores are. The model takes its
costs from the last run only, and is compared with every run.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import psycopg
import redis

from benchmarks import generator
from benchmarks.generator import generate
from benchmarks.harness import Report, arguments, cpu_seconds, draw_lines
from ragq.embedded.services import read_services
from tests.servers import FakeLlm, Ragq

LLM_SECONDS = 1.0
FEW, ALL = 20, 200  # slots of a worker
RUNS = ((1, FEW), (2, FEW), (3, FEW), (4, FEW), (1, ALL), (2, ALL))  # workers, slots of each
BURST_SECONDS = 15
MAX_RATE = 120  # questions/s for a run that has enough slots
AT_ONCE = 64
PARTS = {"api": "api", "queries": "query_workers", "documents": "document_worker", "Valkey": "valkey"}
PARTS |= {"PostgreSQL": "postgresql"}
TRIPS = ("cmdstat_evalsha", "cmdstat_multi", "cmdstat_set")
TEXT = "The lighthouse of Quorra is 61 metres tall.\n\nThe ferry to Quorra leaves at noon.\n"
REACHED = (0.7, 1.05)  # share of the model's prediction


class Bench:
    """A `ragq up` with some query workers, a document and a fake LLM."""

    def __init__(self, folder: Path, *, workers: int, slots: int) -> None:
        self._llm = FakeLlm(folder, latency=LLM_SECONDS)
        self._ragq = Ragq(
            folder / "data",
            *("--query-workers", str(workers)),
            RAGQ_LLM_BASE_URL=self._llm.base_url,
            RAGQ_LLM_MODEL="fake",
            RAGQ_QUERY_CONCURRENCY=slots,
            RAGQ_MAX_WAIT_SECONDS=0,
            RAGQ_LOG_LEVEL="WARNING",
        ).start()
        (folder / "harbour.md").write_text(TEXT)
        ingested = self._ragq.run("ingest", str(folder / "harbour.md"))
        assert ingested.returncode == 0, ingested.stderr
        services = read_services(folder / "data")
        assert services.valkey_url
        assert services.database_url
        self._valkey = redis.Redis.from_url(services.valkey_url)
        self._database = psycopg.connect(services.database_url, autocommit=True)

    def stop(self) -> None:
        self._valkey.close()
        self._database.close()
        self._ragq.stop()
        self._llm.stop()

    def answer(self, count: int) -> dict[str, Any]:
        """Ask this many different questions as fast as they are accepted, and wait for all answers; returns the times."""
        questions = [f"How tall is the lighthouse of Quorra? ({number})" for number in range(count)]
        return generate(
            generator.burst, self._ragq.url, route="/chat", more={}, questions=questions, connections=AT_ONCE
        )

    def spent(self) -> dict[str, float]:
        """CPU of each part in ms, and the load of Valkey and PostgreSQL, since their starts."""
        spent = dict.fromkeys((f"{part}_cpu_ms" for part in PARTS.values()), 0.0)
        for name, pid in self._ragq.pids.items():
            spent[f"{PARTS[name.split()[0]]}_cpu_ms"] += 1000 * cpu_seconds(pid)
        valkey = self._valkey.info("everything")
        statement = """SELECT pg_current_wal_lsn() - '0/0', xact_commit FROM pg_stat_database
                       WHERE datname = current_database()"""
        wal, transactions = self._database.execute(statement).fetchall()[0]
        return spent | {
            "llm_cpu_ms": 1000 * cpu_seconds(self._llm.pid),
            "valkey_round_trips": sum(valkey[name]["calls"] for name in TRIPS if name in valkey),
            "valkey_commands": valkey["total_commands_processed"],
            "valkey_bytes_in": valkey["total_net_input_bytes"],
            "valkey_bytes_out": valkey["total_net_output_bytes"],
            "valkey_aof_bytes": valkey["aof_current_size"],
            "postgresql_wal_bytes": float(wal),
            "postgresql_transactions": transactions,
        }


def measure(workers: int, slots: int) -> dict[str, Any]:
    """Start everything, warm it up, and measure a burst."""
    count = BURST_SECONDS * min(MAX_RATE, workers * slots)
    with tempfile.TemporaryDirectory(prefix="ragq-scale-") as folder:
        bench = Bench(Path(folder), workers=workers, slots=slots)
        try:
            bench.answer(workers * FEW)
            before = bench.spent()
            load = bench.answer(count)
            after = bench.spent()
        finally:
            bench.stop()
    cost = {name: round((after[name] - before[name]) / count, 2) for name in after}
    return {
        "workers": workers,
        "slots": slots,
        "answers_a_second": round(count / load["seconds"], 1),
        "an_answer_costs": cost | {"load_cpu_ms": round(1000 * load["cpu_seconds"] / count, 2)},
    }


def predict(cost: dict[str, float], workers: int, slots: int) -> dict[str, float]:
    """Most answers/s that each part allows; the smallest is the ceiling."""
    worker = cost["query_workers_cpu_ms"]
    return {
        "slots": workers * slots / (LLM_SECONDS + worker / 1000),
        "query workers": workers * 1000 / worker,
        "one API process": 1000 / cost["api_cpu_ms"],
        "Valkey": 1000 / cost["valkey_cpu_ms"],
        "cores": (os.cpu_count() or 1) * 1000 / sum(spent for name, spent in cost.items() if name.endswith("_cpu_ms")),
    }


def main() -> int:
    """Measure the runs, and compare the model with them."""
    given = arguments("scale", __doc__).parse_args()
    report, runs = Report("scale"), []
    with report.watching():
        for workers, slots in RUNS:
            runs.append(measure(workers, slots))
            print(f"{workers} workers of {slots} slots: {runs[-1]}", flush=True)
    cost = runs[-1]["an_answer_costs"]
    for run in runs:
        allowed = predict(cost, run["workers"], run["slots"])
        run["short_of"] = min(allowed, key=lambda part: allowed[part])
        run["ceiling"] = round(allowed[run["short_of"]], 1)
    report.figures = {"runs": runs, "a_part_allows": {k: round(v) for k, v in predict(cost, 1, ALL).items()}}
    least, most = REACHED
    report.checks[f"every run reaches {least:.0%} to {most:.0%} of what the model allows"] = all(
        least <= run["answers_a_second"] / run["ceiling"] <= most for run in runs
    )
    few = [run for run in runs if run["slots"] == FEW]
    lines = {
        "measured": {run["workers"]: run["answers_a_second"] for run in few},
        "allowed by the model": {run["workers"]: run["ceiling"] for run in few},
    }
    draw_lines(given.out, f"Workers of {FEW} slots, LLM of {LLM_SECONDS} s", "query workers", "answers/s", lines)
    return report.publish(given.out)


if __name__ == "__main__":
    sys.exit(main())
