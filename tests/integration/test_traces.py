"""Traces as a collector gets them: each stage of a question and of a document, and what must not be in them."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.collector import Collector, SeenSpan, running_collector
from tests.servers import FakeLlm, Ragq, environment, free_port, run, wait_until

QUESTION = "How tall is the lighthouse of Quorra?"
DOCUMENT = "The lighthouse of Quorra is 61 metres tall."
SECRET_WORDS = (b"lighthouse", b"Quorra", b"61 metres")
TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CLIENT = 3  # of OTLP's kinds of spans


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with running_collector() as running:
        yield running


@pytest.fixture(scope="module")
def traced(llm: FakeLlm, collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ragq]:
    """A service that sends its traces to the collector, with a reranker and a webhook endpoint there."""
    service = Ragq(
        tmp_path_factory.mktemp("traced") / "data",
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        OTEL_BSP_SCHEDULE_DELAY=100,
        RAGQ_LLM_BASE_URL=llm.base_url,
        RAGQ_LLM_MODEL="fake/model",
        RAGQ_LLM_TRIES=1,
        RAGQ_RERANK_BASE_URL=collector.url,
        RAGQ_RERANK_MODEL="tiny",
        RAGQ_WEBHOOK_ALLOWED_HOSTS="127.0.0.1",
        RAGQ_LOG_FORMAT="json",
    ).start()
    hook = {"url": f"{collector.url}/hook", "events": ["response.completed"]}
    post(service, "/v1/webhook_endpoints", json=hook)
    yield service
    service.stop()


@pytest.fixture(scope="module")
def document(traced: Ragq) -> str:
    """The trace of a document's ingest."""
    file = post(traced, "/v1/files", files={"file": ("a.md", DOCUMENT.encode())}, data={"purpose": "assistants"})
    trace = "0af7651916cd43dd8448eb211c80319c"
    url = "/v1/vector_stores/default/files"
    post(traced, url, json={"file_id": file["id"]}, headers={"traceparent": f"00-{trace}-{CALLER}-01"})
    wait_until(lambda: get(traced, f"{url}/{file['id']}")["status"] == "completed", what="the ingest")
    return trace


@pytest.fixture(scope="module")
def question(traced: Ragq, document: str) -> dict[str, Any]:
    """The answer to a question that was asked within the trace TRACE."""
    assert document
    headers = {"traceparent": f"00-{TRACE}-{CALLER}-01", "tracestate": "vendor=1"}
    return post(traced, "/v1/responses", json={"input": QUESTION}, headers=headers)


def post(service: Ragq, path: str, **request: Any) -> dict[str, Any]:
    answer = httpx2.post(service.url + path, timeout=60, **request)
    assert answer.is_success, answer.text
    found: dict[str, Any] = answer.json()
    return found


def get(service: Ragq, path: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx2.get(service.url + path).json()
    return found


def wait_for(collector: Collector, trace: str, *names: str) -> dict[str, SeenSpan]:
    """The first span of each name in a trace, once all of these are there."""

    def arrived() -> dict[str, SeenSpan]:
        found = {span.name: span for span in reversed(collector.of(trace))}
        return found if set(names) <= found.keys() else {}

    return wait_until(arrived, what=f"{names}; came: {sorted(span.name for span in collector.of(trace))}")


def test_a_question_is_one_trace_with_every_stage(collector: Collector, question: dict[str, Any]) -> None:
    parents = {
        "enqueue queries": "POST /v1/responses",
        "wait": "enqueue queries",
        "process queries": "enqueue queries",
        "search": "process queries",
        "embeddings all-MiniLM-L6-v2": "search",
        "WITH postgresql": "search",
        "rerank tiny": "process queries",
        "chat fake/model": "process queries",
        "commit": "process queries",
        "deliver webhook": "process queries",
    }
    spans = wait_for(collector, TRACE, "POST /v1/responses", *parents)
    assert spans["POST /v1/responses"].parent == CALLER
    assert {name: spans[parent].id for name, parent in parents.items()} == {
        name: spans[name].parent for name in parents
    }
    assert not [span for span in spans.values() if span.failed]
    order = ("enqueue queries", "wait", "process queries", "search", "chat fake/model", "commit", "deliver webhook")
    starts = [spans[name].started for name in order if name != "wait"]
    assert starts == sorted(starts)
    assert spans["enqueue queries"].attributes["messaging.message.id"] == question["id"]
    assert {span.service for span in spans.values()} == {"ragq-api", "ragq-worker"}


def test_the_call_of_the_llm_has_the_conventional_attributes(collector: Collector, question: dict[str, Any]) -> None:
    call = wait_for(collector, TRACE, "chat fake/model")["chat fake/model"]
    assert call.kind == CLIENT
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "fake/model",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": question["usage"]["input_tokens"],
        "gen_ai.usage.output_tokens": question["usage"]["output_tokens"],
        "server.address": "127.0.0.1",
    }
    assert expected.items() <= call.attributes.items()
    assert call.attributes["gen_ai.usage.output_tokens"] > 0


def test_a_document_is_one_trace_with_every_stage(collector: Collector, document: str) -> None:
    path = "POST /v1/vector_stores/{vector_store_id}/files"
    parents = {
        "enqueue documents": path,
        "wait": "enqueue documents",
        "process documents": "enqueue documents",
        "parse": "process documents",
        "split": "process documents",
        "embed": "process documents",
        "embeddings all-MiniLM-L6-v2": "embed",
        "store": "process documents",
        "commit": "process documents",
    }
    spans = wait_for(collector, document, path, *parents)
    assert spans[path].parent == CALLER
    assert {name: spans[parent].id for name, parent in parents.items()} == {
        name: spans[name].parent for name in parents
    }


def test_the_trace_goes_on_to_the_reranker_and_the_receiver(collector: Collector, question: dict[str, Any]) -> None:
    assert question
    spans = wait_for(collector, TRACE, "rerank tiny", "deliver webhook")
    for path, name in (("/rerank", "rerank tiny"), ("/hook", "deliver webhook")):
        assert f"00-{TRACE}-{spans[name].id}-01" in [found["traceparent"] for found in collector.headers[path]]


def test_no_text_of_a_question_or_a_document_is_in_a_span(collector: Collector, question: dict[str, Any]) -> None:
    assert question
    wait_for(collector, TRACE, "chat fake/model", "commit", "deliver webhook")
    assert not [words for words in SECRET_WORDS for body in collector.bodies if words in body]


def test_a_failed_call_marks_the_spans_and_log_lines_name_the_trace(
    collector: Collector, traced: Ragq, document: str
) -> None:
    assert document
    trace = "11111111111111111111111111111111"
    headers = {"traceparent": f"00-{trace}-{CALLER}-01"}
    answer = httpx2.post(
        f"{traced.url}/v1/responses", json={"input": "[[fake status=401]] What?"}, headers=headers, timeout=60
    )
    spans = wait_for(collector, trace, "process queries", "chat fake/model", "commit")
    code = answer.json()["error"]["code"]
    for name in ("chat fake/model", "process queries"):
        assert spans[name].failed
        assert spans[name].attributes["error.type"] == code
    lines = [json.loads(line) for line in traced.log().splitlines() if line.startswith("{")]
    (failed,) = [line for line in lines if line["event"] == "job_failed"]
    assert (failed["trace_id"], failed["span_id"]) == (trace, spans["process queries"].id)


def test_an_unsampled_trace_is_not_recorded(collector: Collector, traced: Ragq, document: str) -> None:
    assert document
    trace = "22222222222222222222222222222222"
    post(traced, "/v1/responses", json={"input": QUESTION}, headers={"traceparent": f"00-{trace}-{CALLER}-00"})
    after = "33333333333333333333333333333333"
    post(traced, "/v1/responses", json={"input": QUESTION}, headers={"traceparent": f"00-{after}-{CALLER}-01"})
    wait_for(collector, after, "commit", "deliver webhook", "POST /v1/responses")
    assert not collector.of(trace)


def test_health_checks_and_housekeeping_make_no_spans(collector: Collector, traced: Ragq) -> None:
    assert httpx2.get(f"{traced.url}/healthz").is_success
    assert httpx2.get(f"{traced.url}/metrics").is_success
    answer = httpx2.get(f"{traced.url}/status")
    wait_until(lambda: "GET /status" in {span.name for span in collector.spans}, what="the span of a request")
    assert answer.is_success
    roots = {span.name for span in collector.spans if not span.parent}
    assert {name for name in roots if "healthz" in name or "metrics" in name or "postgresql" in name} == set()


ASK = """
import asyncio
from ragq import tracing
from ragq.client.llm_client import LlmClient
from ragq.settings import read_settings

async def main():
    client = LlmClient(read_settings())
    with tracing.begin("question", kind="internal"):
        await client.complete([{"role": "user", "content": "How tall is the lighthouse?"}])
    await client.close()

tracing.start_tracing("worker")
asyncio.run(main())
"""


@pytest.mark.parametrize("allowed", ["", "false", "true"])
def test_texts_are_in_spans_only_if_a_setting_says_so(allowed: str, llm: FakeLlm) -> None:
    with running_collector() as collector:
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": allowed,
            "RAGQ_LLM_BASE_URL": llm.base_url,
            "RAGQ_LLM_MODEL": "fake/model",
        }
        ran = run(sys.executable, "-c", ASK, env=environment(**variables))
    assert ran.returncode == 0, ran.stderr
    call = next(span for span in collector.spans if span.name == "chat fake/model")
    sent = call.attributes.get("gen_ai.input.messages")
    expected = [{"role": "user", "parts": [{"type": "text", "content": "How tall is the lighthouse?"}]}]
    assert (sent and json.loads(sent)) == (expected if allowed == "true" else None)


def test_a_worker_without_traces_imports_no_tracer() -> None:
    """Of OpenTelemetry it has only what redis-py looks for by itself."""
    program = (
        "import sys; from ragq import tracing; import ragq.queues.async_worker; tracing.start_tracing('worker'); "
        "assert not tracing.is_on(); "
        "sought = ('ragq.tracing.otel', 'opentelemetry.sdk.trace', 'opentelemetry.exporter'); "
        "print([name for name in sys.modules if name.startswith(sought)])"
    )
    ran = run(sys.executable, "-c", program, env=environment())
    assert ran.stdout.strip() == "[]", ran.stderr


def test_a_collector_that_is_away_harms_nothing(llm: FakeLlm) -> None:
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}",
        "RAGQ_LLM_BASE_URL": llm.base_url,
        "RAGQ_LLM_MODEL": "fake/model",
    }
    ran = run(sys.executable, "-c", ASK, env=environment(**variables))
    assert ran.returncode == 0, ran.stderr


ONE_SPAN = (
    "import time; from ragq import tracing; tracing.start_tracing('worker')\n"
    "with tracing.begin('last', kind='server'): pass\n"
    "print(time.time())"
)


def test_the_last_spans_are_sent_at_the_exit(collector: Collector) -> None:
    ran = run(sys.executable, "-c", ONE_SPAN, env=environment(OTEL_EXPORTER_OTLP_ENDPOINT=collector.url))
    assert ran.returncode == 0, ran.stderr
    assert "last" in {span.name for span in collector.spans}


def test_a_silent_collector_does_not_hold_up_the_exit() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it takes connections, and says nothing
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        ran = run(sys.executable, "-c", ONE_SPAN, env=environment(OTEL_EXPORTER_OTLP_ENDPOINT=url))
        exited = time.time()
    assert ran.returncode == 0, ran.stderr
    assert exited - float(ran.stdout) < 6
