"""A real LLM that is killed in the middle of its answers, and answers that nobody waits for any more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai.types.responses import Response

from tests.llm.llama import LlamaServer
from tests.llm.test_answers import QUESTION
from tests.servers import wait_until

OUTPUT_TOKENS = 60
LONG: dict[str, Any] = {
    "model": "ragq",
    "temperature": 0,
    "max_output_tokens": OUTPUT_TOKENS,
    "background": True,
    "extra_body": {"ignore_eos": True},
}
ANSWER_SECONDS = 120
CANCEL_SECONDS = 2


def end_of(client: openai.OpenAI, response_id: str) -> Response:
    """The response, once it has ended."""

    def look() -> Response | None:
        response = client.responses.retrieve(response_id)
        return None if response.status in ("queued", "in_progress") else response

    response = wait_until(look, seconds=ANSWER_SECONDS, what="the response has ended")
    assert response
    return response


def begin(client: openai.OpenAI) -> tuple[str, Iterator[Any]]:
    """Ask for a long answer; returns its id and the rest of its stream, after the first text."""
    stream = iter(client.responses.create(input=QUESTION, stream=True, **LONG))
    created = next(stream)
    next(event for event in stream if event.type == "response.output_text.delta")
    return created.response.id, stream


@pytest.mark.parametrize("away_seconds", [0, 5])
def test_an_llm_that_is_killed_in_the_middle_of_its_answers_gives_all_of_them_when_it_is_back(
    client: openai.OpenAI, llm: LlamaServer, away_seconds: float
) -> None:
    streamed, stream = begin(client)
    waiting = [client.responses.create(input=f"{QUESTION} ({n})", **LONG).id for n in range(2)]
    llm.kill()
    llm.start_in(away_seconds)
    events = list(stream)
    for response_id in (streamed, *waiting):
        response = end_of(client, response_id)
        assert (response.status, response.error) == ("incomplete", None)
        assert response.output_text
        assert response.usage
        assert response.usage.output_tokens == OUTPUT_TOKENS
    assert events[-1].type == "response.incomplete"
    assert events[-1].response.output_text == client.responses.retrieve(streamed).output_text
    numbers = [event.sequence_number for event in events]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_a_cancelled_response_ends_the_answer_in_the_llm(client: openai.OpenAI, llm: LlamaServer) -> None:
    response_id, stream = begin(client)
    assert llm.running() == 1
    before = llm.generated()
    assert client.responses.cancel(response_id).status == "cancelled"
    wait_until(lambda: llm.running() == 0, seconds=CANCEL_SECONDS, what="the LLM generates no more")
    assert llm.generated() - before < OUTPUT_TOKENS
    assert client.responses.retrieve(response_id).status == "cancelled"
    list(stream)


def test_a_reader_who_leaves_loses_no_background_answer(client: openai.OpenAI) -> None:
    stream = client.responses.create(input=QUESTION, stream=True, **LONG)
    created: Any = next(iter(stream))
    stream.close()
    assert end_of(client, created.response.id).status == "incomplete"
