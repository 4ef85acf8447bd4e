"""Error bodies as real servers write them."""

from __future__ import annotations

from typing import Any

import pytest

from ragq.completions.server_errors import read_error

TOO_LONG = """\
OpenAI: This model's maximum context length is 8192 tokens. However, your messages resulted in 9310 tokens. Please reduce the length of the messages.
OpenAI: Your input exceeds the context window of this model. Please adjust your input and try again.
Azure: This model's maximum context length is 128000 tokens. However, your messages resulted in 202868 tokens (202767 in the messages, 101 in the functions).
vLLM: This model's maximum context length is 8192 tokens. However, you requested 8204 tokens (12 in the messages, 8192 in the completion).
vLLM: However, you requested 0 output tokens and your prompt contains at least 262145 input tokens. Please reduce the length of the input prompt.
vLLM: You passed 202753 input tokens and requested 0 output tokens. However, the model's context length is only 202752 tokens.
vLLM: The decoder prompt (length 40000) is longer than the maximum model length of 32768.
SGLang: The input (61709 tokens) is longer than the model's context length (40960 tokens).
SGLang: Input length (160062 tokens) exceeds the maximum allowed length (59862 tokens).
SGLang: Requested token count exceeds the model's maximum context length of 8192 tokens.
llama.cpp: the request exceeds the available context size. try increasing the context size or enable context shift
llama-cpp-python: Requested tokens (2285) exceed context window of 2048
Ollama: the input length exceeds the context length
Ollama: input exceeds context length
LM Studio: The number of tokens to keep from the initial prompt is greater than the context length (n_keep: 13055>= n_ctx: 4096).
LM Studio: Trying to keep the first 15857 tokens when context the overflows. However, the model is loaded with context length of only 4096 tokens.
LM Studio: Reached context length of 32000 tokens with model (arch: gpt-oss) that does not currently support mid-generation context overflow.
TGI: Input validation error: `inputs` must have less than 4096 tokens. Given: 4545
TGI: Input validation error: `inputs` tokens + `max_new_tokens` must be <= 2048. Given: 1244 `inputs` tokens and 1000 `max_new_tokens`
Mistral: Prompt contains 44289 tokens and 0 draft tokens, too large for model with 32768 maximum context length
Gemini: The input token count (2845475) exceeds the maximum number of tokens allowed (1048576).
Anthropic: prompt is too long: 213462 tokens > 200000 maximum
Anthropic: input length and `max_tokens` exceed context limit: 178959 + 64000 > 200000, decrease input length or `max_tokens` and try again
Groq: Please reduce the length of the messages or completion.
Together: `inputs` tokens + `max_new_tokens` must be <= 8193. Given: 9000 `inputs` tokens and 512 `max_new_tokens`
DeepSeek: This model's maximum context length is 131072 tokens. However, you requested 131134 tokens (122942 in the messages, 8192 in the completion).
xAI: This model's maximum prompt length is 131072 but the request contains 537812 tokens.
OpenRouter: This endpoint's maximum context length is 262144 tokens. However, you requested about 284283 tokens.
Poolside: Input length 131393 exceeds the maximum allowed input length of 131040 tokens.
Fireworks: The prompt is too long: 140000, model maximum context length: 131071
Bedrock: Input is too long for requested model.
Bedrock: Input exceeds the max input token limit
Copilot: prompt token count of 70000 exceeds the limit of 64000
Moonshot: Invalid request: Your request exceeded model token limit: 8192
MiniMax: invalid params, context window exceeds limit
DashScope: Range of input length should be [1, 30720]
GLM: tokens in request more than max tokens allowed
Cohere: too many tokens: total number of tokens in the prompt cannot exceed 4081
Cohere: total tokens exceeds the model's max of 4096
TensorRT-LLM: Prompt length (5000) exceeds maximum input length (4096).
Atlas: Prompt too long: 5152 tokens exceeds max_seq_len 2048 (leave room for output tokens)
""".splitlines()

OTHER = """\
max_tokens is too large: 100000. This model supports at most 16384 completion tokens, whereas you provided 100000.
Invalid max_tokens value, the valid range of max_tokens is [1, 8192]
Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.
Rate limit reached for tokens per minute: Limit 6000, Requested 8000. Too many tokens per minute.
Conversation roles must alternate user/assistant/user/assistant/...
Invalid schema for function 'weather': the name is too long
Request timed out.
Internal server error
""".splitlines()


@pytest.mark.parametrize("line", TOO_LONG)
def test_servers_say_in_many_words_that_the_prompt_is_too_long(line: str) -> None:
    words = line.partition(": ")[2]
    assert read_error({"error": {"message": words}}).is_context_too_long


@pytest.mark.parametrize("words", OTHER)
def test_other_errors_do_not_mean_a_long_prompt(words: str) -> None:
    assert not read_error({"error": {"message": words}}).is_context_too_long


PYDANTIC = [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted", "input": 7}]
WORDS = "body.seed: Extra inputs are not permitted"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"error": {"message": "It broke."}}, "It broke."),
        ({"error": "It broke."}, "It broke."),
        ("It broke.", "It broke."),
        ([{"error": {"message": "It broke."}}], "It broke."),
        ({"detail": "It broke."}, "It broke."),
        ({"object": "error", "message": "It broke."}, "It broke."),
        ({"detail": PYDANTIC}, WORDS),
        ({"object": "error", "message": {"detail": PYDANTIC}}, WORDS),
        ({"object": "Error", "message": PYDANTIC, "detail": PYDANTIC}, WORDS),
        (
            {
                "object": "error",
                "message": '{"detail":[{"loc":["body","seed"],"msg":"Extra inputs are not permitted"}]}',
            },
            WORDS,
        ),
        (
            {"error": {"message": "Provider returned error", "metadata": {"raw": '{"error":{"message":"It broke."}}'}}},
            "Provider returned error: It broke.",
        ),
        ({"error": {"message": '{"error": {"message": "It broke."}}'}}, "It broke."),
        ({"error": {"message": "{no json"}}, "{no json"),
        ({"error": {"code": 7}}, ""),
        ({}, ""),
        ([], ""),
        (None, ""),
        (7, ""),
    ],
)
def test_the_words_are_found_wherever_they_are(body: object, words: str) -> None:
    assert read_error(body).words == words


def test_a_deep_body_is_not_followed_for_ever() -> None:
    body: Any = "It broke."
    for _ in range(500):
        body = {"message": [body]}
    assert not read_error(body).words


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ({"code": 429}, 429),
        ({"code": "503"}, 503),
        ({"status": 404}, 404),
        ({"type": "invalid_request_error"}, 400),
        ({"type": "BadRequestError"}, 400),
        ({"status": "INVALID_ARGUMENT"}, 400),
        ({"status": "RESOURCE_EXHAUSTED", "code": 8}, 429),
        ({"type": "invalid_request_error", "code": "invalid_api_key"}, 401),
        ({"type": "permission_error"}, 403),
        ({"type": "not_found_error"}, 404),
        ({"type": "overloaded_error"}, 503),
        ({"type": "server_error"}, None),
        ({"code": 3001}, None),
        ({}, None),
    ],
)
def test_names_stand_for_a_status(error: dict[str, Any], status: int | None) -> None:
    assert read_error({"error": error}).status == status


@pytest.mark.parametrize(
    "words",
    [
        "",
        "Internal Server Error",
        "Bad request.",
        "An unknown error occurred",
        "Something went wrong!",
        "500 Internal Server Error",
        "<html>Oops</html>",
    ],
)
def test_some_messages_say_nothing(words: str) -> None:
    assert read_error({"error": {"message": words}}).says_nothing


@pytest.mark.parametrize("words", ["The model crashed.", "CUDA out of memory", "Invalid request: no messages"])
def test_other_messages_give_a_reason(words: str) -> None:
    assert not read_error({"error": {"message": words}}).says_nothing
