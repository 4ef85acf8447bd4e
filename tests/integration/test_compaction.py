"""Conversations made short, with the official SDK, by an LLM and without one."""

from __future__ import annotations

from typing import Any

import httpx2
import openai
import pytest

from ragq.rag.compact import SUMMARIZE, TASK
from tests.servers import FakeLlm, Ragq

SUMMARY = "The launch is on Tuesday."
TALK: Any = [
    {"role": "user", "content": f"We launch on Tuesday. [[fake text='{SUMMARY}' job=compaction]]"},
    {"role": "assistant", "content": "Understood."},
    {"role": "user", "content": "And we tell support first."},
    {"role": "assistant", "content": "Noted."},
]


@pytest.fixture
def plain(plain_ragq: Ragq) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{plain_ragq.url}/v1", api_key="none", max_retries=0)


def test_a_conversation_is_summarized_and_goes_on_from_the_summary(client: openai.OpenAI, llm: FakeLlm) -> None:
    compacted = client.responses.compact(model="ragq", input=TALK, instructions="You plan launches.")
    assert llm.last_messages()[0] == {"role": "system", "content": f"{TASK}\n\nYou plan launches."}
    assert llm.last_messages()[-1] == {"role": "user", "content": SUMMARIZE}
    assert compacted.object == "response.compaction"
    assert [item.type for item in compacted.output] == ["message", "message", "compaction"]
    first: Any = compacted.output[0]
    assert (first.role, first.content[0].text) == ("user", TALK[0]["content"])
    assert compacted.usage.total_tokens > 0
    sent: Any = [item.model_dump(exclude_unset=True, warnings=False) for item in compacted.output]
    answer = client.responses.create(input=[*sent, {"role": "user", "content": "When?"}])
    assert answer.status == "completed"
    history = [one["content"] for one in llm.last_messages()[1:]]
    assert history[:2] == [SUMMARIZE, SUMMARY]
    assert history[2].endswith("Question: When?")
    again = client.responses.create(input="And who is told?", previous_response_id=answer.id)
    assert again.status == "completed"
    assert [one["content"] for one in llm.last_messages()[1:3]] == [SUMMARIZE, SUMMARY]
    shown = list(client.responses.input_items.list(answer.id, order="asc"))
    assert shown[2].type == "compaction"


def test_the_conversation_of_a_response_is_compacted_with_its_answer(client: openai.OpenAI, llm: FakeLlm) -> None:
    first = client.responses.create(input="How tall is the lighthouse of Quorra?")
    compacted = client.responses.compact(model="ragq", previous_response_id=first.id, input="Thank you.")
    assert first.output_text in [one["content"] for one in llm.last_messages()]
    texts = [item.content[0].text for item in compacted.output[:-1] if item.type == "message"]  # type: ignore[union-attr]
    assert texts == ["How tall is the lighthouse of Quorra?", "Thank you."]


def test_a_summary_that_cannot_be_made_is_an_error_and_no_response(client: openai.OpenAI) -> None:
    talk: Any = [{"role": "user", "content": "Hi. [[fake status=401 message=no job=none]]"}]
    with pytest.raises(openai.InternalServerError):
        client.responses.compact(model="ragq", input=talk)
    compacted = client.responses.compact(model="ragq", input=TALK)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(compacted.id)


def test_without_an_llm_the_last_turns_are_kept_word_for_word(plain: openai.OpenAI, plain_ragq: Ragq) -> None:
    talk = [*TALK, {"role": "user", "content": "Anything else?"}]
    compacted = plain.responses.compact(model="ragq", input=talk)
    assert compacted.usage.total_tokens == 0
    assert [item.type for item in compacted.output] == ["message"] * 3 + ["compaction"]
    only: Any = [compacted.output[-1].model_dump()]
    asked = [*only, {"role": "user", "content": "When?"}]
    assert plain.responses.create(input=asked).status == "completed"
    counted = httpx2.post(f"{plain_ragq.url}/v1/responses/input_tokens", json={"input": asked}).json()
    whole = httpx2.post(f"{plain_ragq.url}/v1/responses/input_tokens", json={"input": [*TALK, asked[-1]]}).json()
    assert counted == whole


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"input": "Compact this."}, 400, "model"),
        ({"model": None, "input": "Compact this."}, 400, "model"),
        ({"model": "gpt-9", "input": "Compact this."}, 404, "model"),
        ({"model": "ragq"}, 400, "input"),
        ({"model": "ragq", "input": []}, 400, "input"),
        ({"model": "ragq", "previous_response_id": "resp_unknown"}, 404, "previous_response_id"),
        (
            {"model": "ragq", "input": [{"type": "compaction", "encrypted_content": "x"}]},
            400,
            "input.0.encrypted_content",
        ),
    ],
)
def test_what_cannot_be_compacted_is_refused_by_name(
    http: httpx2.Client, body: dict[str, Any], status: int, param: str
) -> None:
    answer = http.post("/v1/responses/compact", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)
