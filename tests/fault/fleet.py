"""A service without query workers, to which each test starts its own, as from other terminals."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import httpx2

from tests.servers import FakeLlm, Ragq, wait_until

DOCUMENT = "The lighthouse of Quorra is 61 metres tall.\n\nThe ferry to Quorra leaves at noon.\n"


@contextlib.contextmanager
def running_fleet(folder: Path, llm: FakeLlm) -> Iterator[Ragq]:
    """Run the service, with a document in its store."""
    service = Ragq(
        folder / "data", "--query-workers", "0", RAGQ_LLM_BASE_URL=llm.base_url, RAGQ_LLM_MODEL="fake"
    ).start()
    (folder / "harbour.md").write_text(DOCUMENT)
    ingested = service.run("ingest", str(folder / "harbour.md"))
    assert ingested.returncode == 0, ingested.stderr
    yield service
    assert service.stop() == 0


def wait_for_workers(ragq: Ragq, count: int) -> None:
    def ready() -> bool:
        workers = httpx2.get(f"{ragq.url}/status").json()["workers"]
        return sum("queries" in worker["queues"] for worker in workers) == count

    wait_until(ready, seconds=30, what=f"{count} query workers")
