"""LangChain's OpenAI integration: chat completions and responses, tools, structured output, embeddings, an agent, MCP."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from checks import (
    API_KEY,
    BASE_URL,
    QUESTION,
    SECOND_QUESTION,
    WEATHER_QUESTION,
    check,
    default_store,
    expect,
    expect_61,
    run,
)
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_mcp_adapters.client import MultiServerMCPClient
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
from mcp_checks import HEADERS, REQUEST, URL, Connection, add_mcp_checks
from pydantic import BaseModel

os.environ.pop("OPENAI_API_BASE", None)


class Height(BaseModel):
    """What is asked for."""

    subject: str
    metres: int


@tool
def get_weather(location: str) -> str:
    """Get the weather in a place."""
    return f"It is 21 degrees in {location}."


def model(**options: object) -> ChatOpenAI:
    return ChatOpenAI(**{"model": "ragq", "base_url": BASE_URL, "api_key": API_KEY, "max_retries": 0} | options)


KINDS = {"chat": {}, "responses": {"use_responses_api": True}}


def add_checks(kind: str, options: dict[str, object]) -> None:
    @check(f"{kind}: invoke")
    def invoke() -> None:
        expect_61(model(**options).invoke(QUESTION).text)

    @check(f"{kind}: stream")
    def stream() -> None:
        expect_61("".join(chunk.text for chunk in model(**options).stream(QUESTION)))

    @check(f"{kind}: second turn")
    def second_turn() -> None:
        first = model(**options).invoke(QUESTION)
        answer = model(**options).invoke([HumanMessage(QUESTION), first, HumanMessage(SECOND_QUESTION)])
        expect("noon" in answer.text, answer.text)

    @check(f"{kind}: settings")
    def settings() -> None:
        more = {
            "frequency_penalty": 0.1,
            "presence_penalty": 0.1,
            "seed": 7,
            "n": 1,
            "stop": ["END"],
            "logprobs": False,
        }
        some = {"temperature": 0.3, "max_tokens": 200, "top_p": 0.9} | (more if kind == "chat" else {})
        expect_61(model(**options, **some).invoke(QUESTION).text)

    @check(f"{kind}: reasoning and verbosity")
    def reasoning() -> None:
        some = {"reasoning_effort": "low", "verbosity": "low"}
        expect_61(model(**options, **some).invoke(QUESTION).text)


def add_tool_checks(kind: str, options: dict[str, object]) -> None:
    @check(f"{kind}: bind_tools, and their results", llm=True)
    def tools() -> None:
        bound = model(**options).bind_tools([get_weather])
        messages = [HumanMessage(WEATHER_QUESTION)]
        messages.append(bound.invoke(messages))
        expect(messages[-1].tool_calls, messages[-1])
        call = messages[-1].tool_calls[0]
        messages.append(ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"]))
        expect("21 degrees in Paris" in bound.invoke(messages).text, messages)

    @check(f"{kind}: tools in a stream", llm=True)
    def tools_stream() -> None:
        whole = None
        for chunk in model(**options).bind_tools([get_weather]).stream(WEATHER_QUESTION):
            whole = chunk if whole is None else whole + chunk
        expect(whole.tool_calls[0]["args"] == {"location": "Paris"}, whole)

    @check(f"{kind}: agent", llm=True)
    def agent() -> None:
        made = create_agent(model(**options), tools=[get_weather])
        answer = made.invoke({"messages": [("user", WEATHER_QUESTION)]})["messages"][-1].text
        expect("21 degrees in Paris" in answer, answer)

    @check(f"{kind}: any tool demanded", llm=True)
    def any_tool() -> None:
        answer = model(**options).bind_tools([get_weather], tool_choice="any").invoke(QUESTION)
        expect(answer.tool_calls, answer)

    for method in ("json_schema", "function_calling"):

        @check(f"{kind}: structured output, {method}", llm=True)
        def structured(method: str = method) -> None:
            answer = model(**options).with_structured_output(Height, method=method).invoke(QUESTION)
            expect(answer.metres == 61, answer)


for each, its_options in KINDS.items():
    add_checks(each, its_options)
    add_tool_checks(each, its_options)


@check("responses: the include of encrypted reasoning")
def encrypted() -> None:
    expect_61(model(use_responses_api=True, include=["reasoning.encrypted_content"]).invoke(QUESTION).text)


@check("responses: previous_response_id")
def previous() -> None:
    first = model(use_responses_api=True).invoke(QUESTION)
    answer = model(use_responses_api=True).invoke(SECOND_QUESTION, previous_response_id=first.response_metadata["id"])
    expect("noon" in answer.text, answer.text)


@check("responses: file_search beside a function", llm=True)
def file_search() -> None:
    search = {"type": "file_search", "vector_store_ids": [default_store()]}
    expect_61(model(use_responses_api=True).bind_tools([search, get_weather]).invoke(QUESTION).text)


@check("chat: image", llm=True)
def image() -> None:
    pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    content = [{"type": "text", "text": "What is this?"}, {"type": "image", "base64": pixel, "mime_type": "image/png"}]
    answer = model().invoke([HumanMessage(content)])
    expect("image" in answer.text, answer)


@check("completions")
def completions() -> None:
    expect_61(OpenAI(model="ragq", base_url=BASE_URL, api_key=API_KEY, max_retries=0).invoke(QUESTION))


@check("embeddings of 600 texts")
def embeddings() -> None:
    made = OpenAIEmbeddings(model="ragq", base_url=BASE_URL, api_key=API_KEY, check_embedding_ctx_length=False)
    vectors = made.embed_documents([f"text {number}" for number in range(600)])
    expect(len(vectors) == 600 and len(vectors[0]) == 384, len(vectors))


def mcp_client(headers: dict[str, str]) -> MultiServerMCPClient:
    return MultiServerMCPClient({"ragq": {"transport": "streamable_http", "url": URL, "headers": headers}})


@asynccontextmanager
async def connect(headers: dict[str, str]) -> AsyncIterator[Connection]:
    tools = {tool.name: tool for tool in await mcp_client(headers).get_tools()}

    async def call(name: str, arguments: dict[str, str]) -> dict[str, Any]:
        message = await tools[name].ainvoke({"type": "tool_call", "id": "1", "name": name, "args": arguments})
        return message.artifact["structured_content"]

    yield Connection(list(tools), call)


add_mcp_checks(connect)


@check("mcp: an agent's tools", llm=True)
async def mcp_agent() -> None:
    agent = create_agent(model(), tools=await mcp_client(HEADERS).get_tools())
    answer = (await agent.ainvoke({"messages": [("user", REQUEST)]}))["messages"][-1].text
    expect("ask:" in expect_61(answer), answer)


run()
