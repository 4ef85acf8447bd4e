"""Mails, EML and Outlook's MSG, and mailboxes, with what is attached to them."""

from __future__ import annotations

import email
import re
from collections.abc import Iterator
from email.message import EmailMessage, MIMEPart
from email.policy import default as policy
from itertools import pairwise
from typing import Any

from ragq.parsing.archives import DAMAGED
from ragq.parsing.encodings import decode
from ragq.parsing.kinds import Kind, detect
from ragq.parsing.readers.html import find_charset, write_html
from ragq.parsing.readers.outlook import convert
from ragq.parsing.writer import DocumentWriter, UnreadableError

MAX_PARTS = 1_000

_FIELDS = ("From", "To", "Cc", "Date")
_MAILBOX_LINE = re.compile(rb"^From [^\n]{1,200}\d{4}\r?$", re.MULTILINE)
# What the standard library's parser of headers and parts raises when they break the rules; it documents none of it.
_LIBRARY_ERRORS = (ValueError, TypeError, LookupError, AttributeError, OSError, AssertionError, RecursionError)


def read(data: bytes, filename: str, document: DocumentWriter) -> None:
    """Write a mail's subject, people, date and text, and then each attachment as a document of its own."""
    try:
        mails = _read_mails(data, detect(data, filename))
    except _LIBRARY_ERRORS as error:
        raise UnreadableError(DAMAGED) from error
    for mail in mails:
        _write_mail(mail, document)
    document.title = _field(mails[0], "Subject") if len(mails) == 1 else ""


def _read_mails(data: bytes, kind: Kind) -> list[EmailMessage]:
    if kind is Kind.MSG:
        return [convert(data)]
    starts = [match.start() for match in _MAILBOX_LINE.finditer(data)] if data.startswith(b"From ") else [0]
    return [email.message_from_bytes(data[start:end], policy=policy) for start, end in pairwise([*starts, len(data)])]


def _write_mail(mail: EmailMessage, document: DocumentWriter) -> None:
    document.add_heading(1, _field(mail, "Subject"))
    fields = ((name, _field(mail, name)) for name in _FIELDS)
    document.add_text("\n".join(f"{name}: {text}" for name, text in fields if text))
    bodies = [mail.get_body((subtype,)) for subtype in ("plain", "html")]
    for part in bodies:
        if part is not None and (payload := _payload(part)).strip():
            _write_text(payload, part, document)
            break
    for part in _iterate_parts(mail):
        is_picture_in_text = part.get_content_maintype() == "image" and part.get("Content-ID")
        if not is_picture_in_text and part not in bodies and (payload := _payload(part)):
            document.add_attachment(payload, part.get_filename() or _name_part(part))


def _field(mail: EmailMessage, name: str) -> str:
    """A header's text; one that breaks the rules may not be parsed, so it is taken as it is."""
    try:
        text = str(mail.get(name) or "")
    except _LIBRARY_ERRORS:
        text = next((str(value) for key, value in mail.raw_items() if key.lower() == name.lower()), "")
    return " ".join(text.split())


def _write_text(data: bytes, part: MIMEPart, document: DocumentWriter) -> None:
    is_html = part.get_content_subtype() == "html"
    encoding = document.encoding
    try:
        text = decode(data, document, part.get_content_charset() or (find_charset(data) if is_html else ""))
    except UnreadableError as error:
        if error.code != "no_text":
            document.warn(f"The mail's text: {error}")
        return
    finally:
        document.encoding = encoding
    if is_html:
        write_html(text, document)
    else:
        document.add_text(text)


def _iterate_parts(mail: EmailMessage) -> Iterator[MIMEPart]:
    """Yield the parts that hold no other parts."""
    pending: list[Any] = [mail]
    for _ in range(MAX_PARTS):
        if not pending:
            return
        part = pending.pop(0)
        if part.get_content_maintype() == "multipart":
            pending = [*part.iter_parts(), *pending]
        else:
            yield part


def _payload(part: MIMEPart) -> bytes:
    """The bytes of a part, without their transfer encoding."""
    try:
        if part.get_content_maintype() == "message":
            inner: Any = part.get_payload()
            return bytes(inner[0]) if isinstance(inner, list) and inner else b""
        payload = part.get_payload(decode=True)
    except _LIBRARY_ERRORS:
        return b""
    return payload if isinstance(payload, bytes) else b""


def _name_part(part: MIMEPart) -> str:
    if part.get_content_maintype() == "message":
        inner: Any = part.get_payload()
        subject = _field(inner[0], "Subject") if isinstance(inner, list) and inner else ""
        return f"{subject or 'message'}.eml"
    return f"part.{part.get_content_subtype()}"
