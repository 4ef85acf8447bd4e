"""CrewAI: an LLM alone, an agent with a tool, a crew with a typed answer."""

from __future__ import annotations

from checks import API_KEY, BASE_URL, QUESTION, WEATHER_QUESTION, check, expect, expect_61, run
from crewai import LLM, Agent, Crew, Task
from crewai.tools import tool
from pydantic import BaseModel


class Height(BaseModel):
    """What is asked for."""

    subject: str
    metres: int


@tool("get_weather")
def get_weather(location: str) -> str:
    """Get the weather in a place."""
    return f"It is 21 degrees in {location}."


def llm(**options: object) -> LLM:
    return LLM(model="openai/ragq", base_url=BASE_URL, api_key=API_KEY, **options)


def guide(**options: object) -> Agent:
    return Agent(role="Guide", goal="Answer", backstory="A guide of Quorra.", llm=llm(), max_iter=3, **options)


@check("LLM.call")
def call() -> None:
    expect_61(llm().call(QUESTION))


@check("LLM.call, streamed")
def call_streamed() -> None:
    expect_61(llm(stream=True).call(QUESTION))


@check("LLM.call, settings")
def settings() -> None:
    some = {"temperature": 0.1, "seed": 7, "frequency_penalty": 0.1, "presence_penalty": 0.1, "stop": ["Observation:"]}
    expect_61(llm(**some).call(QUESTION))


@check("LLM.call, responses")
def responses() -> None:
    expect_61(llm(api="responses").call(QUESTION))


@check("crew")
def crew() -> None:
    agent = guide()
    task = Task(description=QUESTION, expected_output="A height", agent=agent)
    expect_61(Crew(agents=[agent], tasks=[task]).kickoff().raw)


@check("agent with a tool", llm=True)
def agent_with_tool() -> None:
    answer = guide(tools=[get_weather]).kickoff(WEATHER_QUESTION).raw
    expect("21 degrees in Paris" in answer, answer)


@check("agent with a typed answer", llm=True)
def typed() -> None:
    answer = guide().kickoff(QUESTION, response_format=Height)
    expect(answer.pydantic and answer.pydantic.metres == 61, answer)


run()
