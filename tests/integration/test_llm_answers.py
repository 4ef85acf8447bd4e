"""What an LLM answers, in the forms of many servers, over HTTP: tool calls, reasoning, parts, ends, errors inside a stream."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ragq.client.model_faults import ContextTooLongError
from ragq.errors import OverloadedError, PermanentError, RagqError, TransientError
from ragq.models import ToolCall, Usage
from tests.fake_llm import Behaviour
from tests.llm_calls import ASKED, Said, ask_for, body_of, calling, texts

PARIS, ROME = '{"city": "Paris"}', '{"city": "Rome"}'
TWO = [("weather", PARIS), ("weather", ROME)]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def called(**fields: Any) -> dict[str, Any]:
    """A delta with one piece of a tool call: `index`, `id`, and the function's `name` and `arguments`."""
    function = {name: fields.pop(name) for name in ("name", "arguments") if name in fields}
    return {"tool_calls": [{"function": function, **fields}]}


def both(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return {"tool_calls": one["tool_calls"] + other["tool_calls"]}


CALLS: dict[str, list[dict[str, Any]]] = {
    "in pieces, by turns": [
        called(index=0, id="a", name="weather", arguments=""),
        called(index=1, id="b", name="weather", arguments=ROME[:5]),
        called(index=0, arguments=PARIS[:3]),
        called(index=1, arguments=ROME[5:]),
        called(index=0, arguments=PARIS[3:]),
    ],
    "id and name in each piece": [
        called(index=0, id="a", name="weather", arguments=PARIS[:7]),
        called(index=0, id="a", name="weather", arguments=PARIS[7:]),
        called(index=1, id="b", name="weather", arguments=ROME[:7]),
        called(index=1, id="b", name="weather", arguments=ROME[7:]),
    ],
    "a name in pieces": [
        called(index=0, id="a", name="wea"),
        called(index=0, name="ther", arguments=PARIS),
        called(index=1, id="b", name="weather", arguments=ROME),
    ],
    "whole, without index": [
        called(id="a", name="weather", arguments=PARIS),
        called(id="b", name="weather", arguments=ROME),
    ],
    "whole, without index and id": [called(name="weather", arguments=PARIS), called(name="weather", arguments=ROME)],
    "together, without index and id": [
        both(called(name="weather", arguments=PARIS), called(name="weather", arguments=ROME))
    ],
    "whole, all with index 0": [
        called(index=0, id="a", name="weather", arguments=PARIS),
        called(index=0, id="b", name="weather", arguments=ROME),
    ],
    "in pieces, without index": [
        called(id="a", name="weather", arguments=PARIS[:4]),
        called(arguments=PARIS[4:]),
        called(id="b", name="weather", arguments=ROME[:4]),
        called(arguments=ROME[4:]),
    ],
    "in pieces, without index and id": [
        called(name="weather", arguments=PARIS[:4]),
        called(arguments=PARIS[4:]),
        called(name="weather", arguments=ROME[:4]),
        called(arguments=ROME[4:]),
    ],
    "arguments as an object": [
        called(index=0, name="weather", arguments={"city": "Paris"}),
        called(index=1, name="weather", arguments={"city": "Rome"}),
    ],
    "the same id twice": [
        called(index=0, id="call_0", name="weather", arguments=PARIS),
        called(index=1, id="call_0", name="weather", arguments=ROME),
    ],
}


@pytest.mark.parametrize("finish", ["tool_calls", "function_call", "tool_use", "stop", "TOOL_CALLS"])
@pytest.mark.parametrize("form", CALLS)
async def test_tool_calls_are_put_together(form: str, finish: str) -> None:
    completion = await ask_for(body_of({"content": ""}, *CALLS[form], finish=finish))
    assert [(call.name, json.loads(call.arguments)) for call in completion.tool_calls] == [
        (name, json.loads(arguments)) for name, arguments in TWO
    ]
    ids = [call.id for call in completion.tool_calls]
    assert len(set(ids)) == 2
    assert all(ids)
    if "without" not in form and "object" not in form:
        assert ids[0] in ("a", "call_0")
    assert (completion.text, completion.finish_reason) == ("", "tool_calls")


@pytest.mark.parametrize("body", ["sse", "json"])
async def test_a_whole_answer_may_call_tools(body: str) -> None:
    async with calling(Behaviour(calls=f"weather {PARIS}; clock", body=body)) as (client, _):
        completion = await client.complete(ASKED)
    assert completion.tool_calls == [ToolCall("call_0", "weather", PARIS), ToolCall("call_1", "clock", "{}")]
    assert completion.finish_reason == "tool_calls"


async def test_the_older_function_call_is_a_tool_call() -> None:
    deltas: list[dict[str, Any]] = [
        {"content": None, "function_call": {"name": "weather", "arguments": ""}},
        {"function_call": {"arguments": PARIS[:5]}},
        {"function_call": {"arguments": PARIS[5:]}},
    ]
    completion = await ask_for(body_of(*deltas, finish="function_call"))
    assert [(call.name, call.arguments) for call in completion.tool_calls] == [("weather", PARIS)]
    assert completion.finish_reason == "tool_calls"


async def test_text_and_tool_calls_may_come_together() -> None:
    said = Said()
    body = body_of({"content": "Let me look."}, called(index=0, id="a", name="weather", arguments=PARIS))
    completion = await ask_for(body, said=said)
    assert completion.text == said.of("text") == "Let me look."
    assert completion.tool_calls == [ToolCall("a", "weather", PARIS)]


async def test_a_stream_cut_in_a_call_is_cut() -> None:
    body = body_of(called(index=0, id="a", name="weather", arguments='{"ci'), finish=None)
    for cut in (body, body.replace("data: [DONE]\n\n", "")):
        with pytest.raises(TransientError) as caught:
            await ask_for(cut)
        assert caught.value.code == "llm_cut_stream"


async def test_a_call_cut_by_the_output_limit_is_left_out() -> None:
    deltas = [
        called(index=0, id="a", name="weather", arguments=PARIS),
        called(index=1, id="b", name="weather", arguments='{"ci'),
    ]
    completion = await ask_for(body_of(*deltas, finish="length"))
    assert completion.tool_calls == [ToolCall("a", "weather", PARIS)]
    assert completion.finish_reason == "length"


@pytest.mark.parametrize(
    "delta",
    [
        called(index=0, id="a", arguments=PARIS),
        called(arguments=PARIS),
        called(index=0, id="a", name=7, arguments=PARIS),
        called(index=0, id="a", name="weather", arguments=7),
        {"tool_calls": ["weather"]},
    ],
)
async def test_a_call_without_a_name_or_of_another_form_is_malformed(delta: dict[str, Any]) -> None:
    with pytest.raises(TransientError) as caught:
        await ask_for(body_of(delta, finish="tool_calls"))
    assert caught.value.code == "llm_malformed"


async def test_what_cannot_be_stored_is_taken_out_of_everything() -> None:
    bad, good = "a\0b\ud83c", "ab\ufffd"
    call = called(index=0, id=bad, name=bad, arguments=bad)
    body = body_of({"reasoning": bad, "content": bad, "refusal": bad}, call)
    entry = {"token": bad, "top_logprobs": [{"token": bad}]}
    logprobs = {"choices": [{"delta": {}, "logprobs": {"content": [entry]}}]}
    completion = await ask_for(f"data: {json.dumps(logprobs)}\n\n{body}")
    assert (completion.reasoning, completion.text, completion.refusal) == (good, good, good)
    assert completion.tool_calls == [ToolCall(good, good, good)]
    assert completion.logprobs == [{"token": good, "top_logprobs": [{"token": good}]}]


async def test_a_listener_may_raise_what_a_malformed_chunk_would() -> None:
    def listen(_kind: str, _piece: str) -> None:
        raise ValueError("lost")

    for delta in ({"reasoning": "I know.", "content": "By the sea."}, {"content": "<"}):
        async with calling(Behaviour(raw=body_of(delta))) as (client, _):
            with pytest.raises(ValueError, match="lost"):
                await client.complete(ASKED, on_delta=listen)


async def test_an_end_with_tool_calls_but_without_one_is_a_stop() -> None:
    completion = await ask_for(body_of(*texts("It is in Quorra."), finish="tool_calls"))
    assert (completion.text, completion.finish_reason) == ("It is in Quorra.", "stop")


# Reasoning

REASONING_FIELDS: dict[str, list[dict[str, Any]]] = {
    "reasoning_content": [{"reasoning_content": "I know"}, {"reasoning_content": " this."}],
    "reasoning": [{"reasoning": "I know"}, {"reasoning": " this."}],
    "both": [{"reasoning": "I know this.", "reasoning_content": "I know this."}],
    "object": [{"reasoning": {"text": "I know"}}, {"reasoning": {"content": " this."}}],
    "list": [{"reasoning": [{"type": "reasoning.text", "text": "I know"}, {"text": " this."}]}],
    "details": [{"reasoning": None, "reasoning_details": [{"type": "reasoning.summary", "summary": "I know this."}]}],
    "thinking parts": [
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "I know"}]}]},
        {"content": [{"type": "thinking", "thinking": " this."}]},
    ],
    "reasoning parts": [{"content": [{"type": "reasoning", "text": "I know this."}]}],
}


@pytest.mark.parametrize("form", REASONING_FIELDS)
async def test_reasoning_in_a_field_is_kept_apart(form: str) -> None:
    said = Said()
    completion = await ask_for(
        body_of({"role": "assistant"}, *REASONING_FIELDS[form], *texts("By", " the sea.")), said=said
    )
    assert (completion.reasoning, completion.text) == ("I know this.", "By the sea.")
    assert (said.of("reasoning"), said.of("text")) == ("I know this.", "By the sea.")
    kinds = [kind for kind, _ in said.pieces]
    assert kinds == sorted(kinds)  # reasoning before text


TAGGED = [
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
]


@pytest.mark.parametrize(("opener", "closer"), TAGGED)
@pytest.mark.parametrize("length", [1, 2, 3, 5, 1000])
async def test_reasoning_in_tags_is_kept_apart_however_it_is_split(opener: str, closer: str, length: int) -> None:
    text = f"\n{opener}\nI know </b> this.\n{closer}\n\nBy the <think> sea </think>."
    pieces = [text[start : start + length] for start in range(0, len(text), length)]
    said = Said()
    completion = await ask_for(body_of(*texts(*pieces)), piece=7, said=said)
    assert completion.reasoning == said.of("reasoning") == "I know </b> this.\n"
    assert completion.text == said.of("text") == "By the <think> sea </think>."


@pytest.mark.parametrize(
    ("text", "reasoning", "answer"),
    [
        ("<think>\n\n</think>\n\nBy the sea.", "", "By the sea."),  # a model that was told not to think
        ("</think>\n\nBy the sea.", "", "By the sea."),
        ("Use `<think>` for it.\n\n```\n<think>\n</think>\n```", "", None),
        ("In code: `a</think>`, then.", "", None),
        ("They end with '</think>' mostly.", "", None),
        ("< think> is no tag </b>", "", None),
        ("<th", "", None),
        ("  By the sea.", "", None),
        ("I know it.\n</think>\n\nBy the sea.", "I know it.\n", "By the sea."),  # the template opened the tag
        ("I know it.</think>By the sea.", "I know it.", "By the sea."),
        ("I know it.[/THINK]By the sea.", "I know it.", "By the sea."),
    ],
)
async def test_only_a_tag_that_ends_the_beginning_marks_reasoning(
    text: str, reasoning: str, answer: str | None
) -> None:
    for pieces in ([text], list(text)):
        completion = await ask_for(body_of(*texts(*pieces)))
        assert (completion.reasoning, completion.text) == (reasoning, text if answer is None else answer)


async def test_reasoning_that_the_output_limit_cut_is_no_text() -> None:
    said = Said()
    completion = await ask_for(body_of(*texts("<think>\nI kn", "ow <", "/th"), finish="length"), said=said)
    assert completion.reasoning == said.of("reasoning") == "I know </th"
    assert (completion.text, completion.finish_reason) == ("", "length")


async def test_a_text_is_held_back_once_the_template_was_seen_to_open_the_reasoning() -> None:
    behaviour = Behaviour(reasoning="I know it.", reasoning_in="closed", text="By the sea.")
    async with calling(behaviour) as (client, fake):
        for told in ("I know it.\n</think>\n\nBy the sea.", "By the sea.", "By the sea."):
            said = Said()
            completion = await client.complete(ASKED, on_delta=said)
            assert (completion.reasoning, completion.text) == ("I know it.\n", "By the sea.")
            assert said.of("text") == told  # the first was passed on before its closing tag came
        assert said.pieces[0] == ("reasoning", "I know it.\n")

        fake.behaviour = Behaviour(
            reasoning="I know it", reasoning_in="closed", raw=body_of(*texts("I kn", "ow"), finish="length")
        )
        completion = await client.complete(ASKED)
        assert (completion.reasoning, completion.text) == ("I know", "")

        fake.behaviour = Behaviour(text="No thought at all.", rate=50)
        for is_held in (True, False):
            said = Said()
            completion = await client.complete(ASKED, on_delta=said)
            assert (completion.reasoning, completion.text) == ("", "No thought at all.")
            assert said.of("text") == completion.text
            assert (len(said.pieces) == 1) is is_held


async def test_usage_tells_cached_and_reasoning_tokens() -> None:
    usage = {
        "prompt_tokens": 20,
        "completion_tokens": 9,
        "prompt_tokens_details": {"cached_tokens": 16},
        "completion_tokens_details": {"reasoning_tokens": 5, "audio_tokens": None},
    }
    assert (await ask_for(body_of(*texts("a"), usage=usage))).usage == Usage(20, 9, 16, 5)
    odd = usage | {"prompt_tokens_details": None, "completion_tokens_details": {"reasoning_tokens": "many"}}
    assert (await ask_for(body_of(*texts("a"), usage=odd))).usage == Usage(20, 9)


# Parts


async def test_content_may_be_a_list_of_parts() -> None:
    said = Said()
    deltas: list[dict[str, Any]] = [
        {"content": [{"type": "text", "text": "By "}, "the "]},
        {"content": [{"type": "output_text", "text": "sea"}, {"type": "reference", "reference_ids": [1]}]},
        {"content": "."},
    ]
    completion = await ask_for(body_of(*deltas), said=said)
    assert completion.text == said.of("text") == "By the sea."


async def test_a_whole_message_may_have_parts() -> None:
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "I know."}]},
        {"type": "text", "text": "By the sea."},
    ]
    choice = {"index": 0, "message": {"role": "assistant", "content": parts}, "finish_reason": "stop"}
    completion = await ask_for(json.dumps({"choices": [choice]}))
    assert (completion.reasoning, completion.text) == ("I know.", "By the sea.")


@pytest.mark.parametrize("content", [3, {"text": "a"}, [3], [{"type": "text", "text": 3}]])
async def test_content_of_another_form_is_malformed(content: object) -> None:
    with pytest.raises(TransientError) as caught:
        await ask_for(body_of({"content": content}))
    assert caught.value.code == "llm_malformed"


async def test_a_refusal_is_neither_text_nor_an_empty_answer() -> None:
    said = Said()
    async with calling(Behaviour(refusal="I cannot say that.")) as (client, _):
        completion = await client.complete(ASKED, on_delta=said)
    assert (completion.refusal, completion.text, said.pieces) == ("I cannot say that.", "", [])


async def test_messages_may_have_parts_tool_calls_and_no_content() -> None:
    call = {"id": "a", "type": "function", "function": {"name": "weather", "arguments": PARIS}}
    messages: list[dict[str, Any]] = [
        {
            "role": "user",
            "content": [{"type": "text", "text": "Look"}, {"type": "image_url", "image_url": {"url": "data:,"}}],
        },
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "a", "content": "It rains."},
    ]
    async with calling(Behaviour(text="It rains.")) as (client, fake):
        assert (await client.complete(messages)).text == "It rains."
    assert fake.requests[0]["messages"] == messages


async def test_an_error_repeats_no_part_of_a_message() -> None:
    secret = "the harbour of Quorra has a hidden lighthouse"
    messages: list[dict[str, Any]] = [{"role": "user", "content": [{"type": "text", "text": secret}]}]
    async with calling(Behaviour(status=400, message=f"Cannot read {secret}.")) as (client, _):
        with pytest.raises(RagqError) as caught:
            await client.complete(messages)
    assert "hidden" not in caught.value.message


# Log probabilities


async def test_log_probabilities_are_collected() -> None:
    async with calling(Behaviour(text="By the sea.")) as (client, _):
        completion = await client.complete(ASKED, options={"logprobs": True})
        assert [entry["token"] for entry in completion.logprobs] == ["By", " the", " sea."]
        assert (await client.complete(ASKED)).logprobs == []


# Ends


@pytest.mark.parametrize(
    ("reason", "meaning"),
    {
        **dict.fromkeys(("stop", "STOP", "end_turn", "eos", "COMPLETE", "stop_sequence"), "stop"),
        **dict.fromkeys(("length", "MAX_TOKENS", "max_output_tokens", "model_length", "Length"), "length"),
    }.items(),
)
async def test_finish_reasons_of_other_servers_are_understood(reason: str, meaning: str) -> None:
    assert (await ask_for(body_of(*texts("a"), finish=reason))).finish_reason == meaning


@pytest.mark.parametrize(
    "reason",
    [
        "content_filter",
        "content_filter: RECITATION",
        "SAFETY",
        "RECITATION",
        "PROHIBITED_CONTENT",
        "BLOCKLIST",
        "SPII",
        "sensitive",
    ],
)
async def test_a_filtered_answer_is_a_final_error(reason: str) -> None:
    with pytest.raises(PermanentError) as caught:
        await ask_for(body_of(*texts("a"), finish=reason))
    assert caught.value.code == "content_filter"


@pytest.mark.parametrize("reason", ["OTHER", "MALFORMED_FUNCTION_CALL", "insufficient_system_resource", "abort"])
async def test_an_unknown_end_is_a_cut_stream(reason: str) -> None:
    with pytest.raises(TransientError) as caught:
        await ask_for(body_of(*texts("a"), finish=reason))
    assert caught.value.code == "llm_cut_stream"
    assert reason in caught.value.message


async def test_null_in_words_is_no_finish_reason() -> None:
    body = body_of(*texts("a", "b")).replace('"finish_reason": null', '"finish_reason": "null"')
    assert (await ask_for(body)).text == "ab"


@pytest.mark.parametrize(
    "deltas", [[], texts(""), texts(" \n"), [{"reasoning": "I know."}], texts("<think>I know.</think>\n")]
)
async def test_an_empty_answer_is_a_failure_that_may_pass(deltas: list[dict[str, Any]]) -> None:
    async with calling(Behaviour(raw=body_of(*deltas)), llm_breaker_calls=1) as (client, _):
        with pytest.raises(TransientError) as caught:
            await client.complete(ASKED)
        assert caught.value.code == "llm_empty_answer"
        assert client.endpoint.breaker.state == "closed"  # it answers, so it is alive


@pytest.mark.parametrize("deltas", [[], [{"reasoning": "I kn"}], texts("<think>I kn")])
async def test_an_output_limit_may_be_spent_on_thinking(deltas: list[dict[str, Any]]) -> None:
    completion = await ask_for(body_of(*deltas, finish="length"))
    assert (completion.text, completion.finish_reason) == ("", "length")


# Errors inside a stream


def error_event(error: Any) -> str:
    return f"data: {json.dumps(error)}\n\n"


IN_STREAM: dict[str, tuple[str, str]] = {
    "object": (error_event({"error": {"message": "It broke down.", "type": "server_error"}}), "llm_unavailable"),
    "text": (error_event({"error": "It broke down."}), "llm_unavailable"),
    "vLLM": (
        error_event({"object": "error", "message": "It broke down.", "type": "BadRequestError", "code": 400}),
        "llm_bad_request",
    ),
    "vLLM, nested": (
        error_event({"error": {"object": "error", "message": "It broke down.", "code": 400}}),
        "llm_bad_request",
    ),
    "FastAPI": (error_event({"detail": "It broke down."}), "llm_unavailable"),
    "message alone": (error_event({"message": "It broke down.", "code": "429"}), "llm_rate_limited"),
    "event": (f"event: error\n{error_event({'message': 'It broke down.', 'status': 503})}", "llm_unavailable"),
    "event with text": ("event: error\ndata: It broke down.\n\n", "llm_unavailable"),
    "llama.cpp": (
        'error: {"code": 400, "message": "It broke down.", "type": "invalid_request_error"}\n\n',
        "llm_bad_request",
    ),
    "Gemini": (
        error_event([{"error": {"message": "It broke down.", "status": "RESOURCE_EXHAUSTED"}}]),
        "llm_rate_limited",
    ),
    "Anthropic": (
        f"event: error\n{error_event({'type': 'error', 'error': {'type': 'overloaded_error', 'message': 'It broke down.'}})}",
        "llm_unavailable",
    ),
    "OpenRouter": (
        error_event(
            {
                "error": {"code": 502, "message": "Provider error", "metadata": {"raw": '{"error": "It broke down."}'}},
                "choices": [{"delta": {"content": ""}, "finish_reason": "error"}],
            }
        ),
        "llm_unavailable",
    ),
    "in the choice": (
        error_event(
            {"choices": [{"delta": {}, "finish_reason": "error", "error": {"code": 429, "message": "It broke down."}}]}
        ),
        "llm_rate_limited",
    ),
    "key": (error_event({"error": {"message": "It broke down.", "code": "invalid_api_key"}}), "llm_authentication"),
    "type": (error_event({"error": {"message": "It broke down.", "type": "rate_limit_error"}}), "llm_rate_limited"),
    "xAI": (error_event({"code": "invalid-argument", "error": "It broke down."}), "llm_bad_request"),
    "quota": (
        error_event({"error": {"message": "It broke down.", "code": "insufficient_quota"}}),
        "insufficient_quota",
    ),
}


@pytest.mark.parametrize("form", IN_STREAM)
@pytest.mark.parametrize("before", ["", body_of(*texts("By the"), finish=None).replace("data: [DONE]\n\n", "")])
async def test_an_error_inside_a_stream_keeps_the_servers_words(form: str, before: str) -> None:
    event, code = IN_STREAM[form]
    with pytest.raises(RagqError) as caught:
        await ask_for(before + event)
    assert caught.value.code == code
    assert "It broke down." in caught.value.message


async def test_an_error_inside_a_stream_may_say_that_the_prompt_is_too_long() -> None:
    with pytest.raises(ContextTooLongError):
        await ask_for(
            error_event({"error": {"message": "the request exceeds the available context size", "code": 400}})
        )


async def test_a_rate_limit_inside_a_stream_is_an_overload() -> None:
    with pytest.raises(OverloadedError):
        await ask_for(error_event({"error": {"message": "Slow down.", "code": 429}}))


async def test_events_before_an_error_event_are_no_errors() -> None:
    events = "event: message\n" + body_of(*texts("By the sea."))
    assert (await ask_for(events)).text == "By the sea."
    assert (await ask_for("event: error\n\n" + body_of(*texts("By the sea.")))).text == "By the sea."  # it has no data


# Signs of life


@pytest.mark.parametrize(
    "sign", [": ping", ": OPENROUTER PROCESSING", 'data: {"choices": [{"delta": {"role": "assistant"}}]}']
)
async def test_a_sign_of_life_starts_the_limit_for_the_first_token_again(sign: str) -> None:
    behaviour = Behaviour(latency_after_headers=1.2, keepalive=0.2, keepalive_line=sign, text="By the sea.")
    async with calling(behaviour, llm_first_token_timeout_seconds=0.6) as (client, fake):
        assert (await client.complete(ASKED)).text == "By the sea."
        fake.behaviour = Behaviour(latency_after_headers=1.2, text="By the sea.")
        with pytest.raises(TransientError) as caught:
            await client.complete(ASKED)
        assert "FIRST_TOKEN" in caught.value.message


async def test_signs_of_life_do_not_move_the_limit_between_two_tokens() -> None:
    behaviour = Behaviour(text="By the sea.", stall_after=1, stall=1.5, keepalive=0.1)
    async with calling(behaviour, llm_token_gap_timeout_seconds=0.4) as (client, _):
        with pytest.raises(TransientError) as caught:
            await client.complete(ASKED)
        assert "TOKEN_GAP" in caught.value.message
