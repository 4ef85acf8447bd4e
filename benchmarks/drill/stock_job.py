"""The job of a stock RQ worker: a blocking call of the fake LLM."""

from __future__ import annotations

import json
import os
import urllib.request


def ask(tag: str) -> str:
    """Ask with this tag; the worker's name is the model, so that the witness shows it."""
    body = {
        "model": os.environ["RAGQ_LLM_MODEL"],
        "messages": [{"role": "user", "content": f"How tall is the lighthouse? [[fake job={tag}]]"}],
    }
    request = urllib.request.Request(
        os.environ["RAGQ_LLM_BASE_URL"] + "/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        text: str = json.load(answer)["choices"][0]["message"]["content"]
    return text
