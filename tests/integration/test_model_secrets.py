"""Neither a key nor a question nor a document is in an error or a log, whatever a served model sends back."""

from __future__ import annotations

import asyncio
import json
import traceback
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import httpx2
import pytest

from ragq.client.embedding_client import HttpEmbeddingClient
from ragq.client.llm_client import LlmClient
from ragq.client.rerank_client import RerankClient
from ragq.errors import RagqError
from ragq.settings import Settings
from tests.echo_server import ENCODINGS, FAULTS, EchoServer, echo_server_in_thread, repeats, running_echo_server
from tests.servers import Ragq, wait_until

KEY = "sk-Canary4711-Zq8xWv2pLm6nBt3k"
URL_KEY = "uRl-cAnArY-90817263-Hj5d"
QUESTION = "Why did the walrus of Spitzbergen borrow nineteen violins, asked the canary of questions?"
DOCUMENT = "Captain Ödegaard sold forty quills & an <astrolabe> to the canary of documents in Trondheim.\n"
# No more of a key in a row than a server masks by itself, no more of a text than stands in many texts.
LEAKS = ((KEY, 9), (URL_KEY, 9), (QUESTION, 26), (DOCUMENT, 26))


def settings_for(echo: EchoServer, **changes: Any) -> dict[str, Any]:
    endpoint = {"base_url": f"{echo.base_url}?api_key={URL_KEY}", "api_key": f" {KEY}\n", "model": "fake"}
    endpoints = {f"{kind}_{name}": value for kind in ("llm", "embedding", "rerank") for name, value in endpoint.items()}
    return endpoints | {"llm_tries": 1, "embedding_tries": 1, "llm_breaker_calls": 10_000} | changes


@pytest.fixture
async def echo(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[EchoServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    async with running_echo_server() as server:
        yield server


def leaks_in(shown: str) -> list[set[str]]:
    return [found for secret, length in LEAKS if (found := repeats(shown, secret, length))]


@pytest.mark.parametrize("fault", FAULTS)
async def test_no_error_of_a_client_shows_what_was_sent(
    echo: EchoServer, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    caplog.set_level("DEBUG")
    settings = Settings(_env_file=None, **settings_for(echo))
    llm, embedding, reranker = LlmClient(settings), HttpEmbeddingClient(settings), RerankClient(settings)
    echo.fault = fault
    for name, encode in ENCODINGS.items():
        echo.encode = encode
        calls = (
            llm.complete([{"role": "system", "content": DOCUMENT}, {"role": "user", "content": QUESTION}]),
            embedding.embed_query(QUESTION),
            embedding.embed_documents([DOCUMENT]),
            reranker.score(QUESTION, [DOCUMENT]),
        )
        for error in await asyncio.gather(*calls, return_exceptions=True):
            if not (fault == "strange usage" and not isinstance(error, BaseException)):
                assert isinstance(error, RagqError), (name, error)
                shown = f"{error.message} {error!r} {''.join(traceback.format_exception(error))} {caplog.text}"
                assert not leaks_in(shown), (name, shown)
    assert echo.calls >= 4 * len(ENCODINGS)
    await llm.close()
    await embedding.close()
    await reranker.close()


@pytest.mark.parametrize("text", ["Wie?", "Tromsø in May", "  a\n\tb  "])
async def test_what_is_no_repetition_is_quoted_to_help_the_operator(echo: EchoServer, text: str) -> None:
    client = HttpEmbeddingClient(Settings(_env_file=None, **settings_for(echo)))
    echo.fault, echo.encode = "status 400", lambda _: "the\x1b[31mmodel is not\u202e loaded\0"
    with pytest.raises(RagqError) as caught:
        await client.embed_query(text)
    assert caught.value.message.endswith("status 400: No: the [31mmodel is not loaded.")
    await client.close()


@pytest.fixture(scope="module")
def server() -> Iterator[EchoServer]:
    with echo_server_in_thread() as echo:
        yield echo


@pytest.fixture(scope="module")
def ragq(tmp_path_factory: pytest.TempPathFactory, server: EchoServer) -> Iterator[Ragq]:
    """A service whose models are the echo server, and which logs all it can."""
    variables = {f"RAGQ_{name.upper()}": value for name, value in settings_for(server).items()}
    folder = tmp_path_factory.mktemp("echo") / "data"
    service = Ragq(folder, RAGQ_LOG_LEVEL="DEBUG", RAGQ_LOG_FORMAT="json", NO_PROXY="127.0.0.1", **variables).start()
    yield service
    assert service.stop() == 0


FAULTS_OF_THE_SERVICE = (
    "status 400",
    "status 401",
    "status 429",
    "HTML 502",
    "reason",
    "status line",
    "not JSON",
    "HTML",
)


def test_neither_clients_nor_logs_nor_the_doctor_of_a_service_show_what_was_sent(
    ragq: Ragq, server: EchoServer
) -> None:
    with httpx2.Client(base_url=ragq.url, timeout=60) as http:
        put(http, "good.txt", b"Bees dance. They hum.")
        seen = []
        for place, fault in enumerate(FAULTS_OF_THE_SERVICE):
            server.fault, server.encode = fault, list(ENCODINGS.values())[place % len(ENCODINGS)]
            server.faulty_path = "/chat/completions"
            seen.append(ask(http, f"{QUESTION} {place}"))
            server.faulty_path, calls = "/embeddings", server.calls
            seen += [ask(http, f"{QUESTION} {place}?"), put(http, f"{fault}.txt", DOCUMENT.encode() * 3)]
            seen += [call(http, "/v1/embeddings", {"model": "fake", "input": f"{DOCUMENT} {place}"})]
            assert server.calls <= calls + 4  # two questions, a document and a text, each with one try
        seen += [http.get(path).text for path in ("/status", "/metrics", "/v1/models")]
        server.fault, server.faulty_path = "status 401", ""
        found = ragq.run("doctor")
        seen += [found.stdout, found.stderr]
    failed = [json.loads(one) for one in seen if one.startswith("{")]
    for label in ("LLM fake at", "Embedding model fake at"):
        assert sum(label in json.dumps(one) for one in failed) >= len(FAULTS_OF_THE_SERVICE)
    assert "FAIL  embedding" in found.stdout
    assert "FAIL  llm" in found.stdout
    for shown in (*seen, ragq.log()):
        assert not leaks_in(shown), shown


def call(http: httpx2.Client, path: str, body: dict[str, Any]) -> str:
    return http.post(path, json=body).text


def ask(http: httpx2.Client, question: str) -> str:
    """Ask by the two ways, wait for the failure, and return what was shown of it."""
    response = http.post("/v1/responses", json={"model": "ragq", "input": question, "background": True}).json()
    job_id = http.post("/chat", params={"query": question}).json()["job_id"]

    def ended(identity: str) -> str:
        shown = http.get("/job-status", params={"job_id": identity})
        return shown.text if shown.json()["status"] in ("failed", "completed") else ""

    shown = [wait_until(partial(ended, name), seconds=60) for name in (response["id"], job_id)]
    shown.append(http.get(f"/v1/responses/{response['id']}").text)
    assert all("failed" in one for one in shown), shown
    return json.dumps({"error": shown})


def put(http: httpx2.Client, name: str, content: bytes) -> str:
    """Put a file into the default store, wait for the end of its ingest, and return what is shown of it."""
    file = http.post("/v1/files", files={"file": (name, content)}, data={"purpose": "assistants"}).json()
    path = "/v1/vector_stores/default/files"
    http.post(path, json={"file_id": file["id"]})

    def ended() -> str:
        shown = http.get(f"{path}/{file['id']}")
        return shown.text if shown.json()["status"] != "in_progress" else ""

    return wait_until(ended, seconds=60)
