"""Each of the example programs, against a real service."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.servers import Ragq, environment, free_port, stop, wait_until

EXAMPLES = Path(__file__).parents[2] / "examples"
QUESTION = "How tall is the lighthouse of Quorra?"


@pytest.fixture(scope="module")
def ragq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ragq]:
    folder = tmp_path_factory.mktemp("examples")
    service = Ragq(folder / "data", RAGQ_WEBHOOK_ALLOWED_HOSTS="127.0.0.1").start()
    (folder / "harbour.md").write_text("The lighthouse of Quorra is 61 metres tall.\n\nThe ferry leaves at noon.\n")
    assert service.run("ingest", str(folder / "harbour.md")).returncode == 0
    yield service
    assert service.stop() == 0


def surroundings(ragq: Ragq, **more: str) -> dict[str, str]:
    return environment(OPENAI_BASE_URL=f"{ragq.url}/v1", OPENAI_API_KEY="unused", **more)


def run(ragq: Ragq, name: str, *arguments: str, typed: str = "") -> str:
    """Run a program to its end; returns what it printed."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        env=surroundings(ragq),
        input=typed,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_question_is_asked_and_polled(ragq: Ragq) -> None:
    printed = run(ragq, "ask_and_poll.py", QUESTION)
    assert "61 metres" in printed
    assert "from harbour.md" in printed


def test_a_stream_goes_on_after_a_dropped_connection(ragq: Ragq) -> None:
    asked = httpx2.post(f"{ragq.url}/v1/responses", json={"model": "ragq", "input": QUESTION}).json()
    whole = asked["output"][-1]["content"][0]["text"]
    assert run(ragq, "stream_with_resume.py", QUESTION).strip() == whole.strip()


def test_a_batch_answers_a_file_of_questions(ragq: Ragq, tmp_path: Path) -> None:
    (tmp_path / "questions.txt").write_text(f"{QUESTION}\nWhen does the ferry leave?\n")
    printed = run(ragq, "batch.py", str(tmp_path / "questions.txt"))
    assert sorted(line.partition("?")[0] for line in printed.splitlines()) == [
        QUESTION[:-1],
        "When does the ferry leave",
    ]
    assert "61 metres" in printed
    assert "noon" in printed


def test_a_conversation_is_held_in_the_terminal(ragq: Ragq) -> None:
    printed = run(ragq, "chat.py", typed=f"{QUESTION}\nWhen does the ferry leave?\n")
    assert "61 metres" in printed
    assert "noon" in printed


def test_a_webhook_is_received_and_its_signature_checked(ragq: Ragq) -> None:
    port = free_port()
    made = httpx2.post(f"{ragq.url}/v1/webhook_endpoints", json={"url": f"http://127.0.0.1:{port}/"}).json()
    receiver = subprocess.Popen(
        [sys.executable, str(EXAMPLES / "webhook_receiver.py"), str(port)],
        env=surroundings(ragq, OPENAI_WEBHOOK_SECRET=made["secret"]),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    printed = receiver.stdout
    assert printed
    try:
        wait_until(lambda: _rejects_strangers(port), seconds=20, what="the receiver")
        asked = {"model": "ragq", "input": QUESTION, "background": True}
        response_id = httpx2.post(f"{ragq.url}/v1/responses", json=asked).json()["id"]
        assert printed.readline().decode() == f"response.completed {response_id}\n"
    finally:
        stop(receiver)
        printed.close()


def _rejects_strangers(port: int) -> bool:
    headers = {"webhook-id": "evt_1", "webhook-timestamp": "1", "webhook-signature": "v1,AAAA"}
    try:
        return httpx2.post(f"http://127.0.0.1:{port}/", json={}, headers=headers).status_code == 400
    except httpx2.ConnectError:
        return False
