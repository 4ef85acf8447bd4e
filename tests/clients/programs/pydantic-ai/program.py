"""Pydantic AI: chat completions and responses, tools, typed output, streams, file search, MCP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from checks import QUESTION, SECOND_QUESTION, WEATHER_QUESTION, check, default_store, expect, expect_61, run
from mcp_checks import HEADERS, REQUEST, URL, Connection, add_mcp_checks
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput, ToolOutput
from pydantic_ai.capabilities import NativeTool
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.native_tools import FileSearchTool


class Height(BaseModel):
    """What is asked for."""

    subject: str
    metres: int


def get_weather(location: str) -> str:
    """Get the weather in a place."""
    return f"It is 21 degrees in {location}."


for kind, model in {"chat": OpenAIChatModel("ragq"), "responses": OpenAIResponsesModel("ragq")}.items():

    @check(f"{kind}: run")
    async def plain(model: object = model) -> None:
        expect_61((await Agent(model, instructions="Be brief.").run(QUESTION)).output)

    @check(f"{kind}: run_stream")
    async def stream(model: object = model) -> None:
        async with Agent(model).run_stream(QUESTION) as result:
            expect_61(await result.get_output())

    @check(f"{kind}: second turn")
    async def second_turn(model: object = model) -> None:
        first = await Agent(model).run(QUESTION)
        answer = (await Agent(model).run(SECOND_QUESTION, message_history=first.all_messages())).output
        expect("noon" in answer, answer)

    @check(f"{kind}: settings")
    async def settings(model: object = model) -> None:
        some = {"temperature": 0.1, "max_tokens": 200, "top_p": 0.9, "parallel_tool_calls": False}
        more = {"seed": 7, "presence_penalty": 0.1, "frequency_penalty": 0.1, "stop_sequences": ["END"]}
        if isinstance(model, OpenAIChatModel):
            some |= more
        expect_61((await Agent(model, model_settings=some).run(QUESTION)).output)

    @check(f"{kind}: tool", llm=True)
    async def tool(model: object = model) -> None:
        answer = (await Agent(model, tools=[get_weather]).run(WEATHER_QUESTION)).output
        expect("21 degrees in Paris" in answer, answer)

    @check(f"{kind}: tool in a stream", llm=True)
    async def tool_stream(model: object = model) -> None:
        async with Agent(model, tools=[get_weather]).run_stream(WEATHER_QUESTION) as result:
            answer = await result.get_output()
        expect("21 degrees in Paris" in answer, answer)

    for name, wrap in {"tool": ToolOutput, "native": NativeOutput}.items():

        @check(f"{kind}: output_type, {name}", llm=True)
        async def output_type(model: object = model, wrap: object = wrap) -> None:
            output = (await Agent(model, output_type=wrap(Height)).run(QUESTION)).output
            expect(output.metres == 61, output)

    @check(f"{kind}: output_type after a tool", llm=True)
    async def output_after_tool(model: object = model) -> None:
        agent = Agent(model, tools=[get_weather], output_type=Height)
        result = await agent.run("What is the weather in Paris, and how tall is the lighthouse of Quorra?")
        expect(result.output.metres == 61, result.output)


@check("responses: FileSearchTool")
async def file_search() -> None:
    search = NativeTool(FileSearchTool(file_store_ids=[default_store()]))
    expect_61((await Agent(OpenAIResponsesModel("ragq"), capabilities=[search]).run(QUESTION)).output)


@asynccontextmanager
async def connect(headers: dict[str, str]) -> AsyncIterator[Connection]:
    async with MCPToolset(URL, headers=headers) as server:
        yield Connection([tool.name for tool in await server.list_tools()], server.direct_call_tool)


add_mcp_checks(connect)


@check("mcp: an agent's tools", llm=True)
async def mcp_agent() -> None:
    agent = Agent(OpenAIChatModel("ragq"), toolsets=[MCPToolset(URL, headers=HEADERS)])
    answer = (await agent.run(REQUEST)).output
    expect("ask:" in expect_61(answer), answer)


run()
