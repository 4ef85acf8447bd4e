"""Instructor: a typed answer in each of its modes for OpenAI."""

from __future__ import annotations

import instructor
from checks import QUESTION, check, expect, run
from openai import OpenAI
from pydantic import BaseModel


class Height(BaseModel):
    """How tall something is."""

    subject: str
    metres: int


for mode in ("TOOLS", "TOOLS_STRICT", "JSON", "JSON_SCHEMA", "MD_JSON", "RESPONSES_TOOLS"):

    @check(mode, llm=True)
    def typed(mode: str = mode) -> None:
        client = instructor.from_openai(OpenAI(max_retries=0), mode=instructor.Mode[mode])
        messages = [{"role": "user", "content": QUESTION}]
        answer = client.create(model="ragq", messages=messages, response_model=Height, max_retries=0)
        expect(answer.metres == 61, answer)


@check("partial answers in a stream", llm=True)
def partial() -> None:
    client = instructor.from_openai(OpenAI(max_retries=0))
    messages = [{"role": "user", "content": QUESTION}]
    *_, last = client.create_partial(model="ragq", messages=messages, response_model=Height, max_retries=0)
    expect(last.metres == 61, last)


run()
