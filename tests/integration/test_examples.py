"""Each of the example programs, against a real service."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx2
import openai

from tests.servers import KEY, Ragq, environment, free_port, run, stop, wait_until

EXAMPLES = Path(__file__).parents[2] / "examples"
QUESTION = "How tall is the lighthouse of Quorra?"


def surroundings(ragq: Ragq, **more: str) -> dict[str, str]:
    return environment(OPENAI_BASE_URL=f"{ragq.url}/v1", OPENAI_API_KEY=KEY, **more)


def run_example(ragq: Ragq, name: str, *arguments: str, typed: str = "") -> str:
    """Run a program to its end; returns what it printed."""
    done = run(sys.executable, str(EXAMPLES / name), *arguments, env=surroundings(ragq), typed=typed)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_question_is_asked_and_polled(ragq: Ragq) -> None:
    printed = run_example(ragq, "ask_and_poll.py", QUESTION)
    assert "61 metres" in printed
    assert "from harbour.md" in printed


def test_a_stream_goes_on_after_a_dropped_connection(ragq: Ragq, client: openai.OpenAI) -> None:
    whole = client.responses.create(model="ragq", input=QUESTION).output_text
    assert run_example(ragq, "stream_with_resume.py", QUESTION).strip() == whole.strip()


def test_a_batch_answers_a_file_of_questions(ragq: Ragq, tmp_path: Path) -> None:
    (tmp_path / "questions.txt").write_text(f"{QUESTION}\nWhen does the ferry leave?\n")
    printed = run_example(ragq, "batch.py", str(tmp_path / "questions.txt"))
    assert sorted(line.partition("?")[0] for line in printed.splitlines()) == [
        QUESTION[:-1],
        "When does the ferry leave",
    ]
    assert "61 metres" in printed
    assert "noon" in printed


def test_a_conversation_is_held_in_the_terminal(ragq: Ragq) -> None:
    printed = run_example(ragq, "chat.py", typed=f"{QUESTION}\nWhen does the ferry leave?\n")
    assert "61 metres" in printed
    assert "noon" in printed


def test_a_webhook_is_received_and_its_signature_checked(ragq: Ragq, http: httpx2.Client) -> None:
    port = free_port()
    made = http.post("/v1/webhook_endpoints", json={"url": f"http://127.0.0.1:{port}/"}).json()
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
        response_id = http.post("/v1/responses", json=asked).json()["id"]
        assert printed.readline().decode() == f"response.completed {response_id}\n"
    finally:
        http.delete(f"/v1/webhook_endpoints/{made['id']}")
        stop(receiver)
        printed.close()


def _rejects_strangers(port: int) -> bool:
    headers = {"webhook-id": "evt_1", "webhook-timestamp": "1", "webhook-signature": "v1,AAAA"}
    try:
        return httpx2.post(f"http://127.0.0.1:{port}/", json={}, headers=headers).status_code == 400
    except httpx2.ConnectError:
        return False
