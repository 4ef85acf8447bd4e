"""How the LLM client adapts to what a server refuses, over HTTP: fields, values, and prompts."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs

from ragq.client.model_faults import ContextTooLongError, RefusedInputError
from ragq.errors import PermanentError, RagqError, UnavailableError
from tests.fake_llm import Behaviour
from tests.llm_calls import ASKED, calling
from tests.unit.test_server_errors import TOO_LONG

TOOL = {"type": "function", "function": {"name": "weather", "parameters": {}}}
OPTIONS: dict[str, Any] = {
    "temperature": 0.5,
    "top_p": 0.25,
    "max_tokens": 50,
    "stop": ["end"],
    "seed": 7,
    "frequency_penalty": 0.1,
    "presence_penalty": 0.1,
    "logit_bias": {"1": 2},
    "logprobs": True,
    "top_logprobs": 2,
    "reasoning_effort": "low",
    "verbosity": "low",
    "response_format": {"type": "json_object"},
    "tools": [TOOL],
    "tool_choice": "auto",
    "parallel_tool_calls": False,
    "user": "someone",
    "metadata": {"a": "b"},
    "top_k": 7,
    "min_p": 0.1,
    "chat_template_kwargs": {"enable_thinking": False},
}
ESSENTIAL = {"response_format"}
LONG = [{"role": "user", "content": "Where is the harbour of Quorra? " * 400}]
SHORT = [{"role": "user", "content": "Where is the harbour of Quorra? " * 200}]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


async def test_options_are_sent_as_they_are() -> None:
    async with calling(Behaviour(text="By the sea.")) as (client, fake):
        await client.complete(ASKED, options=OPTIONS | {"n": None})
    ours = {"model": "fake", "messages": ASKED, "stream": True, "stream_options": {"include_usage": True}}
    assert fake.requests == [OPTIONS | ours]


@pytest.mark.parametrize("name", sorted(OPTIONS.keys() - ESSENTIAL))
async def test_a_refused_field_is_left_out_at_once_and_from_then_on(name: str) -> None:
    async with calling(Behaviour(refuses=name, text="By the sea.")) as (client, fake):
        with capture_logs() as logs:
            for _ in range(2):
                assert (await client.complete(ASKED, options=OPTIONS)).text == "By the sea."
    assert fake.stats.calls == 3
    assert name not in fake.requests[-1]
    assert [line["field"] for line in logs if line["event"] == "llm_field_left_out"] == [name]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (400, "Unrecognized request argument supplied: {field}"),
        (422, "body.{field}: Extra inputs are not permitted"),
        (400, 'Invalid JSON payload received. Unknown name "{field}": Cannot find field.'),
        (500, "Unsupported param: {field}"),
        (501, "{field} is not implemented"),
        (404, "No model was found that support {field}"),
    ],
)
async def test_a_refusal_may_have_many_words_and_any_status(status: int, words: str) -> None:
    behaviour = Behaviour(refuses="seed", refuses_status=status, refuses_words=words, text="By the sea.")
    async with calling(behaviour) as (client, fake):
        assert (await client.complete(ASKED, options={"seed": 7})).text == "By the sea."
    assert fake.stats.calls == 2


async def test_a_server_may_refuse_one_field_after_another() -> None:
    names = sorted(OPTIONS.keys() - ESSENTIAL)
    async with calling(Behaviour(refuses=",".join([*names, "max_completion_tokens"]), text="By the sea.")) as (
        client,
        fake,
    ):
        await client.complete(ASKED, options=OPTIONS)
        calls = fake.stats.calls
        await client.complete(ASKED, options=OPTIONS)
    assert calls <= len(OPTIONS) + 1
    assert fake.stats.calls == calls + 1
    assert fake.requests[-1].keys() == {"model", "messages", "stream", "stream_options", "response_format"}


async def test_a_server_that_refuses_what_was_not_sent_is_not_asked_for_ever() -> None:
    async with calling(Behaviour(status=400, message="Unsupported parameter: 'seed'")) as (client, fake):
        with pytest.raises(RefusedInputError):
            await client.complete(ASKED, options={"seed": 7})
    assert fake.stats.calls == 2


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("response_format", {"response_format": {"type": "json_object"}}),
        ("tools", {"tools": [TOOL], "tool_choice": "required"}),
        ("tool_choice", {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "weather"}}}),
    ],
)
async def test_a_refusal_of_what_the_answer_depends_on_names_the_field(name: str, options: dict[str, Any]) -> None:
    async with calling(Behaviour(refuses=name)) as (client, fake):
        with pytest.raises(PermanentError) as caught:
            await client.complete(ASKED, options=options)
    assert (caught.value.code, caught.value.param) == ("llm_bad_request", name)
    assert f"refuses the field '{name}'" in caught.value.message
    assert fake.stats.calls == 1


async def test_a_refused_value_is_left_out_and_another_sent() -> None:
    words = "Unsupported value: '{field}' does not support 0.1 with this model."
    async with calling(Behaviour(refuses="temperature", refuses_words=words, text="By the sea.")) as (client, fake):
        await client.complete(ASKED, options={"temperature": 0.1})
        await client.complete(ASKED, options={"temperature": 0.1})
        assert fake.stats.calls == 3
        fake.behaviour = Behaviour(text="By the sea.")
        await client.complete(ASKED, options={"temperature": 1})
    assert fake.requests[-1]["temperature"] == 1


async def test_a_refusal_inside_a_stream_is_adapted_to_only_before_the_answer() -> None:
    refusal = 'data: {"error": {"message": "Unsupported parameter: \'seed\'", "code": 400}}\n\n'
    async with calling(Behaviour(raw=refusal)) as (client, fake):
        with pytest.raises(RefusedInputError):
            await client.complete(ASKED, options={"seed": 7})
        assert fake.stats.calls == 2
    begun = 'data: {"choices": [{"delta": {"content": "By"}}]}\n\n'
    async with calling(Behaviour(raw=begun + refusal)) as (client, fake):
        with pytest.raises(RefusedInputError):
            await client.complete(ASKED, options={"seed": 7})
        assert fake.stats.calls == 1


# Prompts that are too long


@pytest.mark.parametrize("status", [400, 422, 500])
@pytest.mark.parametrize("line", TOO_LONG[::4])
async def test_a_prompt_that_is_too_long_is_told_apart(line: str, status: int) -> None:
    async with calling(Behaviour(status=status, message=line.partition(": ")[2])) as (client, _):
        with pytest.raises(ContextTooLongError) as caught:
            await client.complete(ASKED, options=OPTIONS)
    assert caught.value.code == "context_length_exceeded"
    assert caught.value.otherwise is None


@pytest.mark.parametrize(
    "behaviour",
    [
        Behaviour(status=400, message="The model crashed."),
        Behaviour(status=422, message=""),
        Behaviour(status=500, message="Internal Server Error"),
    ],
)
async def test_a_refusal_without_a_reason_of_the_longest_prompt_so_far_may_mean_its_length(
    behaviour: Behaviour,
) -> None:
    async with calling() as (client, fake):
        await client.complete(SHORT)
        fake.behaviour = behaviour
        with pytest.raises(ContextTooLongError) as caught:
            await client.complete(LONG)
        otherwise = caught.value.otherwise
        assert isinstance(otherwise, UnavailableError if behaviour.status == 500 else RefusedInputError)
        assert (caught.value.code, caught.value.message) == (otherwise.code, otherwise.message)
        assert f"status {behaviour.status}" in otherwise.message
        with pytest.raises(RagqError) as of_short:
            await client.complete(SHORT)  # as long a prompt was accepted before
        assert not isinstance(of_short.value, ContextTooLongError)


@pytest.mark.parametrize(
    "behaviour",
    [
        Behaviour(status=500, message="CUDA out of memory"),
        Behaviour(status=503, message=""),
        Behaviour(status=429, message=""),
        Behaviour(status=401, message=""),
        Behaviour(body="reset"),
        Behaviour(refuses="response_format"),
    ],
)
async def test_an_error_with_another_reason_does_not_mean_a_long_prompt(behaviour: Behaviour) -> None:
    async with calling(behaviour) as (client, _):
        with pytest.raises(RagqError) as caught:
            await client.complete(LONG, options={"response_format": {"type": "json_object"}})
        assert not isinstance(caught.value, ContextTooLongError)


async def test_a_refusal_of_a_short_prompt_does_not_mean_its_length() -> None:
    async with calling(Behaviour(status=400, message="The model crashed.")) as (client, _):
        with pytest.raises(RefusedInputError) as caught:
            await client.complete(ASKED)
        assert not isinstance(caught.value, ContextTooLongError)
