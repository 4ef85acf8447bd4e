"""DSPy: Predict, ChainOfThought and ReAct with each adapter."""

from __future__ import annotations

import dspy
from checks import API_KEY, BASE_URL, QUESTION, check, expect, expect_61, run

dspy.configure(lm=dspy.LM("openai/ragq", api_base=BASE_URL, api_key=API_KEY, num_retries=0, cache=False))


@check("LM")
def model() -> None:
    expect_61(dspy.settings.lm(QUESTION))


@check("Predict", llm=True)
def predict() -> None:
    expect_61(dspy.Predict("question -> answer")(question=QUESTION).answer)


@check("Predict, typed", llm=True)
def typed() -> None:
    answer = dspy.Predict("question -> metres: int")(question=QUESTION).metres
    expect(answer == 61, answer)


@check("Predict with JSONAdapter", llm=True)
def json_adapter() -> None:
    with dspy.context(adapter=dspy.JSONAdapter()):
        expect_61(dspy.Predict("question -> answer")(question=QUESTION).answer)


@check("ChainOfThought", llm=True)
def chain_of_thought() -> None:
    expect_61(dspy.ChainOfThought("question -> answer")(question=QUESTION).answer)


@check("Embedder of 600 texts")
def embedder() -> None:
    made = dspy.Embedder("openai/ragq", batch_size=600, caching=False, api_base=BASE_URL, api_key=API_KEY)
    expect(len(made([f"text {number}" for number in range(600)])) == 600, "another number")


run()
