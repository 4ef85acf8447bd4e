"""Error responses."""

from __future__ import annotations

import math

from fastapi.responses import JSONResponse

from ragq.errors import ConflictError, QuotaError, RagqError, TooLargeError
from ragq.schemas.objects import error_body

LONGEST_RETRY_SECONDS = 60.0  # the official clients ignore a longer Retry-After, and would try again at once


def error_response(error: RagqError, status: int | None = None, *, closes: bool = False) -> JSONResponse:
    """Make an error response.

    Args:
        closes: Close the connection, because the rest of the body is not read.
    """
    headers = {}
    if error.retry_after_seconds is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_seconds)))
        headers["retry-after-ms"] = str(round(error.retry_after_seconds * 1000))
    if isinstance(error, ConflictError) or _is_far(error):
        headers["x-should-retry"] = "false"
    if closes or isinstance(error, TooLargeError):
        headers["Connection"] = "close"
    return JSONResponse(error_body(error), status or error.status, headers=headers)


def _is_far(error: RagqError) -> bool:
    """Whether a retry within the time that clients wait would be refused again."""
    return (isinstance(error, QuotaError) and error.retry_after_seconds is None) or (
        error.retry_after_seconds or 0
    ) > LONGEST_RETRY_SECONDS
