"""Pages of other websites before a keyless service, in a real Chromium: what they send is refused or cannot be read."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import httpx2
import pytest
from playwright.sync_api import Browser, Page

from tests.browser.conftest import BROWSERS, WAIT_MS
from tests.servers import Ragq, stop

SANDBOXED = "/sandboxed"  # its pages send `Origin: null`
SAME_SITE, CROSS_SITE = "127.0.0.1", "localhost"  # what the pages of these hosts are to a service on 127.0.0.1

SUBMIT = """([url, enctype, hasFile]) => {
    const form = document.createElement("form");
    Object.assign(form, { method: "post", action: url, enctype });
    if (hasFile) {
        const transfer = new DataTransfer();
        transfer.items.add(new File(["The lighthouse has fallen."], "planted.md"));
        form.innerHTML = '<input name="purpose" value="assistants"><input name="file" type="file">';
        form.lastChild.files = transfer.files;
    }
    document.body.append(form);
    form.submit();
}"""
UPLOAD = """(url) => {
    const body = new FormData();
    body.append("purpose", "assistants");
    body.append("file", new File(["The lighthouse has fallen."], "planted.md"));
    return fetch(url, { method: "POST", mode: "no-cors", body }).then((answer) => answer.type);
}"""
SAY = """([url, type]) => {
    const body = new Blob(['{"input": "Anything?", "background": true}'], { type });
    return fetch(url, { method: "POST", mode: "no-cors", body }).then((answer) => answer.type);
}"""
CALL = """([url, method, body]) => {
    const options = { method, body, headers: body ? { "Content-Type": "application/json" } : {} };
    return fetch(url, options).then(async (answer) => [answer.status, await answer.json()], () => "unreadable");
}"""


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        if self.path == SANDBOXED:
            self.send_header("Content-Security-Policy", "sandbox allow-scripts allow-forms")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>Another website</title><body>Look here.</body>")

    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The port of another website, which goes by each name of loopback."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join(10)
    assert not thread.is_alive()


def open_page(browser: Browser, url: str) -> Page:
    context = browser.new_context()
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    page.goto(url)
    return page


SITES = [(SAME_SITE, "/"), (CROSS_SITE, "/"), (CROSS_SITE, SANDBOXED)]


@pytest.fixture(scope="module", params=SITES, ids="".join)
def site(browser: Browser, port: int, request: pytest.FixtureRequest) -> Iterator[tuple[Page, str]]:
    host, path = request.param
    url = f"http://{host}:{port}{path}"
    page = open_page(browser, url)
    yield page, url
    page.context.close()


@pytest.fixture
def stranger(site: tuple[Page, str]) -> Page:
    """A page of another website, as it is first seen."""
    page, url = site
    page.goto(url)
    return page


def submit(page: Page, url: str, *, enctype: str = "application/x-www-form-urlencoded", has_file: bool = False) -> None:
    """Send a form, and see it refused where the page goes."""
    with page.expect_navigation(url=url) as navigation:
        page.evaluate(SUBMIT, [url, enctype, has_file])
    assert navigation.value.status == 403
    assert navigation.value.json()["error"]["code"] == "cross_site_request"


def jobs(ragq: Ragq) -> int:
    """How many jobs were accepted and are kept."""
    kept = ("queued", "in_flight", "scheduled", "finished", "failed")
    queues = httpx2.get(f"{ragq.url}/status").json()["queues"]
    return sum(queue[state] for queue in queues for state in kept if queue["name"] == "queries")


def file_names(ragq: Ragq) -> list[str]:
    return [file["filename"] for file in httpx2.get(f"{ragq.url}/v1/files").json()["data"]]


def test_a_form_of_another_website_asks_nothing(stranger: Page, ragq: Ragq) -> None:
    before = jobs(ragq)
    submit(stranger, f"{ragq.url}/chat?query=Anything")
    assert jobs(ragq) == before


def test_a_form_of_another_website_stores_no_file(stranger: Page, ragq: Ragq) -> None:
    submit(stranger, f"{ragq.url}/v1/files", enctype="multipart/form-data", has_file=True)
    assert "planted.md" not in file_names(ragq)


def test_a_script_of_another_website_stores_no_file(stranger: Page, ragq: Ragq) -> None:
    url = f"{ragq.url}/v1/files"
    with stranger.expect_response(url) as sent:
        assert stranger.evaluate(UPLOAD, url) == "opaque"
    assert sent.value.status == 403
    assert "planted.md" not in file_names(ragq)


@pytest.mark.parametrize("kind", ["text/plain", ""], ids=["plain text", "of no type"])
def test_a_script_of_another_website_asks_nothing_with_json_that_is_called_text(
    stranger: Page, ragq: Ragq, kind: str
) -> None:
    before, url = jobs(ragq), f"{ragq.url}/v1/responses"
    with stranger.expect_response(url) as sent:
        assert stranger.evaluate(SAY, [url, kind]) == "opaque"
    assert sent.value.status == 403
    assert jobs(ragq) == before


def test_a_script_of_another_website_reads_and_deletes_nothing(stranger: Page, ragq: Ragq) -> None:
    (file, *_) = httpx2.get(f"{ragq.url}/v1/files").json()["data"]
    for path, method in (("/v1/files", "GET"), ("/status", "GET"), (f"/v1/files/{file['id']}", "DELETE")):
        assert stranger.evaluate(CALL, [ragq.url + path, method, None]) == "unreadable", path
    assert file["filename"] in file_names(ragq)


def test_a_foreign_name_that_leads_to_loopback_gets_nothing(browser: Browser, ragq: Ragq) -> None:
    path = next(filter(None, map(shutil.which, BROWSERS)))
    rule = "--host-resolver-rules=MAP evil.test 127.0.0.1"
    rebound = browser.browser_type.launch(executable_path=path, args=[rule])
    try:
        page, url = rebound.new_page(), f"http://evil.test:{urlsplit(ragq.url).port}"
        for path in ("/", "/v1/files"):
            answer = page.goto(url + path)
            assert answer is not None
            assert answer.status == 403, path
            assert answer.json()["error"]["code"] == "unknown_host"
        before = jobs(ragq)
        for path, method in (("/v1/files", "GET"), ("/chat?query=Anything", "POST")):
            status, body = page.evaluate(CALL, [url + path, method, None])  # of one origin, to the browser
            assert (status, body["error"]["code"]) == (403, "unknown_host"), path
        assert jobs(ragq) == before
    finally:
        rebound.close()


def test_an_origin_that_is_listed_asks_and_reads_and_others_do_not(browser: Browser, port: int, ragq: Ragq) -> None:
    listed, unlisted = f"http://{CROSS_SITE}:{port}", f"http://{SAME_SITE}:{port}"
    api, url = ragq.spawn_api(RAGQ_CORS_ORIGINS=listed)
    try:
        page = open_page(browser, listed)
        status, files = page.evaluate(CALL, [f"{url}/v1/files", "GET", None])
        assert (status, files["object"]) == (200, "list")
        before = jobs(ragq)
        question = '{"input": "Anything?", "background": true}'
        status, response = page.evaluate(CALL, [f"{url}/v1/responses", "POST", question])
        assert (status, response["object"]) == (200, "response")
        assert jobs(ragq) == before + 1
        status, gone = page.evaluate(CALL, [f"{url}/v1/responses/{response['id']}", "DELETE", None])
        assert (status, gone["deleted"]) == (200, True)
        page.context.close()

        page = open_page(browser, unlisted)
        before = jobs(ragq)
        assert page.evaluate(CALL, [f"{url}/v1/files", "GET", None]) == "unreadable"
        assert page.evaluate(CALL, [f"{url}/v1/responses", "POST", question]) == "unreadable"
        submit(page, f"{url}/chat?query=Anything")
        assert jobs(ragq) == before
        page.context.close()
    finally:
        stop(api)
