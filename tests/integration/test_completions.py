"""OpenAI's old completions, with the official SDK."""

from __future__ import annotations

from typing import Any

import httpx2
import openai
import pytest

from tests.servers import FakeLlm, Ragq

PROMPT = "How tall is the lighthouse of Quorra?"


def test_a_prompt_is_answered_with_citations_beside_the_text(client: openai.OpenAI) -> None:
    for prompt in (PROMPT, [PROMPT]):
        done = client.completions.create(model="ragq", prompt=prompt, max_tokens=100, suffix="!", best_of=1)
        (choice,) = done.choices
        assert (done.object, done.model, done.id[:5]) == ("text_completion", "ragq", "cmpl-")
        assert "61 metres" in choice.text
        assert (choice.finish_reason, choice.logprobs) == ("stop", None)
        assert (choice.model_extra or {})["annotations"][0]["citation"]["filename"] == "harbour.md"
        assert done.usage
        assert done.usage.total_tokens > 0


def test_a_stream_says_the_same_and_may_begin_with_the_prompt(client: openai.OpenAI) -> None:
    whole = client.completions.create(model="ragq", prompt=PROMPT, echo=True)
    assert whole.choices[0].text.startswith(PROMPT)
    stream = client.completions.create(
        model="ragq", prompt=PROMPT, echo=True, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert {chunk.object for chunk in chunks} == {"text_completion"}
    assert "".join(chunk.choices[0].text for chunk in chunks[:-1]) == whole.choices[0].text
    assert [chunk.choices[0].finish_reason for chunk in chunks[-3:-1]] == [None, "stop"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage
    assert chunks[-1].usage.total_tokens > 0


def test_generation_fields_reach_the_llm_and_what_only_a_chat_has_does_not(client: openai.OpenAI, llm: FakeLlm) -> None:
    chat_only: Any = {"tools": [{"type": "function", "function": {"name": "f"}}], "messages": [], "min_p": 0.1}
    client.completions.create(
        model="ragq", prompt=PROMPT, max_tokens=7, stop=["END"], seed=3, temperature=0.5, extra_body=chat_only
    )
    sent = httpx2.get(llm.base_url.replace("/v1", "/requests")).json()[-1]
    assert (sent["max_tokens"], sent["stop"], sent["seed"], sent["temperature"]) == (7, ["END"], 3, 0.5)
    assert sent["min_p"] == 0.1
    assert "tools" not in sent
    assert sent["messages"][-1]["content"].endswith(f"Question: {PROMPT}")


def test_reasoning_is_left_out_and_an_answer_that_was_cut_says_so(client: openai.OpenAI) -> None:
    prompt = "Why? [[fake reasoning='Let me see.' text='So it is.' finish=length]]"
    done = client.completions.create(model="ragq", prompt=prompt)
    assert (done.choices[0].text, done.choices[0].finish_reason) == ("So it is.", "length")
    streamed = client.completions.create(model="ragq", prompt=prompt, stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed) == "So it is."


def test_without_an_llm_the_documents_answer(plain_ragq: Ragq) -> None:
    done = httpx2.post(f"{plain_ragq.url}/v1/completions", json={"prompt": PROMPT}, timeout=60).json()
    assert done["object"] == "text_completion"
    assert done["choices"][0]["text"]


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({}, 400, "prompt"),
        ({"prompt": None}, 400, "prompt"),
        ({"prompt": "  "}, 400, "prompt"),
        ({"prompt": []}, 400, "prompt"),
        ({"prompt": ["a", "b"]}, 400, "prompt"),
        ({"prompt": [1, 2, 3]}, 400, "prompt"),
        ({"prompt": [[1, 2, 3]]}, 400, "prompt"),
        ({"prompt": PROMPT, "n": 2}, 400, "n"),
        ({"prompt": PROMPT, "logprobs": 1}, 400, "logprobs"),
        ({"prompt": PROMPT, "model": "gpt-9"}, 404, "model"),
        ({"prompt": PROMPT, "vector_store_ids": ["vs_x"]}, 404, "vector_store_id"),
        ({"prompt": "Why? [[fake status=401 message=no]]"}, 500, None),
    ],
)
def test_what_cannot_be_answered_is_refused_by_name(
    http: httpx2.Client, fields: dict[str, Any], status: int, param: str | None
) -> None:
    answer = http.post("/v1/completions", json=fields)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)
    assert "function-after" not in answer.json()["error"]["message"]
