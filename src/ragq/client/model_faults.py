"""The errors of calls to served models, classified: retry, or fail now.

A worker without served models imports this, so it does not import an HTTP client. Faults are raised `from None`: the
message of a library's exception may repeat what the server sent.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final, Literal

from ragq.completions.server_errors import ServerError, read_error
from ragq.errors import (
    CONTEXT_TOO_LONG,
    ConfigurationError,
    OverloadedError,
    PermanentError,
    RagqError,
    UnavailableError,
)

Kind = Literal["llm", "embedding", "rerank"]

_WRONG_SETTING: Final = {
    401: ("authentication", "API_KEY"),
    403: ("forbidden", "API_KEY"),
    404: ("not_found", "BASE_URL and MODEL"),
    **dict.fromkeys(range(300, 400), ("bad_request", "BASE_URL: it redirects")),
}


class RefusedInputError(PermanentError):
    """The server refused this input; it may accept another."""


class ContextTooLongError(RefusedInputError):
    """The input exceeds the model's context; a shorter one would work.

    Attributes:
        otherwise: Set if the server did not say so, and a long prompt is only a guess: the error to raise if the prompt
            cannot be made shorter, or a shorter one failed, too.
    """

    code = CONTEXT_TOO_LONG
    otherwise: RagqError | None = None


class FaultError(Exception):
    """Why one call failed: `reason` in our words, `quote` in the server's, which may contain secrets.

    Attributes:
        told: What the server's error body says; None for faults of other kinds.
        status: The HTTP status of that error; 0 for faults of other kinds.
        param: Name of the request's field that the server refuses.
    """

    told: ServerError | None = None
    status: int = 0
    param: str | None = None

    def __init__(
        self, error: type[RagqError], code: str, reason: str, quote: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(reason)
        self.error, self.code, self.reason, self.quote, self.retry_after = error, code, reason, quote, retry_after


def server_fault(kind: Kind, status: int, body: object, retry_after: float | None = None) -> FaultError:
    """Classify a server's error by its status and its body, JSON or text.

    Args:
        status: 200 for an error inside a stream, whose body says what its status would have been.
    """
    told = read_error(body)
    if status == HTTPStatus.OK:
        status = told.status or HTTPStatus.INTERNAL_SERVER_ERROR
    fault = _body_fault(kind, status, told) or _status_fault(kind, status, told.words, retry_after)
    fault.told, fault.status = told, status
    return fault


def _body_fault(kind: Kind, status: int, told: ServerError) -> FaultError | None:
    """The fault for an error that its body tells apart."""
    quote, names, reason = told.words, told.names, f"status {int(status)}"
    is_rate = status == HTTPStatus.TOO_MANY_REQUESTS and "context_" not in names
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE or (told.is_context_too_long and not is_rate):
        too_long = "the prompt is too long" if kind == "llm" else "the texts are too long"
        return FaultError(ContextTooLongError, ContextTooLongError.code, f"{reason}, {too_long}", quote)
    if status == HTTPStatus.PAYMENT_REQUIRED or "insufficient_quota" in names:
        return FaultError(PermanentError, "insufficient_quota", f"{reason}, the quota is used up", quote)
    if "content_filter" in names or "content_policy" in names:
        return FaultError(RefusedInputError, "content_filter", f"{reason}, refused by the content filter", quote)
    return None


def _status_fault(kind: Kind, status: int, quote: str, retry_after: float | None) -> FaultError:
    reason = f"status {int(status)}"
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return FaultError(OverloadedError, f"{kind}_rate_limited", reason, quote, retry_after)
    if status in (408, 409, 425) or status in range(500, 600):
        return FaultError(UnavailableError, f"{kind}_unavailable", reason, quote, retry_after)
    if status in _WRONG_SETTING:
        word, setting = _WRONG_SETTING[status]
        advice = f"{reason}, check RAGQ_{kind.upper()}_{setting}"
        return FaultError(ConfigurationError, f"{kind}_{word}", advice, quote)
    return FaultError(RefusedInputError, f"{kind}_bad_request", reason, quote)
