"""What the service answers, held to its own OpenAPI document by requests that Schemathesis makes up."""

from __future__ import annotations

import json
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

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

from ragq.models import QueueName
from ragq.server import create_app
from ragq.settings import Settings
from tests.servers import KEY, Ragq

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


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
    upload = {"filename": "bridge.txt", "bytes": 9, "purpose": "assistants"}
    ids["upload_id"] = post("/v1/uploads", json=upload)["id"]
    ids["conversation_id"] = post("/v1/conversations", json={"items": [{"role": "user", "content": "Hello."}]})["id"]
    (item,) = http.get(f"/v1/conversations/{ids['conversation_id']}/items").json()["data"]
    ids["item_id"] = item["id"]
    chat = {"messages": [{"role": "user", "content": "How tall is it?"}], "store": True}
    ids["completion_id"] = post("/v1/chat/completions", json=chat)["id"]
    ids["key_id"] = post("/v1/admin/keys", json={"name": "A laptop"})["id"]
    ids |= {"queue": "documents", "worker": "nobody", "sha256": "0" * 64}
    nothing = {"action": "delete", "jobs": {"text": "of no job"}}
    ids["action_id"] = post("/v1/admin/job_actions", json=nothing)["id"]
    ids["tenant_id"] = post("/v1/admin/tenants", json={"id": "quorra"})["id"]
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
    if case.path.endswith("/job_actions") and isinstance(case.body, dict) and isinstance(case.body.get("jobs"), dict):
        case.body["jobs"]["text"] = "of no job"  # else it may delete all


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
    if case.path.endswith("/pause"):
        for queue in QueueName:
            httpx2.post(f"{ragq.url}/v1/admin/queues/{queue}/resume", headers={"Authorization": f"Bearer {KEY}"})


ASKED = {"input": "How tall is the lighthouse?", "include": ["file_search_call.results"], "metadata": {"ticket": "7"}}
TAKEN: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "/v1/responses", {"body": ASKED}),
    ("POST", "/v1/responses", {"body": ASKED | {"background": True}}),
    ("POST", "/v1/responses", {"body": ASKED | {"stream": True}}),
    ("POST", "/v1/responses/input_tokens", {"body": ASKED}),
    ("POST", "/v1/responses/compact", {"body": {"model": "ragq", "input": "How tall is the lighthouse?"}}),
    ("POST", "/v1/conversations", {"body": {"metadata": {"topic": "harbour"}}}),
    ("POST", "/v1/conversations/{conversation_id}/items", {"body": {"items": [{"role": "user", "content": "Bye."}]}}),
    ("GET", "/v1/conversations/{conversation_id}/items", {}),
    ("DELETE", "/v1/conversations/{conversation_id}/items/{item_id}", {}),
    ("POST", "/v1/chat/completions", {"body": {"messages": [{"role": "user", "content": "How tall is it?"}]}}),
    ("GET", "/v1/chat/completions", {}),
    ("GET", "/v1/chat/completions/{completion_id}", {}),
    ("GET", "/v1/chat/completions/{completion_id}/messages", {}),
    ("POST", "/v1/chat/completions/{completion_id}", {"body": {"metadata": {"a": "b"}}}),
    ("DELETE", "/v1/chat/completions/{completion_id}", {}),
    ("POST", "/v1/completions", {"body": {"prompt": "How tall is the lighthouse?"}}),
    ("POST", "/v1/embeddings", {"body": {"input": ["One.", "Two."]}}),
    ("POST", "/v1/uploads", {"body": {"filename": "bridge.txt", "bytes": 9, "purpose": "assistants"}}),
    ("POST", "/v1/uploads/{upload_id}/cancel", {}),
    ("POST", "/v1/vector_stores", {"body": {"expires_after": {"anchor": "last_active_at", "days": 1}}}),
    ("POST", "/v1/vector_stores/{vector_store_id}/search", {"body": {"query": "How tall is the lighthouse?"}}),
    ("POST", "/v1/vector_stores/{vector_store_id}/files", {"body": {"file_id": "file_id", "attributes": {"year": 7}}}),
    ("POST", "/v1/webhook_endpoints", {"body": {"url": "http://hooks.test/other"}}),
    ("POST", "/v1/admin/keys", {"body": {"name": "CI", "role": "reader", "expires_in_seconds": 60}}),
    ("GET", "/v1/admin/keys", {}),
    ("GET", "/v1/admin/keys/{key_id}", {}),
    ("POST", "/v1/admin/keys/{key_id}/rotate", {}),
    ("DELETE", "/v1/admin/keys/{key_id}", {}),
    ("POST", "/v1/admin/tenants", {"body": {"id": "birch"}}),
    ("GET", "/v1/admin/tenants", {}),
    ("GET", "/v1/admin/tenants/{tenant_id}", {}),
    ("POST", "/v1/admin/tenants/{tenant_id}/suspend", {}),
    ("POST", "/v1/admin/tenants/{tenant_id}/resume", {}),
    ("GET", "/v1/admin/jobs", {}),
    ("GET", "/v1/admin/jobs/count", {}),
    ("GET", "/v1/admin/jobs/{job_id}", {}),
    ("POST", "/v1/admin/job_actions", {"body": {"action": "cancel", "jobs": {"ids": ["resp_1"]}}}),
    ("GET", "/v1/admin/job_actions/{action_id}", {}),
    ("POST", "/v1/admin/job_actions/{action_id}/stop", {}),
    ("GET", "/v1/admin/queues", {}),
    ("POST", "/v1/admin/queues/{queue}/resume", {}),
    ("GET", "/v1/admin/workers", {}),
    ("GET", "/v1/admin/poison", {}),
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


HALF = "half \ud83d of a pair"
NUL = "a \0 b"
Place = tuple[str | int, ...]


def resolve(schema: dict[str, Any]) -> dict[str, Any]:
    """Follow a reference into the document."""
    name = schema.get("$ref", "").rpartition("/")[2]
    return document.raw_schema["components"]["schemas"][name] if name else schema


def strings_of(schema: dict[str, Any], seen: tuple[str, ...] = ()) -> Iterator[Place]:
    """Name each place where a schema takes a string: of a list the first item, of a map a key of our own."""
    if (name := schema.get("$ref", "")) in seen:
        return
    seen, schema = (*seen, name) if name else seen, resolve(schema)
    if schema.get("type") == "string" and "const" not in schema and "enum" not in schema:
        yield ()
    for one in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        yield from strings_of(one, seen)
    for key, inner in schema.get("properties", {}).items():
        yield from ((key, *rest) for rest in strings_of(inner, seen))
    if items := schema.get("items"):
        yield from ((0, *rest) for rest in strings_of(items, seen))
    if isinstance(values := schema.get("additionalProperties"), dict):
        yield from (("key", *rest) for rest in strings_of(values, seen))


def wrap(place: Place, value: Any) -> Any:
    """Make the JSON that has a value at a place, and nothing else."""
    for name in reversed(place):
        value = [value] if isinstance(name, int) else {name: value}
    return value


BODIES = [
    (method.upper(), path, place)
    for path, methods in document.raw_schema["paths"].items()
    for method, operation in methods.items()
    if "application/json" in (content := operation.get("requestBody", {}).get("content", {}))
    for place in dict.fromkeys(strings_of(content["application/json"]["schema"]))
]


def test_bodies_have_strings_in_many_places() -> None:
    places = {(path, ".".join(map(str, place))) for _, path, place in BODIES}
    assert ("/v1/responses", "input") in places
    assert ("/v1/responses", "input.0.content.0.text") in places
    assert ("/v1/responses", "metadata.key") in places
    assert ("/v1/vector_stores/{vector_store_id}/files", "attributes.key") in places
    assert ("/v1/vector_stores/{vector_store_id}/search", "filters.filters.0.value") in places
    assert len(places) > 50


def send_json(http: httpx2.Client, method: str, path: str, body: str) -> httpx2.Response:
    headers = {"Content-Type": "application/json"}
    return http.request(method, path.replace("{", "").replace("}", ""), content=body.encode(), headers=headers)


@pytest.mark.parametrize("text", [HALF, NUL], ids=["half", "nul"])
def test_what_is_no_text_is_refused_in_every_string_of_every_body(http: httpx2.Client, text: str) -> None:
    for method, path, place in BODIES:
        answer = send_json(http, method, path, json.dumps(wrap(place, text)))
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_value"), (path, place)
        assert answer.json()["error"]["param"] == (".".join(map(str, place)) or None)
        answer = send_json(http, method, path, json.dumps(wrap(place[:-1], {text: 1})))
        assert answer.status_code == 400, (path, place)  # as the name of a field, too


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ('{"input": NaN}', "input"),
        ('{"temperature": Infinity, "input": "hi"}', "temperature"),
        ('{"temperature": 1e999, "input": "hi"}', "temperature"),
        ('{"max_output_tokens": 1%s, "input": "hi"}' % ("0" * 400), "max_output_tokens"),
        ('{"max_output_tokens": 1%s, "input": "hi"}' % ("0" * 5000), None),
        ('{"input": [' + "[" * 500 + "]" * 500 + "]}", None),
        ("[" * 100_000, None),
        ('{"input": [' + "{}," * 1_000_000 + "{}]}", None),
        ('{"input": [' + "{}," * 19_990 + "{}]}", "input"),
        ("{" + ",".join(f'"key{number}": 1' for number in range(19_990)) + "}", None),
    ],
    ids=range(10),
)
def test_numbers_that_are_none_and_json_without_measure_are_refused_at_once(
    http: httpx2.Client, body: str, param: str | None
) -> None:
    started = time.monotonic()
    answer = send_json(http, "POST", "/v1/responses", body)
    assert answer.status_code == 400, answer.text
    assert param is None or answer.json()["error"]["param"].startswith(param)
    assert time.monotonic() - started < 2  # 300 kB of empty messages once took 2.4 s


def test_what_is_no_text_is_refused_in_every_parameter(http: httpx2.Client) -> None:
    places: Counter[str] = Counter()
    for path, methods in document.raw_schema["paths"].items():
        for method, operation in methods.items():
            for parameter in operation.get("parameters", []):
                name = parameter["name"]
                places[parameter["in"]] += 1
                for code, statuses in (("%ED%A0%80", {400}), ("%00", {400, 404}), ("%FF", {400})):
                    if parameter["in"] == "query":
                        address = f"{path.replace('{', '').replace('}', '')}?{quote(name)}={code}"
                    elif parameter["in"] == "path":
                        address = path.replace(f"{{{name}}}", code).replace("{", "").replace("}", "")
                    else:
                        continue
                    answer = http.request(method.upper(), address)
                    assert answer.status_code in statuses, (method, address, answer.text)
    assert min(places["query"], places["path"]) > 50
    for value in (b"\xed\xa0\x80", b"\xff", b"'\\"):
        headers = {b"Idempotency-Key": value, b"Content-Type": b"application/json"}
        assert http.post("/v1/responses", content=b'{"input": "hi"}', headers=headers).status_code == 200


@pytest.mark.parametrize("charset", ["utf-8", "utf-7", "unicode_escape"])
def test_what_is_no_text_is_refused_in_every_field_of_a_form(http: httpx2.Client, charset: str) -> None:
    half = {"utf-8": b"\xed\xa0\x80", "utf-7": b"+2AA-", "unicode_escape": b"\\ud800"}[charset]
    for value in (half, b"a\0b"):
        for name in ("purpose", "expires_after[anchor]", "file"):
            fields = {"purpose": b"assistants", "file": b"a.md"} | {name: value}
            parts = [b'form-data; name="file"; filename="%s"\r\n\r\ntext' % fields.pop("file")]
            parts += [b'form-data; name="%s"\r\n\r\n%s' % (key.encode(), text) for key, text in fields.items()]
            body = b"".join(b"--x\r\nContent-Disposition: " + part + b"\r\n" for part in parts) + b"--x--\r\n"
            headers = {"Content-Type": f"multipart/form-data; boundary=x; charset={charset}"}
            answer = http.post("/v1/files", content=body, headers=headers)
            assert answer.status_code == 400 or (charset, name, value) == ("utf-8", "file", half), answer.text


SPOILT: set[tuple[str | int, ...]] = set()  # places that were tried: the same one in another body tells nothing new


@document.include(method="POST").parametrize()  # type: ignore[untyped-decorator]
@settings(max_examples=2, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
def test_half_of_a_surrogate_pair_anywhere_in_a_made_up_body_is_refused(case: Any, http: httpx2.Client) -> None:
    if case.media_type != "application/json" or not isinstance(case.body, dict):
        return
    places = {(case.path, *(key if isinstance(key, str) else 0 for key in one)): one for one in strings_in(case.body)}
    new = sorted(places.keys() - SPOILT, key=str)
    for kind in new[:: max(1, len(new) // 5)]:
        SPOILT.add(kind)
        place = places[kind]
        answer = send_json(http, "POST", case.path, json.dumps(spoil(case.body, place)))
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_value"), answer.text


def strings_in(value: Any) -> Iterator[Place]:
    """Name the place of each string in JSON."""
    if isinstance(value, str):
        yield ()
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        yield from ((name, *rest) for rest in strings_in(inner))


def spoil(value: Any, place: Place) -> Any:
    """Put a lone surrogate at a place."""
    if not place:
        return value + "\ud800"
    items = value.items() if isinstance(value, dict) else enumerate(value)
    changed = {name: spoil(inner, place[1:]) if name == place[0] else inner for name, inner in items}
    return changed if isinstance(value, dict) else list(changed.values())
