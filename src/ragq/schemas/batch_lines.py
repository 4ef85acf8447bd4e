"""Parse and validate the input file of a batch, piece by piece."""

from __future__ import annotations

import json
from typing import Any, Final, Literal

from pydantic import Field

from ragq.errors import InvalidRequestError
from ragq.records import BatchRequest
from ragq.schemas.checks import MAX_VALUES, check_json
from ragq.schemas.embeddings import MAX_EMBEDDING_VALUES
from ragq.schemas.objects import Body, validate

Endpoint = Literal["/v1/responses", "/v1/chat/completions", "/v1/completions", "/v1/embeddings"]
EMBEDDINGS: Final = "/v1/embeddings"
MAX_LINES = 50_000
MAX_INPUTS = 50_000  # of the embeddings of a batch, as at OpenAI: each vector takes some 8 KB of the output file
MAX_LINE_BYTES = 4 << 20  # the limit of a request's body
MAX_ERRORS = 100  # validation stops here


class BatchLine(Body):
    """A line: a request and the caller's id for it."""

    custom_id: str = Field(min_length=1, max_length=512)
    method: Literal["POST"]
    url: str
    body: dict[str, Any]


class InputReader:
    """Parses a file's bytes into (line number, request).

    Attributes:
        errors: The errors, as in the batch object.
        is_hopeless: There are so many errors that the rest need not be read.
    """

    def __init__(self, endpoint: str) -> None:
        self.errors: list[dict[str, Any]] = []
        self.is_hopeless = False
        self._endpoint = endpoint
        self._number = 0
        self._count = 0
        self._inputs = 0
        self._max_values = MAX_EMBEDDING_VALUES if endpoint == EMBEDDINGS else MAX_VALUES
        self._rest = b""
        self._known: set[str] = set()

    def feed(self, piece: bytes) -> list[tuple[int, BatchRequest]]:
        """Parse the lines that a piece completes."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        if len(self._rest) > MAX_LINE_BYTES:
            lines.append(self._rest)
        return self._read(lines)

    def end(self) -> list[tuple[int, BatchRequest]]:
        """Parse the last line and check the file as a whole."""
        last = self._read([self._rest])
        if not self._count:
            error = InvalidRequestError("The file has no requests.", code="empty_file")
            self.errors.append(_render(error, None))
        return last

    def _read(self, lines: list[bytes]) -> list[tuple[int, BatchRequest]]:
        requests = []
        for line in lines:
            self._number += 1
            if self.is_hopeless or not line.strip():
                continue
            self._count += 1
            try:
                requests.append((self._number, self._check(line)))
            except InvalidRequestError as error:
                self.errors.append(_render(error, self._number))
                self.is_hopeless |= len(self.errors) >= MAX_ERRORS
        return requests

    def _check(self, line: bytes) -> BatchRequest:
        if self._count > MAX_LINES or len(line) > MAX_LINE_BYTES:
            self.is_hopeless = True
            limits = f"at most {MAX_LINES} lines, and a line at most {MAX_LINE_BYTES} bytes"
            raise InvalidRequestError(f"A batch has {limits}.", code="batch_too_large")
        try:
            value = json.loads(line)
            check_json(value, allow_nul=True, max_values=self._max_values)
            read = validate(BatchLine, value)
        except (ValueError, RecursionError) as error:
            raise InvalidRequestError("The line is not valid JSON.", code="invalid_json_line") from error
        if read.url != self._endpoint:
            raise InvalidRequestError(f"The URL must be {self._endpoint}.", code="invalid_url", param="url")
        self._count_inputs(read.body.get("input"))
        if read.custom_id in self._known:
            raise InvalidRequestError(
                f"The custom_id '{read.custom_id[:80]}' is already used by an earlier line.",
                code="duplicate_custom_id",
                param="custom_id",
            )
        self._known.add(read.custom_id)
        return BatchRequest(read.custom_id, read.body, read.url)

    def _count_inputs(self, given: Any) -> None:
        is_many = isinstance(given, list) and not (given and isinstance(given[0], int))
        self._inputs += len(given) if is_many else 1
        if self._endpoint == EMBEDDINGS and self._inputs > MAX_INPUTS:
            self.is_hopeless = True
            raise InvalidRequestError(
                f"A batch of embeddings has at most {MAX_INPUTS} inputs.", code="batch_too_large", param="body.input"
            )


def _render(error: InvalidRequestError, number: int | None) -> dict[str, Any]:
    return {"code": error.code, "message": error.message, "param": error.param, "line": number}
