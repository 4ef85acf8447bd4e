"""Clients that no one here wrote, on a whole `ragq up`: the `llm` command line and LangChain."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from tests.servers import KEY, FakeLlm, Ragq, environment, run

QUESTION = "How tall is the lighthouse of Quorra?"
MODELS = """\
- model_id: quorra
  model_name: ragq
  api_base: "{url}/v1"
  api_key_name: ragq
"""


def run_llm(ragq: Ragq, folder: Path, *arguments: str) -> str:
    """Run the `llm` command with settings and a log of its own."""
    (folder / "extra-openai-models.yaml").write_text(MODELS.format(url=ragq.url))
    done = run(sys.executable, "-m", "llm", *arguments, env=environment(LLM_USER_PATH=folder))
    assert done.returncode == 0, done.stderr
    return done.stdout


def chat_model(ragq: Ragq, **options: Any) -> ChatOpenAI:
    return ChatOpenAI(model="ragq", base_url=f"{ragq.url}/v1", api_key=SecretStr(KEY), max_retries=0, **options)


@pytest.mark.parametrize("stream", [(), ("--no-stream",)], ids=["stream", "no stream"])
def test_the_llm_command_asks_and_goes_on_with_the_conversation(
    ragq: Ragq, llm: FakeLlm, tmp_path: Path, stream: tuple[str, ...]
) -> None:
    options = (*stream, "--key", KEY)
    assert "61 metres" in run_llm(ragq, tmp_path, "-m", "quorra", "-s", "Be brief.", *options, QUESTION)
    assert run_llm(ragq, tmp_path, "--continue", *options, "Is it open?").strip()
    assert f"user: {QUESTION}" in llm.witness.read_text()


@pytest.mark.parametrize("responses", [True, False], ids=["responses", "chat completions"])
def test_langchain_gets_an_answer(ragq: Ragq, *, responses: bool) -> None:
    model = chat_model(ragq, use_responses_api=responses, temperature=0.2, max_tokens=200)
    answer = model.invoke([("system", "Be brief."), ("human", QUESTION)])
    assert "61 metres" in answer.text
    assert answer.usage_metadata
    assert answer.usage_metadata["total_tokens"] > 0


def test_langchain_streams_a_response_with_its_citation(ragq: Ragq) -> None:
    first, *more = chat_model(ragq, use_responses_api=True).stream(QUESTION)
    for chunk in more:
        first += chunk
    assert len(more) > 1
    assert "61 metres" in first.text
    (block,) = [one for one in first.content if isinstance(one, dict) and one.get("annotations")]
    assert block["annotations"][0]["filename"] == "harbour.md"


def test_langchain_streams_a_chat_completion(ragq: Ragq) -> None:
    pieces = [chunk.text for chunk in chat_model(ragq).stream(f"[[fake rate=20]] {QUESTION}")]
    assert len([piece for piece in pieces if piece]) > 1
    assert "61 metres" in "".join(pieces)


@pytest.mark.parametrize("responses", [True, False], ids=["responses", "chat completions"])
def test_langchain_goes_on_with_a_conversation(ragq: Ragq, llm: FakeLlm, *, responses: bool) -> None:
    model = chat_model(ragq, use_responses_api=responses)
    first = model.invoke(QUESTION)
    follow_up = f"Is it open on {'Monday' if responses else 'Tuesday'}?"
    answer = model.invoke([("human", QUESTION), first, ("human", follow_up)])
    assert answer.text
    assert f"Last question: {follow_up}" in llm.witness.read_text()
