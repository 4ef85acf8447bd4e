"""A real Chromium and a real `ragq up`. Pages must not log errors or send requests to other hosts."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from playwright.sync_api import Browser, Page, Request, Route, expect, sync_playwright

from tests.documents import write_long_pdf, write_pdf
from tests.programs import find_program
from tests.servers import FakeLlm, Ragq

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WAIT_MS = 15_000
TAKE_MS = 200  # a page takes a reply within it
DOCUMENT = "harbour.pdf"


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """The system's Chromium."""
    path = find_program(BROWSERS, install="on Debian: apt-get install chromium")
    expect.set_options(timeout=WAIT_MS)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path)
        yield chromium
        chromium.close()


@pytest.fixture(scope="package")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeLlm]:
    with FakeLlm(tmp_path_factory.mktemp("llm")) as fake:
        yield fake


@pytest.fixture(scope="package")
def ragq(tmp_path_factory: pytest.TempPathFactory, llm: FakeLlm) -> Iterator[Ragq]:
    with serve(tmp_path_factory.mktemp("page"), llm) as service:
        yield service


@contextlib.contextmanager
def serve(folder: Path, llm: FakeLlm) -> Iterator[Ragq]:
    """Start a service that answers one question at a time, with a document in its store."""
    pace = {"RAGQ_QUERY_CONCURRENCY": 1, "RAGQ_LEASE_SECONDS": 2, "RAGQ_HEARTBEAT_SECONDS": 0.5}
    service = Ragq(folder / "data", RAGQ_LLM_BASE_URL=llm.base_url, RAGQ_LLM_MODEL="fake", **pace).start()
    write_pdf(folder / DOCUMENT, [["The harbour has two piers."], ["The lighthouse of Quorra is 61 metres tall."]])
    assert service.run("ingest", str(folder / DOCUMENT)).returncode == 0
    yield service
    assert service.stop() == 0


class Visitor:
    """Opens pages and records their errors.

    Attributes:
        expected: Parts of console messages that a test provokes.
    """

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._homes: set[str] = set()
        self._hosts: set[str] = set()
        self._faults: list[str] = []
        self.expected: list[str] = []

    def allow(self, url: str) -> None:
        """Let pages send requests to another host, too."""
        self._homes.add(urlsplit(url).netloc)

    def visit(self, url: str, **options: Any) -> Page:
        """Open a page in a fresh browser context."""
        self._homes.add(urlsplit(url).netloc)
        context = self._browser.new_context(**options)
        context.set_default_timeout(WAIT_MS)
        page = context.new_page()
        page.on("console", lambda said: self._faults.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: self._faults.append(f"uncaught: {error}"))
        page.on("request", lambda request: self._hosts.add(urlsplit(request.url).netloc))
        page.goto(url)
        return page

    def check(self) -> None:
        """Assert that the console has only expected messages, and that no request went to another host."""
        assert [fault for fault in self._faults if not any(part in fault for part in self.expected)] == []
        assert self._hosts == self._homes


@contextlib.contextmanager
def held(
    page: Page,
    url: str,
    *,
    method: str = "GET",
    times: int | None = None,
    release: Callable[[Route], None] = Route.continue_,
) -> Iterator[Callable[[], None]]:
    """Hold back what the page requests in the block; at the end let it go, and wait for the replies.

    What the block gets waits for a request to be held back, which is done before the end, too.

    Args:
        url: Regular expression, found in the addresses of the requests.
        times: How many requests to hold back; all, if not given.
        release: Lets a request go; `Route.abort` fails it instead.
    """
    routes: list[Route] = []
    pattern = re.compile(url)

    def hold(route: Route, request: Request) -> None:
        if request.method == method:
            routes.append(route)
        else:
            route.continue_()

    def wait() -> None:
        deadline = time.monotonic() + WAIT_MS / 1000
        while not routes:
            assert time.monotonic() < deadline, f"no {method} of {url}"
            page.wait_for_timeout(20)

    page.route(pattern, hold, times=times)
    yield wait
    wait()
    let_go(page, routes, release)
    page.unroute(pattern, hold)


def let_go(page: Page, routes: list[Route], release: Callable[[Route], None]) -> None:
    """Let requests go that were held back, and wait for the replies."""
    for route in routes:  # another may be held back during this
        release(route)
        route.request.response()
    page.wait_for_timeout(TAKE_MS)


@pytest.fixture
def visitor(browser: Browser) -> Iterator[Visitor]:
    visitor = Visitor(browser)
    yield visitor
    for context in browser.contexts:
        context.close()
    visitor.check()


@pytest.fixture
def page(visitor: Visitor, ragq: Ragq) -> Iterator[Page]:
    """A fresh page of the service; files that a test adds to the store are removed afterwards."""
    yield visitor.visit(ragq.url)
    store = f"{ragq.url}/v1/vector_stores/default/files"
    for file in httpx2.get(store, params={"limit": 100}).json()["data"]:
        if file["filename"] != DOCUMENT:
            httpx2.delete(f"{store}/{file['id']}")


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Two new documents, one long enough to show its progress."""
    notes = tmp_path / "ferry.md"
    notes.write_text("# Ferry\n\nThe ferry to Quorra leaves at noon.\n")
    facts = {57: "The brig Amaranth carried forty barrels of saffron."}
    return [write_long_pdf(tmp_path / "register.pdf", pages=600, facts=facts), notes]
