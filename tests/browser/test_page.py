"""The page, used as people use it: with the mouse, with the keyboard, on a phone, and with a bad connection."""

from __future__ import annotations

import base64
import os
import re
import signal
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import httpx2
import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import DOCUMENT, Visitor, held
from tests.browser.cutter import Cutter
from tests.documents import write_long_pdf
from tests.servers import FakeLlm, Ragq, stop

KEY = "a key that only this test knows"
QUESTION = "How tall is the lighthouse of Quorra?"
TEXT = "One two three four five six seven eight nine ten."
SLOW = f"[[fake text='{TEXT}' rate=5]] {QUESTION}"
EVIL = "<img src=x onerror=window.hacked=1><script>window.hacked=1</script>"
OFFLINE = "ERR_INTERNET_DISCONNECTED"

DROP = """([files]) => {
    const transfer = new DataTransfer();
    for (const [name, content] of files)
        transfer.items.add(new File([Uint8Array.from(atob(content), (one) => one.charCodeAt(0))], name));
    for (const kind of ["dragover", "drop"])
        document.getElementById("drop").dispatchEvent(
            new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: transfer }));
}"""
WATCH = """(selector) => {
    const element = document.querySelector(selector);
    window.seen = [element.innerText];
    new MutationObserver(() => window.seen.push(element.innerText))
        .observe(element, { subtree: true, childList: true, characterData: true });
}"""
COUNT_MARKED = """() => {
    const image = document.getElementById("passage-page");
    const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
    let count = 0;
    for (let place = 0; place < data.length; place += 4) if (data[place] > 200 && data[place + 2] < 150) count++;
    return count;
}"""


def drop(page: Page, *paths: Path) -> None:
    """Drop files on the page."""
    page.evaluate(DROP, [[[path.name, base64.b64encode(path.read_bytes()).decode()] for path in paths]])


def watch(page: Page, selector: str) -> None:
    """Remember the text that an element has, and each that it gets from now on."""
    page.evaluate(WATCH, selector)


def seen(page: Page) -> list[str]:
    texts: list[str] = page.evaluate("window.seen")
    return texts


def ask(page: Page, question: str) -> None:
    page.get_by_label("Your question").fill(question)
    page.get_by_role("button", name="Ask").click()


def press_until_focused(page: Page, key: str, target: Locator) -> None:
    """Go to an element by keyboard."""
    for _ in range(100):
        page.keyboard.press(key)
        if target.evaluate("element => element === document.activeElement"):
            return
    raise AssertionError(f"{key} does not lead to {target}")


def test_the_address_of_a_citation_opens_the_passage(page: Page, ragq: Ragq, visitor: Visitor) -> None:
    body = {"messages": [{"role": "user", "content": f"[[fake text='It is 61 metres tall [1].']] {QUESTION}"}]}
    answer = httpx2.post(f"{ragq.url}/v1/chat/completions", json=body, timeout=60).json()
    (citation,) = answer["choices"][0]["message"]["annotations"]
    page.goto(citation["url_citation"]["url"])
    expect(page.get_by_role("dialog")).to_contain_text(DOCUMENT)
    expect(page.locator("#passage-text mark")).to_have_text(citation["citation"]["quote"])
    page.get_by_role("button", name="Close").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    visitor.expected.append("404")
    page.goto(f"{ragq.url}/?file=file-unknown&start=0&end=5")
    expect(page.get_by_role("dialog")).to_contain_text("No vector store file found")


def test_files_that_are_dropped_are_ingested_before_ones_eyes_and_cited_by_page(page: Page, files: list[Path]) -> None:
    expect(page.locator("#documents li")).to_have_count(1)
    watch(page, "#documents")
    drop(page, *files)
    expect(page.locator("#documents li.ready")).to_have_count(3)
    told = "\n".join(seen(page))
    assert re.search(r"Uploading \d+ %", told)
    assert re.search(r"(?:Reading|Indexing) \d+ of \d+", told)
    ask(page, "[[fake text='It carried saffron [1].']] What did the brig Amaranth carry?")
    expect(page.locator("#state")).to_have_text(re.compile(r"Answered in [\d.]+ s"))
    expect(page.locator("#answer")).to_contain_text("saffron")
    expect(page.locator("#answer")).not_to_contain_text("[1]")
    source = page.locator("#sources li").first
    expect(source).to_contain_text("register.pdf")
    expect(source).to_contain_text("page 57")
    expect(source.locator("blockquote")).to_contain_text("The brig Amaranth carried forty barrels of saffron.")
    page.get_by_role("button", name="Source 1").click()
    expect(source).to_be_focused()
    for name in ("register.pdf", "ferry.md"):
        page.get_by_role("button", name=f"Remove {name}").click()
        expect(page.locator("#documents")).not_to_contain_text(name)
    page.reload()
    expect(page.locator("#documents li")).to_have_count(1)


def test_a_source_is_shown_on_its_page_with_the_passage_marked(page: Page, tmp_path: Path) -> None:
    facts = {3: "The brig Amaranth carried forty barrels of saffron."}
    drop(page, write_long_pdf(tmp_path / "cargo.pdf", pages=4, facts=facts))
    expect(page.locator("#documents li.ready", has_text="cargo.pdf")).to_be_visible()
    ask(page, "[[fake text='It carried saffron [1].']] What did the brig Amaranth carry?")
    source = page.locator("#sources li", has_text="cargo.pdf").first
    expect(source.locator(".place")).to_contain_text("page 3")
    source.get_by_role("button", name="Show in cargo.pdf").click()
    drawn = page.get_by_role("img", name="page 3 of cargo.pdf, with the passage marked")
    expect(drawn).to_be_visible()
    expect(page.locator("#passage-text mark")).to_contain_text("saffron")
    assert page.evaluate(COUNT_MARKED) > 100
    page.get_by_role("button", name="Close").click()
    expect(drawn).to_be_hidden()


def test_an_answer_is_shown_while_it_is_written_and_its_citations_stand_where_they_belong(page: Page) -> None:
    watch(page, "#answer")
    ask(page, f"[[fake text='It is tall 🗼 indeed [1]. And that is all.' rate=8]] {QUESTION}")
    expect(page.locator("#state")).to_have_text(re.compile("Answered"))
    assert page.locator("#answer").inner_text() == "It is tall 🗼 indeed1. And that is all."
    assert {"It", "It is tall"} & set(seen(page))
    expect(page.locator("#sources li")).to_have_count(1)
    expect(page.locator("#sources blockquote")).to_contain_text("61 metres")
    expect(page.locator("#found summary")).to_have_text(re.compile(r"All \d+ passages found"))


def test_a_statement_that_no_source_holds_is_marked_while_the_answer_is_written_and_says_why(page: Page) -> None:
    text = f"The lighthouse of Quorra is 62 metres tall [1]. It is 61 metres tall [1].{' One more word.' * 10}"
    ask(page, f"[[fake text='{text}' rate=12]] {QUESTION}")
    marked = page.locator("#answer mark")
    expect(page.locator("#answer[aria-busy] mark")).to_contain_text("62 metres")
    expect(page.locator("#state")).to_have_text(re.compile("Answered"))
    expect(marked.first).to_contain_text("The lighthouse of Quorra is 62 metres tall")
    expect(marked.first).to_have_attribute("title", re.compile("'62' is neither in the sources"))
    expect(marked.first.get_by_role("button", name="Source 1")).to_be_visible()
    expect(page.locator("#check li").first).to_contain_text("'62' is neither in the sources")
    assert page.locator("#check li").first.get_attribute("id") == marked.first.get_attribute("aria-describedby")
    assert "61" not in " ".join(marked.all_inner_texts())


def test_a_question_that_waits_tells_its_place_in_the_queue(page: Page, ragq: Ragq) -> None:
    body = {"input": SLOW, "background": True}
    ahead = [httpx2.post(f"{ragq.url}/v1/responses", json=body).json()["id"] for _ in range(4)]
    ask(page, QUESTION)
    expect(page.locator("#state")).to_have_text(re.compile(r"Position 4 in the queue"))
    httpx2.post(f"{ragq.url}/v1/responses/{ahead[1]}/cancel")  # the others are long enough for another look
    expect(page.locator("#state")).to_have_text(re.compile(r"Position [1-3] in the queue"))
    for response_id in ahead:
        httpx2.post(f"{ragq.url}/v1/responses/{response_id}/cancel")
    expect(page.locator("#answer")).to_contain_text("61 metres")


def test_a_question_can_be_cancelled_by_button(page: Page, ragq: Ragq) -> None:
    ask(page, SLOW)
    expect(page.locator("#answer")).to_contain_text("One two")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#state")).to_have_text("Cancelled")
    response_id = page.url.partition("#")[2]
    assert httpx2.get(f"{ragq.url}/v1/responses/{response_id}").json()["status"] == "cancelled"
    expect(page.locator("#answer")).not_to_contain_text("ten.")
    expect(page.get_by_label("Your question")).to_be_focused()


def test_a_dropped_connection_is_made_again_and_no_word_is_lost(visitor: Visitor, ragq: Ragq) -> None:
    visitor.expected = ["net::ERR"]
    with Cutter(ragq.url) as network:
        page = visitor.visit(network.url)
        ask(page, SLOW)
        expect(page.locator("#answer")).to_contain_text("One two")
        watch(page, "#state")
        network.cut()
        expect(page.locator("#state")).to_have_text(re.compile("Answered"))
        assert page.locator("#answer").inner_text() == TEXT
        assert any("The connection was lost" in text for text in seen(page))


def test_a_question_that_is_asked_while_the_page_loads_is_answered(page: Page) -> None:
    with held(page, "/v1/responses$", method="POST"), held(page, "/session$"):
        page.reload()
        ask(page, QUESTION)
    expect(page.locator("#answer")).to_contain_text("61 metres")


def test_a_question_that_is_sent_without_a_connection_is_asked_once_when_it_is_back(
    page: Page, visitor: Visitor, llm: FakeLlm
) -> None:
    visitor.expected = [OFFLINE]
    before = llm.calls()
    page.context.set_offline(True)
    ask(page, QUESTION)
    expect(page.locator("#state")).to_have_text(re.compile("The connection was lost"))
    page.context.set_offline(False)
    expect(page.locator("#answer")).to_contain_text("61 metres")
    assert llm.calls() == before + 1


def test_a_reload_in_the_middle_finds_the_answer_again(page: Page) -> None:
    ask(page, SLOW)
    expect(page.locator("#answer")).to_contain_text("One two")
    page.reload()
    expect(page.get_by_label("Your question")).to_have_value(SLOW)
    expect(page.locator("#answer")).to_contain_text("One two")
    expect(page.locator("#state")).to_have_text(re.compile("Answered"))
    assert page.locator("#answer").inner_text() == TEXT


def test_after_the_death_of_a_worker_only_the_new_text_is_shown(page: Page, ragq: Ragq) -> None:
    ask(page, SLOW)
    expect(page.locator("#answer")).to_contain_text("One two")
    watch(page, "#answer")
    workers = httpx2.get(f"{ragq.url}/status").json()["workers"]
    os.kill(next(worker["pid"] for worker in workers if "queries" in worker["queues"]), signal.SIGKILL)
    expect(page.locator("#state")).to_have_text(re.compile("Answered"))
    texts = seen(page)
    assert texts[-1] == TEXT
    assert all(TEXT.startswith(text) for text in texts)
    assert any(len(after) < len(before) for before, after in pairwise(texts)), "it began anew"


@pytest.fixture
def locked(ragq: Ragq) -> Iterator[str]:
    """The address of another API process, which has a key."""
    api, url = ragq.spawn_api(RAGQ_API_KEY=KEY)
    yield url
    stop(api)


def test_the_key_is_asked_for_once_and_kept_where_no_script_reads_it(locked: str, visitor: Visitor) -> None:
    visitor.expected = ["401"]
    page = visitor.visit(locked)
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("API key").fill("wrong")
    dialog.get_by_role("button", name="Continue").click()
    expect(dialog.get_by_role("alert")).to_have_text("This key is wrong. Try another.")
    dialog.get_by_label("API key").fill(KEY)
    dialog.get_by_role("button", name="Continue").click()
    expect(dialog).to_be_hidden()
    (cookie,) = page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"], cookie["expires"]) == (True, "Strict", "/", -1)
    assert KEY not in cookie["value"]
    assert page.evaluate("document.cookie") == ""
    ask(page, QUESTION)
    expect(page.locator("#answer")).to_contain_text("61 metres")
    page.reload()
    expect(page.locator("#answer")).to_contain_text("61 metres")
    expect(dialog).to_be_hidden()
    page.get_by_role("button", name="Sign out").click()
    expect(dialog).to_be_visible()
    assert page.context.cookies() == []


def test_markup_in_documents_names_and_answers_is_inert(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "<img src=x onerror=window.hacked=1>.md"
    path.write_text(f"The password of Varn is tulip {EVIL} and that is that.\n")
    drop(page, path)
    expect(page.locator("#documents li.ready")).to_have_count(2)
    ask(page, f"[[fake text='The password is tulip {EVIL} [1]']] What is the password of Varn?")
    expect(page.locator("#answer")).to_contain_text(EVIL)
    expect(page.locator("#sources blockquote").first).to_contain_text(EVIL)
    expect(page.locator("#sources")).to_contain_text(path.name)
    assert page.locator("#answer, #sources, #documents, #found").locator("img, script").count() == 0
    assert page.evaluate("window.hacked") is None
    page.get_by_role("button", name=f"Remove {path.name}").click()
    expect(page.locator("#documents li")).to_have_count(1)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_in_light_or_dark_has_no_sideways_scroll(visitor: Visitor, ragq: Ragq, scheme: str) -> None:
    page = visitor.visit(ragq.url, viewport={"width": 360, "height": 740}, color_scheme=scheme)
    ask(page, f"[[fake text='{'long' * 60} and on [1]']] {QUESTION}")
    expect(page.locator("#sources li")).to_have_count(1)
    page.locator("#found summary").click()
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground))) > 384) == (scheme == "light")


def test_everything_can_be_done_by_keyboard(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "kiosk.txt"
    path.write_text("The kiosk of Varn opens at nine.\n")
    page.on("filechooser", lambda chooser: chooser.set_files(path))
    expect(page.locator("#documents li")).to_have_count(1)
    expect(page.get_by_label("Your question")).to_be_focused()
    press_until_focused(page, "Tab", page.get_by_role("button", name="Add files"))
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    expect(page.locator("#documents li.ready")).to_have_count(2)
    press_until_focused(page, "Shift+Tab", page.get_by_label("Your question"))
    page.keyboard.type(SLOW)
    page.keyboard.press("Enter")
    expect(page.locator("#answer")).to_contain_text("One two")
    page.keyboard.press("Escape")
    expect(page.locator("#state")).to_have_text("Cancelled")
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.type("When does the kiosk of Varn open?")
    page.keyboard.press("Enter")
    expect(page.locator("#answer")).to_contain_text("nine")
    page.get_by_role("button", name="Remove kiosk.txt").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#documents li")).to_have_count(1)
    assert page.evaluate("document.activeElement.tagName") == "BUTTON"


def test_an_answer_that_failed_says_why(page: Page) -> None:
    ask(page, f"[[fake status=400 message=refused]] {QUESTION}")
    expect(page.locator("#state.error")).to_be_visible()
    expect(page.get_by_role("button", name="Ask")).to_be_visible()
