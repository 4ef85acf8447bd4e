"""What a client sends over a WebSocket and what it is sent, as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from ragq.errors import InvalidRequestError, RagqError, UnavailableError
from ragq.records import Job
from ragq.schemas.checks import check_json
from ragq.schemas.objects import error_body, validate, write_line
from ragq.schemas.questions import ResponseCreate
from ragq.schemas.response_events import Event, ResponseEvents

CREATE = "response.create"
NOT_ANSWERED = "The response was deleted or cancelled before it ended: send the request again."
CUT = "The rest of the events cannot be sent now: retrieve the response."


@dataclass(frozen=True, slots=True)
class Turn:
    """A client's request for a response.

    Attributes:
        stream_id: The client's name for it, which each of its events repeats.
    """

    fields: dict[str, Any]
    stream_id: str | None


def read_message(message: str | bytes) -> Turn:
    """Read a client's message; its fields stand beside `type` or, as in OpenAI's realtime API, in `response`.

    Raises:
        InvalidRequestError: It is not a request for a response.
    """
    try:
        fields = json.loads(message)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError("The message is not valid JSON.", code="invalid_json") from error
    check_json(fields)
    kind = fields.pop("type", None) if isinstance(fields, dict) else None
    if kind != CREATE:
        raise InvalidRequestError(
            f"Wrong value for 'type': there is '{CREATE}' only.", code="invalid_value", param="type"
        )
    stream_id = fields.pop("stream_id", None)
    if stream_id is not None and not (isinstance(stream_id, str) and len(stream_id) <= 64):
        raise InvalidRequestError("Wrong value for 'stream_id': it is text of up to 64 characters.", param="stream_id")
    nested = fields.pop("response", None)
    return Turn(fields | nested if isinstance(nested, dict) else fields, stream_id)


def read_body(fields: dict[str, Any]) -> ResponseCreate:
    """Validate the fields of a request for a response.

    Raises:
        InvalidRequestError: The error names the field.
    """
    body = validate(ResponseCreate, fields)
    if body.background:
        raise InvalidRequestError(
            "A response in the background is created over HTTP: leave out background.",
            code="unsupported_parameter",
            param="background",
        )
    if fields.get("generate") is False:
        raise InvalidRequestError(
            "ragq prepares no response ahead: leave out generate.", code="unsupported_parameter", param="generate"
        )
    return body.model_copy(update={"stream": True})


def render_error(error: RagqError) -> Event:
    """Render an error as the event that OpenAI sends for it."""
    shown = error_body(error)["error"]
    if error.retry_after_seconds is not None:
        shown["headers"] = {"retry-after-ms": str(round(error.retry_after_seconds * 1000))}
    return {"type": "error", "status": error.status, "error": shown}


def write_event(event: Event, stream_id: str | None) -> str:
    """Serialize an event as a message."""
    return write_line(event if stream_id is None else event | {"stream_id": stream_id})


class SocketEvents(ResponseEvents):
    """The events of a response as messages. Since the connection stays open, there is always a last one.

    Args:
        stream_id: The client's name for the response.
    """

    def __init__(self, job: Job, *, results: bool, page: str, stream_id: str | None) -> None:
        super().__init__(job, results=results, page=page)
        self._stream_id = stream_id

    def end(self, job: Job) -> list[Event]:
        """The last events; an error if the response was cancelled."""
        return super().end(job) or [render_error(UnavailableError(NOT_ANSWERED, code="not_answered"))]

    def cut(self) -> list[Event]:
        """An error, because the reader waits for the rest."""
        return [render_error(UnavailableError(CUT, code="stream_cut"))]

    def write(self, event: Event) -> bytes:
        """Serialize an event."""
        return write_event(event, self._stream_id).encode()
