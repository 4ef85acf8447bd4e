"""What the service answers, held to its own OpenAPI document by requests that Schemathesis makes up."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.config import GenerationConfig, ProjectConfig, ProjectsConfig, SchemathesisConfig
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from ragq.server import create_app
from ragq.settings import Settings
from tests.servers import Ragq

KEY = "a key that only this test knows"
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def ragq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ragq]:
    service = Ragq(
        tmp_path_factory.mktemp("openapi") / "data", RAGQ_API_KEY=KEY, RAGQ_WEBHOOK_ALLOWED_HOSTS="hooks.test"
    ).start()
    yield service
    assert service.stop() == 0


@pytest.fixture(scope="module")
def http(ragq: Ragq) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=ragq.url, headers={"Authorization": f"Bearer {KEY}"}, timeout=60) as session:
        yield session


@pytest.fixture(scope="module")
def known(http: httpx2.Client) -> dict[str, str]:
    """Ids of things that are there, by the name of the parameter that takes them."""

    def post(path: str, **request: Any) -> Any:
        answer = http.post(path, **request)
        assert answer.status_code == 200, answer.text
        return answer.json()

    file = {"file": ("harbour.md", b"The lighthouse of Quorra is 61 metres tall.")}
    file_id = post("/v1/files", files=file, data={"purpose": "assistants"})["id"]
    lines = post("/v1/files", files={"file": ("lines.jsonl", b"not JSON")}, data={"purpose": "batch"})["id"]
    batch = post("/v1/vector_stores/default/file_batches", json={"file_ids": [file_id]})["id"]
    hook = {"url": "http://hooks.test/hook"}
    ids = {
        "file_id": file_id,
        "vector_store_id": "default",
        "response_id": post("/v1/responses", json={"input": "How tall is the lighthouse?"})["id"],
        "model": "ragq",
        "job_id": post("/chat", params={"query": "How tall is the lighthouse?"})["job_id"],
        "webhook_endpoint_id": post("/v1/webhook_endpoints", json=hook)["id"],
    }
    runs = {"input_file_id": lines, "endpoint": "/v1/responses", "completion_window": "24h"}
    return ids | {"file_batch": batch, "batch": post("/v1/batches", json=runs)["id"]}


def read_document() -> Any:
    """The document of an application that is not started, with a few made-up requests for each of its operations."""
    generation = GenerationConfig(deterministic=True, max_examples=5, with_security_parameters=False, database="none")
    config = SchemathesisConfig(seed=1, projects=ProjectsConfig(default=ProjectConfig(generation=generation)))
    application = create_app(Settings(_env_file=None), valkey_url="unix:///nowhere", database_url="")
    return schemathesis.openapi.from_dict(application.openapi(), config=config)


document = read_document()


def name_known_things(case: Any, known: dict[str, str]) -> None:
    """Put ids that are there into every second request but deletions."""
    kind = "file_batch" if "file_batches" in case.path else "batch"
    for name, value in case.path_parameters.items():
        if case.method != "DELETE" and zlib.crc32(repr(value).encode()) % 2:
            case.path_parameters[name] = known[kind if name == "batch_id" else name]


def test_the_document_is_served_as_it_was_made(http: httpx2.Client) -> None:
    served = http.get("/openapi.json").json()
    assert served == document.raw_schema
    assert "422" not in {
        status for path in served["paths"].values() for one in path.values() for status in one["responses"]
    }


@document.parametrize()  # type: ignore[untyped-decorator]
@settings(max_examples=5, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
def test_every_answer_is_one_that_the_document_describes(case: Any, ragq: Ragq, known: dict[str, str]) -> None:
    name_known_things(case, known)
    answer = case.call_and_validate(
        base_url=ragq.url, headers={"Authorization": f"Bearer {KEY}"}, checks=CHECKS, timeout=60
    )
    assert answer.status_code < 500


ASKED = {"input": "How tall is the lighthouse?", "include": ["file_search_call.results"], "metadata": {"ticket": "7"}}
TAKEN: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "/v1/responses", {"body": ASKED}),
    ("POST", "/v1/responses", {"body": ASKED | {"background": True}}),
    ("POST", "/v1/responses", {"body": ASKED | {"stream": True}}),
    ("POST", "/v1/chat/completions", {"body": {"messages": [{"role": "user", "content": "How tall is it?"}]}}),
    ("POST", "/v1/embeddings", {"body": {"input": ["One.", "Two."]}}),
    ("POST", "/v1/vector_stores", {"body": {"expires_after": {"anchor": "last_active_at", "days": 1}}}),
    ("POST", "/v1/vector_stores/{vector_store_id}/search", {"body": {"query": "How tall is the lighthouse?"}}),
    ("POST", "/v1/vector_stores/{vector_store_id}/files", {"body": {"file_id": "file_id", "attributes": {"year": 7}}}),
    ("POST", "/v1/webhook_endpoints", {"body": {"url": "http://hooks.test/other"}}),
    ("GET", "/job-status", {"query": {"job_id": "job_id"}}),
    ("DELETE", "/v1/responses/{response_id}", {}),
    ("DELETE", "/v1/webhook_endpoints/{webhook_endpoint_id}", {}),
    ("DELETE", "/v1/files/{file_id}", {}),
]


@pytest.mark.parametrize(("method", "path", "parts"), TAKEN)
def test_what_is_taken_is_answered_as_the_document_describes(
    ragq: Ragq, known: dict[str, str], method: str, path: str, parts: dict[str, Any]
) -> None:
    filled = {
        part: {name: known[value] if value == name else value for name, value in values.items()}
        for part, values in parts.items()
    }
    here = {name: value for name, value in known.items() if f"{{{name}}}" in path}
    media_type = "application/json" if "body" in parts else None
    case = document[path][method].Case(path_parameters=here, media_type=media_type, **filled)
    headers = {"Authorization": f"Bearer {KEY}"}
    answer = case.call_and_validate(base_url=ragq.url, headers=headers, checks=CHECKS, timeout=60)
    assert answer.status_code == 200
