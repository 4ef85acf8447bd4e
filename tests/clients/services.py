"""What the clients are run against: one ragq without an LLM, one with the scripted LLM; each with the same documents."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.servers import KEY, Ragq, environment, stop

DOCUMENTS = {
    "lighthouse.md": "# The lighthouse\n\nThe lighthouse of Quorra is 61 metres tall. It was built in 1874.\n",
    "ferry.md": "# The ferry\n\nThe ferry to Quorra leaves at noon. A ticket for the ferry costs 4 euros.\n",
    "museum.md": "# The museum\n\nThe museum of Quorra shows 300 ships in bottles. It is closed on Mondays.\n",
}


@dataclass(frozen=True)
class Service:
    """A ragq that runs, and how a client reaches it."""

    name: str
    url: str
    api_key: str
    scripted_llm: str

    @property
    def variables(self) -> dict[str, str]:
        """The environment of a client's program."""
        return {
            "SERVICE": self.name,
            "RAGQ_SERVICE_URL": self.url,
            "OPENAI_BASE_URL": f"{self.url}/v1",
            "OPENAI_API_BASE": f"{self.url}/v1",
            "OPENAI_API_KEY": self.api_key,
            "SCRIPTED_LLM": self.scripted_llm,
        }


@contextlib.contextmanager
def running_services(folder: Path, names: tuple[str, ...]) -> Iterator[list[Service]]:
    """Run the services during a `with`."""
    with contextlib.ExitStack() as stack:
        llm = stack.enter_context(_scripted_llm())
        settings = {
            "extractive": {},
            "llm": {"RAGQ_API_KEY": KEY, "RAGQ_LLM_BASE_URL": llm, "RAGQ_LLM_MODEL": "scripted/model"},
        }
        yield [stack.enter_context(_ragq(folder, name, llm, settings[name])) for name in names]


@contextlib.contextmanager
def _ragq(folder: Path, name: str, llm: str, settings: dict[str, str]) -> Iterator[Service]:
    service = Ragq(folder / name, **settings).start()
    try:
        files = []
        for filename, text in DOCUMENTS.items():
            (folder / filename).write_text(text)
            files.append(str(folder / filename))
        done = service.run("ingest", *files)
        if done.returncode:
            raise RuntimeError(f"ragq ingest: {done.stderr}")
        yield Service(name, service.url, settings.get("RAGQ_API_KEY", "any"), llm.removesuffix("/v1"))
    finally:
        service.end()


@contextlib.contextmanager
def _scripted_llm() -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.clients.scripted_llm"], stdout=subprocess.PIPE, env=environment()
    )
    try:
        assert process.stdout
        yield json.loads(process.stdout.readline())["base_url"]
    finally:
        stop(process)
        assert process.stdout
        process.stdout.close()
