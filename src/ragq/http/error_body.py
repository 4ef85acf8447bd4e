"""Error responses."""

from __future__ import annotations

import math

from fastapi.responses import JSONResponse

from ragq.errors import ConflictError, RagqError, TooLargeError
from ragq.schemas.objects import error_body


def error_response(error: RagqError, status: int | None = None, *, closes: bool = False) -> JSONResponse:
    """Make an error response.

    Args:
        closes: Close the connection, because the rest of the body is not read.
    """
    headers = {}
    if error.retry_after_seconds is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_seconds)))
        headers["retry-after-ms"] = str(round(error.retry_after_seconds * 1000))
    if isinstance(error, ConflictError):
        headers["x-should-retry"] = "false"
    if closes or isinstance(error, TooLargeError):
        headers["Connection"] = "close"
    return JSONResponse(error_body(error), status or error.status, headers=headers)
