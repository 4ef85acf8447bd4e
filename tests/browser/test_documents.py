"""The list of documents on the page: many of them, found by name, and many uploads at once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.conftest import DOCUMENT, Visitor, held
from tests.browser.cutter import Cutter
from tests.browser.test_page import drop
from tests.servers import Ragq

MANY = 41
DROP_LARGE = """() => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([new Uint8Array(3e7).fill(97)], "chart.txt"));
    transfer.items.add(new File(["The currents turn at noon."], "currents.txt"));
    document.getElementById("drop").dispatchEvent(
        new DragEvent("drop", { bubbles: true, cancelable: true, dataTransfer: transfer }));
}"""
SIZE = {"width": 1280, "height": 900}


@pytest.fixture
def many(ragq: Ragq, tmp_path: Path) -> Iterator[None]:
    """Documents beyond one page of the list, and no conversations of other tests, which make the page longer."""
    conversations = f"{ragq.url}/v1/conversations"
    while old := httpx2.get(conversations, params={"limit": 100}).json()["data"]:
        for one in old:
            assert httpx2.delete(f"{conversations}/{one['id']}").is_success
    paths = [tmp_path / f"Notice {n}.txt" for n in range(MANY)]
    for n, path in enumerate(paths):
        path.write_text(f"Berth {n} is free.\n")
    assert ragq.run("ingest", *map(str, paths)).returncode == 0
    yield
    store = f"{ragq.url}/v1/vector_stores/default/files"
    for file in httpx2.get(store, params={"limit": 100, "filename": "notice"}).json()["data"]:
        httpx2.delete(f"{store}/{file['id']}")


def shown(page: Page) -> list[str]:
    return page.locator("#documents .name").all_inner_texts()


@pytest.mark.usefixtures("many")
def test_many_documents_are_counted_turned_over_and_fit_on_a_screen(visitor: Visitor, ragq: Ragq) -> None:
    page = visitor.visit(ragq.url, viewport=SIZE)
    expect(page.locator("#documents-count")).to_have_text(f"{MANY + 1} documents")
    expect(page.locator("#documents li")).to_have_count(10)
    assert page.evaluate("document.documentElement.scrollHeight") <= SIZE["height"]
    seen = shown(page)
    first = seen[:]
    for number in range(11, MANY + 2, 10):
        page.get_by_role("button", name="Older", exact=True).click()
        expect(page.locator("#documents-state")).to_have_text(f"Documents {number} to {min(number + 9, MANY + 1)}")
        seen += shown(page)
    assert set(seen) == {DOCUMENT, *(f"Notice {n}.txt" for n in range(MANY))}
    assert len(seen) == MANY + 1
    expect(page.get_by_role("button", name="Older", exact=True)).to_be_hidden()
    expect(page.get_by_role("button", name="Newer", exact=True)).to_be_focused()
    for number in (31, 21, 11):
        page.keyboard.press("Enter")
        expect(page.locator("#documents-state")).to_have_text(f"Documents {number} to {number + 9}")
    page.keyboard.press("Enter")
    expect(page.locator("#documents-state")).to_have_text("Documents 1 to 10")
    assert shown(page) == first
    expect(page.get_by_role("button", name="Older", exact=True)).to_be_focused()


@pytest.mark.usefixtures("many")
def test_a_page_that_one_was_removed_from_counts_for_one_less(page: Page) -> None:
    expect(page.locator("#documents li")).to_have_count(10)
    page.locator("#documents").get_by_role("button").first.click()
    expect(page.locator("#documents li")).to_have_count(9)
    page.get_by_role("button", name="Older", exact=True).click()
    expect(page.locator("#documents-state")).to_have_text("Documents 10 to 19")


@pytest.mark.usefixtures("many")
def test_documents_are_found_by_name_and_state(page: Page, tmp_path: Path) -> None:
    broken = tmp_path / "broken notice.pdf"
    broken.write_bytes(b"%PDF-1.7 nothing")
    drop(page, broken)
    expect(page.locator("#documents li.failed")).to_contain_text("broken notice.pdf")
    expect(page.locator("#documents-count")).to_have_text(f"{MANY + 2} documents, 1 failed")
    find = page.get_by_label("Find documents by name")
    find.fill("NOTICE 3")
    expect(page.locator("#documents li")).to_have_count(10)
    find.fill("notice 33")
    expect(page.locator("#documents li")).to_have_count(1)
    find.fill("no such name")
    expect(page.locator("#documents-state")).to_have_text("No document matches.")
    find.fill("")
    page.get_by_label("Show documents").select_option("Failed")
    expect(page.locator("#documents li")).to_have_count(1)
    page.get_by_role("button", name="Remove broken notice.pdf").press("Enter")
    expect(page.locator("#documents-state")).to_have_text("broken notice.pdf was removed.")
    expect(page.locator("#documents-count")).to_have_text(f"{MANY + 1} documents")


def test_each_of_many_uploads_shows_how_it_ended_and_why(page: Page, visitor: Visitor, tmp_path: Path) -> None:
    visitor.expected = ["400"]
    paths = [tmp_path / f"Leaflet {n}.txt" for n in range(12)]
    for path in paths:
        path.write_text(f"{path.stem} is about ropes.\n")
    empty, program = tmp_path / "empty.txt", tmp_path / "setup.exe"
    empty.write_bytes(b"")
    program.write_bytes(b"MZ")
    page.get_by_label("Find documents by name").fill("harbour")
    drop(page, *paths, empty, program)
    expect(page.locator("#documents li.ready")).to_have_count(13)
    expect(page.locator("#documents li.failed")).to_have_count(2)
    expect(page.locator("#documents li", has_text="empty.txt")).to_contain_text("The file is empty")
    expect(page.locator("#documents li", has_text="setup.exe")).to_contain_text(
        re.compile("not supported|cannot be read")
    )
    expect(page.locator("#documents-state")).to_have_text("Added 12 of 14 files. The others say why not.")
    expect(page.locator("#documents-count")).to_have_text("13 documents")
    for name in ("empty.txt", "setup.exe"):
        page.get_by_role("button", name=f"Remove {name}").click()
    expect(page.locator("#documents li.failed")).to_have_count(0)


def test_a_document_that_is_removed_while_it_is_put_into_the_store_does_not_stay(
    page: Page, ragq: Ragq, tmp_path: Path
) -> None:
    paths = [tmp_path / "tides.txt", tmp_path / "winds.txt"]
    for path in paths:
        path.write_text(f"{path.stem} are told at noon.\n")
    expect(page.locator("#documents li")).to_have_count(1)
    with held(page, "/default/files$", method="POST", times=1) as wait:
        drop(page, *paths)
        wait()
        page.get_by_role("button", name="Remove tides.txt").click()
        expect(page.locator("#documents-state")).to_have_text("tides.txt was removed.")
    expect(page.locator("#documents-state")).to_have_text("Added winds.txt.")
    expect(page.locator("#documents li.ready .name")).to_have_text(["winds.txt", DOCUMENT])
    expect(page.locator("#documents-count")).to_have_text("2 documents")
    kept = httpx2.get(f"{ragq.url}/v1/vector_stores/default/files").json()["data"]
    assert {file["filename"] for file in kept} == {"winds.txt", DOCUMENT}


def uploaded(ragq: Ragq) -> set[str]:
    """The names of the files that the service has, in a store or not."""
    return {file["filename"] for file in httpx2.get(f"{ragq.url}/v1/files").json()["data"]}


def test_a_document_that_is_removed_during_its_upload_is_uploaded_no_further(visitor: Visitor, ragq: Ragq) -> None:
    with Cutter(ragq.url, most=1 << 20) as network:
        page = visitor.visit(network.url)
        expect(page.locator("#documents li")).to_have_count(1)
        page.evaluate(DROP_LARGE)
        row = page.locator("#documents li", has_text="chart.txt")
        expect(row).to_contain_text(re.compile(r"Uploading [1-9]\d? %"))
        with page.expect_event("requestfailed", lambda sent: sent.url.endswith("/v1/files")):
            page.get_by_role("button", name="Remove chart.txt").click()
        expect(row).to_have_count(0)
        expect(page.locator("#documents-state")).to_have_text("Added currents.txt.")
        page.close()  # or it asks in vain once the network is gone
    assert uploaded(ragq).isdisjoint({"chart.txt"})
    assert "request_failed" not in ragq.log()
    store = f"{ragq.url}/v1/vector_stores/default/files"
    for file in httpx2.get(store, params={"filename": "currents"}).json()["data"]:
        httpx2.delete(f"{store}/{file['id']}")


def test_a_document_that_is_removed_when_its_upload_has_just_ended_does_not_stay(
    page: Page, ragq: Ragq, tmp_path: Path
) -> None:
    path = tmp_path / "soundings.txt"
    path.write_text("The soundings were taken at dusk.\n")
    expect(page.locator("#documents li")).to_have_count(1)
    with (
        page.expect_response(lambda answer: answer.request.method == "DELETE"),
        held(page, "/v1/files$", method="POST", times=1) as wait,
    ):
        drop(page, path)
        wait()
        page.evaluate("XMLHttpRequest.prototype.abort = () => {}")  # as if all of it had been sent
        page.get_by_role("button", name="Remove soundings.txt").click()
        expect(page.locator("#documents li", has_text="soundings.txt")).to_have_count(0)
    assert uploaded(ragq).isdisjoint({"soundings.txt"})


@pytest.mark.parametrize(
    ("part", "url", "state"),
    [
        ("conversations.js", r"/v1/conversations\?", "#conversations-state"),
        ("documents.js", r"/default/files\?", "#documents-state"),
    ],
)
def test_a_list_that_fails_late_is_silent_once_a_newer_one_is_there(
    page: Page, visitor: Visitor, part: str, url: str, state: str
) -> None:
    visitor.expected = ["net::ERR"]
    expect(page.locator("#documents-count")).to_have_text("1 document")
    load = f"import('/web/{part}').then((part) => void (part.loadDocuments ?? part.loadConversations)())"
    with held(page, url, times=1, release=Route.abort):
        page.evaluate(load)
        with page.expect_response(re.compile(url)):
            page.evaluate(load)
    expect(page.locator(state)).not_to_contain_text("cannot be listed")


def test_that_the_documents_cannot_be_listed_is_said_until_they_can(page: Page, visitor: Visitor) -> None:
    visitor.expected = ["500"]
    broken = {"error": {"message": "The disk is full."}}
    expect(page.locator("#documents li")).to_have_count(1)
    page.route("**/default/files?*", lambda route: route.fulfill(status=500, json=broken), times=1)
    choice = page.get_by_label("Store", exact=True)
    choice.dispatch_event("change")
    expect(page.locator("#documents-state")).to_have_text("The documents cannot be listed: The disk is full.")
    choice.dispatch_event("change")
    expect(page.locator("#documents-state")).to_be_empty()
