"""The errors of ragq. Each message says what was wrong and what to do next.

RagqError
├── TransientError          a retry may succeed; the queue retries (HTTP 503)
│   ├── UnavailableError    a service is down (HTTP 503)
│   └── OverloadedError     a service is up but too busy (HTTP 429)
│       └── QuotaError      a tenant's budget or storage is used up (HTTP 429)
└── PermanentError          a retry would fail again: the job fails now
    ├── InvalidRequestError the caller's input is wrong (HTTP 400)
    ├── AuthenticationError the key is missing or wrong (HTTP 401)
    ├── ForbiddenError      another website sent the request (HTTP 403)
    ├── NotFoundError       this tenant has no such object (HTTP 404)
    ├── GoneError           the tenant's object has expired (HTTP 410)
    ├── ConflictError       the object exists and differs (HTTP 409)
    ├── TooLargeError       the body is over a limit (HTTP 413)
    ├── DocumentError       the document cannot be read
    │   └── PoisonError     reading it crashed or exceeded a limit: it is not tried again
    └── ConfigurationError  a setting is wrong: the process refuses to start
"""

from __future__ import annotations


class RagqError(Exception):
    """Root of the tree.

    Args:
        message: What was wrong and what to do, for people.
        detail: The message of a library or server. It may hold addresses and paths, so it is for logs and terminals
            (`str(error)`), and never for a client of the API.
        code: Stable name for programs, as in OpenAI's `error.code`.
        param: Name of the field at fault, if any.
        retry_after_seconds: How long to wait before a retry, if known.

    Attributes:
        is_recorded: The audit log has an entry of it.

    Class attributes: `status` of the HTTP response, `exit_code` of a command.
    """

    status = 500
    exit_code = 1
    type = "server_error"
    code = "server_error"
    is_recorded = False

    def __init__(
        self,
        message: str,
        *,
        detail: object = None,
        code: str | None = None,
        param: str | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.detail = "" if detail is None else str(detail) or type(detail).__name__
        self.code = code or type(self).code
        self.param = param
        self.retry_after_seconds = retry_after_seconds

    def __str__(self) -> str:
        return f"{self.message} ({self.detail})" if self.detail else self.message


class TransientError(RagqError):
    """The same call may succeed later."""

    status = 503
    exit_code = 3
    code = "try_again"


class UnavailableError(TransientError):
    """A required service does not answer."""

    status = 503
    code = "service_unavailable"


class OverloadedError(TransientError):
    """The service has too much work to accept more."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class QuotaError(OverloadedError):
    """A tenant's budget or storage is used up; without `retry_after_seconds` something has to be deleted first."""

    type = "insufficient_quota"
    code = "insufficient_quota"


class PermanentError(RagqError):
    """The same call will fail again."""


class InvalidRequestError(PermanentError):
    """The caller's input is wrong; `param` names the field."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_request"


class AuthenticationError(PermanentError):
    """The API key is missing or wrong."""

    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class ForbiddenError(PermanentError):
    """The request comes from a page of another website, or names a host that is not ours."""

    status = 403
    type = "invalid_request_error"
    code = "forbidden"


class NotFoundError(PermanentError):
    """This tenant has no such object."""

    status = 404
    exit_code = 4
    type = "invalid_request_error"
    code = "not_found"


class GoneError(PermanentError):
    """The object was this tenant's, and has expired."""

    status = 410
    type = "invalid_request_error"
    code = "expired"


class ConflictError(PermanentError):
    """The object exists already and differs."""

    status = 409
    type = "invalid_request_error"
    code = "conflict"


class TooLargeError(PermanentError):
    """The body or file is over its limit."""

    status = 413
    type = "invalid_request_error"
    code = "request_too_large"


CONTEXT_TOO_LONG = "context_length_exceeded"  # the code of a question that no shorter prompt made fit its model

DOCUMENT_CODES = ("encrypted", "damaged", "no_text", "wrong_encoding", "too_large", "unsupported_file", "invalid_file")


class DocumentError(PermanentError):
    """A document cannot be read; `code` is one of DOCUMENT_CODES."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_file"


class PoisonError(DocumentError):
    """Reading a document crashed the parser or exceeded a limit on time, memory or output."""


class ConfigurationError(PermanentError):
    """A setting is wrong, or a server's configuration is unsafe."""
