"""Where passages stand: in search results, citations, and drawn on their page."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx2
import pypdfium2
import pytest

from ragq.errors import UnavailableError
from ragq.models import Citation
from ragq.parsing.draw import draw, find_boxes
from ragq.queues.running import WorkerContext
from ragq.routes.context import DRAWINGS_AT_ONCE, DRAWINGS_WAITING, Drawings
from ragq.schemas.responses import render_passage, url_citation
from tests.documents import write_long_pdf
from tests.ingests import attach, ingest
from tests.servers import Ragq

PNG = b"\x89PNG\r\n\x1a\n"
FACT = "The brig Amaranth carried forty barrels of saffron."


def search(http: httpx2.Client, question: str, filename: str) -> dict[str, Any]:
    hits = http.post("/v1/vector_stores/default/search", json={"query": question}).json()["data"]
    found: dict[str, Any] = next(hit for hit in hits if hit["filename"] == filename)
    return found | {"text": found["content"][0]["text"]}


def test_a_passage_of_a_pdf_is_drawn_on_its_page(ragq: Ragq, http: httpx2.Client, tmp_path: Path) -> None:
    done = ragq.run("ingest", str(write_long_pdf(tmp_path / "drawn.pdf", pages=5, facts={4: FACT})))
    assert done.returncode == 0, done.stderr
    hit = search(http, "What did the brig Amaranth carry?", "drawn.pdf")
    assert (hit["page"], hit["location"]) == (4, "page 4")
    start = hit["start"] + hit["text"].index(FACT)
    asked = {"start": start, "end": start + len(FACT)}
    passage = http.get(f"/v1/files/{hit['file_id']}/passage", params=asked).json()
    assert (passage["quote"], passage["page"], passage["location"]) == (FACT, 4, "page 4")
    drawn = http.get(f"/v1/files/{hit['file_id']}/passage/page", params=asked)
    assert (drawn.status_code, drawn.headers["content-type"]) == (200, "image/png")
    assert drawn.content.startswith(PNG)
    other = http.get(f"/v1/files/{hit['file_id']}/passage/page", params={"start": 0, "end": 5})
    assert other.content != drawn.content


def test_what_has_no_pages_is_not_drawn(ragq: Ragq, http: httpx2.Client, tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("\n".join(f"Line {number} of the harbour's log." for number in range(1, 200)))
    ragq.run("ingest", str(tmp_path / "lines.txt"))
    hit = search(http, "Line 150 of the harbour's log", "lines.txt")
    first = hit["text"].splitlines()[0].split()[1]
    assert hit["location"].startswith(f"lines {first}–")
    answer = http.get(f"/v1/files/{hit['file_id']}/passage/page", params={"start": hit["start"], "end": hit["end"]})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


def test_a_quote_is_found_on_its_page_whatever_its_line_breaks_are(tmp_path: Path) -> None:
    data = write_long_pdf(tmp_path / "a.pdf", pages=2, facts={2: FACT}).read_bytes()
    page = pypdfium2.PdfDocument(data)[1]
    (box,) = find_boxes(page.get_textpage(), "The brig\nAmaranth car-\nried forty barrels")
    assert box[0] < box[2]
    assert box[1] < box[3] < page.get_height()
    assert find_boxes(page.get_textpage(), "words that are not there") == []
    cells = find_boxes(page.get_textpage(), "Ship: Amaranth; Cargo: saffron")
    assert len(cells) == 2
    assert draw(data, 2, FACT) != draw(data, 2, "")


def test_what_an_earlier_version_stored_is_located_by_its_page() -> None:
    citation = Citation(index=5, file_id="file-1", filename="a.pdf", page=3, quote="words", start=0, end=5)
    assert render_passage(citation)["location"] == "page 3"
    assert url_citation(citation, "Words.", "http://ragq.test")["title"] == "a.pdf, page 3"


async def test_an_earlier_versions_document_has_its_pages(context: WorkerContext) -> None:
    record = await attach(context, "Words of an old document. " * 10, filename="old.txt")
    assert await ingest(context, record) == "completed"
    async with context.database.for_all().connection() as connection:
        await connection.execute("UPDATE vector_store_files SET details = '{}', page_starts = '{0, 100, 200}'")
    passage = await context.store_files.get_passage(record.tenant_id, record.file_id, 150, 160, around=0)
    assert passage.page == 2


async def test_few_pages_are_drawn_at_once_and_few_wait() -> None:
    drawings = Drawings()
    async with AsyncExitStack() as stack:
        for _ in range(DRAWINGS_AT_ONCE):
            await stack.enter_async_context(drawings.take())
        waiting = [asyncio.create_task(stack.enter_async_context(drawings.take())) for _ in range(DRAWINGS_WAITING)]
        await asyncio.sleep(0)
        with pytest.raises(UnavailableError, match="Too many pages"):
            await stack.enter_async_context(drawings.take())
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    async with drawings.take():
        pass
