"""EPUB: chapter by chapter, in the order of reading."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from urllib.parse import unquote
from xml.etree.ElementTree import Element

from ragq.models import PlaceKind
from ragq.parsing.archives import DAMAGED, Archive, attribute, first_text, local_name
from ragq.parsing.encodings import decode
from ragq.parsing.readers.html import find_charset, parse_html, write_html
from ragq.parsing.writer import DocumentWriter, UnreadableError

_CONTAINER = "META-INF/container.xml"
_ENCRYPTION = "META-INF/encryption.xml"
_CHAPTERS = ("application/xhtml+xml", "text/html", "application/xml")
_NAVIGATION = "application/x-dtbncx+xml"


def read(data: bytes, filename: str, document: DocumentWriter) -> None:
    """Write the chapters of a book; its title and authors stand before them."""
    del filename
    archive = Archive(data)
    container = archive.read_xml(_CONTAINER).iter()
    package_path = next((attribute(one, "full-path") for one in container if local_name(one) == "rootfile"), "")
    package = archive.read_xml(package_path)
    metadata = next((one for one in package if local_name(one) == "metadata"), package)
    document.title = first_text(metadata, ["title"])
    creators = ("".join(one.itertext()).strip() for one in metadata.iter() if local_name(one) == "creator")
    authors = list(filter(None, creators))
    about = " by ".join(filter(None, [document.title, ", ".join(authors)])) if authors else ""
    chapters = list(_iterate_chapters(package, posixpath.dirname(package_path)))
    names = _read_names(archive, package, package_path)
    _check_readable(archive, chapters)
    for number, path in enumerate(chapters, 1):
        if path not in archive.names:
            document.warn(f"Chapter {number} is missing in the file.")
            continue
        if _write_chapter(archive.read(path), number, names.get(path, ""), document, about):
            about = ""
        document.progress(number, len(chapters))


def _write_chapter(data: bytes, number: int, name: str, document: DocumentWriter, about: str) -> bool:
    """Write a chapter, the first with what the book is about before it; returns whether it has text."""
    encoding = document.encoding
    try:
        text = decode(data, document, find_charset(data))
    except UnreadableError as error:
        if error.code != "no_text":
            document.warn(f"Chapter {number}: {error}")
        return False
    finally:
        document.encoding = encoding
    if not name:
        heading = parse_html(text).css_first("h1, h2, h3, title")
        name = heading.text() if heading else ""
    document.start_place(PlaceKind.CHAPTER, number, name)
    document.add_text(about)
    write_html(text, document)
    return True


def _iterate_chapters(package: Element, folder: str) -> Iterator[str]:
    """Yield the paths of the chapters in the order of reading."""
    items = {attribute(one, "id"): one for one in package.iter() if local_name(one) == "item"}
    for reference in package.iter():
        if local_name(reference) != "itemref" or (item := items.get(attribute(reference, "idref"))) is None:
            continue
        if attribute(item, "media-type") in _CHAPTERS and "nav" not in attribute(item, "properties").split():
            yield _resolve(folder, attribute(item, "href"))


def _resolve(folder: str, reference: str) -> str:
    """The path of a part that another refers to. What leads out of the archive is no part of it, so it is not found."""
    return posixpath.normpath(posixpath.join(folder, unquote(reference.partition("#")[0])))


def _read_names(archive: Archive, package: Element, package_path: str) -> dict[str, str]:
    """The titles of chapters by the table of contents, EPUB 3's or EPUB 2's; of several for a file, the first."""
    names: dict[str, str] = {}
    folder = posixpath.dirname(package_path)
    for item in package.iter():
        if local_name(item) != "item":
            continue
        path = _resolve(folder, attribute(item, "href"))
        if path not in archive.names:
            continue
        if "nav" in attribute(item, "properties").split():
            links = _iterate_links(archive.read(path))
        elif attribute(item, "media-type") == _NAVIGATION:
            links = _iterate_points(archive.read_xml(path))
        else:
            continue
        for target, name in links:
            names.setdefault(_resolve(posixpath.dirname(path), target), " ".join(name.split()))
    return names


def _iterate_links(data: bytes) -> Iterator[tuple[str, str]]:
    for link in parse_html(data.decode("utf-8", "replace")).css("nav a[href]"):
        yield link.attributes.get("href") or "", link.text()


def _iterate_points(navigation: Element) -> Iterator[tuple[str, str]]:
    for point in navigation.iter():
        if local_name(point) == "navPoint":
            target = next((attribute(one, "src") for one in point if local_name(one) == "content"), "")
            yield target, first_text(point, ["text"])


def _check_readable(archive: Archive, chapters: list[str]) -> None:
    """Check that the chapters are there and not encrypted, as those of bought books are; fonts may be.

    Raises:
        UnreadableError: They are not.
    """
    if not any(path in archive.names for path in chapters):
        raise UnreadableError(DAMAGED)
    if _ENCRYPTION in archive.names:
        references = archive.read_xml(_ENCRYPTION).iter()
        encrypted = {unquote(attribute(one, "URI")) for one in references if local_name(one) == "CipherReference"}
        if not encrypted.isdisjoint(chapters):
            raise UnreadableError("The book is encrypted: upload a copy without protection.", "encrypted")
