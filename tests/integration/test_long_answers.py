"""Long answers beside short ones, on one worker."""

from __future__ import annotations

import statistics
import time

import pytest
from openai import OpenAI

from tests.servers import wait_until

STREAMS = 10
# Words of 40 letters without a full stop, 500 a second: 102,500 characters in five seconds.
LONG = "[[fake text=abcdefghijklmnopqrstabcdefghijklmnopqrst tokens=2500 rate=500]] Tell all of it."
SHORT = "[[fake text=Short. latency=0.3]] How tall is it?"
ROUNDS = 3  # the machine may be busy: the best counts


def median_of_short_answers(client: OpenAI, count: int = 9) -> float:
    def seconds() -> float:
        started = time.monotonic()
        answered = client.responses.create(model="ragq", input=SHORT, extra_body={"vector_store_ids": []})
        assert answered.output_text == "Short."
        return time.monotonic() - started

    return statistics.median(seconds() for _ in range(count))


def ratio_beside_long_answers(client: OpenAI) -> float:
    """How many times as long a short answer takes while the long ones grow."""
    alone = median_of_short_answers(client)
    ids = []
    for _ in range(STREAMS):
        asked = client.responses.create(
            model="ragq", input=LONG, extra_body={"vector_store_ids": []}, background=True, stream=True
        )
        with asked as events:
            ids.append(next(iter(events)).response.id)  # type: ignore[union-attr]

    def are(status: str) -> bool:
        return all(client.responses.retrieve(id_).status == status for id_ in ids)

    wait_until(lambda: are("in_progress"))
    beside = median_of_short_answers(client)  # for three seconds
    wait_until(lambda: are("completed"), seconds=40)
    assert all(len(client.responses.retrieve(id_).output_text) > 100_000 for id_ in ids)
    return beside / alone


@pytest.mark.timeout(180)
def test_ten_answers_of_100_000_characters_hardly_delay_a_short_one(client: OpenAI) -> None:
    ratios: list[float] = []
    while len(ratios) < ROUNDS and min(ratios, default=9) > 1.2:
        ratios.append(ratio_beside_long_answers(client))
    assert min(ratios) <= 1.2, ratios
