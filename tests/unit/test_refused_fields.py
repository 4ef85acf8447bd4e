"""Which field a server refuses, in the words of real servers."""

from __future__ import annotations

from typing import Any

import pytest

from ragq.completions.refused_fields import MAX_REMEMBERED, REMEMBERED_SECONDS, RefusedFields
from ragq.completions.server_errors import ServerError, read_error

TOOL = {"type": "function", "function": {"name": "weather"}}
REQUEST: dict[str, Any] = {
    "model": "fake",
    "messages": [],
    "stream": True,
    "stream_options": {"include_usage": True},
    "temperature": 0.1,
    "top_p": 0.5,
    "top_k": 7,
    "max_tokens": 50,
    "seed": 7,
    "stop": ["end"],
    "user": "someone",
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "logprobs": True,
    "top_logprobs": 2,
    "reasoning_effort": "low",
    "verbosity": "low",
    "tools": [TOOL],
    "tool_choice": "auto",
    "parallel_tool_calls": False,
    "response_format": {"type": "json_object"},
}


def error(message: object, **more: Any) -> ServerError:
    return read_error({"error": {"message": message, **more}})


REFUSALS = {
    "Unsupported parameter: 'temperature' is not supported with this model.": "temperature",  # OpenAI
    "Unrecognized request argument supplied: top_k": "top_k",
    "Unrecognized request argument supplied: user": "user",
    "Unrecognized request argument supplied: parallel_tool_calls. Please contact us": "parallel_tool_calls",  # Azure
    "Unrecognized request arguments supplied: frequency_penalty, presence_penalty": "frequency_penalty",
    "Unknown parameter: 'stream_options'.": "stream_options",
    "Model incompatible request argument supplied: temperature": "temperature",
    "Additional properties are not allowed ('seed' was unexpected) - 'seed'": "seed",
    "1 validation error for ChatCompletionRequest\ntop_k\n  Extra inputs are not permitted [type=extra_forbidden]": "top_k",  # vLLM
    "[{'type': 'extra_forbidden', 'loc': ('body', 'tools'), 'msg': 'Extra inputs are not permitted', 'input': []}]": "tools",
    '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set': "tools",
    "Unsupported param: tools": "tools",  # llama.cpp
    "tools param requires --jinja flag": "tools",
    "registry.ollama.ai/library/gemma:latest does not support tools": "tools",  # Ollama
    '"gemma:latest" does not support thinking': "reasoning_effort",
    "body.logprobs: Extra inputs are not permitted": "logprobs",  # Mistral
    'Invalid JSON payload received. Unknown name "frequency_penalty": Cannot find field.': "frequency_penalty",  # Gemini
    "property 'reasoning_effort' is unsupported, did you mean 'reasoning_format'?": "reasoning_effort",  # Groq
    "property 'verbosity' is unsupported": "verbosity",
    "body.top_k: property 'body.top_k' is unsupported": "top_k",  # Cerebras
    "Model grok-4-latest does not support parameter reasoningEffort.": "reasoning_effort",  # xAI
    "Model grok-4 does not support parameter presencePenalty.": "presence_penalty",
    "No endpoints found that support tool use.": "tools",  # OpenRouter
    "UnsupportedParamsError: gemini does not support parameters: {'frequency_penalty': 0.5}": "frequency_penalty",  # LiteLLM
}


@pytest.mark.parametrize(("words", "name"), REFUSALS.items())
def test_a_refused_field_is_left_out(words: str, name: str) -> None:
    fields = RefusedFields()
    assert fields.learn(error(words), REQUEST) == (name, True)
    assert name not in fields.leave_out(REQUEST)
    assert name not in fields.leave_out({**REQUEST, name: "another value"})


def test_the_param_comes_before_the_words() -> None:
    fields = RefusedFields()
    assert fields.learn(error("Use top_p, not this unsupported one.", param="temperature"), REQUEST) == (
        "temperature",
        True,
    )
    assert fields.learn(error("Wrong: seed", param="messages[0].content"), REQUEST) == ("messages", False)


@pytest.mark.parametrize(
    ("words", "name"),
    {
        "Unsupported value: 'temperature' does not support 0.1 with this model. Only the default (1) value is supported.": "temperature",
        "Invalid 'top_p': decimal below minimum value.": "top_p",
        "Unsupported value: 'reasoning_effort' does not support 'low' with this model. Supported values are: 'high'.": "reasoning_effort",
        "max_tokens is too large: 50. This model supports at most 16 completion tokens.": "max_tokens",
    }.items(),
)
def test_a_refused_value_is_left_out_and_another_is_sent(words: str, name: str) -> None:
    fields = RefusedFields()
    assert fields.learn(error(words), REQUEST) == (name, True)
    assert name not in fields.leave_out(REQUEST)
    assert "max_completion_tokens" not in fields.leave_out(REQUEST)
    assert fields.leave_out({**REQUEST, name: 1})[name] == 1


@pytest.mark.parametrize(
    ("words", "name", "changes"),
    [
        ("'response_format' is not supported with this model", "response_format", {}),
        ("This model does not support tools", "tools", {"tool_choice": "required"}),
        ("This model does not support tools", "tools", {"tool_choice": TOOL}),
        ("Unsupported: tool_choice", "tool_choice", {"tool_choice": "required"}),
        ("'messages[1].role': unsupported value", "messages", {}),
        ("Invalid schema in tools.0.function", "tools", {}),
        ("Invalid 'stop': array too long. Expected at most 4.", "stop", {}),
    ],
)
def test_what_the_answer_depends_on_is_named_and_sent(words: str, name: str, changes: dict[str, Any]) -> None:
    fields, request = RefusedFields(), REQUEST | changes
    assert fields.learn(error(words), request) == (name, False)
    assert fields.leave_out(request) == request


@pytest.mark.parametrize(
    "words", ["", "Conversation roles must alternate user/assistant/user", "The model is loading", "Stop it."]
)
def test_other_messages_name_no_field(words: str) -> None:
    assert RefusedFields().learn(error(words), REQUEST) == ("", False)


def test_a_status_with_other_causes_needs_words() -> None:
    fields = RefusedFields()
    assert fields.learn(error("temperature sensor failed"), REQUEST, needs_words=True) == ("", False)
    assert fields.learn(error("Unsupported param: seed"), REQUEST, needs_words=True) == ("seed", True)


def test_the_output_limit_takes_the_name_that_the_server_knows() -> None:
    fields = RefusedFields()
    fields.learn(error("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."), REQUEST)
    sent = fields.leave_out(REQUEST)
    assert ("max_tokens" in sent, sent["max_completion_tokens"]) == (False, 50)
    fields.learn(error("Unknown parameter: 'max_completion_tokens'"), sent)
    assert not {"max_tokens", "max_completion_tokens"} & fields.leave_out(REQUEST).keys()


def test_what_needs_a_refused_field_goes_with_it() -> None:
    fields = RefusedFields()
    fields.learn(error("This model does not support tools"), REQUEST)
    fields.learn(error("Unsupported parameter: logprobs"), REQUEST)
    assert not {"tool_choice", "parallel_tool_calls", "top_logprobs"} & fields.leave_out(REQUEST).keys()


def test_tools_that_must_not_be_called_go_with_a_refused_choice() -> None:
    fields, request = RefusedFields(), REQUEST | {"tool_choice": "none"}
    assert fields.learn(error("Unsupported: tool_choice"), request) == ("tool_choice", True)
    assert "tools" not in fields.leave_out(request)


def test_a_plain_text_format_need_not_be_sent() -> None:
    request = REQUEST | {"response_format": {"type": "text"}}
    assert RefusedFields().learn(error("Unsupported: response_format"), request) == ("response_format", True)


def test_a_refusal_is_forgotten_after_some_time() -> None:
    now = 0.0
    fields = RefusedFields(clock=lambda: now)
    fields.learn(error("Unsupported parameter: seed"), REQUEST)
    now = REMEMBERED_SECONDS - 1
    assert "seed" not in fields.leave_out(REQUEST)
    now = REMEMBERED_SECONDS
    assert fields.leave_out(REQUEST)["seed"] == 7


def test_what_is_remembered_is_bounded() -> None:
    fields = RefusedFields()
    for number in range(MAX_REMEMBERED + 100):
        fields.learn(error("Invalid top_p"), {"top_p": number})
    assert len(fields._until) <= MAX_REMEMBERED
    assert "top_p" not in fields.leave_out({"top_p": MAX_REMEMBERED + 99})


def test_names_of_fields_are_no_patterns() -> None:
    request: dict[str, Any] = {"top(k": 1, "model": "fake"}
    assert RefusedFields().learn(error("Unsupported: seed", param="seed"), request) == ("", False)


def test_none_is_not_sent() -> None:
    assert RefusedFields().leave_out({"seed": None, "top_p": 0}) == {"top_p": 0}
