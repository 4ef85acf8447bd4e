"""Pages of one website: a page, or all that its sitemap names."""

from __future__ import annotations

import io
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import BinaryIO, Self
from urllib.parse import urljoin, urlsplit
from urllib.robotparser import RobotFileParser

import aiohttp

from ragq.client.webhooks.client import NotPublicError, PublicResolver
from ragq.client.webhooks.target import find_address, is_public
from ragq.errors import ConfigurationError, PermanentError
from ragq.ingest.sources import Choice, Item
from ragq.parsing.archives import local_name, parse_xml
from ragq.parsing.writer import UnreadableError

USER_AGENT = "ragq-ingest"
MAX_PAGES = 1000
MAX_BYTES = 50 << 20  # of one page or sitemap
MAX_SITEMAPS = 50
MAX_REDIRECTS = 5
SECONDS = 60
DISALLOWED = "disallowed"  # code of an error: by robots.txt
MISSING = "missing"  # code of an error: HTTP status 4xx
NOT_PUBLIC = "its address is not public; --allow-private-addresses lets it in"


class WebSource:
    """A page of a website or, for the URL of a sitemap, all pages of the same host that it names.

    It heeds robots.txt, and connects to public addresses only, unless it is told otherwise. Use it as an async context
    manager.
    """

    def __init__(self, url: str, choice: Choice, *, max_pages: int = MAX_PAGES, allow_private: bool = False) -> None:
        self._url = url
        self._choice = choice
        self._max_pages = max_pages
        self._allow_private = allow_private
        self._is_sitemap = urlsplit(url).path.endswith((".xml", ".xml.gz"))
        self._host = _read_host(url)
        if not self._host or "@" in self._host:
            raise ConfigurationError("A website's URL needs a host, and no user or password.")
        self._robots = RobotFileParser()
        self.prefix = f"{urlsplit(url).scheme}://{self._host}/" if self._is_sitemap else ""
        self.is_complete = True

    async def __aenter__(self) -> Self:
        host = frozenset({(urlsplit(self._url).hostname or "").lower()})
        self._resolver = PublicResolver(host if self._allow_private else frozenset())
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit_per_host=2, resolver=self._resolver),
            timeout=aiohttp.ClientTimeout(total=SECONDS),
            headers={"User-Agent": USER_AGENT},
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()
        await self._resolver.close()

    def takes(self, name: str) -> bool:
        return self._choice.takes(urlsplit(name).path.lstrip("/") or "index.html")

    async def list_items(self) -> AsyncIterator[Item]:
        """List the pages, in the order of the sitemap."""
        await self._read_robots()
        if not self._is_sitemap:
            yield Item(self._url, None, None, self._url)
            return
        sitemaps, seen, count = [self._url], set[str](), 0
        self.is_complete = True
        for sitemap in sitemaps:  # it grows
            for url, modified, is_sitemap in _read_sitemap(await self._get(sitemap), sitemap):
                if url in seen or _read_host(url) != self._host:
                    continue
                seen.add(url)
                if not is_sitemap and not self.takes(url):
                    continue
                if (len(sitemaps) == MAX_SITEMAPS) if is_sitemap else (count == self._max_pages):
                    self.is_complete = False
                elif is_sitemap:
                    sitemaps.append(url)
                else:
                    count += 1
                    yield Item(url, None, modified, url)
            if count == self._max_pages and not self.is_complete:
                return

    @asynccontextmanager
    async def open(self, item: Item) -> AsyncIterator[BinaryIO]:
        """Download a page."""
        if not self._robots.can_fetch(USER_AGENT, item.key):
            raise PermanentError("The website's robots.txt does not allow it.", code=DISALLOWED)
        yield io.BytesIO(await self._get(item.key))

    async def _read_robots(self) -> None:
        """Read what may be fetched, as RFC 9309 has it: everything without a robots.txt, nothing if it cannot be had."""
        try:
            lines = (await self._get(urljoin(self._url, "/robots.txt"))).decode("utf-8", "replace").splitlines()
        except PermanentError as error:
            if error.code != MISSING:
                reason = f"Nothing of this website is read, as its robots.txt cannot be: {error.message}"
                raise PermanentError(reason) from error
            lines = []
        self._robots = RobotFileParser()
        self._robots.parse(lines)

    async def _get(self, url: str) -> bytes:
        """Download what is at a URL of this host.

        Raises:
            PermanentError: It cannot be had; the message gives the reason.
        """
        try:
            for _ in range(MAX_REDIRECTS):
                self._check(url)
                async with self._session.get(url, allow_redirects=False) as response:
                    if response.status in (301, 302, 303, 307, 308):
                        url = urljoin(url, response.headers.get("Location", ""))
                        continue
                    if response.status != 200:
                        code = MISSING if 400 <= response.status < 500 else None
                        raise PermanentError(f"{url} answers with HTTP status {response.status}.", code=code)
                    body = await response.content.read(MAX_BYTES + 1)
                    while len(body) <= MAX_BYTES and (piece := await response.content.read(1 << 20)):
                        body += piece
                    if len(body) > MAX_BYTES:
                        raise PermanentError(f"{url} is longer than {MAX_BYTES:,} bytes.")
                    return body
        except (aiohttp.ClientError, OSError, ValueError) as error:
            inside = isinstance(error.__cause__, NotPublicError)
            raise PermanentError(f"{url}: {NOT_PUBLIC if inside else error}.") from error
        raise PermanentError(f"{url} redirects too often.")

    def _check(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or _read_host(url) != self._host:
            raise PermanentError(f"{url} is on another host.")
        address = find_address(parts.hostname or "")  # addresses do not pass the resolver
        if address and not self._allow_private and not is_public(address):
            raise PermanentError(f"{url}: {NOT_PUBLIC}.")


def _read_sitemap(data: bytes, url: str) -> list[tuple[str, int | None, bool]]:
    """Read a sitemap: each entry's URL, time of its last change in microseconds, and whether it is a sitemap."""
    try:
        root = parse_xml(_unpack(data, url))
    except UnreadableError as error:
        raise PermanentError(f"{url} is no sitemap.") from error
    entries = []
    for entry in root:
        fields = {local_name(child): (child.text or "").strip() for child in entry}
        if fields.get("loc"):
            entries.append((fields["loc"], _read_time(fields.get("lastmod", "")), local_name(entry) == "sitemap"))
    return entries


def _unpack(data: bytes, url: str) -> bytes:
    """Decompress what is gzip, as far as MAX_BYTES; anything else stays as it is."""
    if not data.startswith(b"\x1f\x8b"):
        return data
    try:
        unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        unpacked = unpacker.decompress(data, MAX_BYTES + 1)
    except zlib.error as error:
        raise PermanentError(f"{url} is damaged: {error}.") from error
    if len(unpacked) > MAX_BYTES:
        raise PermanentError(f"{url} is longer than {MAX_BYTES:,} bytes.")
    return unpacked


def _read_host(url: str) -> str:
    """The host with its port, in lower case; empty if it cannot be read."""
    try:
        return urlsplit(url).netloc.lower()
    except ValueError:
        return ""


def _read_time(text: str) -> int | None:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1_000_000)
