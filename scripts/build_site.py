"""Build the site of the documents in build/site; no network is needed.

The pages stand in build/pages as in the repository, so that the links between them hold as they are. It is an error if

- a link, or its anchor, leads nowhere, or to what the site does not have;
- a page of docs/ is not in the navigation of zensical.toml;
- a page would load anything from another host.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "build" / "pages"
SITE = ROOT / "build" / "site"
CONFIGURATION = ROOT / "zensical.toml"
SOURCES = (
    "*.md",
    "LICENSE",
    "docs/**/*.md",
    "docs/images/*",
    "examples/*",
    "benchmarks/README.md",
    "benchmarks/results/*",
)
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
HOST = re.compile(r"(?:https?:)?//[\w.-]")
STYLE_LOAD = re.compile(r"""(?:url\(|@import)\s*["']?(?:https?:)?//""")


def lay_out() -> None:
    """Copy the pages, and what they link to, to where they are built from."""
    shutil.rmtree(PAGES, ignore_errors=True)
    for path in sorted({path for pattern in SOURCES for path in ROOT.glob(pattern)}):
        if path.is_file():
            target = PAGES / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def find_missing() -> Iterator[str]:
    """Name the pages that the navigation leaves out."""

    def pages_of(item: Any) -> Iterator[str]:
        if isinstance(item, str):
            yield item
        for inner in item.values() if isinstance(item, dict) else item if isinstance(item, list) else ():
            yield from pages_of(inner)

    listed = set(pages_of(tomllib.loads(CONFIGURATION.read_text())["project"]["nav"]))
    for page in sorted(PAGES.rglob("*.md")):
        if (name := page.relative_to(PAGES).as_posix()) not in listed:
            yield f"{name} is not in the navigation of zensical.toml"


class Addresses(HTMLParser):
    """What a built page loads, and where it links to."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.linked: list[str] = []
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Look at one element."""
        given = dict(attributes)
        if address := given.get(LOADED.get(tag, "")):
            self.loaded.append(address)
        elif tag == "a" and (address := given.get("href")):
            self.linked.append(address)


def find_strays() -> Iterator[str]:
    """Name what the built pages and styles load from other hosts, and links to what the site does not have."""
    for page in sorted(SITE.rglob("*.html")):
        addresses, name = Addresses(page), page.relative_to(SITE)
        for address in filter(HOST.match, addresses.loaded):
            yield f"{name} loads {address}"
        for address in addresses.linked:
            path = address.partition("#")[0]
            if not urlsplit(address).scheme and page.name != "404.html" and not (page.parent / path).exists():
                yield f"{name} links to {path}, which the site does not have"
    for style in sorted(SITE.rglob("*.css")):
        if STYLE_LOAD.search(style.read_text()):
            yield f"{style.relative_to(SITE)} loads something from another host"


def main() -> int:
    """Build the site; returns 1 and names what is wrong."""
    lay_out()
    shutil.rmtree(SITE, ignore_errors=True)
    built = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict", "--clean", "--config-file", str(CONFIGURATION)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode:
        print(click.unstyle(built.stdout + built.stderr).partition("Traceback")[0], file=sys.stderr)
        return 1
    faults = [*find_missing(), *find_strays()]
    for fault in faults:
        print(f"build_site: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
