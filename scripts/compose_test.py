"""Run compose.yaml for real: build the image, kill a worker and Valkey under load, and audit what is left.

It needs a Docker engine with Compose 2.24 or later. Where none answers it says so and exits with 77: the test did not run.
Where no image registry can be reached, make the base images first (scripts/stand_in_images.py).

The project runs from a copy of the checkout, under a name, passwords and a port of its own, and is removed at the end. The
LLM is the tests' fake one, in a container of the same network.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Self

from ragq import __version__
from ragq.api_client import ApiClient
from ragq.errors import TransientError, UnavailableError

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted((ROOT / "docs" / "explanation").glob("*.md"))[:4]
NOT_RUN = 77
WORKERS = 3
QUESTIONS = 60
LATENCY_SECONDS = 6  # of the fake LLM: the kills meet questions in flight
PATIENCE_SECONDS = 300.0  # for each step
MOST_IMAGE_MB = 450
MOST_PACKAGES_MB = 280
OVERRIDE = f"""
services:
  api:
    ports: !override ["127.0.0.1::8000"]
  fake-llm:
    image: ragq:{__version__}
    init: true
    working_dir: /fake
    volumes: ["./tests:/fake/tests:ro"]
    command:
      - python
      - -c
      - |
        from aiohttp import web
        from tests.fake_llm import Behaviour, FakeLlm
        web.run_app(FakeLlm(Behaviour(latency={LATENCY_SECONDS})).application(), port=9000)
"""
FETCH = """
import sys, urllib.request
request = urllib.request.Request(sys.argv[1], headers={"Authorization": f"Bearer {sys.argv[2]}"})
print(urllib.request.urlopen(request, timeout=5).read().decode())
"""
STARTED = time.monotonic()


class Project:
    """A Compose project in a folder of its own; leaving it removes its containers, network and volumes."""

    def __init__(self, folder: Path) -> None:
        self.key = secrets.token_hex(16)
        self._folder = folder
        self._environment = {**os.environ, "COMPOSE_PROJECT_NAME": f"ragq-test-{secrets.token_hex(4)}"}

    def __enter__(self) -> Self:
        copy_checkout(self._folder)
        settings = {
            "RAGQ_API_KEY": self.key,
            "VALKEY_PASSWORD": secrets.token_hex(16),
            "POSTGRES_PASSWORD": secrets.token_hex(16),
            "RAGQ_LLM_BASE_URL": "http://fake-llm:9000/v1",
            "RAGQ_LLM_MODEL": "fake",
        }
        (self._folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        (self._folder / "compose.override.yaml").write_text(OVERRIDE)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind:
            print(self.compose("logs", "--no-color", "--tail", "30"), file=sys.stderr)
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "5")

    def compose(self, *words: str) -> str:
        """Run `docker compose` and return what it prints."""
        return run("docker", "compose", *words, cwd=self._folder, env=self._environment)

    def execute(self, service: str, *words: str) -> str:
        """Run a command in a service's first container."""
        return self.compose("exec", "--no-TTY", service, *words)

    def fetch(self, url: str) -> str:
        """GET something from a container that is neither the API nor a worker, with the key."""
        return self.execute("fake-llm", "python", "-c", FETCH, url, self.key)

    def kill(self, service: str) -> str:
        """Send SIGKILL to a service's first container; Docker does not start a killed one again. Returns its id."""
        container = self.compose("ps", "--quiet", service).split()[0]
        run("docker", "kill", container)
        return container


def run(*words: str, **options: Any) -> str:
    """Run a command and return its output; a failure shows the end of it."""
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    try:
        done = subprocess.run(words, check=False, timeout=PATIENCE_SECONDS, **pipes, **options)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"{' '.join(words)} did not end within {PATIENCE_SECONDS:g} s.") from error
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)} exited with {done.returncode}:\n{done.stdout[-4000:]}")
    return str(done.stdout)


def copy_checkout(folder: Path) -> None:
    """Copy the files that git knows, as they are now."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    pack = ["tar", "--create", "--null", "--files-from=-"]
    packed = subprocess.run(pack, cwd=ROOT, input=listed, capture_output=True, check=True).stdout
    subprocess.run(["tar", "--extract"], cwd=folder, input=packed, check=True)


def say(text: str) -> None:
    print(f"{time.monotonic() - STARTED:6.1f} s  {text}", flush=True)


def expect(holds: bool, text: str) -> None:
    """Print what was found, and end the test if it is not as it should be."""
    say(f"{'ok' if holds else 'FAIL'}: {text}")
    if not holds:
        raise RuntimeError(text)


async def until(attempt: Callable[[], Coroutine[Any, Any, Any]], what: str) -> Any:
    """Repeat a call until its answer is true."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            if answer := await attempt():
                return answer
        except (TransientError, UnavailableError):
            pass
        await asyncio.sleep(0.5)
    raise RuntimeError(f"Not within {PATIENCE_SECONDS:g} s: {what}.")


def build_image(project: Project) -> None:
    """Build it, and hold it to its size."""
    project.compose("config", "--quiet")
    say("compose.yaml is valid")
    project.compose("build", "api")
    say("the image is built")
    image = f"ragq:{__version__}"
    megabytes = int(run("docker", "image", "inspect", "--format", "{{.Size}}", image)) // 1_000_000
    packages = int(run("docker", "run", "--rm", image, "du", "-s", "--block-size=1000000", "/opt/ragq").split()[0])
    expect(megabytes <= MOST_IMAGE_MB, f"the image has {megabytes} MB, at most {MOST_IMAGE_MB}")
    expect(packages <= MOST_PACKAGES_MB, f"its packages have {packages} MB, at most {MOST_PACKAGES_MB}")


async def start(project: Project) -> ApiClient:
    """Start everything, and wait for the API."""
    project.compose("up", "--detach", "--scale", f"worker={WORKERS}")
    client = ApiClient(f"http://{project.compose('port', 'api', '8000').strip()}", project.key)
    async with client:
        await until(lambda: client.call("GET", "/readyz"), "the API is ready")
    say(f"everything is up, with {WORKERS} query workers")
    expect(project.execute("api", "id", "-u").strip() != "0", "ragq does not run as root")
    return client


async def check_metrics(project: Project) -> None:
    """Read each worker's metrics from another container, at the address that discovery names."""

    async def find_targets() -> list[str]:
        listed = json.loads(project.fetch("http://api:8000/metrics/targets"))
        targets = [target for one in listed for target in one["targets"]]
        return targets if len(targets) > WORKERS else []

    targets = await until(find_targets, "all workers are listed")
    shown = [target for target in targets if "ragq_attempts_total" in project.fetch(f"http://{target}/metrics")]
    expect(shown == targets, f"another container reads the metrics of {len(shown)} of {len(targets)} workers")


async def ingest(client: ApiClient) -> None:
    states = [await client.ingest(path, path.name, on_progress=lambda _: None) for path in DOCUMENTS]
    done = sum(state["status"] == "completed" for state in states)
    expect(done == len(DOCUMENTS), f"{done} of {len(DOCUMENTS)} documents are ingested")


async def ask_and_kill(project: Project, client: ApiClient) -> None:
    """Ask, kill a worker and Valkey while the LLM thinks, and wait for every answer."""

    async def is_busy() -> bool:
        return bool(json.loads(project.fetch("http://fake-llm:9000/stats"))["in_flight"] >= QUESTIONS // 2)

    async def ended(response_id: str) -> dict[str, Any] | None:
        response = await client.call("GET", f"/v1/responses/{response_id}")
        return response if response["status"] not in ("queued", "in_progress") else None

    bodies = [{"input": f"{number}. What does ragq promise?", "background": True} for number in range(QUESTIONS)]
    asked = time.monotonic()
    accepted = await asyncio.gather(*(client.call("POST", "/v1/responses", json=body) for body in bodies))
    say(f"{len(accepted)} questions are accepted")
    await until(is_busy, "the LLM has questions")
    project.kill("worker")
    run("docker", "start", project.kill("valkey"))
    say("a worker is killed; Valkey is killed and started again")
    responses = await asyncio.gather(*(until(lambda one=one: ended(one["id"]), one["id"]) for one in accepted))  # type: ignore[misc]
    seconds = time.monotonic() - asked
    completed = sum(response["status"] == "completed" for response in responses)
    expect(completed == QUESTIONS, f"{completed} of {QUESTIONS} questions are answered, after {seconds:.1f} s")
    again = json.loads(project.fetch("http://fake-llm:9000/stats"))["calls"] - QUESTIONS
    expect(again > 0, f"{again} of them were with the killed worker and were asked again")


async def test(project: Project) -> None:
    client = await start(project)
    async with client:
        await ingest(client)
        await check_metrics(project)
        await ask_and_kill(project, client)
    found = project.execute("api", "ragq", "doctor", "--audit")
    print(found)
    say("ok: the audit found nothing out of order")


def find_obstacle() -> str | None:
    """Say why the test cannot run."""
    try:
        run("docker", "version")
        run("docker", "compose", "version")
    except (OSError, RuntimeError) as error:
        return f"no Docker engine with Compose answers. {error}"
    return None


def main() -> None:
    """Run the test; what fails is the last line."""
    if obstacle := find_obstacle():
        print(f"compose-test: NOT RUN: {obstacle}", file=sys.stderr)
        sys.exit(NOT_RUN)
    try:
        with tempfile.TemporaryDirectory(prefix="ragq-compose-") as folder, Project(Path(folder)) as project:
            build_image(project)
            asyncio.run(test(project))
        say("everything is removed")
    except RuntimeError as error:
        sys.exit(f"compose-test: FAILED: {error}")


if __name__ == "__main__":
    main()
