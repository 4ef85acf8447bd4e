"""The input file of a batch, in pieces of any size."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ragq.records import BatchRequest, write_record
from ragq.schemas import batch_lines as batch_input
from ragq.schemas.batch_lines import MAX_ERRORS, InputReader

URL = "/v1/responses"


def line(custom_id: Any = "a", **changes: Any) -> bytes:
    return json.dumps(
        {"custom_id": custom_id, "method": "POST", "url": URL, "body": {"input": "hi"}} | changes
    ).encode()


def read(data: bytes, piece: int = 1 << 20) -> tuple[list[tuple[int, BatchRequest]], list[tuple[str, int | None]]]:
    reader, requests = InputReader(URL), list[tuple[int, BatchRequest]]()
    for start in range(0, len(data), piece):
        requests += reader.feed(data[start : start + piece])
    requests += reader.end()
    return requests, [(error["code"], error["line"]) for error in reader.errors]


@pytest.mark.parametrize("piece", [1, 7, 1000])
def test_lines_are_read_whatever_the_pieces_are(piece: int) -> None:
    data = line("a") + b"\n\n" + line("b \0 東") + b"\r\n" + line("c")
    requests, errors = read(data, piece)
    assert errors == []
    expected = [(1, "a"), (3, "b \0 東"), (4, "c")]
    assert requests == [(number, BatchRequest(custom_id, {"input": "hi"}, URL)) for number, custom_id in expected]
    assert all(b"\0" not in write_record(request) for _, request in requests)  # PostgreSQL's text has none


@pytest.mark.parametrize(
    ("data", "errors"),
    [
        (line() + b"\n" + line(), [("duplicate_custom_id", 2)]),
        (b"{", [("invalid_json_line", 1)]),
        (b"\xff\xfe", [("invalid_json_line", 1)]),
        (b"[" * 100_000, [("invalid_json_line", 1)]),
        (b"7", [("invalid_value", 1)]),
        (line(url="/v1/embeddings"), [("invalid_url", 1)]),
        (line(method="GET"), [("invalid_value", 1)]),
        (line(custom_id=7), [("invalid_value", 1)]),
        (line(body=[]), [("invalid_value", 1)]),
        (line("\ud800"), [("invalid_value", 1)]),
        (b'{"custom_id": "a"}', [("missing_required_parameter", 1)]),
        (b"\n \n", [("empty_file", None)]),
        (line("a") + b"\n{\n" + line("b", url="x"), [("invalid_json_line", 2), ("invalid_url", 3)]),
    ],
)
def test_a_wrong_line_is_named(data: bytes, errors: list[tuple[str, int | None]]) -> None:
    assert read(data)[1] == errors


def test_limits_end_the_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_input, "MAX_LINES", 2)
    monkeypatch.setattr(batch_input, "MAX_LINE_BYTES", 1000)
    assert read(b"\n".join(line(str(number)) for number in range(5)))[1] == [("batch_too_large", 3)]
    assert read(b"x" * 100_000, 600)[1] == [("batch_too_large", 1)]
    monkeypatch.setattr(batch_input, "MAX_LINES", 10_000)
    assert len(read(b"{\n" * 1000)[1]) == MAX_ERRORS
