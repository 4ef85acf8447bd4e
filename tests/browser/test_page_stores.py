"""The stores on the page: one is chosen to be asked and added to; they are made, renamed and deleted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import DOCUMENT, Visitor, held
from tests.browser.test_page import ask, drop
from tests.servers import Ragq

ANSWERED = re.compile("Answered")


@pytest.fixture(autouse=True)
def _no_stores(ragq: Ragq) -> Iterator[None]:
    yield
    for store in httpx2.get(f"{ragq.url}/v1/vector_stores", params={"limit": 100}).json()["data"]:
        if store["name"] != "default":
            httpx2.delete(f"{ragq.url}/v1/vector_stores/{store['id']}")


def names(ragq: Ragq) -> list[str]:
    return [store["name"] for store in httpx2.get(f"{ragq.url}/v1/vector_stores").json()["data"]]


def make_store(page: Page, name: str) -> None:
    page.get_by_role("button", name="New store").press("Enter")
    page.keyboard.type(name)
    page.keyboard.press("Enter")
    expect(page.locator("#store-state")).to_have_text(f"{name} was made, and is asked now.")


def test_the_chosen_store_gets_the_files_and_is_asked(page: Page, tmp_path: Path) -> None:
    expect(page.locator("#documents .name")).to_have_text([DOCUMENT])
    make_store(page, "Minutes")
    expect(page.locator("#documents li")).to_have_count(0)
    expect(page.locator("#documents-count")).to_have_text(re.compile("There are none yet"))
    minutes = tmp_path / "minutes.txt"
    minutes.write_text("The board of Varn meets on Thursday.\n")
    drop(page, minutes)
    expect(page.locator("#documents li.ready .name")).to_have_text(["minutes.txt"])
    ask(page, "[[fake text='It meets on Thursday [1].']] When does the board of Varn meet?")
    expect(page.locator("#state")).to_have_text(ANSWERED)
    expect(page.locator("#sources cite")).to_have_text(["minutes.txt"])
    page.reload()
    expect(page.locator("#documents .name")).to_have_text(["minutes.txt"])
    page.get_by_label("Store", exact=True).select_option("default")
    expect(page.locator("#documents .name")).to_have_text([DOCUMENT])
    expect(page.locator("#documents-count")).to_have_text("1 document")
    ask(page, "[[fake text='It is 61 metres tall [1].']] How tall is the lighthouse of Quorra?")
    expect(page.locator("#sources cite")).to_have_text([DOCUMENT])
    expect(page.locator("#found")).not_to_contain_text("minutes.txt")


def test_a_store_is_renamed_and_deleted_when_that_is_meant(page: Page, ragq: Ragq) -> None:
    make_store(page, "Minutes")
    page.get_by_role("button", name="Rename the store").press("Enter")
    dialog = page.get_by_role("dialog", name="Rename the store")
    expect(dialog.get_by_label("Name")).to_have_value("Minutes")
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Rename the store")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.type("Minutes of 2026")
    page.keyboard.press("Enter")
    expect(page.locator("#store-state")).to_have_text("The store is called Minutes of 2026 now.")
    choice = page.get_by_label("Store", exact=True)
    expect(choice.locator("option:checked")).to_have_text("Minutes of 2026")
    delete = page.get_by_role("button", name="Delete the store")
    delete.press("Enter")
    expect(page.get_by_role("dialog", name="Delete this store?")).to_contain_text("0 in number")
    page.keyboard.press("Enter")
    expect(delete).to_be_focused()
    delete.press("Enter")
    page.get_by_role("dialog").get_by_role("button", name="Delete").press("Enter")
    expect(page.locator("#store-state")).to_have_text("Minutes of 2026 was deleted.")
    expect(choice).to_be_focused()
    expect(choice).to_have_value("default")
    expect(page.locator("#documents .name")).to_have_text([DOCUMENT])
    assert "Minutes of 2026" not in names(ragq)


def test_the_store_that_the_dialog_names_is_deleted_though_another_is_chosen_meanwhile(page: Page, ragq: Ragq) -> None:
    make_store(page, "Ledgers")
    make_store(page, "Minutes")
    choice = page.get_by_label("Store", exact=True)
    with held(page, r"/v1/vector_stores/[^/?]+$"):
        page.get_by_role("button", name="Delete the store").click()
        choice.select_option("Ledgers")
    dialog = page.get_by_role("dialog", name="Delete this store?")
    expect(dialog).to_contain_text("“Minutes”")
    dialog.get_by_role("button", name="Delete").click()
    expect(page.locator("#store-state")).to_have_text("Minutes was deleted.")
    expect(choice.locator("option:checked")).to_have_text("Ledgers")
    assert sorted(names(ragq)) == ["Ledgers", "default"]


def test_two_presses_of_enter_make_one_store(page: Page, ragq: Ragq) -> None:
    with held(page, r"/v1/vector_stores$", method="POST"):
        page.get_by_role("button", name="New store").press("Enter")
        page.keyboard.type("Minutes")
        page.keyboard.press("Enter")
        page.keyboard.press("Enter")
    expect(page.locator("#store-state")).to_have_text("Minutes was made, and is asked now.")
    assert sorted(names(ragq)) == ["Minutes", "default"]


def test_a_name_that_is_refused_is_said_and_can_be_changed(page: Page, visitor: Visitor) -> None:
    visitor.expected = ["400"]
    refusal = {"error": {"message": "This name is taken."}}
    page.route("**/v1/vector_stores", lambda route: route.fulfill(status=400, json=refusal), times=1)
    page.get_by_role("button", name="New store").press("Enter")
    page.keyboard.type("Minutes")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog").get_by_role("alert")).to_have_text("This name is taken.")
    expect(page.get_by_label("Name", exact=True)).to_be_focused()
    page.keyboard.type(" of 2026")
    page.keyboard.press("Enter")
    expect(page.locator("#store-state")).to_have_text("Minutes of 2026 was made, and is asked now.")


def test_a_chosen_store_that_was_deleted_elsewhere_gives_way_to_the_default_one(page: Page, ragq: Ragq) -> None:
    make_store(page, "Minutes")
    (made,) = [
        store for store in httpx2.get(f"{ragq.url}/v1/vector_stores").json()["data"] if store["name"] == "Minutes"
    ]
    httpx2.delete(f"{ragq.url}/v1/vector_stores/{made['id']}")
    page.reload()
    expect(page.locator("#documents .name")).to_have_text([DOCUMENT])
    expect(page.get_by_label("Store", exact=True)).to_have_value("default")


def test_a_question_is_about_the_store_that_is_shown(page: Page) -> None:
    """A key that is limited to several stores would else ask all of them."""
    expect(page.locator("#documents .name")).to_have_text([DOCUMENT])
    with page.expect_request(lambda sent: sent.method == "POST" and sent.url.endswith("/v1/responses")) as sent:
        ask(page, "[[fake text='It is 61 metres tall [1].']] How tall is the lighthouse of Quorra?")
    assert (sent.value.post_data_json or {})["vector_store_ids"] == ["default"]
    expect(page.locator("#state")).to_have_text(ANSWERED)


def test_that_a_key_sees_no_store_is_said(page: Page, visitor: Visitor) -> None:
    visitor.expected = ["404"]
    expect(page.locator("#documents .name")).to_have_text([DOCUMENT])
    gone = {"error": {"message": "No vector store found with id 'default'."}}
    page.route("**/v1/vector_stores/default", lambda route: route.fulfill(status=404, json=gone))
    page.reload()
    expect(page.locator("#store-state")).to_have_text("The stores of this key are gone. Ask an admin for others.")
