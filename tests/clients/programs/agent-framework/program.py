"""Microsoft's Agent Framework: its clients for responses and for chat completions, under an Agent."""

from __future__ import annotations

from agent_framework import Agent
from agent_framework.openai import OpenAIChatClient, OpenAIChatCompletionClient
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
from pydantic import BaseModel


class Height(BaseModel):
    """What is asked for."""

    subject: str
    metres: int


def get_weather(location: str) -> str:
    """Get the weather in a place."""
    return f"It is 21 degrees in {location}."


def agent(kind: type, **options: object) -> Agent:
    return Agent(kind("ragq", base_url=BASE_URL, api_key=API_KEY), "Be brief.", **options)


for name, kind in {"responses": OpenAIChatClient, "chat": OpenAIChatCompletionClient}.items():

    @check(f"{name}: run")
    async def plain(kind: type = kind) -> None:
        expect_61((await agent(kind).run(QUESTION)).text)

    @check(f"{name}: run, streamed")
    async def streamed(kind: type = kind) -> None:
        expect_61("".join([part.text async for part in agent(kind).run(QUESTION, stream=True)]))

    @check(f"{name}: session")
    async def session(kind: type = kind) -> None:
        made = agent(kind)
        memory = made.create_session()
        await made.run(QUESTION, session=memory)
        answer = (await made.run(SECOND_QUESTION, session=memory)).text
        expect("noon" in answer, answer)

    @check(f"{name}: tool", llm=True)
    async def tool(kind: type = kind) -> None:
        answer = (await agent(kind, tools=[get_weather]).run(WEATHER_QUESTION)).text
        expect("21 degrees in Paris" in answer, answer)

    @check(f"{name}: tool, streamed", llm=True)
    async def tool_streamed(kind: type = kind) -> None:
        made = agent(kind, tools=[get_weather])
        answer = "".join([part.text async for part in made.run(WEATHER_QUESTION, stream=True)])
        expect("21 degrees in Paris" in answer, answer)

    @check(f"{name}: response_format", llm=True)
    async def typed(kind: type = kind) -> None:
        answer = await agent(kind).run(QUESTION, options={"response_format": Height})
        expect(answer.value.metres == 61, answer)


@check("responses: file search")
async def file_search() -> None:
    search = OpenAIChatClient.get_file_search_tool(vector_store_ids=[default_store()])
    expect_61((await agent(OpenAIChatClient, tools=[search]).run(QUESTION)).text)


run()
