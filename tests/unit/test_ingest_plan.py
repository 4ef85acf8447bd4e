"""What `ragq ingest` lists, puts in and removes, without a service."""

from __future__ import annotations

import gzip
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ragq.api_client import ApiClient
from ragq.errors import ConfigurationError, PermanentError
from ragq.ingest import command, web
from ragq.ingest.folders import FolderSource
from ragq.ingest.plan import Plan, attributes_of, make_plan, name_in_store, refuse_overlap, refuse_same_names
from ragq.ingest.run import carry_out
from ragq.ingest.sources import Choice, Item, Source
from ragq.ingest.web import WebSource


def file(name: str, **attributes: object) -> dict[str, Any]:
    """A file of the store."""
    return {"id": name, "status": "completed", "attributes": {"source": name} | attributes}


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("Words.")
    return folder


async def list_all(source: Source) -> list[Item]:
    return [item async for item in source.list_items()]


def vanished(source: Source, *stored: dict[str, Any]) -> list[str]:
    return [one["id"] for one in make_plan(source, [Item("docs/b.md", 1, 1, "b")], stored).vanished]


def test_only_what_came_from_a_source_can_vanish_from_it(tmp_path: Path) -> None:
    source = FolderSource(fill(tmp_path / "docs", "b.md"), Choice())
    by_hand, other = file("docs/by-hand.md"), file("docs2/a.md", source_modified=1)
    page = file("docs/page.md", source_modified=0)
    assert vanished(source, by_hand, other, page, file("docs/a.md", source_modified=1)) == ["docs/a.md"]


def test_what_was_not_chosen_has_not_vanished(tmp_path: Path) -> None:
    source = FolderSource(fill(tmp_path / "docs", "b.md"), Choice(include=("*.md",), exclude=("drafts",)))
    names = ("docs/a.pdf", "docs/drafts/a.md", "docs/gone.md")
    assert vanished(source, *(file(name, source_modified=1) for name in names)) == ["docs/gone.md"]


@pytest.mark.parametrize("names", [("x/docs", "y/docs"), ("x/docs", "x/docs")])
def test_folders_of_one_name_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    sources = [FolderSource(fill(tmp_path / name, "a.md"), Choice()) for name in names]
    with pytest.raises(ConfigurationError, match="docs/"):
        refuse_overlap(sources)
    refuse_overlap([sources[0], FolderSource(fill(tmp_path / "docs-too", "a.md"), Choice())])


def test_two_sitemaps_of_one_host_are_refused() -> None:
    sources = [WebSource(f"https://{host}/{n}.xml", Choice()) for n, host in enumerate(("Example.org", "example.org"))]
    with pytest.raises(ConfigurationError, match=r"https://example\.org/"):
        refuse_overlap(sources)


def test_documents_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"/a/readme\.md and /b/readme\.md"):
        refuse_same_names([Item("readme.md", 1, 1, "/a/readme.md"), Item("readme.md", 1, 1, "/b/readme.md")])


def test_a_long_name_is_shortened_and_stays_its_own() -> None:
    names = [f"docs/{first}{'x' * 300}.md" for first in "ab"]
    short = [name_in_store(Item(name, 1, 1, name)) for name in names]
    assert short[0] != short[1]
    assert all(len(name) <= 255 and name.endswith("x.md") for name in short)
    assert attributes_of(Item(names[0], 1, 1, ""))["source"] == names[0]
    assert name_in_store(Item("a.md", 1, 1, "")) == "a.md"


async def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path) -> None:
    fill(tmp_path, "a.md")
    above = os.open(tmp_path, os.O_RDONLY)
    for _ in range(20):  # its path is longer than any that the operating system takes
        os.mkdir("d" * 250, dir_fd=above)
        inside = os.open("d" * 250, os.O_RDONLY, dir_fd=above)
        os.close(above)
        above = inside
    os.close(above)
    with pytest.raises(PermanentError, match="cannot be listed"):
        await list_all(FolderSource(tmp_path, Choice()))


async def test_a_file_that_cannot_be_looked_at_has_not_vanished(tmp_path: Path) -> None:
    folder = fill(tmp_path / "docs", "a.md")
    (folder / "loop.md").symlink_to("loop.md")
    source = FolderSource(folder, Choice())
    items = await list_all(source)
    assert [item.name for item in items] == ["docs/a.md", "docs/loop.md"]
    assert make_plan(source, items, [file("docs/loop.md", source_modified=1)]).vanished == []
    with pytest.raises(PermanentError, match="It cannot be read"):
        await source.open(items[1]).__aenter__()


class Store(ApiClient):
    """A service that takes every file, and removes none that is held."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1")
        self.removed: list[str] = []

    async def call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        if "data" in options:
            options["data"]()  # as aiohttp encodes the form
        if method == "DELETE":
            if path.endswith("held"):
                raise PermanentError("It is held.")
            self.removed.append(path)
        return {"id": "file-1", "status": "completed", "last_error": None, "warnings": []}


async def test_a_name_that_is_not_utf8_fails_alone_and_nothing_is_removed(tmp_path: Path) -> None:
    folder = fill(tmp_path / "docs", "a.md")
    fill(folder, os.fsdecode(b"\xff.md"))
    source, store = FolderSource(folder, Choice()), Store()
    plan = Plan(to_put=await list_all(source), vanished=[file("docs/gone.md")])
    summary = await carry_out(store, [(source, plan)], sync=True)
    assert (summary.done, summary.kept, store.removed) == (1, 1, [])
    assert summary.failures[0][0] == r"docs/\udcff.md"


async def test_a_removal_that_fails_is_a_failure_of_its_file(tmp_path: Path) -> None:
    source, store = FolderSource(fill(tmp_path / "docs", "a.md"), Choice()), Store()
    summary = await carry_out(store, [(source, Plan(vanished=[file("held"), file("gone")]))], sync=True)
    assert (summary.removed, store.removed) == (1, ["/v1/files/gone"])
    assert summary.failures == [("held", "It cannot be removed: It is held.")]


Answers = dict[str, tuple[int, bytes]]


@pytest.fixture
def website() -> Iterator[tuple[str, Answers]]:
    """A website on loopback: its URL, and what it answers by path."""
    answers: Answers = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers.get(self.path, (404, b""))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", answers
        server.shutdown()


def sitemap(*urls: str, kind: str = "url") -> bytes:
    entries = "".join(f"<{kind}><loc>{url}</loc></{kind}>" for url in urls)
    return f'<set xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{entries}</set>'.encode()


async def test_a_cut_listing_is_the_same_again_and_lets_nothing_vanish(website: tuple[str, Answers]) -> None:
    url, answers = website
    answers["/sitemap.xml"] = (200, sitemap(*(f"{url}/{n}.html" for n in range(3))))
    async with WebSource(f"{url}/sitemap.xml", Choice(), max_pages=2, allow_private=True) as source:
        first = await list_all(source)
        assert len(first) == 2
        assert await list_all(source) == first
        assert make_plan(source, first, [file(f"{url}/2.html", source_modified=1)]).vanished == []
    async with WebSource(f"{url}/sitemap.xml", Choice(), max_pages=3, allow_private=True) as source:
        items = await list_all(source)
        assert len(make_plan(source, items, [file(f"{url}/3.html", source_modified=1)]).vanished) == 1


async def test_too_many_sitemaps_let_nothing_vanish(
    website: tuple[str, Answers], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, answers = website
    monkeypatch.setattr(web, "MAX_SITEMAPS", 2)
    answers["/sitemap.xml"] = (200, sitemap(f"{url}/1.xml", f"{url}/2.xml", kind="sitemap"))
    answers["/1.xml"] = (200, sitemap(f"{url}/1.html"))
    async with WebSource(f"{url}/sitemap.xml", Choice(), allow_private=True) as source:
        assert len(await list_all(source)) == 1
        assert not source.is_complete


async def test_a_website_whose_rules_cannot_be_read_is_left_alone(website: tuple[str, Answers]) -> None:
    url, answers = website
    answers["/robots.txt"] = (503, b"")
    async with WebSource(f"{url}/a.html", Choice(), allow_private=True) as source:
        with pytest.raises(PermanentError, match=r"robots\.txt cannot be: .* HTTP status 503"):
            await list_all(source)
        answers["/robots.txt"] = (403, b"")
        assert len(await list_all(source)) == 1


def test_a_url_with_a_password_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no user or password") as caught:
        WebSource("https://me:secret@example.org/", Choice())
    assert "secret" not in str(caught.value)


async def test_a_compressed_sitemap_is_read_within_the_limit(
    website: tuple[str, Answers], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, answers = website
    host = url.replace("http://127.0.0.1", "HTTP://127.0.0.1")
    answers["/sitemap.xml.gz"] = (200, gzip.compress(sitemap(f"{host}/a.html")))
    async with WebSource(f"{url}/sitemap.xml.gz", Choice(), allow_private=True) as source:
        assert [item.key for item in await list_all(source)] == [f"{host}/a.html"]
        monkeypatch.setattr(web, "MAX_BYTES", 10_000)
        answers["/sitemap.xml.gz"] = (200, gzip.compress(bytes(1_000_000)))
        with pytest.raises(PermanentError, match="longer than"):
            await list_all(source)


async def test_hosts_are_compared_in_lower_case(website: tuple[str, Answers]) -> None:
    url, answers = (website[0].replace("127.0.0.1", "localhost"), website[1])
    upper = url.replace("localhost", "LOCALHOST")
    answers["/sitemap.xml"] = (200, sitemap(f"{upper}/a.html"))
    async with WebSource(f"{url}/sitemap.xml", Choice(), allow_private=True) as source:
        assert [item.name for item in await list_all(source)] == [f"{upper}/a.html"]


async def test_only_folders_are_watched_and_nothing_is_done_before_that_is_known() -> None:
    options = command.Options(Choice(), watch=True)
    with pytest.raises(ConfigurationError, match="can be watched"):
        await command.ingest(ApiClient("http://127.0.0.1:9"), ["https://example.org/"], options)


async def test_watching_goes_on_after_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = FolderSource(fill(tmp_path / "docs", "a.md"), Choice())
    async with ApiClient("http://127.0.0.1:9") as client:
        assert not await command._run_again(client, [source], command.Options(Choice()))
    assert "ragq: No ragq answers" in capsys.readouterr().err
