"""LlamaIndex: OpenAILike as a chat model and as it is by default, OpenAIResponses, an agent, embeddings."""

from __future__ import annotations

from checks import API_KEY, BASE_URL, QUESTION, SECOND_QUESTION, WEATHER_QUESTION, check, expect, expect_61, run
from llama_index.core.agent import FunctionAgent
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai import OpenAIResponses
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel


class Height(BaseModel):
    """What is asked for."""

    subject: str
    metres: int


def get_weather(location: str) -> str:
    """Get the weather in a place."""
    return f"It is 21 degrees in {location}."


def like(**options: object) -> OpenAILike:
    return OpenAILike(model="ragq", api_base=BASE_URL, api_key=API_KEY, max_retries=0, **options)


def chat_model(**options: object) -> OpenAILike:
    return like(is_chat_model=True, is_function_calling_model=True, context_window=8000, **options)


def responses() -> OpenAIResponses:
    return OpenAIResponses(model="ragq", api_base=BASE_URL, api_key=API_KEY, max_retries=0, context_window=8000)


@check("completions, as it is by default")
def completions() -> None:
    expect_61(like().complete(QUESTION).text)


@check("completions stream")
def completions_stream() -> None:
    expect_61(list(like().stream_complete(QUESTION))[-1].text)


for kind, make in {"chat": chat_model, "responses": responses}.items():

    @check(f"{kind}: chat")
    def chat(make: object = make) -> None:
        expect_61(make().chat([ChatMessage(role="user", content=QUESTION)]).message.content)

    @check(f"{kind}: stream_chat")
    def stream_chat(make: object = make) -> None:
        expect_61("".join(part.delta for part in make().stream_chat([ChatMessage(role="user", content=QUESTION)])))

    @check(f"{kind}: second turn")
    def second_turn(make: object = make) -> None:
        messages = [ChatMessage(role="user", content=QUESTION)]
        messages += [make().chat(messages).message, ChatMessage(role="user", content=SECOND_QUESTION)]
        answer = make().chat(messages).message.content
        expect("noon" in answer, answer)

    @check(f"{kind}: chat_with_tools", llm=True)
    def tools(make: object = make) -> None:
        from llama_index.core.tools import FunctionTool

        model = make()
        answer = model.chat_with_tools([FunctionTool.from_defaults(get_weather)], user_msg=WEATHER_QUESTION)
        calls = model.get_tool_calls_from_response(answer)
        expect(calls[0].tool_kwargs == {"location": "Paris"}, calls)

    @check(f"{kind}: structured_predict", llm=True)
    def structured(make: object = make) -> None:
        answer = make().structured_predict(Height, PromptTemplate("{question}"), question=QUESTION)
        expect(answer.metres == 61, answer)

    @check(f"{kind}: FunctionAgent", llm=True)
    async def agent(make: object = make) -> None:
        answer = await FunctionAgent(tools=[get_weather], llm=make()).run(WEATHER_QUESTION)
        expect("21 degrees in Paris" in str(answer), answer)


@check("chat: structured output by response_format", llm=True)
def structured_outputs() -> None:
    model = chat_model(should_use_structured_outputs=True)
    answer = model.structured_predict(Height, PromptTemplate("{question}"), question=QUESTION)
    expect(answer.metres == 61, answer)


@check("embeddings of 600 texts")
def embeddings() -> None:
    model = OpenAILikeEmbedding(model_name="ragq", api_base=BASE_URL, api_key=API_KEY, embed_batch_size=600)
    vectors = model.get_text_embedding_batch([f"text {number}" for number in range(600)])
    expect(len(vectors) == 600 and len(vectors[0]) == 384, len(vectors))


run()
