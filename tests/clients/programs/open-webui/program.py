"""Open WebUI itself, with ragq as its OpenAI connection and its embeddings, used through its page in Chromium.

Nothing is set that its documentation does not name: the page calls its built-in tools natively and streams, as it does
for everybody.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from checks import API_KEY, BASE_URL, QUESTION, SECOND_QUESTION, check, expect, run
from playwright.sync_api import Page, sync_playwright

START_SECONDS = 240
ANSWER_SECONDS = 40
LAST_MESSAGE = "[...document.querySelectorAll(\"[id^='message-']:not([id*='input'])\")].at(-1)?.innerText ?? ''"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start() -> str:
    """Start Open WebUI in a folder of its own; returns its address. The runner stops it, with this program's group."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    settings = {
        "DATA_DIR": str(Path.cwd()),
        "WEBUI_AUTH": "False",
        "WEBUI_SECRET_KEY": "for this run",
        "OFFLINE_MODE": "true",
        "ENABLE_OLLAMA_API": "False",
        "OPENAI_API_BASE_URL": BASE_URL,
        "OPENAI_API_KEY": API_KEY,
        "RAG_EMBEDDING_ENGINE": "openai",
        "RAG_EMBEDDING_MODEL": "ragq",
        "RAG_OPENAI_API_BASE_URL": BASE_URL,
        "RAG_OPENAI_API_KEY": API_KEY,
        "ANONYMIZED_TELEMETRY": "false",
    }
    command = [Path(sys.executable).parent / "open-webui", "serve", "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(command, env=os.environ | settings, stdout=sys.stderr)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(f"{url}/health", timeout=5).close()
        except (urllib.error.URLError, TimeoutError):
            time.sleep(0.5)
        else:
            return url
    raise SystemExit(f"Open WebUI did not start within {START_SECONDS} s")


def open_page(url: str) -> Page:
    """Open the page, and close what it shows to a newcomer."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        raise SystemExit("There is no Chromium on PATH.")
    browser = sync_playwright().start().chromium.launch(executable_path=chromium, args=["--no-sandbox"])
    page = browser.new_page(viewport={"width": 1300, "height": 900})
    page.set_default_timeout(ANSWER_SECONDS * 1000)
    page.goto(url)
    page.get_by_text("Okay, Let's Go!").click()
    return page


URL = start()
page = open_page(URL)


def new_chat() -> None:
    page.goto(f"{URL}/health")
    page.evaluate("sessionStorage.clear()")  # else the page brings back the draft of the last chat, with its file
    page.goto(URL)
    page.locator("#chat-input").wait_for()


def ask(question: str, wanted: str) -> str:
    """Ask on the page; fails if the answer does not come to hold the wanted pattern."""
    page.locator("#chat-input").click()
    page.keyboard.type(question)
    page.keyboard.press("Enter")
    return wait_for(lambda: page.evaluate(LAST_MESSAGE), wanted)


def wait_for(read: Any, wanted: str) -> str:
    deadline = time.monotonic() + ANSWER_SECONDS
    while not re.search(wanted, text := read()):
        expect(time.monotonic() < deadline, f"no {wanted!r} in {ANSWER_SECONDS} s, but: {text!r}")
        page.wait_for_timeout(200)
    return text


def stored_chat() -> dict[str, Any]:
    """The chat that the page shows, as Open WebUI keeps it."""
    script = "id => fetch(`/api/v1/chats/${id}`, {headers: {Authorization: `Bearer ${localStorage.token}`}}).then(r => r.json())"
    return page.evaluate(script, page.url.rpartition("/")[2])


@check("page: the model is chosen")
def model() -> str:
    return wait_for(lambda: page.locator("#model-selector-model-button").inner_text(), "ragq")


@check("page: a chat, streamed, with its built-in tools")
def chat() -> str:
    new_chat()
    return ask(QUESTION, r"\b61\b")


@check("page: the second turn")
def second_turn() -> str:
    return ask(SECOND_QUESTION, "noon")


@check("page: title and tags are made", llm=True)
def title_and_tags() -> None:
    new_chat()
    ask(QUESTION, r"\b61\b")
    wait_for(lambda: stored_chat()["title"], "^The lighthouse of Quorra$")
    wait_for(lambda: json.dumps(stored_chat().get("meta", {}).get("tags", [])), "lighthouses")


@check("page: follow-up questions are made", llm=True)
def follow_ups() -> None:
    wait_for(lambda: page.locator("body").inner_text(), "When was it built")


@check("page: a built-in tool is called", llm=True)
def builtin_tool() -> str:
    new_chat()
    return ask("What is the current timestamp?", r"The tools say: get_current_timestamp: .*20\d\d-")


@check("page: a file is attached, and embedded")
def attached_file() -> None:
    new_chat()
    attach()


@check("page: a question about an attached file", llm=True)
def file_question() -> str:
    new_chat()
    attach()
    return ask("How tall is the tower of Zembla?", r"\b93\b")


def attach() -> None:
    """Attach a file through the page, and wait until Open WebUI has embedded it."""
    path = Path("zembla.txt")
    path.write_text("The tower of Zembla is 93 metres tall.\n")
    with page.expect_response(re.compile(r"/api/v1/files/(\?|$)")) as uploaded:
        page.locator("input[type=file]").first.set_input_files(path)
    file = uploaded.value.json()["id"]
    script = "id => fetch(`/api/v1/files/${id}`, {headers: {Authorization: `Bearer ${localStorage.token}`}}).then(r => r.text())"
    done = wait_for(lambda: page.evaluate(script, file), '"status": ?"(completed|failed)"')
    expect("completed" in done, done)


run()
