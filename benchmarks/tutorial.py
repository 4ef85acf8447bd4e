"""The tutorial's worker, measured: RQ and LangChain in `.venv-peers`, on the servers of a `ragq up`."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import redis

from benchmarks.harness import PEERS, cpu_seconds
from ragq.embedded.services import Services
from tests.servers import environment, stop, wait_until

TUTORIAL = Path(__file__).parent / "peers" / "tutorial"
WARM_UP = 2  # jobs, not measured


class Tutorial:
    """The tutorial's lesson on its own database: documents are ingested once, then workers of a class run."""

    def __init__(self, services: Services, llm_url: str) -> None:
        assert services.valkey_url
        assert services.database_url
        self._valkey_url = services.valkey_url
        with psycopg.connect(services.database_url, autocommit=True) as connection:
            connection.execute("create database tutorial")
        with psycopg.connect(services.database_url, dbname="tutorial", autocommit=True) as connection:
            connection.execute("create extension vector")
        place = urlsplit(services.database_url)._replace(scheme="postgresql+psycopg", path="/tutorial").geturl()
        self._environment = environment(
            DATABASE_URL=place,
            VALKEY_URL=services.valkey_url,
            OPENAI_BASE_URL=llm_url,
            OPENAI_API_KEY="none",
            EMBEDDING_MODEL="fake?latency=0",
        )
        self._environment.pop("PYTHONPATH", None)

    def _run(self, *command: str, text: str = "") -> str:
        return subprocess.run(
            [str(PEERS / "python"), *command],
            env=self._environment,
            cwd=TUTORIAL,
            input=text,
            capture_output=True,
            text=True,
            check=True,
            timeout=300,
        ).stdout

    def ingest(self, folder: Path) -> int:
        """Store the documents; returns the number of chunks."""
        return int(self._run("ingest.py", str(folder)))

    def measure(self, worker_class: str, questions: list[str]) -> dict[str, Any]:
        """Answers per second and CPU per answer of one worker, after a warm-up."""
        command = [str(PEERS / "rq"), "worker", "--url", self._valkey_url, "--worker-class", worker_class, "--quiet"]
        worker = subprocess.Popen(command, env=self._environment, cwd=TUTORIAL)
        try:
            with redis.Redis.from_url(self._valkey_url) as valkey:
                wait_until(lambda: valkey.scard("rq:workers"), seconds=60, what="the worker is there")
            self._ask(questions[:WARM_UP])
            before = cpu_seconds(worker.pid)
            found = self._ask(questions)
            spent = cpu_seconds(worker.pid) - before
        finally:
            stop(worker)
        return {
            "answers": len(found["answers"]),
            "answers_per_second": round(len(questions) / found["seconds"], 3),
            "cpu_ms_an_answer": round(1000 * spent / len(questions), 1),
        }

    def _ask(self, questions: list[str]) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._run("ask.py", text=json.dumps(questions)))
        assert len(found["answers"]) == len(questions), found
        return found
