"""What a connection remembers of responses that were not stored."""

from __future__ import annotations

from dataclasses import replace

from ragq.http.access import MAX_JSON_BYTES
from ragq.records import Job, Request
from ragq.websocket import memory
from ragq.websocket.memory import Memory
from tests.unit.test_stream_events import STARTED


def response(id_: str, *, characters: int = 1) -> Job:
    return replace(STARTED, id=id_, request=Request(model="ragq", instructions="a" * characters))


def test_each_stream_has_its_latest_response() -> None:
    kept = Memory()
    for stream_id, id_ in ((None, "a"), ("left", "b"), ("left", "c"), (None, "d")):
        kept.keep(stream_id, response(id_))
    assert [bool(kept.find(id_)) for id_ in "abcd"] == [False, False, True, True]
    kept.forget("c")
    kept.forget("unknown")
    assert [bool(kept.find(id_)) for id_ in "cd"] == [False, True]
    assert kept.find(None) is None


def test_the_oldest_are_forgotten_beyond_a_number_and_a_size() -> None:
    kept = Memory()
    for number in range(memory.MAX_RESPONSES + 1):
        kept.keep(str(number), response(f"number {number}"))
    assert kept.find("number 0") is None
    assert kept.find("number 1")
    half = MAX_JSON_BYTES // 2
    for id_ in ("large", "larger"):
        kept.keep(id_, response(id_, characters=half))
    assert kept.find("large") is None
    assert kept.find(f"number {memory.MAX_RESPONSES}") is None
    assert kept.find("larger")
    kept.keep("too large", response("too large", characters=MAX_JSON_BYTES))
    assert kept.find("too large") is None
    assert kept.find("larger") is None
