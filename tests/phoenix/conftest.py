"""Arize Phoenix, a collector of traces, on loopback; and a `ragq up` that sends it its spans by the standard variable."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.servers import FakeLlm, Ragq, free_port, stop, wait_until

PROGRAM = Path(__file__).parents[2] / ".venv-phoenix" / "bin" / "phoenix"
START_SECONDS = 240  # it imports much, and makes its tables
DOCUMENT = "# Harbour\n\nThe lighthouse of Quorra is 61 metres tall.\n"


@dataclass(frozen=True)
class Phoenix:
    """A running collector."""

    url: str

    def spans(self) -> list[dict[str, Any]]:
        """What it has stored, as its API shows it."""
        found: list[dict[str, Any]] = []
        cursor = ""
        while True:
            query = {"limit": 1000} | ({"cursor": cursor} if cursor else {})
            answer = httpx2.get(f"{self.url}/v1/projects/default/spans", params=query, timeout=30)
            if answer.status_code == httpx2.codes.NOT_FOUND:  # the project is made with its first span
                return []
            page = answer.raise_for_status().json()
            found += page["data"]
            if not (cursor := page.get("next_cursor") or ""):
                return found


@pytest.fixture(scope="session")
def phoenix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Phoenix]:
    assert PROGRAM.exists(), "There is no environment with Phoenix: make traces-test installs it."
    folder, port = tmp_path_factory.mktemp("phoenix"), free_port()
    variables = {
        "PHOENIX_WORKING_DIR": str(folder / "data"),
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(port),
        "PHOENIX_GRPC_PORT": str(free_port()),
        "PHOENIX_TELEMETRY_ENABLED": "false",
        "PHOENIX_ALLOW_EXTERNAL_RESOURCES": "false",
    }
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen([PROGRAM, "serve"], stdout=out, stderr=out, env=os.environ | variables)

    def answers() -> bool:
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            return httpx2.get(f"http://127.0.0.1:{port}/healthz").is_success
        except httpx2.TransportError:
            return False

    try:
        wait_until(answers, seconds=START_SECONDS, what="Phoenix answers")
        yield Phoenix(f"http://127.0.0.1:{port}")
    finally:
        stop(process)


@pytest.fixture(scope="session")
def ragq(phoenix: Phoenix, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ragq]:
    folder = tmp_path_factory.mktemp("ragq")
    with FakeLlm(folder) as llm:
        service = Ragq(
            folder / "data",
            OTEL_EXPORTER_OTLP_ENDPOINT=phoenix.url,
            RAGQ_LLM_BASE_URL=llm.base_url,
            RAGQ_LLM_MODEL="fake/model",
        ).start()
        add(service, "harbour.md", DOCUMENT)
        yield service
        assert service.stop() == 0


def add(service: Ragq, name: str, text: str) -> None:
    """Upload a document, attach it to the default store, and wait until it is there."""
    with httpx2.Client(base_url=service.url, timeout=30) as client:
        content = {"file": (name, text.encode())}
        file = client.post("/v1/files", files=content, data={"purpose": "assistants"}).raise_for_status().json()
        path = "/v1/vector_stores/default/files"
        client.post(path, json={"file_id": file["id"]}).raise_for_status()
        wait_until(
            lambda: client.get(f"{path}/{file['id']}").json()["status"] == "completed", seconds=60, what="the ingest"
        )
