"""axe-core on every view of the page, the console and the sign-in, in light and dark: no finding that keeps people out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Page, expect

from tests.browser.conftest import Visitor
from tests.browser.test_console import VIEWS
from tests.browser.test_page import QUESTION, ask, drop
from tests.oidc_provider import OidcProvider
from tests.servers import Ragq, stop

SCHEMES = ("light", "dark")
GRAVE = {"serious", "critical"}
UNSUPPORTED = "The lighthouse of Quorra is 62 metres tall [1]. It is 61 metres tall [1]."


def find_faults(page: Page) -> list[str]:
    """What axe finds on a page that is at least serious, with the elements."""
    page.evaluate(AXE_SCRIPT)
    found: list[dict[str, Any]] = page.evaluate(
        "axe.run({ resultTypes: ['violations'] }).then((all) => all.violations)"
    )
    return [
        f"{one['id']}: {node['html'][:200]} {node['failureSummary']}"
        for one in found
        if one["impact"] in GRAVE
        for node in one["nodes"]
    ]


FAULTY = """() => {
    const text = document.body.appendChild(document.createElement("p"));
    text.textContent = "Hardly to be read";
    text.style.color = "rgb(225, 225, 225)";
    document.body.append(document.createElement("button"));
}"""


def test_axe_sees_faults_under_the_strict_policy(visitor: Visitor, ragq: Ragq) -> None:
    page = visitor.visit(ragq.url, color_scheme="light")
    page.evaluate(FAULTY)
    assert {fault.partition(":")[0] for fault in find_faults(page)} == {"button-name", "color-contrast"}


@pytest.fixture(autouse=True)
def _tidy(ragq: Ragq) -> Iterator[None]:
    """Remove the documents and conversations that a test has added."""
    yield
    store = f"{ragq.url}/v1/vector_stores/default/files"
    for file in httpx2.get(store, params={"limit": 100, "filename": "axe "}).json()["data"]:
        httpx2.delete(f"{store}/{file['id']}")
    for one in httpx2.get(f"{ragq.url}/v1/conversations", params={"limit": 100}).json()["data"]:
        httpx2.delete(f"{ragq.url}/v1/conversations/{one['id']}")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_page_keeps_nobody_out(visitor: Visitor, ragq: Ragq, tmp_path: Path, scheme: str) -> None:
    page = visitor.visit(ragq.url, color_scheme=scheme)
    expect(page.locator("#documents li")).to_have_count(1)
    assert find_faults(page) == []
    for n in range(11):
        (tmp_path / f"axe {n}.txt").write_text(f"Rope {n} is long.\n")
    broken = tmp_path / "axe broken.pdf"
    broken.write_bytes(b"%PDF-1.7 nothing")
    drop(page, broken, *tmp_path.glob("*.txt"))
    expect(page.locator("#documents li.ready")).to_have_count(12)
    ask(page, f"[[fake text='{UNSUPPORTED}']] {QUESTION}")
    expect(page.locator("#state")).to_have_text(re.compile("Answered"))
    ask(page, f"[[fake text='{UNSUPPORTED}']] {QUESTION} Again?")
    expect(page.locator("#turns li")).to_have_count(1)
    expect(page.locator("#state")).to_have_text(re.compile("Answered"))
    page.locator("#found summary").click()
    assert find_faults(page) == []
    page.locator("#sources").get_by_role("button").first.click()
    expect(page.locator("#passage-page")).to_be_visible()
    assert find_faults(page) == []
    page.keyboard.press("Escape")
    page.get_by_role("button", name="New store").click()
    assert find_faults(page) == []
    page.keyboard.press("Escape")
    page.locator("#conversations").get_by_role("button").first.click()
    assert find_faults(page) == []


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_console_keeps_nobody_out(visitor: Visitor, ragq: Ragq, scheme: str) -> None:
    body = {"input": "[[fake status=400 message=no code=bad]] How old is the mill?", "background": True}
    job = httpx2.post(f"{ragq.url}/v1/responses", json=body).json()["id"]
    page = visitor.visit(f"{ragq.url}/console", color_scheme=scheme)
    for view in (*VIEWS, f"job/{job}"):
        page.goto(f"{ragq.url}/console#{view}")
        expect(page.locator("#view").locator("table, article, .none, .stages").first).to_be_visible()
        assert (view, find_faults(page)) == (view, [])
    page.goto(f"{ragq.url}/console#queues")
    page.get_by_role("button", name="Pause questions").click()
    assert find_faults(page) == []
    httpx2.delete(f"{ragq.url}/v1/responses/{job}")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_sign_in_keeps_nobody_out(locked: str, visitor: Visitor, scheme: str) -> None:
    visitor.expected = ["401"]
    page = visitor.visit(locked, color_scheme=scheme)
    dialog = page.get_by_role("dialog", name="Sign in, or enter an API key")
    dialog.get_by_label("API key").fill("wrong")
    dialog.get_by_role("button", name="Continue").click()
    expect(dialog.get_by_role("alert")).to_have_text("This key is wrong. Try another.")
    assert find_faults(page) == []


@pytest.fixture(scope="module")
def locked(ragq: Ragq) -> Iterator[str]:
    """The address of an API process at which people sign in."""
    with OidcProvider() as provider:
        api, url = ragq.spawn_api(RAGQ_API_KEY="a key", **provider.settings(RAGQ_OIDC_ROLES="staff=default:reader"))
        yield url
        stop(api)
