"""The same kills on stock RQ: an unmodified `rq worker`, on one queue and on two."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import redis
from rq import Queue
from rq.exceptions import NoSuchJobError
from rq.job import Job

from benchmarks.drill.audit import Report
from benchmarks.drill.kills import Killer, kill_under_load
from benchmarks.drill.load import RETRY_SECONDS, Client
from benchmarks.drill.stage import Stage, Worker
from benchmarks.drill.stock_job import ask
from tests.servers import FakeLlm, environment

ROOT = Path(__file__).parents[2]
QUEUES = ("stock", "other")
FINAL = {"finished": "finished", "failed": "failed", "stopped": "failed", "canceled": "cancelled"}


class StockWorker(Worker):
    """A process of `rq worker`."""

    def is_ready(self) -> bool:
        return b"Listening on" in self.log.read_bytes()

    def ready_seconds(self) -> float | None:
        return None  # its log has no dates


class StockStage(Stage):
    """Valkey, the fake LLM and stock workers; neither API nor PostgreSQL."""

    prefix = "rq"

    def __init__(self, folder: Path, queues: int) -> None:
        super().__init__(folder)
        self._queues = QUEUES[:queues]

    def _open(self) -> None:
        self.valkey.start()
        self._closing.callback(self.valkey.stop)
        self.llm = FakeLlm(self.folder, latency=self._latency)
        self._closing.callback(self.llm.stop)
        self._closing.callback(self.stop_workers)
        self.environment = environment(
            RAGQ_LLM_BASE_URL=self.llm.base_url,
            PYTHONPATH=os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        )
        self.environment.pop("PYTHONDONTWRITEBYTECODE", None)

    def start_worker(self, **_: object) -> Worker:
        self._number += 1
        name = f"worker-{self._number}"
        line = [sys.executable, "-m", "rq.cli", "worker", "--url", self.valkey.url, *self._queues]
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                line, env=self.environment | {"RAGQ_LLM_MODEL": name}, cwd=self.folder, stdout=log, stderr=log
            )
        self.workers.append(StockWorker(name, process, self.folder / f"{name}.log"))
        return self.workers[-1]


class StockClient(Client):
    """Enqueues and fetches with RQ's own classes."""

    def __init__(self, stage: StockStage) -> None:
        super().__init__()
        self._connection = stage.valkey.connect()
        self._queue = Queue(QUEUES[0], connection=self._connection)

    async def __aexit__(self, *_: object) -> None:
        self._connection.close()

    async def ask(self, tag: str) -> None:
        while True:
            try:
                await asyncio.to_thread(self._queue.enqueue, ask, tag, job_id=tag)
            except (redis.RedisError, OSError):
                self.account.answers[503] += 1
                await asyncio.sleep(RETRY_SECONDS)
            else:
                self.account.answers[200] += 1
                self.account.accepted[tag] = tag
                self.account.states[tag] = "waiting"
                return

    async def fetch(self, tag: str) -> str:
        try:
            job = await asyncio.to_thread(Job.fetch, tag, self._connection)
        except NoSuchJobError:
            return "gone"
        except (redis.RedisError, OSError):
            return "waiting"
        status = job.get_status(refresh=False)
        return FINAL.get(status.value, "waiting") if status else "waiting"

    def places(self) -> dict[str, int]:
        """The unended jobs, by status and by whether a list of queued jobs contains them."""
        waiting = [tag for tag, state in self.account.states.items() if state == "waiting"]
        queued = set(self._queue.get_job_ids())
        places: Counter[str] = Counter()
        for job in Job.fetch_many(waiting, self._connection):
            status = job.get_status(refresh=False) if job else None
            place = "in the queue" if job and job.id in queued else "not in the queue"
            places[f"{status.value if status else 'gone'}, {place}"] += 1
        return dict(places)


async def stock(
    folder: Path, say: Callable[[str], None], *, queues: int, count: int = 90, valkey_kills: int = 3
) -> Report:
    """Kill stock workers, their work horses and Valkey like ours, and wait as long."""
    report = Report(f"stock-{queues}-queue{'s' * (queues > 1)}")
    with StockStage(folder, queues) as stage:
        async with StockClient(stage) as client:
            killer = Killer(stage, kills=count, valkey_kills=valkey_kills)
            await kill_under_load(report, stage, client, killer, say)
            finished = client.account.count("finished")
            report.figures["not_ended_in_the_wait"] = client.places()
            report.checks["every accepted job finished"] = finished == len(client.account.accepted)
    return report
