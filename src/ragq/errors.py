"""The errors of ragq; each says what was wrong and what to do next.

RagqError
├── TransientError          try again later: the queue does (HTTP 503)
│   ├── UnavailableError    a service is away (HTTP 503)
│   └── OverloadedError     the service is up but too busy (HTTP 429)
└── PermanentError          trying again changes nothing: the job fails now
    ├── InvalidRequestError the caller's input is wrong (HTTP 400)
    ├── AuthenticationError the key is missing or wrong (HTTP 401)
    ├── ForbiddenError      a website sent it that may not (HTTP 403)
    ├── NotFoundError       no such thing for this tenant (HTTP 404)
    ├── GoneError           the thing was this tenant's and has expired (HTTP 410)
    ├── ConflictError       the thing exists and differs (HTTP 409)
    ├── TooLargeError       the body is over a limit (HTTP 413)
    ├── DocumentError       the document cannot be read
    │   └── PoisonError     reading it crashed, or broke a limit: these bytes are not tried again
    └── ConfigurationError  a setting is wrong: the process refuses to start
"""

from __future__ import annotations


class RagqError(Exception):
    """Root of the tree.

    Args:
        message: What was wrong and what to do, for a person.
        detail: What a library or server said of it. It can hold addresses and paths, so it is for logs and terminals
            (`str(error)`), and never for a client of the API.
        code: A stable word for programs, as in OpenAI's `error.code`.
        param: The name of the field at fault, if one is.
        retry_after_seconds: How long to wait before the next try, if known.
    """

    status = 500
    type = "server_error"
    code = "server_error"

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
    code = "try_again"


class UnavailableError(TransientError):
    """A service that is needed does not answer."""

    status = 503
    code = "service_unavailable"


class OverloadedError(TransientError):
    """The service has more work than it can take."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


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
    """A page of another website, or a host name that is not ours, stands behind the request."""

    status = 403
    type = "invalid_request_error"
    code = "forbidden"


class NotFoundError(PermanentError):
    """No such object for this tenant."""

    status = 404
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


class DocumentError(PermanentError):
    """A document cannot be read; `code` is `invalid_file` or `unsupported_file`, OpenAI's words."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_file"


class PoisonError(DocumentError):
    """Reading a document crashed the parser or broke a limit on time, memory or output."""


class ConfigurationError(PermanentError):
    """A setting or a server's configuration makes it unsafe to start."""
