"""Conversations on the page: they are kept, opened, gone on with and deleted."""

from __future__ import annotations

import re

import httpx2
import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Visitor, held
from tests.browser.test_page import EVIL, QUESTION, SLOW, ask
from tests.servers import Ragq

FIRST = f"[[fake text='It is 61 metres tall [1].']] {QUESTION}"
SECOND = "[[fake text='It has two piers [1].']] How many piers does the harbour have?"
ANSWERED = re.compile("Answered")


@pytest.fixture(autouse=True)
def _no_conversations(ragq: Ragq) -> None:
    for one in httpx2.get(f"{ragq.url}/v1/conversations", params={"limit": 100}).json()["data"]:
        httpx2.delete(f"{ragq.url}/v1/conversations/{one['id']}")


def finish(page: Page, question: str) -> None:
    ask(page, question)
    expect(page.locator("#state")).to_have_text(ANSWERED)


def asked(ragq: Ragq) -> list[str]:
    """The questions of the only conversation."""
    (kept,) = httpx2.get(f"{ragq.url}/v1/conversations").json()["data"]
    messages = httpx2.get(f"{ragq.url}/v1/conversations/{kept['id']}/items", params={"order": "asc"}).json()["data"]
    return [one["content"][0]["text"] for one in messages if one.get("role") == "user"]


def test_a_conversation_goes_on_across_a_reload_and_in_another_browser(
    page: Page, visitor: Visitor, ragq: Ragq
) -> None:
    finish(page, FIRST)
    page.reload()
    expect(page.locator("#answer")).to_contain_text("61 metres")
    expect(page.locator("#conversations a[aria-current]")).to_have_text(FIRST)
    expect(page.locator("#earlier")).to_be_hidden()
    ask(page, SECOND)
    expect(page.locator("#answer")).to_contain_text("two piers")
    turns = page.locator("#turns li")
    expect(turns).to_have_count(1)
    expect(turns.get_by_role("heading")).to_have_text(FIRST)
    expect(turns).to_contain_text(re.compile(r"It is 61 metres tall\s*1\."))
    page.reload()
    expect(page.locator("#answer")).to_contain_text("two piers")
    expect(turns).to_have_count(1)
    assert asked(ragq) == [FIRST, SECOND]
    other = visitor.visit(ragq.url)
    other.locator("#conversations").get_by_role("link").click()
    expect(other.locator("#turns li")).to_have_count(2)
    expect(other.get_by_label("Your question")).to_be_focused()
    other.get_by_role("button", name=re.compile(r"1: passage in harbour\.pdf, page 2")).first.click()
    expect(other.locator("#passage-text mark")).to_contain_text("61 metres")
    other.get_by_role("button", name="Close").click()


def test_conversations_are_listed_newest_first_and_a_new_one_has_no_past(page: Page) -> None:
    finish(page, FIRST)
    page.get_by_role("button", name="New conversation").click()
    expect(page.locator("#answer")).to_be_empty()
    expect(page.get_by_label("Your question")).to_be_focused()
    page.keyboard.type(SECOND)
    page.keyboard.press("Enter")
    expect(page.locator("#answer")).to_contain_text("two piers")
    expect(page.locator("#conversations a")).to_have_text([SECOND, FIRST])
    expect(page.locator("#earlier")).to_be_hidden()
    page.get_by_role("link", name=FIRST).press("Enter")
    expect(page.locator("#turns li")).to_have_count(1)
    expect(page.locator("#conversations a[aria-current]")).to_have_text(FIRST)
    page.go_back()
    expect(page.locator("#answer")).to_contain_text("two piers")


def test_a_question_that_runs_is_found_in_its_conversation_after_a_reload(page: Page) -> None:
    finish(page, FIRST)
    ask(page, SLOW)
    expect(page.locator("#answer")).to_contain_text("One two")
    page.reload()
    expect(page.locator("#turns li")).to_have_count(1)
    expect(page.locator("#turns")).to_contain_text("61 metres")
    expect(page.locator("#state")).to_have_text(ANSWERED)
    expect(page.locator("#turns li")).to_have_count(1)


def test_a_conversation_is_deleted_when_that_is_meant(page: Page, visitor: Visitor, ragq: Ragq) -> None:
    finish(page, f"[[fake text='{EVIL} [1]']] {QUESTION} {EVIL}")
    page.reload()
    place = page.url
    link = page.locator("#conversations a")
    expect(link).to_contain_text(EVIL)
    delete = page.locator("#conversations").get_by_role("button")
    delete.press("Enter")
    dialog = page.get_by_role("dialog", name="Delete this conversation?")
    expect(dialog.get_by_role("button", name="Keep it")).to_be_focused()
    page.keyboard.press("Enter")
    expect(dialog).to_be_hidden()
    expect(delete).to_be_focused()
    page.keyboard.press("Enter")
    dialog.get_by_role("button", name="Delete").press("Enter")
    expect(page.locator("#conversations li")).to_have_count(0)
    expect(page.locator("#conversations-state")).to_have_text("The conversation was deleted.")
    expect(page.locator("#answer")).to_be_empty()
    assert httpx2.get(f"{ragq.url}/v1/conversations").json()["data"] == []
    assert page.evaluate("window.hacked") is None
    visitor.expected.append("404")
    page.goto(place)  # the answer is kept, as the API keeps it
    expect(page.locator("#answer")).to_contain_text(EVIL)
    finish(page, FIRST)
    expect(page.locator("#conversations li")).to_have_count(1)


def test_what_is_typed_while_a_conversation_or_an_answer_is_opened_stays(page: Page) -> None:
    finish(page, FIRST)
    page.get_by_role("button", name="New conversation").click()
    field = page.get_by_label("Your question")
    field.fill("Never asked")
    with held(page, "/items"):
        page.get_by_role("link", name=FIRST).click()
        expect(field).to_have_value("")
        expect(field).to_be_focused()
        page.keyboard.type("And how old?")
    expect(page.locator("#turns li")).to_have_count(1)
    expect(field).to_have_value("And how old?")
    with held(page, "/input_items"):
        page.go_back()
        page.go_back()
        expect(page.locator("#answer")).to_contain_text("61 metres")
        expect(field).to_have_value("")
        field.fill("And how wide?")
    expect(page.locator("#conversations a[aria-current]")).to_have_text(FIRST)
    expect(field).to_have_value("And how wide?")


def test_a_follow_up_goes_on_though_what_was_before_cannot_be_read(page: Page, visitor: Visitor, ragq: Ragq) -> None:
    visitor.expected = ["500"]
    finish(page, FIRST)
    broken = {"error": {"message": "The disk is full."}}
    page.route(re.compile("/items"), lambda route: route.fulfill(status=500, json=broken))
    page.reload()
    expect(page.locator("#earlier")).to_contain_text("What was asked before cannot be read: The disk is full.")
    finish(page, SECOND)
    assert asked(ragq) == [FIRST, SECOND]


def test_a_late_reply_to_cancel_does_not_show_the_answer_that_was_left(page: Page) -> None:
    ask(page, SLOW)
    expect(page.locator("#answer")).to_contain_text("One two")
    with held(page, "/cancel$", method="POST"):
        page.get_by_role("button", name="Cancel").click()
        page.get_by_role("button", name="New conversation").click()
        expect(page.locator("#answer")).to_be_empty()
    expect(page.locator("#state")).to_be_empty()
    expect(page.locator("#answer")).to_be_empty()
