"""AutoGen: its OpenAI chat completion client alone, and under an AssistantAgent."""

from __future__ import annotations

from autogen_agentchat.agents import AssistantAgent
from autogen_core.models import ModelInfo, UserMessage
from autogen_ext.models.openai import OpenAIChatCompletionClient
from checks import API_KEY, BASE_URL, QUESTION, WEATHER_QUESTION, check, expect, expect_61, run
from pydantic import BaseModel

INFO = ModelInfo(
    vision=True,
    function_calling=True,
    json_output=True,
    family="unknown",
    structured_output=True,
    multiple_system_messages=True,
)


class Height(BaseModel):
    """What is asked for."""

    subject: str
    metres: int


async def get_weather(location: str) -> str:
    """Get the weather in a place."""
    return f"It is 21 degrees in {location}."


def client() -> OpenAIChatCompletionClient:
    return OpenAIChatCompletionClient(model="ragq", base_url=BASE_URL, api_key=API_KEY, model_info=INFO, max_retries=0)


@check("create")
async def create() -> None:
    expect_61((await client().create([UserMessage(content=QUESTION, source="user")])).content)


@check("create_stream")
async def create_stream() -> None:
    parts = [part async for part in client().create_stream([UserMessage(content=QUESTION, source="user")])]
    expect_61(parts[-1].content)


@check("AssistantAgent")
async def agent() -> None:
    result = await AssistantAgent("guide", client()).run(task=QUESTION)
    expect_61(result.messages[-1].content)


@check("AssistantAgent, second turn")
async def second_turn() -> None:
    made = AssistantAgent("guide", client())
    await made.run(task=QUESTION)
    answer = (await made.run(task="When does the ferry leave?")).messages[-1].content
    expect("noon" in answer, answer)


@check("AssistantAgent with a tool", llm=True)
async def tool() -> None:
    made = AssistantAgent("guide", client(), tools=[get_weather], reflect_on_tool_use=True)
    answer = (await made.run(task=WEATHER_QUESTION)).messages[-1].content
    expect("21 degrees in Paris" in answer, answer)


@check("AssistantAgent with a typed answer", llm=True)
async def typed() -> None:
    made = AssistantAgent("guide", client(), output_content_type=Height)
    answer = (await made.run(task=QUESTION)).messages[-1].content
    expect(answer.metres == 61, answer)


run()
