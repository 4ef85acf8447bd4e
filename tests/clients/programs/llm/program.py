"""The `llm` command line, with ragq among its models by extra-openai-models.yaml."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from checks import API_KEY, BASE_URL, QUESTION, check, expect, expect_61, run

FOLDER = Path.cwd() / "llm"
FOLDER.mkdir(exist_ok=True)
MODEL = f"""\
- model_id: quorra
  model_name: ragq
  api_base: "{BASE_URL}"
  api_key_name: ragq
  supports_tools: true
  supports_schema: true
"""
(FOLDER / "extra-openai-models.yaml").write_text(MODEL)
WEATHER = """
def get_weather(location: str) -> str:
    "Get the weather in a place."
    return f"It is 21 degrees in {location}."
"""


def llm(*arguments: str) -> str:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "llm"), *arguments, "--key", API_KEY],
        env=os.environ | {"LLM_USER_PATH": str(FOLDER)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    expect(done.returncode == 0, done.stderr)
    return done.stdout


@check("prompt")
def prompt() -> None:
    expect_61(llm("-m", "quorra", "-s", "Be brief.", QUESTION))


@check("prompt without a stream")
def no_stream() -> None:
    expect_61(llm("-m", "quorra", "--no-stream", QUESTION))


@check("continue")
def go_on() -> None:
    llm("-m", "quorra", QUESTION)
    text = llm("--continue", "When does the ferry leave?")
    expect("noon" in text, text)


@check("options")
def options() -> None:
    expect_61(
        llm("-m", "quorra", "-o", "seed", "7", "-o", "temperature", "0.2", "-o", "presence_penalty", "0", QUESTION)
    )


@check("json_object", llm=True)
def json_object() -> None:
    expect_61(json.loads(llm("-m", "quorra", "-o", "json_object", "1", QUESTION)))


@check("schema", llm=True)
def schema() -> None:
    answer = json.loads(llm("-m", "quorra", "--schema", "subject, metres int", QUESTION))
    expect(answer["metres"] == 61, answer)


@check("tools", llm=True)
def tools() -> None:
    text = llm("-m", "quorra", "--functions", WEATHER, "What is the weather in Paris?")
    expect("21 degrees in Paris" in text, text)


run()
