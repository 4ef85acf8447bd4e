"""The OpenAI Agents SDK: responses (its default) and chat completions, tools, handoff, sessions, structured output, MCP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from agents import (
    Agent,
    FileSearchTool,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIConversationsSession,
    OpenAIResponsesCompactionSession,
    OpenAIResponsesModel,
    Runner,
    SQLiteSession,
    function_tool,
    set_tracing_disabled,
)
from agents.mcp import MCPServerStreamableHttp
from checks import QUESTION, SECOND_QUESTION, WEATHER_QUESTION, check, default_store, expect, expect_61, run
from mcp_checks import HEADERS, REQUEST, URL, Connection, add_mcp_checks
from openai import AsyncOpenAI
from openai.types.shared import Reasoning
from pydantic import BaseModel

set_tracing_disabled(disabled=True)


class Height(BaseModel):
    """What is asked for."""

    subject: str
    metres: int


@function_tool
def get_weather(location: str) -> str:
    """Get the weather in a place."""
    return f"It is 21 degrees in {location}."


def responses(client: AsyncOpenAI) -> OpenAIResponsesModel:
    return OpenAIResponsesModel("ragq", client)


def chat(client: AsyncOpenAI) -> OpenAIChatCompletionsModel:
    return OpenAIChatCompletionsModel("ragq", client)


def client() -> AsyncOpenAI:
    return AsyncOpenAI(max_retries=0)


for kind, make in {"responses": responses, "chat": chat}.items():

    @check(f"{kind}: run")
    async def plain(make: object = make) -> None:
        agent = Agent("Guide", instructions="Be brief.", model=make(client()))
        expect_61((await Runner.run(agent, QUESTION)).final_output)

    @check(f"{kind}: run_streamed")
    async def streamed(make: object = make) -> None:
        result = Runner.run_streamed(Agent("Guide", model=make(client())), QUESTION)
        types = [event.type async for event in result.stream_events()]
        expect("raw_response_event" in types, types)
        expect_61(result.final_output)

    @check(f"{kind}: second turn by to_input_list")
    async def second_turn(make: object = make) -> None:
        agent = Agent("Guide", model=make(client()))
        first = await Runner.run(agent, QUESTION)
        items = [*first.to_input_list(), {"role": "user", "content": SECOND_QUESTION}]
        answer = (await Runner.run(agent, items)).final_output
        expect("noon" in answer, answer)

    @check(f"{kind}: SQLiteSession")
    async def session(make: object = make, kind: str = kind) -> None:
        agent, memory = Agent("Guide", model=make(client())), SQLiteSession(kind)
        await Runner.run(agent, QUESTION, session=memory)
        answer = (await Runner.run(agent, SECOND_QUESTION, session=memory)).final_output
        expect("noon" in answer, answer)

    @check(f"{kind}: function tool", llm=True)
    async def tool(make: object = make) -> None:
        agent = Agent("Guide", model=make(client()), tools=[get_weather])
        answer = (await Runner.run(agent, WEATHER_QUESTION)).final_output
        expect("21 degrees in Paris" in answer, answer)

    @check(f"{kind}: function tool, streamed", llm=True)
    async def tool_streamed(make: object = make) -> None:
        agent = Agent("Guide", model=make(client()), tools=[get_weather])
        result = Runner.run_streamed(agent, WEATHER_QUESTION)
        async for _ in result.stream_events():
            pass
        expect("21 degrees in Paris" in result.final_output, result.final_output)

    @check(f"{kind}: function tool that is not needed")
    async def tool_unused(make: object = make) -> None:
        agent = Agent("Guide", model=make(client()), tools=[get_weather])
        expect_61((await Runner.run(agent, QUESTION)).final_output)

    @check(f"{kind}: handoff", llm=True)
    async def handoff(make: object = make) -> None:
        weather = Agent("Weather agent", model=make(client()), tools=[get_weather])
        triage = Agent("Triage", model=make(client()), handoffs=[weather])
        result = await Runner.run(triage, WEATHER_QUESTION)
        expect(result.last_agent.name == "Weather agent", result.last_agent.name)
        expect("21 degrees in Paris" in result.final_output, result.final_output)

    @check(f"{kind}: output_type", llm=True)
    async def output_type(make: object = make) -> None:
        agent = Agent("Guide", model=make(client()), output_type=Height)
        output = (await Runner.run(agent, QUESTION)).final_output
        expect(output.metres == 61, output)

    @check(f"{kind}: settings")
    async def settings(make: object = make) -> None:
        some = ModelSettings(
            temperature=0.1,
            top_p=0.9,
            max_tokens=200,
            parallel_tool_calls=False,
            verbosity="low",
            reasoning=Reasoning(effort="low"),
            store=True,
            metadata={"a": "b"},
        )
        expect_61((await Runner.run(Agent("Guide", model=make(client()), model_settings=some), QUESTION)).final_output)


@check("responses: FileSearchTool")
async def file_search() -> None:
    search = FileSearchTool([default_store()], max_num_results=3, include_search_results=True)
    expect_61((await Runner.run(Agent("Guide", model=responses(client()), tools=[search]), QUESTION)).final_output)


@check("responses: FileSearchTool beside a function", llm=True)
async def file_search_and_function() -> None:
    tools = [FileSearchTool([default_store()]), get_weather]
    agent = Agent("Guide", model=responses(client()), tools=tools)
    expect_61((await Runner.run(agent, QUESTION)).final_output)
    answer = (await Runner.run(agent, WEATHER_QUESTION)).final_output
    expect("21 degrees in Paris" in answer, answer)


@check("responses: previous_response_id")
async def previous() -> None:
    agent = Agent("Guide", model=responses(client()))
    first = await Runner.run(agent, QUESTION)
    answer = (await Runner.run(agent, SECOND_QUESTION, previous_response_id=first.last_response_id)).final_output
    expect("noon" in answer, answer)


@check("responses: OpenAIConversationsSession")
async def conversations() -> None:
    agent, memory = Agent("Guide", model=responses(client())), OpenAIConversationsSession(openai_client=client())
    await Runner.run(agent, QUESTION, session=memory)
    answer = (await Runner.run(agent, SECOND_QUESTION, session=memory)).final_output
    expect("noon" in answer, answer)
    await memory.clear_session()


@check("responses: conversation_id")
async def conversation_id() -> None:
    conversation = await client().conversations.create()
    agent = Agent("Guide", model=responses(client()))
    await Runner.run(agent, QUESTION, conversation_id=conversation.id)
    answer = (await Runner.run(agent, SECOND_QUESTION, conversation_id=conversation.id)).final_output
    expect("noon" in answer, answer)


@check("responses: OpenAIResponsesCompactionSession")
async def compaction() -> None:
    memory = OpenAIResponsesCompactionSession(
        "c", SQLiteSession("c"), client=client(), should_trigger_compaction=lambda _: True
    )
    agent = Agent("Guide", model=responses(client()))
    await Runner.run(agent, QUESTION, session=memory)
    answer = (await Runner.run(agent, SECOND_QUESTION, session=memory)).final_output
    expect("noon" in answer, answer)


def mcp_server(headers: dict[str, str]) -> MCPServerStreamableHttp:
    return MCPServerStreamableHttp({"url": URL, "headers": headers}, client_session_timeout_seconds=30)


@asynccontextmanager
async def connect(headers: dict[str, str]) -> AsyncIterator[Connection]:
    async with mcp_server(headers) as server:

        async def call(name: str, arguments: dict[str, str]) -> dict[str, Any]:
            return (await server.call_tool(name, arguments)).structured_content

        yield Connection([tool.name for tool in await server.list_tools()], call)


add_mcp_checks(connect)


@check("mcp: an agent's tools", llm=True)
async def mcp_agent() -> None:
    async with mcp_server(HEADERS) as server:
        answer = (await Runner.run(Agent("Guide", model=chat(client()), mcp_servers=[server]), REQUEST)).final_output
    expect("ask:" in expect_61(answer), answer)


run()
