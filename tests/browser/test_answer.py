"""What the page offers below and beside an answer: feedback, the marks of its statements, its sources one after the other, and Markdown."""

from __future__ import annotations

import html
import re
from pathlib import Path

import httpx2
import pyromark
import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import DOCUMENT, Visitor, held
from tests.browser.test_page import EVIL, QUESTION, ask, drop
from tests.servers import Ragq

ANSWER = f"[[fake text='The lighthouse of Quorra is 61 metres tall [1].']] {QUESTION}"
NEVER_A_TAG = re.compile(r"<(?!/?(?:p|strong|ol|ul|li|blockquote|br)\b)")
EXTENSIONS = (
    pyromark.Options.ENABLE_TABLES
    | pyromark.Options.ENABLE_STRIKETHROUGH
    | pyromark.Options.ENABLE_FOOTNOTES
    | pyromark.Options.ENABLE_MATH
    | pyromark.Options.ENABLE_TASKLISTS
    | pyromark.Options.ENABLE_DEFINITION_LIST
)
TRAPS = [
    "# Head",
    "Head\n====",
    "- one\n+ two\n12. three\n3) four\n---",
    "[a](http://evil.example) ![x](x.png) [a]: http://evil.example",
    "http://evil.example www.evil.example <http://evil.example> a@evil.example",
    "`code` **bold** _soft_ ~~gone~~ &amp; &#42; a\\\\b\\",
    "| a | b |\n|---|---|\n| c | d |",
    "```\nfenced\n```\n~~~",
    "    indented\n\tindented",
    "> quoted",
    "$x$ [^1]\n[^1]: note\n: meaning\n- [ ] task",
]


def answered(page: Page, question: str = ANSWER) -> None:
    ask(page, question)
    expect(page.locator("#state")).to_have_text(re.compile("Answered"))


def stored(ragq: Ragq, page: Page) -> tuple[str | None, str | None]:
    said = httpx2.get(f"{ragq.url}/v1/responses/{page.url.partition('#')[2]}/feedback").json()
    return said["rating"], said["comment"]


def copied(page: Page) -> str:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy as Markdown").click()
    expect(page.locator("#tools-state")).to_have_text("Copied.")
    text: str = page.evaluate("navigator.clipboard.readText()")
    return text


def rendered(markdown: str) -> str:
    """Render Markdown, which must have no other markup than that of the form itself."""
    shown = pyromark.html(markdown, options=EXTENSIONS)
    assert NEVER_A_TAG.search(shown) is None, shown
    return shown


def test_an_answer_is_rated_with_a_comment_and_the_rating_is_there_after_a_reload(page: Page, ragq: Ragq) -> None:
    expect(page.locator("#tools")).to_be_hidden()
    answered(page)
    down = page.get_by_role("button", name="Not helpful")
    expect(page.get_by_label("Comment")).to_be_hidden()
    down.click()
    expect(down).to_have_attribute("aria-pressed", "true")
    page.get_by_label("Comment").fill("It is <b>62</b>.")
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#tools-state")).to_have_text("Noted, with your comment.")
    assert stored(ragq, page) == ("down", "It is <b>62</b>.")
    page.reload()
    expect(down).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_label("Comment")).to_have_value("It is <b>62</b>.")
    page.get_by_role("button", name="Helpful", exact=True).click()
    expect(down).to_have_attribute("aria-pressed", "false")
    assert stored(ragq, page)[0] == "up"
    page.get_by_role("button", name="Helpful", exact=True).click()
    expect(page.locator("#tools-state")).to_have_text("Taken back.")
    expect(page.get_by_label("Comment")).to_be_hidden()
    assert stored(ragq, page) == (None, None)
    answered(page)
    expect(page.locator("#tools-state")).to_have_text("")


def test_each_statement_has_a_mark_that_says_its_verdict_to_the_keyboard(page: Page) -> None:
    text = "The lighthouse of Quorra is 61 metres tall [1]. The lighthouse of Quorra is 62 metres tall [1]. I hope this helps."
    answered(page, f"[[fake text='{text}']] {QUESTION}")
    marks = page.locator("#answer .verdict")
    expect(marks).to_have_count(3)
    names = [mark.get_attribute("aria-label") or "" for mark in marks.all()]
    assert [name.partition(":")[0] for name in names] == [
        "Held by its sources",
        "Not held by any source",
        "Nothing to check",
    ]
    assert "'62' is neither in the sources" in names[1]
    page.get_by_role("button", name="Source 1").first.focus()
    page.keyboard.press("Tab")
    expect(marks.first).to_be_focused()
    shown = "(mark) => getComputedStyle(mark, '::after').content"
    assert "Held by its sources" in marks.first.evaluate(shown)
    assert marks.nth(1).evaluate(shown) == "none"


def test_one_goes_from_source_to_source_in_their_documents(page: Page, tmp_path: Path) -> None:
    notes = tmp_path / "ferry.md"
    notes.write_text("# Ferry\n\nThe ferry to Quorra leaves at noon. The lighthouse of Quorra is 61 metres tall.\n")
    drop(page, notes)
    expect(page.locator("#documents li.ready")).to_have_count(2)
    answered(page, f"[[fake text='The lighthouse of Quorra is 61 metres tall [1][2].']] {QUESTION}")
    expect(page.locator("#sources li")).to_have_count(2)
    page.locator("#sources li").first.get_by_role("button").click()
    title, marked = page.locator("#passage-title"), page.locator("#passage-text mark")
    back, on = (page.get_by_role("button", name=f"{name} source") for name in ("Previous", "Next"))
    expect(marked).to_contain_text("61 metres")
    first = title.inner_text()
    expect(page.locator("#passage-others")).to_contain_text("1 of 2")
    expect(back).to_be_disabled()
    on.focus()
    page.keyboard.press("Enter")
    expect(title).to_have_text(next(name for name in (DOCUMENT, notes.name) if name != first))
    expect(marked).to_contain_text("61 metres")
    expect(page.locator("#passage-others")).to_contain_text("2 of 2")
    expect(back).to_be_focused()
    page.keyboard.press("Enter")
    expect(title).to_have_text(first)
    expect(on).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_a_passage_that_comes_after_the_dialog_was_closed_does_not_open_it(page: Page, ragq: Ragq) -> None:
    (file,) = httpx2.get(f"{ragq.url}/v1/vector_stores/default/files").json()["data"]
    passages = [{"file_id": file["id"], "start": start, "end": start + 5} for start in (0, 6)]
    show = "(passages) => import('/web/passage.js').then(({ showPassage }) => showPassage(passages, 0))"
    page.evaluate(show, passages)
    with held(page, r"/passage\?start=6"):
        page.get_by_role("button", name="Next source").click()
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_marks_take_the_focus_only_when_nothing_replaces_them_any_more(page: Page) -> None:
    text = "The lighthouse of Quorra is 62 metres tall [1]. It is 61 metres tall [1]. One more word, and then as many more words again."
    ask(page, f"[[fake text='{text}' rate=12]] {QUESTION}")
    expect(page.locator("#answer[aria-busy] .verdict:not([tabindex])").first).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#state")).to_have_text("Cancelled")
    expect(page.locator("#answer .verdict").first).to_have_attribute("tabindex", "0")
    expect(page.locator("#answer .verdict:not([tabindex])")).to_have_count(0)


PLACE = """async ([text, annotations, statements, hasMarkers]) => {
    const { citedText } = await import("/web/cited.js");
    const reference = (place) => `<${place}>`;
    const wrap = (statement, nodes) => ["{", ...nodes, "}"];
    const { nodes, passages } = citedText({ text, annotations }, { hasMarkers, reference, statements, wrap });
    return [nodes.join(""), passages.map((passage) => passage.file_id).join("")];
}"""


@pytest.mark.parametrize(
    ("text", "cited", "statements", "has_markers", "shown", "passages"),
    [
        ("One [1]. Two [2][1].", "a7 b19 a19", [], True, "One<0>. Two<1><0>.", "ab"),
        ("One [1]. Two [2][1].", "b19 a7 a19", [(0, 8), (9, 20)], True, "{One<0>.} {Two<1><0>.}", "ab"),
        ("One [1].", "a8", [(0, 8)], False, "{One [1].<0>}", "a"),
        ("🗼 One. Two", "a6 a6 b6", [(0, 6)], False, "{🗼 One.<0><1>} Two", "ab"),
        ("One", "a0", [(0, 3)], True, "<0>{One}", "a"),
        ("One", "a9", [], True, "One<0>", "a"),
        ("One", "", [], True, "One", ""),
    ],
)
def test_citations_stand_once_at_their_places(
    page: Page,
    text: str,
    cited: str,
    statements: list[tuple[int, int]],
    has_markers: bool,
    shown: str,
    passages: str,
) -> None:
    annotations = [{"file_id": one[0], "start": 0, "end": 9, "index": int(one[1:])} for one in cited.split()]
    marked = [{"start": start, "end": end} for start, end in statements]
    assert page.evaluate(PLACE, [text, annotations, marked, has_markers]) == [shown, passages]


def test_an_answer_is_copied_as_markdown_with_its_sources(page: Page) -> None:
    answered(page)
    assert copied(page) == (
        f"**Question**\n\n\\[\\[fake text='The lighthouse of Quorra is 61 metres tall \\[1\\].'\\]\\] {QUESTION}\n\n"
        "**Answer**\n\nThe lighthouse of Quorra is 61 metres tall\\[1\\].\n\n"
        f"**Sources**\n\n1. **{DOCUMENT}**, page 2\n\n   > The lighthouse of Quorra is 61 metres tall.\n"
    )


def test_text_of_documents_models_and_names_stays_text_in_the_markdown(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "*evil* [x](y).txt"
    path.write_text(f"The password of Varn is tulip {EVIL} and that is that.\n")
    drop(page, path)
    expect(page.locator("#documents li.ready")).to_have_count(2)
    answered(page, f"[[fake text='The password of Varn is tulip {EVIL} [1]']] What is the password of Varn?")
    expect(page.locator("#sources")).to_contain_text(path.name)
    assert rendered(copied(page)).count("&lt;script&gt;") == 3  # question, answer and quote


@pytest.mark.parametrize("trap", TRAPS)
def test_no_text_becomes_markup(page: Page, trap: str) -> None:
    written = page.evaluate(
        """async (text) => {
            const { writeMarkdown } = await import("/web/markdown.js");
            const source = { filename: text, location: text, quote: text };
            return writeMarkdown({ question: text, answer: text, reasons: [text], sources: [source, source] });
        }""",
        trap,
    )
    shown = html.unescape(re.sub("<[^>]*>", " ", rendered(written)))
    for line in trap.split("\n"):
        assert shown.count(" ".join(line.split())) >= 5, shown


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_feedback_and_marks_fit_on_a_phone(visitor: Visitor, ragq: Ragq, scheme: str) -> None:
    page = visitor.visit(ragq.url, viewport={"width": 360, "height": 740}, color_scheme=scheme)
    answered(page, f"[[fake text='The lighthouse of Quorra is 62 metres tall [1].']] {QUESTION}")
    page.get_by_role("button", name="Not helpful").click()
    expect(page.get_by_label("Comment")).to_be_visible()
    page.locator("#answer .verdict").focus()
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    page.locator("#sources").get_by_role("button").first.click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 360


def test_the_lines_of_a_pdf_are_joined_where_the_page_of_the_document_ended_them(page: Page) -> None:
    said = "The lighthouse of Quorra was built in\\n1840.\\n\\nAs all who climb it up to its top know:\\n• it is tall\\n• it is old"
    show = """import('/web/cited.js').then(({ citedText }) => citedText(
        { text: 'TEXT', annotations: [{ file_id: 'f', filename: 'NAME', start: 0, end: 9, index: 'TEXT'.length }] },
        { isCopied: COPIED, reference: () => '' },
    ).nodes.join(''))"""

    def shown(name: str, *, is_copied: bool = True) -> str:
        script = show.replace("TEXT", said).replace("NAME", name).replace("COPIED", str(is_copied).lower())
        text: str = page.evaluate(script)
        return text

    verbatim = said.replace("\\n", "\n")
    assert shown("harbour.pdf") == verbatim.replace("in\n1840", "in 1840")
    assert shown("harbour.md") == shown("harbour.pdf", is_copied=False) == verbatim
