"""Strangers before a real service: wrong hosts, other websites, guesses, and bodies that nobody asked for."""

from __future__ import annotations

import contextlib
import io
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import httpx2
import pytest

from tests.servers import KEY, Ragq, command, environment, free_port, stop, wait_until

APP = "https://app.example.com"
FILE = {"file": ("harbour.md", b"The lighthouse of Quorra is 61 metres tall.")}
UPLOAD_BYTES = 100_000_000


@pytest.fixture(scope="module")
def ragq(plain_ragq: Ragq) -> Ragq:
    return plain_ragq


@pytest.fixture(scope="module")
def locked(ragq: Ragq) -> Iterator[tuple[str, int]]:
    """Another API process of it, with a key, a second name and an app that may call it; its address and pid."""
    api, url = ragq.spawn_api(RAGQ_API_KEY=KEY, RAGQ_ALLOWED_HOSTS="*.ragq.test", RAGQ_CORS_ORIGINS=APP)
    yield url, api.pid
    stop(api)


def code_of(answer: httpx2.Response) -> tuple[int, str | None]:
    return answer.status_code, answer.json().get("error", {}).get("code")


@pytest.mark.parametrize(
    "host", ["evil.test", "evil.test:80", "localhost.evil.test", "127.0.0.1.evil.test", "10.1.2.3", ""]
)
def test_a_foreign_host_name_is_refused_before_anything_is_read(ragq: Ragq, host: str) -> None:
    for method, path in (
        ("GET", "/v1/files"),
        ("GET", "/"),
        ("POST", "/chat?query=Anything"),
        ("GET", "/openapi.json"),
    ):
        answer = httpx2.request(method, ragq.url + path, headers={"Host": host})
        assert code_of(answer) == (403, "unknown_host"), path
        assert "RAGQ_ALLOWED_HOSTS" in answer.json()["error"]["message"]
    assert httpx2.get(f"{ragq.url}/healthz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8000", "localhost.", "127.0.0.1:1", "127.9.9.9", "[::1]:8000"]
)
def test_loopback_goes_by_all_of_its_names(ragq: Ragq, host: str) -> None:
    assert httpx2.get(f"{ragq.url}/v1/files", headers={"Host": host}).status_code == 200


def test_hosts_that_are_named_in_the_settings_are_ours(locked: tuple[str, int]) -> None:
    url, _ = locked
    for host, status in (("a.ragq.test", 401), ("a.b.ragq.test:443", 401), ("ragq.test.evil.test", 403)):
        assert httpx2.get(f"{url}/v1/files", headers={"Host": host}).status_code == status, host


FOREIGN = [
    {"Origin": "http://evil.test"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:1"},
    {"Origin": "http://["},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:1"},
    {"Sec-Fetch-Site": "none", "Origin": "http://evil.test"},
]


@pytest.mark.parametrize("headers", FOREIGN)
def test_changes_that_another_website_sends_are_refused(ragq: Ragq, headers: dict[str, str]) -> None:
    with httpx2.Client(base_url=ragq.url, headers=headers) as website:
        changes = [
            website.post("/chat", data={"query": "Anything?"}),
            website.post("/chat", params={"query": "Anything?"}),
            website.post("/v1/files", files=FILE, data={"purpose": "assistants"}),
            website.post("/v1/responses", content=b'{"input": "Anything?"}', headers={"Content-Type": "text/plain"}),
            website.delete("/v1/files/file-unknown"),
            website.post("/session", json={"key": KEY}),
        ]
        for answer in changes:
            assert code_of(answer) == (403, "cross_site_request"), answer.request.url
            assert "RAGQ_CORS_ORIGINS" in answer.json()["error"]["message"]
        assert website.get("/v1/files").status_code == 200


@pytest.mark.parametrize("headers", [{}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}])
def test_programs_and_the_own_page_change_things_without_a_key(ragq: Ragq, headers: dict[str, str]) -> None:
    assert httpx2.post(f"{ragq.url}/chat?query=Anything", headers=headers).status_code == 200


def test_an_app_that_is_listed_gets_answers_it_may_read_and_others_do_not(locked: tuple[str, int]) -> None:
    url, _ = locked
    wanted = {
        "Origin": APP,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,idempotency-key,x-stainless-lang",
    }
    asked = httpx2.options(f"{url}/v1/responses", headers=wanted)
    assert asked.status_code == 200
    assert asked.headers["access-control-allow-origin"] == APP
    assert asked.headers["access-control-allow-headers"] == wanted["Access-Control-Request-Headers"]
    assert (
        "access-control-allow-origin"
        not in httpx2.options(f"{url}/v1/responses", headers=wanted | {"Origin": "https://evil.test"}).headers
    )
    from_app = {"Origin": APP, "Sec-Fetch-Site": "cross-site"}
    with httpx2.Client(base_url=url, headers=from_app) as app:
        refused = app.get("/v1/files")
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, APP)
        body = {"input": "Anything?", "background": True}
        answer = app.post("/v1/responses", json=body, headers={"Authorization": f"Bearer {KEY}"})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, APP)
        assert "x-request-id" in answer.headers["access-control-expose-headers"]
        assert "access-control-allow-credentials" not in answer.headers


def begin(url: str, *lines: str, body: bytes = b"") -> socket.socket:
    """Send the head of a request and what there is of its body."""
    place = urlsplit(url)
    connection = socket.create_connection((place.hostname or "", place.port or 0), timeout=20)
    connection.sendall("\r\n".join([*lines, f"Host: {place.netloc}", "", ""]).encode() + body)
    return connection


def read_all(connection: socket.socket) -> bytes:
    """Read until the other side closes."""
    received = b""
    while piece := connection.recv(1 << 16):
        received += piece
    return received


def test_a_body_is_refused_by_what_is_said_of_it_before_it_is_sent(ragq: Ragq, locked: tuple[str, int]) -> None:
    url, _ = locked
    long = "Content-Length: 90000000"
    key = f"Authorization: Bearer {KEY}"
    for head, status in (
        ([f"POST {path} HTTP/1.1", *more, long], status)
        for path, more, status in (
            ("/v1/files", [], 401),
            ("/v1/responses", [], 401),
            ("/nowhere", [], 401),
            ("/v1/responses", [key], 413),
            ("/session", [], 413),
            ("/healthz", [], 413),
        )
    ):
        with begin(url, *head) as connection:
            answer = read_all(connection)
        assert answer.startswith(f"HTTP/1.1 {status} ".encode()), (head, answer[:100])
        assert b"connection: close" in answer.lower()
    with begin(ragq.url, "POST /v1/files HTTP/1.1", "Content-Length: 9999999999999999999999999") as connection:
        assert read_all(connection).startswith(b"HTTP/1.1 400 ")


async def test_a_client_that_sends_all_of_its_body_first_reads_why_it_was_refused(locked: tuple[str, int]) -> None:
    url, _ = locked
    async with aiohttp.ClientSession(url) as session:  # it takes an error of sending for the whole answer
        for _ in range(20):
            form = aiohttp.FormData()
            form.add_field("file", io.BytesIO(b"words " * 500_000), filename="large.txt")
            async with session.post("/v1/files", data=form) as refused:
                assert refused.status == 401
                assert (await refused.json())["error"]["code"] == "invalid_api_key"


def test_a_body_of_no_stated_length_is_read_up_to_the_limit(locked: tuple[str, int]) -> None:
    url, _ = locked
    head = ["POST /session HTTP/1.1", "Transfer-Encoding: chunked", "Content-Type: application/json"]
    with begin(url, *head, body=b"11000\r\n" + b"x" * 0x11000 + b"\r\n") as connection:
        assert read_all(connection).startswith(b"HTTP/1.1 413 ")


def resident_bytes(pid: int) -> int:
    (line,) = [one for one in Path(f"/proc/{pid}/status").read_text().splitlines() if one.startswith("VmRSS")]
    return int(line.split()[1]) * 1024


def temporary_files(pid: int) -> list[str]:
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(entry.readlink())
        except FileNotFoundError:
            continue
        if "(deleted)" in target:
            found.append(target)
    return found


def test_large_uploads_without_the_key_cost_neither_memory_nor_disk(locked: tuple[str, int]) -> None:
    url, pid = locked
    before = resident_bytes(pid)
    sent = [0] * 8

    def upload(number: int) -> None:
        head = [
            "POST /v1/files HTTP/1.1",
            f"Content-Length: {UPLOAD_BYTES}",
            "Content-Type: multipart/form-data; boundary=b",
        ]
        start = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'
        with begin(url, *head, body=start) as connection:
            try:
                while sent[number] < UPLOAD_BYTES:
                    sent[number] += connection.send(b"x" * (1 << 16))
            except (ConnectionError, TimeoutError):
                return

    with ThreadPoolExecutor(8) as pool:
        uploads = [pool.submit(upload, number) for number in range(8)]
        most, deadline = 0, time.monotonic() + 30
        while not all(one.done() for one in uploads) and time.monotonic() < deadline:
            most = max(most, resident_bytes(pid))
            assert temporary_files(pid) == []
            time.sleep(0.01)
        for one in uploads:
            one.result()
    assert max(most, resident_bytes(pid)) - before < 20_000_000
    assert max(sent) < UPLOAD_BYTES


def form(*parts: tuple[str, str | None, bytes]) -> dict[str, Any]:
    """Write a form of parts with a name, perhaps a file's name, and content."""
    body = b""
    for name, filename, content in parts:
        of_file = f'; filename="{filename}"' if filename else ""
        body += f'--b\r\nContent-Disposition: form-data; name="{name}"{of_file}\r\n\r\n'.encode() + content + b"\r\n"
    return {"content": body + b"--b--\r\n", "headers": {"Content-Type": "multipart/form-data; boundary=b"}}


PURPOSE = ("purpose", None, b"assistants")


@pytest.mark.parametrize(
    "parts",
    [
        [PURPOSE, ("file", "a.md", b"One."), ("file", "b.md", b"Two.")],
        [PURPOSE, ("file", "a.md", b"One."), ("file", None, b"Two.")],
        [PURPOSE, ("file", None, b"Two."), ("file", "a.md", b"One.")],
        [PURPOSE, *[("file", f"{number}.md", b"One.") for number in range(50)]],
    ],
)
def test_more_than_one_part_named_file_is_an_error_that_names_it(
    ragq: Ragq, parts: list[tuple[str, str | None, bytes]]
) -> None:
    answer = httpx2.post(f"{ragq.url}/v1/files", **form(*parts))
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, "file", "invalid_form")


@pytest.mark.parametrize(
    "parts", [[("purpose", None, b"a" * 65_536)], [(f"f{n}", None, b"a" * 8_000) for n in range(9)]]
)
def test_the_fields_beside_the_file_are_limited_together(
    ragq: Ragq, parts: list[tuple[str, str | None, bytes]]
) -> None:
    answer = httpx2.post(f"{ragq.url}/v1/files", **form(("file", "a.md", b"One."), *parts))
    assert code_of(answer) == (400, "invalid_form")
    fields = {name: "a" * 8_500 for name, _, _ in parts}
    assert code_of(httpx2.post(f"{ragq.url}/v1/files", data=fields)) == (400, "invalid_form")


def test_guesses_of_the_key_are_slowed_down_and_do_not_lock_out_who_has_it(ragq: Ragq) -> None:
    api, url = ragq.spawn_api(RAGQ_API_KEY=KEY)
    try:
        with httpx2.Client(base_url=url) as guesser:
            answers = [
                guesser.post("/session", json={"key": f"guess {n}"}, headers={"X-Forwarded-For": f"192.0.2.{n}"})
                for n in range(8)
            ]
            answers += [guesser.get("/status", headers={"api-key": f"guess {number}"}) for number in range(8)]
            statuses = [answer.status_code for answer in answers]
            assert statuses[:10] == [401] * 10
            assert statuses[12:] == [429] * 4
            assert 1 <= int(answers[-1].headers["Retry-After"]) <= 6
            assert code_of(answers[-1]) == (429, "too_many_wrong_keys")
            assert guesser.get("/healthz").status_code == 200
            right = {"Authorization": f"bearer {KEY}"}
            wait_until(lambda: guesser.get("/status", headers=right).status_code == 200, seconds=10)
            for number in range(20):
                guesser.post("/session", json={"key": f"guess {number}"})
                assert guesser.get("/status", headers=right).status_code == 200
            assert guesser.post("/session", json={"key": "wrong"}).status_code == 429
    finally:
        stop(api)


def test_head_is_get_without_a_body_on_every_route(ragq: Ragq, locked: tuple[str, int]) -> None:
    with httpx2.Client(base_url=ragq.url) as http:
        for path in ("/healthz", "/readyz", "/", "/v1/models", "/status", "/v1/files", "/openapi.json", "/nowhere"):
            read, head = http.get(path), http.head(path)
            assert head.status_code == read.status_code, path
            assert head.content == b""
            if path != "/status":
                assert head.headers["content-length"] == read.headers["content-length"]
        assert http.head("/chat").status_code == 405
        response = http.post("/v1/responses", json={"input": "Anything?", "background": True, "stream": True})
        job = next(part.split('"')[0] for part in response.text.split('"id":"')[1:])
        assert http.head(f"/v1/responses/{job}", params={"stream": "true"}).status_code == 200
    url, _ = locked
    assert httpx2.head(f"{url}/v1/models").status_code == 401


def test_what_is_not_ready_is_told_to_all_and_why_to_those_with_the_key_only(tmp_path: Path) -> None:
    port = free_port()
    variables = {
        "RAGQ_API_KEY": KEY,
        "RAGQ_VALKEY_URL": f"unix://{tmp_path}/valkey-of-ours.sock",
        "RAGQ_DATABASE_URL": "postgresql://someone:secret@127.0.0.1:1/x",
        "RAGQ_DATA_DIR": tmp_path,
    }

    with (tmp_path / "log").open("wb") as log:
        api = subprocess.Popen(
            command("serve", "--port", str(port)), env=environment(**variables), cwd=tmp_path, stderr=log
        )
    url, right = f"http://127.0.0.1:{port}", {"Authorization": f"Bearer {KEY}"}

    def read() -> httpx2.Response | None:
        with contextlib.suppress(httpx2.TransportError):
            return httpx2.get(f"{url}/readyz", timeout=30)
        return None

    try:
        said = wait_until(read, seconds=30)
        assert said is not None
        assert said.status_code == 503
        assert said.json() == dict.fromkeys(("status", "start", "valkey", "postgresql"), "not ready")
        assert httpx2.get(f"{url}/readyz", headers={"api-key": "wrong"}, timeout=30).json() == said.json()
        known = httpx2.get(f"{url}/readyz", headers=right, timeout=30).text
        assert "No such file or directory" in known
        assert "secret" not in known
        for answer in (
            httpx2.get(f"{url}/v1/files", headers=right, timeout=30),
            httpx2.get(f"{url}/job-status?job_id=resp_1", headers=right, timeout=30),
        ):
            assert answer.status_code == 503
            assert not any(part in answer.text for part in ("127.0.0.1", ".sock", "port", "Error")), answer.text
    finally:
        stop(api)
    written = (tmp_path / "log").read_text()
    assert "No such file or directory" in written
    assert "port 1" in written


def test_the_blob_stores_own_words_stay_in_the_log(ragq: Ragq) -> None:
    with httpx2.Client(base_url=ragq.url) as http:
        file = http.post("/v1/files", files=FILE, data={"purpose": "assistants"}).json()
        folder = ragq.folder / "files"
        for path in folder.iterdir():
            path.rename(path.with_suffix(".gone"))
        folder.rename(ragq.folder / "files-away")
        folder.write_text("not a folder")
        try:
            refused = http.post("/v1/files", files={"file": ("b.md", b"Two.")}, data={"purpose": "assistants"})
            assert code_of(refused) == (503, "blobs_unavailable")
            assert not any(part in refused.text for part in (str(ragq.folder), "files", "os error", "Generic"))
            assert str(folder) in ragq.log()
        finally:
            folder.unlink()
            (ragq.folder / "files-away").rename(folder)
            for path in folder.iterdir():
                path.rename(path.with_suffix(""))
        assert http.get(f"/v1/files/{file['id']}/content").status_code == 200


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("../../etc/passwd.txt", "___.._etc_passwd.txt"),
        ("..\\..\\boot.txt", "___.._boot.txt"),
        ("/etc/cron.d/job.txt", "_etc_cron.d_job.txt"),
        (".bashrc.txt", "_bashrc.txt"),
        ("a\u202etxt.md", "a_txt.md"),
        ("50%2F..%2Fx.md", "50%252F..%252Fx.md"),
        ("equals=;x.md", "equals%3D%3Bx.md"),
        ("Übung für alle.md", "%C3%9Cbung%20f%C3%BCr%20alle.md"),
    ],
)
def test_a_download_is_named_so_that_it_stays_in_its_folder(ragq: Ragq, name: str, header: str) -> None:
    with httpx2.Client(base_url=ragq.url) as http:
        parts = {"file": (name, f"Words of {header}.".encode())}
        file = http.post("/v1/files", files=parts, data={"purpose": "assistants"}).json()
        given = http.get(f"/v1/files/{file['id']}/content").headers["content-disposition"]
        assert given == f"attachment; filename*=UTF-8''{header}"
        http.delete(f"/v1/files/{file['id']}")
