"""The queue alone: ragq's worker, with the reliable protocol, the archive and AOF always, and other task queues.

`python -m benchmarks.queue`: 2,000 jobs of one HTTP call of 1.0 s with 500 in flight, 5,000 that do nothing, and 200
calls a second for some seconds. Each queue has its own Valkey and endpoint, one worker process and the settings that its
documentation recommends for this; results are stored. A burst is enqueued while the warm worker is stopped (SIGSTOP); its
time runs from SIGCONT until all results are stored. ragq's CPU includes its archive, which has moved every result to
PostgreSQL before the CPU is read; the others have no archive.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from benchmarks.endpoint import Endpoint
from benchmarks.harness import PEERS, Report, arguments, cpu_seconds, draw_bars, percentiles, pss_mb, tree
from ragq.embedded.services import EmbeddedServices
from tests.servers import Valkey, command, environment, stop, wait_until

ROOT = Path(__file__).parents[1]
IN_FLIGHT = 500
CALL_SECONDS = 1.0
CALLS, NOOPS = 2000, 5000
RATE, PACED_SECONDS = 200, 5
JOBS_A_SECOND, CPU_MS = 420, 0.8
BURST_SECONDS = 120


@dataclass(frozen=True)
class System:
    """A compared queue.

    Attributes:
        module: Module with its jobs, its worker's command and its `enqueue`.
        done: Counts the stored results, given the number of enqueued jobs.
        calls: Number of calls in a burst; few if the queue runs them one after the other.
    """

    name: str
    module: str
    done: Callable[[redis.Redis, int], int]
    calls: int = CALLS
    noops: int = NOOPS
    variables: tuple[tuple[str, str], ...] = ()

    @property
    def python(self) -> Path:
        return PEERS / "python" if ".peers." in self.module else Path(sys.executable)

    @property
    def is_concurrent(self) -> bool:
        return self.calls == CALLS


def _stored_apart(valkey: redis.Redis, _enqueued: int) -> int:
    """For queues that keep their results in database 1."""
    return int(valkey.info("keyspace").get("db1", {}).get("keys", 0))


SYSTEMS = (
    System("ragq", "benchmarks.queue_jobs", lambda valkey, _: int(valkey.zcard("ragq:finished:queries"))),
    System("dramatiq", "benchmarks.peers.dramatiq_jobs", _stored_apart),
    System("taskiq", "benchmarks.peers.taskiq_jobs", _stored_apart),
    System(
        "saq",
        "benchmarks.peers.saq_jobs",
        lambda valkey, enqueued: enqueued - int(valkey.zcard("saq:default:incomplete")),
    ),
    System("Celery, threads", "benchmarks.peers.celery_jobs", _stored_apart),
    System(
        "RQ SimpleWorker",
        "benchmarks.peers.rq_jobs",
        lambda valkey, _: int(valkey.zcard("rq:finished:default")),
        calls=8,
        noops=400,
        variables=(("BENCH_RQ_CLASS", "rq.SimpleWorker"),),
    ),
    System(
        "RQ Worker",
        "benchmarks.peers.rq_jobs",
        lambda valkey, _: int(valkey.zcard("rq:finished:default")),
        calls=8,
        noops=100,
    ),
)


class Bench:
    """A system with its Valkey, endpoint and warm worker."""

    def __init__(self, system: System, folder: Path, variables: dict[str, str]) -> None:
        self.system, self._folder, self._variables = system, folder, variables
        self._enqueued = 0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        self.valkey = Valkey(self._folder)
        with contextlib.ExitStack() as closing:
            closing.callback(self.valkey.stop)
            self.valkey.start()
            self.connection = closing.enter_context(self.valkey.connect())
            self.endpoint = closing.enter_context(Endpoint(CALL_SECONDS))
            self.environment = environment(
                BENCH_ENDPOINT=self.endpoint.url,
                BENCH_VALKEY_SOCKET=f"{self._folder}/valkey.sock",
                RAGQ_VALKEY_URL=self.valkey.url,
                PYTHONPATH=os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
                **dict(self.system.variables),
                **self._variables,
            )
            self.worker = self._start_worker()
            closing.callback(stop, self.worker)
            self.enqueue("call", 2)
            self.enqueue("noop", 2)
            self.wait(4, seconds=60)
            yield

    def _start_worker(self) -> subprocess.Popen[bytes]:
        line = [str(self.system.python), "-c", f"from {self.system.module} import COMMAND; print(*COMMAND, sep='\\n')"]
        found = subprocess.run(line, env=self.environment, capture_output=True, text=True, check=True, cwd=ROOT)
        with (self._folder / "worker.log").open("ab") as log:
            return subprocess.Popen(
                [str(self.system.python), "-m", *found.stdout.split("\n")[:-1]],
                env=self.environment,
                stdout=log,
                stderr=log,
                cwd=ROOT,
            )

    def enqueue(self, kind: str, count: int, rate: float = 0) -> None:
        line = [str(self.system.python), "-m", "benchmarks.peers.enqueue", self.system.module, kind, str(count)]
        subprocess.run([*line, str(rate)], env=self.environment, check=True, cwd=ROOT)
        self._enqueued += count

    def done(self) -> int:
        return self.system.done(self.connection, self._enqueued)

    def wait(self, count: int, *, seconds: float = BURST_SECONDS) -> None:
        wait_until(lambda: self.done() >= count, seconds=seconds, what=f"{self.system.name}: {count} results")

    def burst(self, kind: str, count: int) -> dict[str, float]:
        """Enqueue while the worker is stopped, let it run, and wait for all results."""
        before = self.done()
        pids = list(tree(self.worker.pid))
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            self.enqueue(kind, count)
            cpu, valkey_cpu = cpu_seconds(self.worker.pid), self.valkey_cpu()
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
        started, memory = time.monotonic(), 0.0
        next_look = started + CALL_SECONDS / 2
        while self.done() < before + count:
            assert time.monotonic() - started < BURST_SECONDS, f"{self.system.name}: {self.done() - before} of {count}"
            if time.monotonic() > next_look:
                memory, next_look = max(memory, pss_mb(self.worker.pid)), next_look + CALL_SECONDS
            time.sleep(0.01)
        seconds = time.monotonic() - started
        wait_until(lambda: not self.connection.zcard("ragq:unarchived"), seconds=BURST_SECONDS, what="all is archived")
        return {
            "jobs": count,
            "jobs_a_second": round(count / seconds, 1),
            "worker_cpu_ms_a_job": round(1000 * (cpu_seconds(self.worker.pid) - cpu) / count, 2),
            "valkey_cpu_ms_a_job": round(1000 * (self.valkey_cpu() - valkey_cpu) / count, 2),
            "memory_mb": memory,
        }

    def valkey_cpu(self) -> float:
        found = self.connection.info("cpu")
        return float(found["used_cpu_sys"] + found["used_cpu_user"])

    def paced(self) -> dict[str, float]:
        """Time from a job's enqueue to its call, at a steady rate."""
        before = self.done()
        self.endpoint.delays()
        self.enqueue("call", RATE * PACED_SECONDS, RATE)
        self.wait(before + RATE * PACED_SECONDS)
        return percentiles(self.endpoint.delays())


def measure(system: System, variables: dict[str, str]) -> dict[str, Any]:
    """Measure one system."""
    print(f"{system.name} …", flush=True)
    with tempfile.TemporaryDirectory(prefix="ragq-queue-") as folder:
        bench = Bench(system, Path(folder), variables)
        with bench.running():
            calls = bench.burst("call", system.calls)
            noops = bench.burst("noop", system.noops)
            paced = bench.paced() if system.is_concurrent else None
    print(f"    {calls}\n    {noops}\n    {paced}", flush=True)
    return {"calls": calls, "noops": noops, f"ms_to_the_call_at_{RATE}_a_second": paced}


def check(report: Report) -> None:
    """Compare with the targets and the other systems."""
    ours = report.figures["ragq"]["calls"]
    others = [figures["calls"] for name, figures in report.figures.items() if name != "ragq"]
    report.checks |= {
        f"at least {JOBS_A_SECOND} jobs/s with {IN_FLIGHT} in flight": ours["jobs_a_second"] >= JOBS_A_SECOND,
        f"at most {CPU_MS} ms CPU a job": ours["worker_cpu_ms_a_job"] <= CPU_MS,
        "more jobs/s than any other": all(ours["jobs_a_second"] > one["jobs_a_second"] for one in others),
        "less CPU a job than any other": all(
            ours["worker_cpu_ms_a_job"] < one["worker_cpu_ms_a_job"] for one in others
        ),
    }


def main() -> int:
    """Measure all systems, one after the other."""
    parser = arguments("queue", __doc__)
    parser.add_argument("--only", nargs="*", default=[system.name for system in SYSTEMS])
    given = parser.parse_args()
    report = Report("queue")
    with report.watching(), tempfile.TemporaryDirectory(prefix="ragq-queue-pg-") as folder:
        services = EmbeddedServices(Path(folder), valkey=False, postgres=True)
        try:
            variables = {
                "RAGQ_DATABASE_URL": str(services.start().database_url),
                "RAGQ_DATA_DIR": folder,
                "RAGQ_QUERY_CONCURRENCY": str(IN_FLIGHT),
                "RAGQ_LOG_LEVEL": "WARNING",
            }
            subprocess.run(command("migrate"), env=environment(RAGQ_VALKEY_URL="redis://", **variables), check=True)
            for system in SYSTEMS:
                if system.name in given.only:
                    report.figures[system.name] = measure(system, variables)
        finally:
            services.stop()
    check(report)
    calls = {name: figures["calls"] for name, figures in report.figures.items()}
    draw_bars(
        given.out,
        {
            f"Jobs/s, a call of {CALL_SECONDS} s each, {IN_FLIGHT} in flight": {
                name: figures["jobs_a_second"] for name, figures in calls.items()
            },
            "Worker's CPU a job, ms": {name: figures["worker_cpu_ms_a_job"] for name, figures in calls.items()},
        },
    )
    return report.publish(given.out)


if __name__ == "__main__":
    sys.exit(main())
