"""LiteLLM: ragq as an `openai/` model."""

from __future__ import annotations

import litellm
from checks import API_KEY, BASE_URL, QUESTION, WEATHER_QUESTION, check, default_store, expect, expect_61, run
from pydantic import BaseModel

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a place",
        "parameters": {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]},
    },
}
HERE = {"api_base": BASE_URL, "api_key": API_KEY, "max_retries": 0}


class Height(BaseModel):
    """What is asked for."""

    subject: str
    metres: int


def ask(text: str = QUESTION, **options: object) -> object:
    return litellm.completion(model="openai/ragq", messages=[{"role": "user", "content": text}], **HERE, **options)


@check("completion")
def completion() -> None:
    expect_61(ask().choices[0].message.content)


@check("acompletion, streamed")
async def streamed() -> None:
    messages = [{"role": "user", "content": QUESTION}]
    stream = await litellm.acompletion(model="openai/ragq", messages=messages, stream=True, **HERE)
    expect_61("".join([chunk.choices[0].delta.content or "" async for chunk in stream]))


@check("stop, seed, penalties, drop_params")
def settings() -> None:
    some = {"stop": ["END"], "seed": 7, "frequency_penalty": 0.1, "presence_penalty": 0.1, "drop_params": True}
    expect_61(ask(**some).choices[0].message.content)


@check("response_format", llm=True)
def response_format() -> None:
    text = ask(response_format=Height).choices[0].message.content
    expect(Height.model_validate_json(text).metres == 61, text)


@check("tools", llm=True)
def tools() -> None:
    call = ask(WEATHER_QUESTION, tools=[TOOL]).choices[0].message.tool_calls[0]
    expect("Paris" in call.function.arguments, call)


@check("tools in a stream", llm=True)
def tools_stream() -> None:
    chunks = list(ask(WEATHER_QUESTION, tools=[TOOL], stream=True))
    call = litellm.stream_chunk_builder(chunks).choices[0].message.tool_calls[0]
    expect("Paris" in call.function.arguments, call)


@check("responses")
def responses() -> None:
    done = litellm.responses(model="openai/ragq", input=QUESTION, **HERE)
    expect_61(done.output_text if hasattr(done, "output_text") else done)


@check("text_completion")
def text_completion() -> None:
    expect_61(litellm.text_completion(model="text-completion-openai/ragq", prompt=QUESTION, **HERE).choices[0].text)


@check("vector_stores.search")
def search() -> None:
    found = litellm.vector_stores.search(
        vector_store_id=default_store(),
        query=QUESTION,
        custom_llm_provider="openai",
        api_base=BASE_URL,
        api_key=API_KEY,
    )
    expect_61(found)


@check("embedding of 600 texts")
def embedding() -> None:
    texts = [f"text {number}" for number in range(600)]
    done = litellm.embedding(model="openai/ragq", input=texts, api_base=BASE_URL, api_key=API_KEY)
    expect(len(done.data) == 600, len(done.data))


run()
