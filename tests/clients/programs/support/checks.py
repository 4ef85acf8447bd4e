"""What the Python programs share: named checks, each printed as one line of JSON."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import signal
import traceback
import urllib.request
from collections.abc import Callable
from typing import Any

BASE_URL = os.environ["OPENAI_BASE_URL"]
API_KEY = os.environ["OPENAI_API_KEY"]
HAS_LLM = os.environ["SERVICE"] == "llm"
QUESTION = "How tall is the lighthouse of Quorra?"
SECOND_QUESTION = "When does the ferry leave?"
WEATHER_QUESTION = "What is the weather in Paris?"
SECONDS = 60

_results = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what clients print goes to stderr

_checks: list[tuple[str, Callable[[], Any]]] = []


def check(name: str, *, llm: bool = False) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """Add a check: it raises if it fails, and may return a detail. With `llm`, only where there is an LLM."""

    def add(function: Callable[[], Any]) -> Callable[[], Any]:
        if HAS_LLM or not llm:
            _checks.append((name, function))
        return function

    return add


def expect(condition: object, detail: object) -> None:
    """Fail with the detail unless the condition holds."""
    if not condition:
        raise AssertionError(str(detail)[:600])


def expect_61(text: object) -> str:
    """Fail unless the text gives the height of the lighthouse, which only the documents know."""
    expect("61" in str(text), f"no 61 in: {text!r}")
    return str(text)


def default_store() -> str:
    """The id of the store that has the documents."""
    request = urllib.request.Request(f"{BASE_URL}/vector_stores", headers={"Authorization": f"Bearer {API_KEY}"})
    with urllib.request.urlopen(request) as response:
        return next(store["id"] for store in json.load(response)["data"] if store["name"] == "default")


def run() -> None:
    """Run all checks, or those that ONLY_CHECKS names."""
    only = os.environ.get("ONLY_CHECKS", "").split(";") if os.environ.get("ONLY_CHECKS") else None
    if not _checks:
        _report("(all)", ok=None, detail="each needs an LLM")
    for name, function in _checks:
        if not only or name in only:
            _run(name, function)
    os._exit(0)  # some clients leave threads that would keep the process


def _run(name: str, function: Callable[[], Any]) -> None:
    signal.signal(signal.SIGALRM, _too_late)
    signal.alarm(SECONDS)
    try:
        result = function()
        if inspect.iscoroutine(result):
            result = asyncio.run(result)
    except BaseException as error:  # noqa: BLE001  (a check may fail in any way)
        traceback.print_exc()
        _report(name, ok=False, detail=f"{type(error).__name__}: {error}")
    else:
        _report(name, ok=True, detail="" if result is None else str(result))
    finally:
        signal.alarm(0)


def _too_late(*_: object) -> None:
    raise TimeoutError(f"not done in {SECONDS} s")


def _report(name: str, *, ok: bool | None, detail: str) -> None:
    line = {"client": os.environ["CLIENT"], "check": name, "ok": ok, "detail": " ".join(detail.split())[:600]}
    print(json.dumps(line), file=_results, flush=True)
