"""The official Python SDK: the calls of its README and of OpenAI's guides."""

from __future__ import annotations

import io
import json
import os
import time
import urllib.request

from checks import QUESTION, check, expect, expect_61, run
from openai import BadRequestError, OpenAI
from pydantic import BaseModel

WEATHER = {
    "type": "object",
    "properties": {"location": {"type": "string"}},
    "required": ["location"],
    "additionalProperties": False,
}
CHAT_TOOL = {
    "type": "function",
    "function": {"name": "get_weather", "description": "The weather", "parameters": WEATHER},
}
TOOL = {"type": "function", "name": "get_weather", "description": "The weather", "parameters": WEATHER, "strict": True}
WEATHER_QUESTION = "What is the weather in Paris?"
PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="

client = OpenAI(max_retries=0, timeout=60)


class Height(BaseModel):
    """What is asked for."""

    subject: str
    metres: int


def ask(**fields: object) -> object:
    return client.chat.completions.create(
        **{"model": "ragq", "messages": [{"role": "user", "content": QUESTION}]} | fields
    )


@check("chat")
def chat() -> str:
    return expect_61(ask().choices[0].message.content)


@check("chat stream with usage")
def chat_stream() -> None:
    chunks = list(ask(stream=True, stream_options={"include_usage": True}))
    expect_61("".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices))
    expect(chunks[-1].usage, chunks[-1])


@check("chat with the fields that front ends send")
def chat_fields() -> None:
    expect_61(
        ask(
            frequency_penalty=0,
            presence_penalty=0,
            seed=1,
            logprobs=False,
            parallel_tool_calls=True,
            store=False,
            tools=[],
            tool_choice="auto",
            stop=None,
            user="u",
            temperature=0.5,
            reasoning_effort="low",
            prompt_cache_key="k",
            extra_body={"top_k": 40, "min_p": 0.1},
        )
        .choices[0]
        .message.content
    )


@check("chat: penalties, stop and seed reach the LLM", llm=True)
def chat_passes_on() -> None:
    ask(frequency_penalty=0.25, presence_penalty=0.5, seed=77, stop=["NEVER"], logit_bias={"50256": -100})
    with urllib.request.urlopen(os.environ["SCRIPTED_LLM"] + "/requests") as response:
        sent = json.load(response)[-1]
    expect(sent.get("frequency_penalty") == 0.25 and sent.get("presence_penalty") == 0.5, sorted(sent))
    expect(sent.get("seed") == 77 and sent.get("stop") == ["NEVER"], {k: v for k, v in sent.items() if k != "messages"})


@check("chat: stop ends the answer", llm=True)
def chat_stop() -> None:
    text = ask(stop=["metres"]).choices[0].message.content
    expect("61" in text and "metres" not in text, text)


@check("chat: two choices", llm=True)
def chat_choices() -> None:
    choices = ask(n=2).choices
    expect(len(choices) == 2, choices)


@check("chat: logprobs", llm=True)
def chat_logprobs() -> None:
    logprobs = ask(logprobs=True, top_logprobs=1).choices[0].logprobs
    expect(logprobs and logprobs.content, logprobs)


@check("chat second turn")
def chat_turn() -> None:
    first = ask().choices[0].message
    messages = [{"role": "user", "content": QUESTION}, first, {"role": "user", "content": "When does the ferry leave?"}]
    text = ask(messages=messages).choices[0].message.content
    expect("noon" in text, text)


@check("chat second turn, dumped message")
def chat_turn_dump() -> None:
    first = ask().choices[0].message.model_dump()
    messages = [{"role": "user", "content": QUESTION}, first, {"role": "user", "content": "When does the ferry leave?"}]
    text = ask(messages=messages).choices[0].message.content
    expect("noon" in text, text)


@check("chat tools", llm=True)
def chat_tools() -> None:
    messages = [{"role": "user", "content": WEATHER_QUESTION}]
    message = ask(messages=messages, tools=[CHAT_TOOL]).choices[0].message
    expect(message.tool_calls, message)
    call = message.tool_calls[0]
    expect("Paris" in call.function.arguments, call)
    messages += [message, {"role": "tool", "tool_call_id": call.id, "content": "Sunny, 21 degrees."}]
    final = ask(messages=messages, tools=[CHAT_TOOL]).choices[0]
    expect("21" in final.message.content and final.finish_reason == "stop", final)


@check("chat tools stream", llm=True)
def chat_tools_stream() -> None:
    messages = [{"role": "user", "content": WEATHER_QUESTION}]
    with client.chat.completions.stream(model="ragq", messages=messages, tools=[CHAT_TOOL]) as stream:
        choice = stream.get_final_completion().choices[0]
    expect(choice.finish_reason == "tool_calls", choice)
    expect("Paris" in choice.message.tool_calls[0].function.arguments, choice)


@check("chat named tool", llm=True)
def chat_named_tool() -> None:
    choice = {"type": "function", "function": {"name": "get_weather"}}
    expect(ask(tools=[CHAT_TOOL], tool_choice=choice).choices[0].message.tool_calls, "no call")


@check("chat tools given, none needed")
def chat_tools_unused() -> None:
    expect_61(ask(tools=[CHAT_TOOL]).choices[0].message.content)


@check("chat parse", llm=True)
def chat_parse() -> None:
    messages = [{"role": "user", "content": QUESTION}]
    done = client.chat.completions.parse(model="ragq", messages=messages, response_format=Height)
    expect(done.choices[0].message.parsed.metres == 61, done.choices[0].message)


@check("chat json object", llm=True)
def chat_json() -> None:
    text = ask(response_format={"type": "json_object"}).choices[0].message.content
    expect_61(json.loads(text))


@check("chat image", llm=True)
def chat_image() -> None:
    content = [{"type": "text", "text": "What is in this picture?"}, {"type": "image_url", "image_url": {"url": PIXEL}}]
    text = ask(messages=[{"role": "user", "content": content}]).choices[0].message.content
    expect("image" in text, text)


@check("completions")
def completions() -> None:
    expect_61(client.completions.create(model="ragq", prompt=QUESTION).choices[0].text)


@check("completions stream")
def completions_stream() -> None:
    stream = client.completions.create(model="ragq", prompt=QUESTION, stream=True)
    expect_61("".join(chunk.choices[0].text for chunk in stream if chunk.choices))


@check("responses")
def responses() -> str:
    return expect_61(client.responses.create(model="ragq", input=QUESTION).output_text)


@check("responses stream")
def responses_stream() -> None:
    with client.responses.stream(model="ragq", input=QUESTION) as stream:
        types = [event.type for event in stream]
        final = stream.get_final_response()
    expect_61(final.output_text)
    expect(types[0] == "response.created" and types[-1] == "response.completed", types)


@check("responses with the fields that agents send")
def responses_fields() -> None:
    done = client.responses.create(
        model="ragq",
        input=QUESTION,
        include=["reasoning.encrypted_content"],
        reasoning={"effort": "low"},
        text={"verbosity": "low"},
        prompt_cache_key="k",
        safety_identifier="s",
        max_tool_calls=3,
        top_logprobs=0,
        truncation="auto",
        parallel_tool_calls=False,
    )
    expect_61(done.output_text)


@check("responses previous_response_id")
def responses_previous() -> None:
    first = client.responses.create(model="ragq", input=QUESTION)
    text = client.responses.create(
        model="ragq", input="When does the ferry leave?", previous_response_id=first.id
    ).output_text
    expect("noon" in text, text)


@check("responses second turn by items")
def responses_items() -> None:
    first = client.responses.create(model="ragq", input=QUESTION)
    items = [
        {"role": "user", "content": QUESTION},
        *first.output,
        {"role": "user", "content": "When does the ferry leave?"},
    ]
    text = client.responses.create(model="ragq", input=items).output_text
    expect("noon" in text, text)


@check("responses tools", llm=True)
def responses_tools() -> None:
    items = [{"role": "user", "content": WEATHER_QUESTION}]
    first = client.responses.create(model="ragq", input=items, tools=[TOOL])
    call = next((item for item in first.output if item.type == "function_call"), None)
    expect(call and "Paris" in call.arguments, first.output)
    items += [*first.output, {"type": "function_call_output", "call_id": call.call_id, "output": "Sunny, 21 degrees."}]
    text = client.responses.create(model="ragq", input=items, tools=[TOOL]).output_text
    expect("21" in text, text)


@check("responses tools by previous_response_id", llm=True)
def responses_tools_previous() -> None:
    first = client.responses.create(model="ragq", input=WEATHER_QUESTION, tools=[TOOL])
    call = next(item for item in first.output if item.type == "function_call")
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "Sunny, 21 degrees."}
    text = client.responses.create(
        model="ragq", input=[result], previous_response_id=first.id, tools=[TOOL]
    ).output_text
    expect("21" in text, text)


@check("responses tools stream", llm=True)
def responses_tools_stream() -> None:
    with client.responses.stream(model="ragq", input=WEATHER_QUESTION, tools=[TOOL]) as stream:
        types = [event.type for event in stream]
        final = stream.get_final_response()
    expect("response.function_call_arguments.done" in types, types)
    expect(any(item.type == "function_call" for item in final.output), final.output)


@check("responses parse", llm=True)
def responses_parse() -> None:
    done = client.responses.parse(model="ragq", input=QUESTION, text_format=Height)
    expect(done.output_parsed and done.output_parsed.metres == 61, done.output)


@check("responses image", llm=True)
def responses_image() -> None:
    content = [{"type": "input_text", "text": "What is in this picture?"}, {"type": "input_image", "image_url": PIXEL}]
    text = client.responses.create(model="ragq", input=[{"role": "user", "content": content}]).output_text
    expect("image" in text, text)


@check("responses input_tokens.count")
def input_tokens() -> None:
    expect(client.responses.input_tokens.count(model="ragq", input=QUESTION).input_tokens > 0, "no tokens")


@check("responses compact")
def compact() -> None:
    items = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": "It is 61 metres tall."}]
    done = client.responses.compact(model="ragq", input=items)
    text = client.responses.create(
        model="ragq", input=[*done.output, {"role": "user", "content": "When does the ferry leave?"}]
    ).output_text
    expect("noon" in text, text)


@check("conversations")
def conversations() -> None:
    conversation = client.conversations.create()
    client.responses.create(model="ragq", input=QUESTION, conversation=conversation.id)
    text = client.responses.create(
        model="ragq", input="When does the ferry leave?", conversation=conversation.id
    ).output_text
    expect("noon" in text, text)
    items = list(client.conversations.items.list(conversation.id))
    expect(len([item for item in items if item.type == "message"]) == 4, items)
    client.conversations.delete(conversation.id)


@check("background and poll")
def background() -> None:
    response = client.responses.create(model="ragq", input=QUESTION, background=True)
    while response.status in ("queued", "in_progress"):
        time.sleep(0.1)
        response = client.responses.retrieve(response.id)
    expect_61(response.output_text)


@check("vector store of its own, and a search")
def stores() -> None:
    store = client.vector_stores.create(name="openai-python")
    file = io.BytesIO(b"The tower of Zembla is 93 metres tall.")
    client.vector_stores.files.upload_and_poll(vector_store_id=store.id, file=("zembla.txt", file))
    found = client.vector_stores.search(store.id, query="How tall is the tower?", max_num_results=None)
    expect("93" in found.data[0].content[0].text, found)
    tool = {"type": "file_search", "vector_store_ids": [store.id], "ranking_options": {"ranker": "default-2024-11-15"}}
    text = client.responses.create(model="ragq", input="How tall is the tower of Zembla?", tools=[tool]).output_text
    expect("93" in text, text)
    client.vector_stores.delete(store.id)


@check("upload in parts")
def uploads() -> None:
    upload = client.uploads.upload_file_chunked(
        file=b"A text that is sent in parts.",
        filename="parts.txt",
        bytes=29,
        mime_type="text/plain",
        purpose="assistants",
        part_size=10,
    )
    expect(upload.status == "completed", upload)
    expect(client.files.content(upload.file.id).text == "A text that is sent in parts.", "another content")


@check("embeddings of 600 texts")
def embeddings() -> None:
    done = client.embeddings.create(model="ragq", input=[f"text {number}" for number in range(600)])
    expect(len(done.data) == 600 and len(done.data[0].embedding) == 384, len(done.data))


@check("batch of chat completions")
def batch() -> None:
    body = {"model": "ragq", "messages": [{"role": "user", "content": QUESTION}]}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    file = client.files.create(file=("batch.jsonl", json.dumps(line).encode()), purpose="batch")
    made = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    while made.status not in ("completed", "failed", "expired", "cancelled"):
        time.sleep(0.1)
        made = client.batches.retrieve(made.id)
    expect(made.status == "completed", made)
    expect_61(client.files.content(made.output_file_id).text)


@check("models")
def models() -> None:
    expect([model.id for model in client.models.list()], "no models")


@check("an unknown model is a clear error")
def unknown_model() -> None:
    try:
        ask(model="ragq", max_tokens="many")
    except BadRequestError as error:
        expect("max_tokens" in str(error), error)
    else:
        raise AssertionError("taken")


run()
