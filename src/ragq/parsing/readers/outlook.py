"""Outlook's MSG as a mail: [MS-OXMSG] keeps each property in a stream that is named by its number and type."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta
from email import message_from_string
from email.message import EmailMessage, Message
from email.policy import default as policy
from typing import Any

from ragq.parsing.kinds import open_ole

MAX_DEPTH = 5  # of messages within messages

_SUBJECT, _SENDER_NAME, _SENDER, _TO, _CC = 0x0037, 0x0C1A, 0x0C1F, 0x0E04, 0x0E03
_SENDER_SMTP = 0x5D01
_HEADERS, _BODY, _HTML = 0x007D, 0x1000, 0x1013
_ATTACHED, _LONG_NAME, _SHORT_NAME, _CONTENT_ID = 0x3701, 0x3707, 0x3704, 0x3712
_CODE_PAGES = (0x3FDE, 0x3FFD)
_SENT = 0x0039
_UNICODE, _STRING, _BINARY = "001F", "001E", "0102"
_PROPERTIES = "__properties_version1.0"
_ATTACHMENT = "__attach_version1.0_#"
_EMBEDDED = "__substg1.0_3701000D"
_EPOCH = datetime(1601, 1, 1, tzinfo=UTC)


def convert(data: bytes) -> EmailMessage:
    """Read a message of Outlook as a mail.

    Raises:
        UnreadableError: It is damaged.
    """
    with open_ole(data) as container:
        return _Storage(container, []).convert(0)


class _Storage:
    """A message, or something attached to one, in a compound file."""

    def __init__(self, container: Any, path: list[str]) -> None:
        self._container = container
        self._path = path
        self._numbers = self._read_numbers()
        page = next((self._numbers[name] & 0xFFFF for name in _CODE_PAGES if name in self._numbers), 1252)
        self._charset = {65001: "utf-8", 20127: "cp1252", 28591: "cp1252"}.get(page, f"cp{page}")

    def convert(self, depth: int) -> EmailMessage:
        """Make a mail of it."""
        mail = EmailMessage(policy=policy)
        headers: Message = message_from_string(self._string(_HEADERS))
        sender = f"{self._string(_SENDER_NAME)} <{self._string(_SENDER_SMTP) or self._string(_SENDER)}>"
        fields = {
            "Subject": self._string(_SUBJECT) or headers["Subject"],
            "From": headers["From"] or sender.removesuffix(" <>").strip(),
            "To": headers["To"] or self._string(_TO),
            "Cc": headers["Cc"] or self._string(_CC),
            "Date": headers["Date"] or self._date(),
        }
        for name, value in fields.items():
            if text := " ".join(str(value or "").split()):
                mail[name] = text
        body, html = self._string(_BODY), self._binary(_HTML) or self._string(_HTML).encode()
        if body.strip():
            mail.set_content(body)
        elif html:
            mail.set_content(html, "text", "html", params={"charset": self._charset} if self._binary(_HTML) else None)
        for attachment in self._children(_ATTACHMENT):
            attachment.attach_to(mail, depth)
        return mail

    def attach_to(self, mail: EmailMessage, depth: int) -> None:
        """Attach this attachment to a mail."""
        name = self._string(_LONG_NAME) or self._string(_SHORT_NAME)
        if depth < MAX_DEPTH and (inner := self._children(_EMBEDDED)):
            mail.add_attachment(inner[0].convert(depth + 1))
        elif data := self._binary(_ATTACHED):
            cid = self._string(_CONTENT_ID) or None
            kind = "image" if cid and data[:3] in (b"\x89PN", b"\xff\xd8\xff", b"GIF") else "application"
            mail.add_attachment(data, kind, "octet-stream", filename=name or "attachment", cid=cid)

    def _children(self, prefix: str) -> list[_Storage]:
        depth = len(self._path)
        paths = self._container.listdir(streams=False, storages=True)
        return [
            _Storage(self._container, path)
            for path in paths
            if len(path) == depth + 1 and path[:depth] == self._path and path[depth].startswith(prefix)
        ]

    def _stream(self, name: str) -> bytes:
        path = [*self._path, name]
        return bytes(self._container.openstream(path).read()) if self._container.exists("/".join(path)) else b""

    def _string(self, number: int) -> str:
        if data := self._stream(f"__substg1.0_{number:04X}{_UNICODE}"):
            return data.decode("utf-16-le", "ignore").rstrip("\0")
        return _decode(self._stream(f"__substg1.0_{number:04X}{_STRING}"), self._charset).rstrip("\0")

    def _binary(self, number: int) -> bytes:
        return self._stream(f"__substg1.0_{number:04X}{_BINARY}")

    def _read_numbers(self) -> dict[int, int]:
        """The properties that are numbers or times. Each takes 16 bytes, after a header whose length depends on the storage."""
        data = self._stream(_PROPERTIES)
        header = 32 if not self._path else 8 if self._path[-1].startswith(_ATTACHMENT) else 24
        entries = struct.iter_unpack("<HHIQ", data[header : len(data) - (len(data) - header) % 16])
        return {number: value for _, number, _, value in entries}

    def _date(self) -> str:
        try:
            sent = _EPOCH + timedelta(microseconds=self._numbers.get(_SENT, 0) // 10)
        except OverflowError:
            return ""
        return sent.strftime("%a, %d %b %Y %H:%M:%S +0000") if _SENT in self._numbers else ""


def _decode(data: bytes, charset: str) -> str:
    try:
        return data.decode(charset, "replace")
    except LookupError:
        return data.decode("cp1252", "replace")
