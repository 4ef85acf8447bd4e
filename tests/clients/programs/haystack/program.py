"""Haystack: its OpenAI generators, an agent, and its embedders."""

from __future__ import annotations

from checks import BASE_URL, QUESTION, SECOND_QUESTION, WEATHER_QUESTION, check, expect, expect_61, run
from haystack import Document
from haystack.components.agents import Agent
from haystack.components.embedders import OpenAIDocumentEmbedder
from haystack.components.generators.chat import OpenAIChatGenerator, OpenAIResponsesChatGenerator
from haystack.dataclasses import ChatMessage
from haystack.tools import create_tool_from_function
from pydantic import BaseModel


class Height(BaseModel):
    """What is asked for."""

    subject: str
    metres: int


def get_weather(location: str) -> str:
    """Get the weather in a place."""
    return f"It is 21 degrees in {location}."


for kind, generator in {"chat": OpenAIChatGenerator, "responses": OpenAIResponsesChatGenerator}.items():

    def make(generator: type = generator, **options: object) -> object:
        return generator(model="ragq", api_base_url=BASE_URL, max_retries=0, **options)

    @check(f"{kind}: run")
    def plain(make: object = make) -> None:
        expect_61(make().run([ChatMessage.from_user(QUESTION)])["replies"][0].text)

    @check(f"{kind}: streamed")
    def streamed(make: object = make) -> None:
        parts: list[str] = []
        model = make(streaming_callback=lambda chunk: parts.append(chunk.content))
        expect_61(model.run([ChatMessage.from_user(QUESTION)])["replies"][0].text)
        expect(len(parts) > 1, parts)

    @check(f"{kind}: second turn")
    def second_turn(make: object = make) -> None:
        messages = [ChatMessage.from_user(QUESTION)]
        messages += [make().run(messages)["replies"][0], ChatMessage.from_user(SECOND_QUESTION)]
        answer = make().run(messages)["replies"][0].text
        expect("noon" in answer, answer)

    @check(f"{kind}: Agent with a tool", llm=True)
    def agent(make: object = make) -> None:
        made = Agent(chat_generator=make(), tools=[create_tool_from_function(get_weather)])
        answer = made.run(messages=[ChatMessage.from_user(WEATHER_QUESTION)])["messages"][-1].text
        expect("21 degrees in Paris" in answer, answer)


@check("chat: response_format", llm=True)
def typed() -> None:
    model = OpenAIChatGenerator(model="ragq", api_base_url=BASE_URL, generation_kwargs={"response_format": Height})
    text = model.run([ChatMessage.from_user(QUESTION)])["replies"][0].text
    expect(Height.model_validate_json(text).metres == 61, text)


@check("embeddings of 600 documents")
def embeddings() -> None:
    embedder = OpenAIDocumentEmbedder(model="ragq", api_base_url=BASE_URL, batch_size=600, progress_bar=False)
    documents = embedder.run([Document(content=f"text {number}") for number in range(600)])["documents"]
    expect(len(documents) == 600 and len(documents[-1].embedding) == 384, len(documents))


run()
