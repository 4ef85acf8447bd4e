"""`ragq ingest` against a whole service: what is new, changed, renamed or gone; buckets, websites, watched folders."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest

from ragq.ingest.sources import Choice
from tests.servers import Ragq, wait_until

STORE = "/v1/vector_stores/default/files"


def stored(http: httpx2.Client, prefix: str) -> dict[str, dict[str, Any]]:
    """The files of the default store by name, as far as their names begin so."""
    files: list[dict[str, Any]] = []
    query: dict[str, str] = {"limit": "100"}
    while True:
        page = http.get(STORE, params=query).json()
        files += page["data"]
        if not page["has_more"]:
            return {one["filename"]: one for one in files if one["filename"].startswith(prefix)}
        query["after"] = page["last_id"]


def fill(folder: Path, **texts: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text)
    return folder


def test_what_has_not_changed_is_not_read_again(ragq: Ragq, http: httpx2.Client, tmp_path: Path) -> None:
    folder = fill(tmp_path / "unchanged", one="The first.", two="The second.")
    assert ragq.run("ingest", str(folder)).stdout.endswith("2 of 2 files are searchable.\n")
    before = stored(http, "unchanged/")
    (folder / "two.txt").write_text("The second, changed.")
    (folder / "one.txt").chmod(0)  # not even the superuser's open() is needed: it is skipped by size and time
    done = ragq.run("ingest", str(folder))
    assert done.stdout.endswith("2 of 2 files are searchable (1 unchanged).\n"), done.stdout + done.stderr
    after = stored(http, "unchanged/")
    assert after["unchanged/one.txt"]["id"] == before["unchanged/one.txt"]["id"]
    assert after["unchanged/two.txt"]["id"] != before["unchanged/two.txt"]["id"]


def test_sync_moves_what_was_renamed_and_removes_what_has_vanished(
    ragq: Ragq, http: httpx2.Client, tmp_path: Path
) -> None:
    folder = fill(tmp_path / "synced", old="Its words.", gone="Other words.", kept="More words.")
    fill(tmp_path / "synced-too", other="It is no part of the folder.")
    ragq.run("ingest", str(folder), str(tmp_path / "synced-too"))
    (folder / "old.txt").rename(folder / "new.txt")
    (folder / "gone.txt").unlink()
    done = ragq.run("ingest", str(folder))
    assert set(stored(http, "synced/")) == {f"synced/{name}.txt" for name in ("old", "new", "gone", "kept")}, (
        done.stderr
    )
    done = ragq.run("ingest", "--sync", str(folder))
    assert done.stdout.endswith("2 of 2 files are searchable (2 unchanged; 2 removed).\n")
    assert set(stored(http, "synced")) == {"synced/new.txt", "synced/kept.txt", "synced-too/other.txt"}


def test_sync_removes_nothing_when_a_folder_is_empty(ragq: Ragq, http: httpx2.Client, tmp_path: Path) -> None:
    folder = fill(tmp_path / "mounted", one="On a disk that is not always there.")
    ragq.run("ingest", str(folder))
    (folder / "one.txt").unlink()
    done = ragq.run("ingest", "--sync", str(folder))
    assert (done.returncode, done.stderr) == (1, "ragq: No documents found there.\n")
    assert set(stored(http, "mounted/")) == {"mounted/one.txt"}


def test_a_folder_is_chosen_from_and_what_fails_is_named(ragq: Ragq, http: httpx2.Client, tmp_path: Path) -> None:
    folder = fill(tmp_path / "chosen", one="Words.", two="Words, too.")
    fill(folder / "drafts", three="Unfinished.")
    fill(folder / ".hidden", four="Hidden.")
    (folder / "program.md").write_bytes(b"\x7fELF" + bytes(range(256)) * 20)
    (folder / "broken.pdf").write_bytes(b"%PDF-1.7\n" + b"\x00\xff" * 500)
    (folder / "empty.txt").touch()
    done = ragq.run("ingest", str(folder), "--exclude", "drafts", "--exclude", "two.*")
    assert done.returncode == 1
    assert done.stdout.endswith("1 of 2 files are searchable (1 skipped, as they are no documents).\n")
    assert "chosen/broken.pdf: The PDF is damaged" in done.stderr
    assert "skipped chosen/program.md: The file is a program." in done.stderr
    completed = {name for name, one in stored(http, "chosen/").items() if one["status"] == "completed"}
    assert completed == {"chosen/one.txt"}


def test_a_bucket_is_listed_by_its_url(ragq: Ragq, http: httpx2.Client, tmp_path: Path) -> None:
    bucket = fill(tmp_path / "bucket", one="An object.")
    fill(bucket / "deep", two="Another object.")
    url = f"file://{bucket}"
    assert "2 of 2 files are searchable." in ragq.run("ingest", url).stdout
    assert "(2 unchanged)" in ragq.run("ingest", url).stdout
    (bucket / "one.txt").unlink()
    assert "1 removed" in ragq.run("ingest", url, "--sync").stdout
    assert set(stored(http, url)) == {f"{url}/deep/two.txt"}


@pytest.fixture
def website(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A website on loopback: its URL, and the folder that it serves."""
    folder = fill(tmp_path / "website")
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()


def write_sitemap(folder: Path, *urls: str) -> None:
    entries = "".join(f"<url><loc>{url}</loc><lastmod>2026-01-0{n}</lastmod></url>" for n, url in enumerate(urls, 1))
    space = "http://www.sitemaps.org/schemas/sitemap/0.9"
    (folder / "sitemap.xml").write_text(f'<?xml version="1.0"?><urlset xmlns="{space}">{entries}</urlset>')


def test_a_website_is_read_by_its_sitemap_within_its_rules(
    ragq: Ragq, http: httpx2.Client, website: tuple[str, Path]
) -> None:
    url, folder = website
    for name in ("ferry", "secret", "extra"):
        (folder / f"{name}.html").write_text(f"<!doctype html><html><body><p>A page about {name}.</p></body></html>")
    (folder / "robots.txt").write_text("User-agent: *\nDisallow: /secret.html\n")
    write_sitemap(folder, f"{url}/ferry.html", f"{url}/secret.html", "http://192.0.2.1/other.html")
    refused = ragq.run("ingest", f"{url}/sitemap.xml")
    assert refused.returncode == 1
    assert "not public" in refused.stderr
    done = ragq.run("ingest", f"{url}/sitemap.xml", "--allow-private-addresses")
    assert "1 of 2 files are searchable." in done.stdout
    assert f"{url}/secret.html: The website's robots.txt does not allow it." in done.stderr
    assert set(stored(http, url)) == {f"{url}/ferry.html"}
    again = ragq.run("ingest", f"{url}/sitemap.xml", "--allow-private-addresses", "--max-pages", "1")
    assert "1 of 1 files are searchable (1 unchanged)." in again.stdout
    one = ragq.run("ingest", f"{url}/extra.html", "--allow-private-addresses")
    assert "1 of 1 files are searchable." in one.stdout, one.stderr


def test_other_hosts_are_not_asked(ragq: Ragq, website: tuple[str, Path]) -> None:
    url, folder = website
    (folder / "away").mkdir()  # the server redirects a folder to the same with a slash
    (folder / "away" / "index.html").write_text("<!doctype html><html><body>Here.</body></html>")
    done = ragq.run("ingest", f"{url}/away", "--allow-private-addresses")
    assert done.returncode == 0, done.stderr
    write_sitemap(folder, f"{url.replace('127.0.0.1', 'localhost')}/ferry.html")
    none = ragq.run("ingest", f"{url}/sitemap.xml", "--allow-private-addresses")
    assert none.stderr == "ragq: No documents found there.\n"


def test_a_watched_folder_is_followed(ragq: Ragq, http: httpx2.Client, tmp_path: Path) -> None:
    folder = fill(tmp_path / "watched", one="At first.")
    process = ragq.spawn("ingest", "--watch", "--sync", str(folder), RAGQ_URL=ragq.url)
    try:
        assert wait_until(lambda: set(stored(http, "watched/")) == {"watched/one.txt"})
        fill(folder, two="Later.")
        assert wait_until(lambda: set(stored(http, "watched/")) == {"watched/one.txt", "watched/two.txt"})
        (folder / "one.txt").unlink()
        assert wait_until(lambda: set(stored(http, "watched/")) == {"watched/two.txt"})
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("path", "choice", "is_taken"),
    [
        ("a.pdf", Choice(), True),
        (".git/a.pdf", Choice(), False),
        ("a/.env", Choice(), False),
        ("a.zip", Choice(), False),
        ("reports/a.pdf", Choice(include=("*.pdf",)), True),
        ("reports/a.txt", Choice(include=("*.pdf",)), False),
        ("reports/2024/a.pdf", Choice(include=("reports/*",)), True),
        ("reports/2024/a.pdf", Choice(exclude=("reports/2024/",)), False),
        ("x/node_modules/y/a.md", Choice(exclude=("node_modules",)), False),
    ],
)
def test_patterns_choose_by_name_path_and_folder(path: str, choice: Choice, is_taken: bool) -> None:
    assert choice.takes(path) is is_taken


def test_small_files_are_searchable_before_a_long_text_that_was_put_in_with_them(
    ragq: Ragq, http: httpx2.Client, tmp_path: Path
) -> None:
    folder = fill(tmp_path / "together", **{f"small{number:03}": f"Small file {number}." for number in range(100)})
    (folder / "a-long-one.txt").write_text("It was a long night on the river, and nobody slept. " * 60_000)  # 3 MB
    process = ragq.spawn("ingest", str(folder), RAGQ_URL=ragq.url)
    try:
        wait_until(lambda: len(stored(http, "together/")) == 101, seconds=120)
        wait_until(
            lambda: sum(one["status"] == "completed" for one in stored(http, "together/").values()) == 100, seconds=120
        )
        long_one = stored(http, "together/")["together/a-long-one.txt"]
        assert long_one["status"] == "in_progress"
    finally:
        process.kill()
        process.wait()
        for one in stored(http, "together/").values():
            http.delete(f"/v1/files/{one['id']}")
