"""HTML pages: the main text, without navigation, forms and banners."""

from __future__ import annotations

import re
from collections.abc import Iterable

from selectolax.lexbor import LexborHTMLParser, LexborNode

from ragq.parsing.encodings import decode
from ragq.parsing.readers.html_blocks import BlockWriter, measure
from ragq.parsing.writer import DocumentWriter, UnreadableError

MIN_MAIN_SHARE = 0.2  # of a page's text that its main part has, if that is marked well
MAX_DEPTH = 10_000  # of elements: the parser's time grows with its square
MIN_LEFT_SHARE = 0.1  # of a page's text that is left without banners and menus

_CHARSET = re.compile(
    rb"""<meta[^>]{0,200}?charset\s{0,9}=\s{0,9}["']?\s{0,9}([\w:.-]{2,40})|<\?xml[^>]{0,99}encoding=["']([\w.-]{2,40})""",
    re.IGNORECASE,
)
_LOOKED_AT = 4096
_TAG = re.compile(r"<(/?)([a-zA-Z][\w:-]{0,40})")
_NOT_NESTED = frozenset(  # elements without an end, or that HTML ends by itself
    "area base br col embed hr img input link meta param source track wbr p li dt dd td th tr thead tbody tfoot option"
    " optgroup colgroup html head body".split()
)
_NO_TEXT = (
    "script, style, noscript, template, svg, iframe, object, canvas, audio, video, button, select, input, textarea, dialog,"
    " [hidden], [style*='display:none'], [style*='display: none'], [style*='visibility:hidden']"
)
_AROUND = (
    "nav, [role=navigation], [role=banner], [role=contentinfo], [role=search], [role=dialog], [role=alertdialog], [role=menu],"
    " [role=menubar], [role=complementary]"
)
_PARTS = "header, footer, aside"  # of the page, unless they are in its main text
_MAIN = "main, [role=main]"
_BANNER = re.compile(
    r"(?:cookie|consent|gdpr).{0,30}(?:banner|bar|box|notice|popup|modal|dialog|overlay|message|wall)", re.IGNORECASE
)
_MENUS = frozenset(
    "nav navbar navigation menu breadcrumb breadcrumbs sidebar skip-link skip-nav site-header site-footer page-footer"
    " cookie-consent cookie-law-info cookies share-buttons social-share".split()
)


def read(data: bytes, filename: str, document: DocumentWriter) -> None:
    """Write a page's main text."""
    del filename
    text = decode(data, document, find_charset(data))
    tree = parse_html(text)
    if title := tree.css_first("head title"):
        document.title = title.text()
    if tree.body:
        roots, unwanted = find_main(tree.body)
        for root in roots:
            BlockWriter(document, unwanted).write(root)


def find_charset(data: bytes) -> str:
    """The encoding that a page names itself."""
    found = _CHARSET.search(data[:_LOOKED_AT])
    return next(filter(None, found.groups())).decode("ascii", "ignore") if found else ""


def parse_html(text: str) -> LexborHTMLParser:
    """Parse a page.

    Raises:
        UnreadableError: Its elements nest too deep.
    """
    depth = 0
    for is_end, name in _TAG.findall(text):
        if name.lower() not in _NOT_NESTED:
            depth = max(depth - 1, 0) if is_end else depth + 1
            if depth > MAX_DEPTH:
                raise UnreadableError("The elements of the page nest too deep.")
    return LexborHTMLParser(text)


def write_html(text: str, document: DocumentWriter) -> None:
    """Write all text of a page, such as a chapter or the body of a mail."""
    tree = parse_html(text)
    if tree.body:
        BlockWriter(document, _ids(tree.body.css(_NO_TEXT))).write(tree.body)


def find_main(body: LexborNode) -> tuple[list[LexborNode], set[int]]:
    """Find the main text of a page: the elements that hold it, and those in them that do not belong to it."""
    hidden = _ids(body.css(_NO_TEXT))
    mains = [main for main in body.css(_MAIN) if not _has_ancestor(main, ("main",))]
    around = hidden | _ids(body.css(_AROUND))
    whole = measure(body, hidden) if mains else 0
    if mains and sum(measure(main, around) for main in mains) >= whole * MIN_MAIN_SHARE:
        return mains, around
    around |= _ids(part for part in body.css(_PARTS) if not _has_ancestor(part, ("main", "article")))
    around |= _ids(node for node in body.css("[class], [id]") if _is_menu(node))
    if around == hidden or measure(body, around) >= (whole or measure(body, hidden)) * MIN_LEFT_SHARE:
        return [body], around
    return [body], hidden


def _ids(nodes: Iterable[LexborNode]) -> set[int]:
    return {node.mem_id for node in nodes}


def _is_menu(node: LexborNode) -> bool:
    if node.tag in ("body", "main", "article", "html"):
        return False
    names = f"{node.attributes.get('class') or ''} {node.attributes.get('id') or ''}"
    return bool(_BANNER.search(names)) or not _MENUS.isdisjoint(names.lower().split())


def _has_ancestor(node: LexborNode, tags: tuple[str, ...]) -> bool:
    parent = node.parent
    while parent is not None and parent.tag not in tags:
        parent = parent.parent
    return parent is not None
