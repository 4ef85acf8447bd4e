"""What of a server's message may be shown."""

from __future__ import annotations

import base64
import time

import pytest

from ragq.client.quoting import quote
from tests.echo_server import ENCODINGS

KEY = "sk-Canary4711-Zq8xWv2pLm6nBt3k"
TEXT = "Captain Ödegaard sold forty quills & an <astrolabe> to the canary of documents in Trondheim."


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("part", [KEY, KEY[5:21], TEXT, TEXT[20:60], "Wer war Ödegaard"])
def test_a_repetition_is_hidden_however_it_is_written(encoding: str, part: str) -> None:
    said = quote(f"Refused: {ENCODINGS[encoding](part)} is wrong.", [KEY, ""], ["Hm?", TEXT, "Wer war Ödegaard"])
    assert "not shown" in said
    assert "Refused" not in said


@pytest.mark.parametrize("start", range(24))
def test_a_part_of_23_letters_is_found_wherever_it_begins(start: int) -> None:
    letters = "".join(chr(97 + place % 26) + str(place) for place in range(100))
    assert "not shown" in quote(f"... {letters[start : start + 23]} ...", [], [letters])


@pytest.mark.parametrize(
    "message",
    [
        "The model `tiny` does not exist.",
        "Unsupported parameter: 'encoding_format' is not supported with this model.",
        "This model's maximum context length is 8192 tokens, however you requested 9000 tokens.",
        "batch size 64 > maximum allowed batch size 32",
        "Invalid base64: " + base64.b64encode(b"no secret at all").decode(),
    ],
)
def test_other_messages_are_quoted(message: str) -> None:
    assert quote(message, [KEY, ""], [TEXT, "Why?", ""]) == f": {message}"


def test_a_quotation_is_short_on_one_line_and_without_control_characters() -> None:
    assert quote("a\nb\x1b[2J\u202ec\0 d", [], []) == ": a b [2J c d"
    assert quote("x" * 10_000, [], []) == ": " + "x" * 300
    assert quote(" \n", [KEY], [TEXT]) == ""


def test_the_cost_is_linear_in_what_was_sent_and_small() -> None:
    message = "".join(f"%{place % 90 + 10} AAAA{place}" for place in range(2_000))

    def seconds(count: int) -> float:
        texts = [f"{place} " + "lorem ipsum dolor " * 45 for place in range(count)]
        started = time.thread_time()
        quote(message, [KEY], texts)
        return time.thread_time() - started

    few, many = (min(seconds(count) for _ in range(5)) for count in (32, 320))
    assert few < 0.1
    assert many < 30 * few
