"""One real LLM, and a `ragq up` that asks it about two documents; both end with the tests."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2
import openai
import pytest

from tests.llm.llama import LlamaServer
from tests.servers import Ragq

DOCUMENTS = {
    "harbour.md": "# Harbour\n\nThe lighthouse of Quorra is 61 metres tall. It was built in 1874.\n",
    "ferry.md": "# Ferry\n\nThe ferry to Quorra leaves at noon. A ticket for the ferry costs 4 euros.\n",
}


@pytest.fixture(scope="session")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaServer]:
    server = LlamaServer(tmp_path_factory.mktemp("llama")).start()
    try:
        yield server.wait()
    finally:
        server.stop()


@pytest.fixture(scope="session")
def ragq(llm: LlamaServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ragq]:
    folder = tmp_path_factory.mktemp("ragq")
    service = Ragq(folder / "data", RAGQ_LLM_BASE_URL=llm.base_url, RAGQ_LLM_MODEL="smollm2", RAGQ_LLM_TRIES=10).start()
    for name, text in DOCUMENTS.items():
        (folder / name).write_text(text)
    done = service.run("ingest", *(str(folder / name) for name in DOCUMENTS))
    assert done.returncode == 0, done.stderr
    yield service
    assert service.stop() == 0


@pytest.fixture(scope="session")
def client(ragq: Ragq) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{ragq.url}/v1", api_key="unused", max_retries=0, timeout=120) as sdk:
        yield sdk


@pytest.fixture(scope="session")
def http(ragq: Ragq) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=ragq.url, timeout=120) as session:
        yield session
