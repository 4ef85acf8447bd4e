"""A whole `ragq up`, used as people use it: the official SDK, the command line, RQ's tools, and wrong input."""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from ragq.http.access import SESSION_ROUTES
from tests.documents import write_long_pdf, write_pdf
from tests.servers import KEY, MAX_FILE_BYTES, Ragq, command, environment, run, wait_until


def test_the_sdk_uploads_polls_searches_and_gets_a_background_answer(client: openai.OpenAI, store_id: str) -> None:
    store = client.vector_stores.retrieve(store_id)
    assert (store.status, store.file_counts.completed, store.file_counts.total) == ("completed", 1, 1)
    (best, *_) = client.vector_stores.search(store_id, query="How tall is the lighthouse?").data
    assert "61 metres" in best.content[0].text
    assert best.filename == "harbour.md"
    response = client.responses.create(
        model="ragq",
        input="How tall is the lighthouse of Quorra?",
        background=True,
        metadata={"ticket": "7"},
        include=["file_search_call.results"],
        tools=[{"type": "file_search", "vector_store_ids": [store_id]}],
    )
    assert response.status in ("queued", "in_progress", "completed")
    deadline = time.monotonic() + 30
    while response.status in ("queued", "in_progress") and time.monotonic() < deadline:
        response = client.responses.retrieve(response.id, include=["file_search_call.results"])
    assert response.status == "completed"
    assert "61 metres" in response.output_text
    assert response.metadata == {"ticket": "7"}
    search, message = response.output
    assert search.type == "file_search_call"
    assert search.results
    assert message.type == "message"
    citation: Any = message.content[0].annotations[0]  # type: ignore[union-attr]
    text = client.vector_stores.files.content(citation.file_id, vector_store_id=store_id).data[0].text
    assert text
    assert text[citation.start : citation.end] == citation.quote
    assert "61 metres" in citation.quote


def test_the_same_bytes_twice_are_one_file_and_deleting_is_complete(client: openai.OpenAI) -> None:
    first = client.files.create(file=("twice.txt", b"The same words."), purpose="assistants")
    second = client.files.create(file=("twice.txt", b"The same words."), purpose="assistants")
    assert first.id == second.id
    store = client.vector_stores.create(file_ids=[first.id])
    wait_until(lambda: client.vector_stores.retrieve(store.id).file_counts.completed == 1)
    again = client.vector_stores.files.create_and_poll(first.id, vector_store_id=store.id)
    assert again.status == "completed"
    assert len(client.vector_stores.search(store.id, query="words").data) == 1
    assert client.files.content(first.id).read() == b"The same words."
    client.files.delete(first.id)
    assert client.vector_stores.search(store.id, query="words").data == []
    assert client.vector_stores.retrieve(store.id).file_counts.total == 0
    with pytest.raises(openai.NotFoundError):
        client.files.content(first.id)


def test_a_new_version_of_a_document_replaces_the_old(ragq: Ragq, client: openai.OpenAI, tmp_path: Path) -> None:
    document = tmp_path / "opening.md"
    for hour in ("nine", "ten"):
        document.write_text(f"The kiosk of Varn opens at {hour} o'clock.\n")
        done = ragq.run("ingest", str(document))
        assert done.returncode == 0, done.stderr
    found = client.vector_stores.search("default", query="When does the kiosk of Varn open?").data
    texts = [result.content[0].text for result in found if result.filename == "opening.md"]
    assert texts == ["The kiosk of Varn opens at ten o'clock."]


def test_progress_is_shown_while_a_document_is_ingested(http: httpx2.Client, tmp_path: Path) -> None:
    path = write_long_pdf(tmp_path / "slow.pdf", pages=400, facts={})
    file_id = http.post(
        "/v1/files", files={"file": (path.name, path.read_bytes())}, data={"purpose": "assistants"}
    ).json()["id"]
    address = f"/v1/vector_stores/default/files/{file_id}"
    http.post("/v1/vector_stores/default/files", json={"file_id": file_id})
    seen: list[tuple[str, int]] = []

    def completed() -> bool:
        state = http.get(address).json()
        if state.get("progress"):
            seen.append((state["progress"]["stage"], state["progress"]["done"]))
        return bool(state["status"] == "completed")

    wait_until(completed, seconds=60)
    assert len({done for stage, done in seen if stage == "embed"}) >= 2
    assert seen == sorted(seen, key=lambda one: (("parse", "embed", "store").index(one[0]), one[1]))
    assert http.delete(address).status_code == 200


@pytest.mark.parametrize(
    ("kind", "reason", "message"),
    [
        ("corrupt", "damaged", "The PDF is damaged: open it in a viewer, save it again, and upload that."),
        ("encrypted", "encrypted", "The PDF is encrypted and needs a password: remove it and try again."),
        (
            "no text",
            "no_text",
            "No text found in the PDF (page 1): its pages are blank.",
        ),
    ],
)
def test_an_unreadable_document_fails_with_its_reason(
    http: httpx2.Client, tmp_path: Path, kind: str, reason: str, message: str
) -> None:
    path = tmp_path / f"{kind}.pdf"
    write_pdf(path, [["words"]] if kind != "no text" else [[]], password="secret" if kind == "encrypted" else None)
    if kind == "corrupt":
        path.write_bytes(path.read_bytes()[:200])
    file_id = http.post(
        "/v1/files", files={"file": (path.name, path.read_bytes())}, data={"purpose": "assistants"}
    ).json()["id"]
    http.post("/v1/vector_stores/default/files", json={"file_id": file_id})
    address = f"/v1/vector_stores/default/files/{file_id}"
    state = wait_until(lambda: (s := http.get(address).json())["status"] == "failed" and s)
    assert state["last_error"] == {"code": "invalid_file", "message": message, "reason": reason}
    http.delete(f"/v1/files/{file_id}")


BAD = [
    ("POST", "/chat", {}, 400, "query"),
    ("POST", "/chat", {"json": {"query": "  "}}, 400, "query"),
    ("POST", "/chat", {"json": {"query": 7}}, 400, "query"),
    ("GET", "/job-status", {}, 400, "job_id"),
    ("GET", "/job-status", {"params": {"job_id": "resp_unknown"}}, 404, "job_id"),
    ("POST", "/v1/responses", {"json": {}}, 400, "input"),
    ("POST", "/v1/responses", {"json": {"input": ""}}, 400, "input"),
    ("POST", "/v1/responses", {"json": {"input": "hi", "stream": "always"}}, 400, "stream"),
    (
        "POST",
        "/v1/responses",
        {"content": b'{"input": "sky \\ud800"}', "headers": {"Content-Type": "application/json"}},
        400,
        "input",
    ),
    ("POST", "/v1/responses", {"json": {"input": "hi", "model": "gpt-9"}}, 404, "model"),
    ("POST", "/v1/responses", {"json": {"input": "hi", "temperature": 9}}, 400, "temperature"),
    ("POST", "/v1/responses", {"content": b"{not json", "headers": {"Content-Type": "application/json"}}, 400, None),
    ("GET", "/v1/responses/resp_unknown", {}, 404, "response_id"),
    ("POST", "/v1/responses/resp_unknown/cancel", {}, 404, "response_id"),
    ("GET", "/v1/files/file-unknown", {}, 404, "file_id"),
    ("GET", "/v1/files", {"params": {"limit": 0}}, 400, "limit"),
    ("POST", "/v1/files", {"data": {"purpose": "assistants"}}, 400, "file"),
    ("POST", "/v1/files", {"files": {"file": ("a.md", b"")}, "data": {"purpose": "assistants"}}, 400, "file"),
    ("POST", "/v1/files", {"files": {"file": ("a.exe", b"MZ")}, "data": {"purpose": "assistants"}}, 400, None),
    (
        "POST",
        "/v1/files",
        {"files": {"file": ("a.md", b"x" * (MAX_FILE_BYTES + 1))}, "data": {"purpose": "assistants"}},
        413,
        "file",
    ),
    (
        "POST",
        "/v1/files",
        {"files": {"file": ("a.md", b"x" * (2 * MAX_FILE_BYTES))}, "data": {"purpose": "assistants"}},
        413,
        "file",
    ),
    ("GET", "/v1/vector_stores/vs_unknown", {}, 404, "vector_store_id"),
    ("POST", "/v1/vector_stores/vs_unknown/search", {"json": {"query": "hi"}}, 404, "vector_store_id"),
    ("POST", "/v1/vector_stores/default/search", {"json": {"query": "hi", "filters": {}}}, 400, "filters"),
    ("POST", "/v1/vector_stores/default/files", {"json": {"file_id": "file-unknown"}}, 404, "file_id"),
    ("POST", "/v1/batches", {"json": {"input_file_id": "file-unknown"}}, 400, "endpoint"),
    ("GET", "/v1/batches/batch_unknown", {}, 404, "batch_id"),
    ("POST", "/v1/batches/batch_%00/cancel", {}, 404, "batch_id"),
    ("POST", "/v1/webhook_endpoints", {"json": {"url": "http://example.com"}}, 400, "url"),
    ("POST", "/v1/webhook_endpoints", {"json": {"url": "https://a.test", "events": ["x"]}}, 400, "events.0"),
    ("GET", "/v1/webhook_endpoints/we_unknown", {}, 404, "webhook_endpoint_id"),
    ("GET", "/v1/webhook_endpoints/we_%00/deliveries", {}, 404, "webhook_endpoint_id"),
    ("GET", "/nowhere", {}, 404, None),
    ("DELETE", "/chat", {}, 405, None),
]


@pytest.mark.parametrize(("method", "path", "options", "status", "param"), BAD)
def test_bad_input_gets_openais_error_body_with_the_field_named(
    http: httpx2.Client, method: str, path: str, options: dict[str, Any], status: int, param: str | None
) -> None:
    answer = http.request(method, path, **options)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert error["param"] == param
    assert answer.headers["x-request-id"].startswith("req_")
    assert http.get("/readyz").status_code == 200


def test_every_route_but_the_health_ones_asks_for_the_key(ragq: Ragq) -> None:
    with httpx2.Client(base_url=ragq.url) as stranger:
        schema = stranger.get("/openapi.json").json()["paths"]
        routes = [(method, path) for path, methods in schema.items() for method in methods]
        assert len(routes) > 20
        for method, path in routes:
            status = stranger.request(method, path.replace("{", "").replace("}", "")).status_code
            is_open = path in ("/healthz", "/readyz", *SESSION_ROUTES)
            assert (status in (200, 204, 400)) == is_open, (method, path, status)
        wrong = stranger.get("/status", headers={"Authorization": "Bearer wrong"})
        assert (wrong.status_code, wrong.json()["error"]["code"]) == (401, "invalid_api_key")
        assert stranger.get("/status", headers={"api-key": KEY}).status_code == 200


def test_the_page_and_its_parts_are_served_strictly_and_kept(ragq: Ragq) -> None:
    with httpx2.Client(base_url=ragq.url) as http:
        for path, kind in (("/", "text/html"), ("/web/page.js", "text/javascript"), ("/web/style.css", "text/css")):
            answer = http.get(path)
            assert answer.headers["content-type"].startswith(kind)
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert http.get(path, headers={"If-None-Match": answer.headers["etag"]}).status_code == 304
        assert http.get("/web/../settings.py").status_code == 401  # sent as /settings.py
        assert http.get("/web/%2e%2e%2fsettings.py").status_code == 404


def test_a_session_counts_for_changes_from_its_own_page_only(ragq: Ragq) -> None:
    with httpx2.Client(base_url=ragq.url) as http:
        assert http.post("/session", json={"key": "wrong"}).json()["error"]["code"] == "invalid_api_key"
        assert http.post("/session", json={"key": KEY}).status_code == 204
        assert http.get("/status").status_code == 200
        ours, body = {"Origin": ragq.url}, {"input": "Anything?", "background": True}
        for headers, status in (
            (ours, 200),
            ({"Sec-Fetch-Site": "same-origin"}, 200),
            ({}, 403),
            ({"Origin": "http://127.0.0.1:1"}, 403),
            ({"Origin": "null"}, 403),
            (ours | {"Sec-Fetch-Site": "cross-site"}, 403),
            ({"Authorization": "Bearer wrong"} | ours, 401),
        ):
            assert http.post("/v1/responses", json=body, headers=headers).status_code == status, headers
        cookie = http.post("/session", json={"key": KEY}, headers={"X-Forwarded-Proto": "https"}).headers["set-cookie"]
        assert {"HttpOnly", "SameSite=strict", "Path=/", "Secure"} <= set(cookie.split("; "))
        ends_at, _, signature = http.cookies["ragq_session"].partition(".")
        for forged in (f"{int(ends_at) + 1}.{signature}", "", ".", f"{ends_at}.", f"1.{signature}", "ü.ü"):
            answer = httpx2.get(f"{ragq.url}/status", headers={b"Cookie": f"ragq_session={forged}".encode()})
            assert answer.status_code == 401, forged
        http.delete("/session")
        assert http.get("/status").status_code == 401


def test_many_uploads_at_once_are_all_taken(http: httpx2.Client) -> None:
    def upload(number: int) -> int:
        file = (f"many-{number}.txt", f"Words of file {number}.".encode())
        return http.post("/v1/files", files={"file": file}, data={"purpose": "assistants"}).status_code

    with ThreadPoolExecutor(30) as pool:
        assert list(pool.map(upload, range(30))) == [200] * 30


def test_the_default_store_goes_by_its_alias_everywhere(http: httpx2.Client) -> None:
    store_id = http.get("/v1/vector_stores/default").json()["id"]
    assert http.post("/v1/vector_stores/default", json={"metadata": {"a": "b"}}).json()["id"] == store_id
    tool = {"type": "file_search", "vector_store_ids": ["default"]}
    body = {"input": "Anything?", "background": True, "tools": [tool]}
    assert http.post("/v1/responses", json=body).status_code == 200
    file = ("alias.txt", b"An alias is another name.")
    file_id = http.post("/v1/files", files={"file": file}, data={"purpose": "assistants"}).json()["id"]
    http.post("/v1/vector_stores/default/files", json={"file_id": file_id})
    changed = http.post(f"/v1/vector_stores/default/files/{file_id}", json={"attributes": {"kind": "note"}})
    assert changed.json()["attributes"] == {"kind": "note"}


def test_files_of_one_name_in_two_folders_are_two(ragq: Ragq, http: httpx2.Client, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "readme.md").write_text(f"This is the readme of folder {folder}.")
    done = ragq.run("ingest", str(tmp_path / "one"), str(tmp_path / "two"))
    assert done.returncode == 0, done.stderr
    names = {file["filename"] for file in http.get("/v1/files", params={"limit": 100}).json()["data"]}
    assert {"one/readme.md", "two/readme.md"} <= names


def test_an_idempotency_key_makes_one_response_and_a_changed_body_a_conflict(http: httpx2.Client) -> None:
    def create(question: str) -> httpx2.Response:
        body = {"input": question, "background": True}
        return http.post("/v1/responses", json=body, headers={"Idempotency-Key": "k1"})

    first, second, changed = create("one?"), create("one?"), create("two?")
    assert first.json()["id"] == second.json()["id"]
    assert changed.status_code == 409
    assert changed.headers["x-should-retry"] == "false"


def test_rqs_tools_see_our_queues_workers_and_jobs(ragq: Ragq, http: httpx2.Client) -> None:
    printed = ragq.run("env").stdout
    assert all(line.startswith("export ") for line in printed.splitlines())
    job_id = http.post("/chat", params={"query": "What is here?"}).json()["job_id"]
    wait_until(lambda: http.get("/job-status", params={"job_id": job_id}).json()["status"] == "completed")
    shell = f'{printed}\nexec "$0" -m rq.cli info'
    info = run("bash", "-c", shell, sys.executable, env=environment()).stdout
    assert "queries" in info
    assert "documents" in info
    assert "2 workers" in info
    script = f"""
from rq.job import Job; from rq.serializers import JSONSerializer; from redis import Redis; import os
job = Job.fetch({job_id!r}, connection=Redis.from_url(os.environ["RQ_REDIS_URL"]), serializer=JSONSerializer)
print(job.get_status().value, job.return_value()["answer"]["kind"])
"""
    shell = f'{printed}\nexec "$0" -c "$1"'
    seen = run("bash", "-c", shell, sys.executable, script, env=environment())
    assert seen.stdout.split() == ["finished", "generated"], seen.stderr


def test_status_names_queues_and_workers(ragq: Ragq) -> None:
    shown = json.loads(ragq.run("status", "--json").stdout)
    assert {queue["name"] for queue in shown["queues"]} >= {"queries", "documents"}
    assert sorted(queue for worker in shown["workers"] for queue in worker["queues"]) == ["documents", "queries"]
    assert "worker" in ragq.run("status").stdout


def test_a_second_up_on_the_same_folder_is_refused_with_the_first_ones_pid(ragq: Ragq) -> None:
    second = ragq.run("up", "--port", "0")
    assert second.returncode == 1
    assert f"in use by process {ragq.pid}" in second.stderr


def test_listening_beyond_this_machine_needs_a_key(tmp_path: Path) -> None:
    everywhere = command("up", "--host", "0.0.0.0", "--port", "0")
    refused = run(*everywhere, env=environment(RAGQ_DATA_DIR=tmp_path / "data"))
    assert refused.returncode == 1
    assert "RAGQ_API_KEY" in refused.stderr
    assert not (tmp_path / "data" / "postgresql").exists()
