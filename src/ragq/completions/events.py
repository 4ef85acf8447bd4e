"""Split the body of an answer into its events: server-sent events, or one JSON object."""

from __future__ import annotations

from typing import Final

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_JSON: Final = (b"{", b"[")


class ErrorEvent(bytes):
    """The data of an event that the server calls an error: `event: error`, or llama.cpp's field `error:`."""

    __slots__ = ()


class EventReader:
    """Reads a body piece by piece; pieces may be cut anywhere.

    Attributes:
        is_html: The body is a page, not an answer.
        seen: Number of events and comments so far. A comment is how servers say that they are still alive.
        pending_bytes: Size of the incomplete event.
        body_bytes: Size of all that was read.
    """

    def __init__(self) -> None:
        self.is_html, self.seen, self.pending_bytes, self.body_bytes = False, 0, 0, 0
        self._format = b""  # the first byte of the body
        self._buffer, self._buffer_bytes = list[bytes](), 0  # the incomplete last line
        self._event, self._event_bytes, self._is_error = list[bytes](), 0, False

    def feed(self, data: bytes) -> list[bytes]:
        """Read bytes of the body (none at its end); returns the data of the events that are complete now."""
        self._buffer.append(data)
        self._buffer_bytes += len(data)
        self.body_bytes += len(data)
        if not self._format and (not data or self._buffer_bytes > len(_BYTE_ORDER_MARK)):
            begun = b"".join(self._buffer).removeprefix(_BYTE_ORDER_MARK).lstrip()
            self._buffer, self._format = [begun], begun[:1]
            self.is_html = self._format == b"<"
        events: list[bytes] = []
        if self._format in _JSON:
            if not data:
                events.append(b"".join(self._buffer))
        elif self._format and (b"\n" in self._buffer[-1] or not data):
            *lines, rest = b"".join([*self._buffer, b"" if data else b"\n\n"]).split(b"\n")
            self._buffer, self._buffer_bytes = [rest], len(rest)
            self._read_lines(lines, events)
        self.pending_bytes = self._buffer_bytes + self._event_bytes
        return events

    def _read_lines(self, lines: list[bytes], events: list[bytes]) -> None:
        for line in lines:
            if line.startswith(b"data:"):
                self._event.append(line[5:].strip())
                self._event_bytes += len(line)
            elif line in (b"", b"\r"):
                if self._event:
                    self._end_event(events)
                self._is_error = False
            elif line.startswith(b":"):
                self.seen += 1
            elif line.startswith(b"event:"):
                self._is_error = line[6:].strip() == b"error"
            elif line.startswith(b"error:"):
                self._event.append(line[6:].strip())
                self._event_bytes += len(line)
                self._is_error = True

    def _end_event(self, events: list[bytes]) -> None:
        data = b"\n".join(self._event) if len(self._event) > 1 else self._event[0]
        self._event.clear()
        self._event_bytes = 0
        self.seen += 1
        if data:
            events.append(ErrorEvent(data) if self._is_error else data)
