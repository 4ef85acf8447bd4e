"""llama.cpp's server with a small real model, as a process."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import NamedTuple

import httpx2

from tests.servers import environment, free_port, stop, wait_until

HERE = Path(__file__).parent
PYTHON = HERE.parents[1] / ".venv-llm" / "bin" / "python"
CONTEXT_TOKENS = 2048
START_SECONDS = 60


class Counts(NamedTuple):
    """Tokens that a server counted since it started; those that its cache saved are not among the prompt's."""

    prompt: int
    output: int


class LlamaServer:
    """Starts again on the same port after `kill` (SIGKILL)."""

    def __init__(self, folder: Path) -> None:
        self._url = f"http://127.0.0.1:{(port := free_port())}"
        self._command, self._log = [str(PYTHON), str(HERE / "serve.py"), str(port)], folder / "llama.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def base_url(self) -> str:
        return f"{self._url}/v1"

    def start(self) -> LlamaServer:
        """Start it, without waiting until it has loaded the model."""
        assert PYTHON.exists(), "There is no environment with an LLM: make llm-test installs it."
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, env=environment())
        return self

    def start_in(self, seconds: float) -> None:
        """Start it after a while, during which nothing listens on its port."""
        time.sleep(seconds)
        self.start()

    def wait(self) -> LlamaServer:
        """Wait until it answers."""
        wait_until(self._is_ready, seconds=START_SECONDS, what=f"{self._log} says that the LLM listens")
        return self

    def _is_ready(self) -> bool:
        assert self._process
        assert self._process.poll() is None, self._log.read_text()[-3000:]
        try:
            return httpx2.get(f"{self._url}/health").status_code == 200
        except httpx2.TransportError:
            return False

    def kill(self) -> None:
        assert self._process
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        assert self._process
        stop(self._process)

    def running(self) -> int:
        """Number of answers that it generates or that wait for a slot."""
        return self._metric("requests_processing") + self._metric("requests_deferred")

    def counts(self) -> Counts:
        """What it counted, once it is idle."""
        wait_until(lambda: self.running() == 0, what="the LLM is idle")
        return Counts(self._metric("prompt_tokens_total"), self.generated())

    def generated(self) -> int:
        """Tokens of the answers that have ended."""
        return self._metric("tokens_predicted_total")

    def _metric(self, name: str) -> int:
        lines = httpx2.get(f"{self._url}/metrics").raise_for_status().text.splitlines()
        return int(float(next(line.split()[1] for line in lines if line.startswith(f"llamacpp:{name} "))))
