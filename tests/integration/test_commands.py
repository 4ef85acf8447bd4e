"""The commands that operate a service, against a real one: documents, stores, jobs, status, logs, a load test, exit codes."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from click.testing import CliRunner, Result

from ragq.cli import main
from ragq.commands.status import HOME, TO_END_OF_SCREEN
from ragq.settings import read_settings
from tests.servers import Ragq, command, environment, free_port, run, stop, wait_until

DAMAGED = b"%PDF-1.7 and nothing that a PDF has"


def run_here(ragq: Ragq, *arguments: str) -> Result:
    """Run a command in this process: one of its own takes most of a second to start."""
    read_settings.cache_clear()
    done = CliRunner().invoke(main, arguments, env={**ragq.environment, "RAGQ_URL": ragq.url})
    read_settings.cache_clear()
    return done


def shown(ragq: Ragq, *arguments: str) -> Any:
    """What a command prints after `--json`."""
    done = run_here(ragq, *arguments, "--json")
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def said(ragq: Ragq, *arguments: str, code: int = 0) -> str:
    """What a command prints for people."""
    done = run_here(ragq, *arguments)
    assert done.exit_code == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def put(client: openai.OpenAI, store_id: str, name: str, content: bytes) -> str:
    return client.vector_stores.files.upload_and_poll(vector_store_id=store_id, file=(name, content)).id


@pytest.fixture(scope="module")
def store(ragq: Ragq) -> str:
    """The id of a store that the command made."""
    return said(ragq, "stores", "create", "Commands", "--description", "Of the tests").strip()


@contextmanager
def running(ragq: Ragq, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A command that goes on until it is stopped; its output is read as it comes."""
    process = subprocess.Popen(
        command(*arguments),
        env=ragq.environment | {"RAGQ_URL": ragq.url},
        cwd=ragq.folder.parent,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=10)


def test_stores_are_made_listed_and_found_by_name_and_by_the_beginning_of_their_id(ragq: Ragq, store: str) -> None:
    assert re.fullmatch("vs_[0-9a-f]{32}", store)
    found = shown(ragq, "stores", "show", "Commands")
    assert (found["id"], found["description"]) == (store, "Of the tests")
    for shortened in (store[:12], store[3:12]):
        assert shown(ragq, "stores", "show", shortened)["id"] == store
    assert store in {one["id"] for one in shown(ragq, "stores", "list", "--all")["data"]}
    newest = said(ragq, "stores", "list", "--limit", "1").splitlines()
    assert newest[0].split()[:3] == ["id", "name", "status"]
    assert len(newest) == 2
    assert "description" in said(ragq, "stores", "show", store)


def test_a_store_is_deleted_after_a_question_and_its_files_stay(ragq: Ragq, client: openai.OpenAI) -> None:
    made = shown(ragq, "stores", "create", "Short-lived")["id"]
    file_id = put(client, made, "kept.md", b"The ferry leaves at noon.")
    asked = run_here(ragq, "stores", "rm", "Short-lived")  # standard input is at its end: nobody says yes
    assert asked.exit_code == 1
    assert "with 1 documents?" in asked.stderr
    assert said(ragq, "stores", "rm", "Short-lived", "--yes") == f"{made} is deleted.\n"
    assert "No store has this id or name" in said(ragq, "stores", "show", "Short-lived", code=4)
    assert client.files.retrieve(file_id).filename == "kept.md"


def test_documents_are_listed_shown_and_removed_by_name(ragq: Ragq, client: openai.OpenAI, store: str) -> None:
    for name in ("a.md", "b.md", "c.txt"):
        put(client, store, name, f"Of {name} the ferry leaves at noon.".encode())
    of = ("--store", "Commands")
    listed = shown(ragq, "documents", "list", *of, "--name", "*.md")
    assert ([one["filename"] for one in listed["data"]], listed["has_more"]) == (["b.md", "a.md"], False)
    first = run_here(ragq, "documents", "list", *of, "--limit", "1")
    assert ("c.txt" in first.stdout, "There are more" in first.stderr) == (True, True)
    assert said(ragq, "documents", "show", "a.md", *of, "--text") == "Of a.md the ferry leaves at noon.\n"
    assert shown(ragq, "documents", "show", "a.md", *of)["chunk_count"] == 1

    kept = shown(ragq, "documents", "show", "b.md", *of)["id"]
    assert said(ragq, "documents", "rm", "b.md", *of, "--keep-file", "--yes") == f"{kept} is out of the store.\n"
    assert client.files.retrieve(kept).filename == "b.md"
    removed = shown(ragq, "documents", "rm", "a.md", "c.txt", *of, "--yes")["data"]
    assert [one["deleted"] for one in removed] == [True, True]
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(removed[0]["id"])
    assert shown(ragq, "documents", "list", *of)["data"] == []


def test_a_failed_document_shows_why_and_is_read_again(ragq: Ragq, client: openai.OpenAI, store: str) -> None:
    put(client, store, "damaged.pdf", DAMAGED)
    of = ("--store", store)
    assert "damaged.pdf  failed" in said(ragq, "documents", "list", *of, "--status", "failed")
    assert said(ragq, "documents", "retry", "--failed", *of) == "damaged.pdf: in_progress\n"
    failed = ("documents", "list", *of, "--status", "failed")
    wait_until(lambda: shown(ragq, *failed)["data"], what="it has failed again")
    shown(ragq, "documents", "rm", "damaged.pdf", *of, "--yes")
    assert said(ragq, "documents", "retry", "--failed", *of) == "None has failed.\n"


def test_a_job_of_an_answer_is_shown_with_the_answer(ragq: Ragq, client: openai.OpenAI) -> None:
    response = client.responses.create(model="ragq", input="How tall is the lighthouse of Quorra?")
    assert shown(ragq, "jobs", "show", response.id)["id"] == response.id
    assert response.output_text in said(ragq, "jobs", "show", response.id)
    key = shown(ragq, "keys", "create", "A user")
    own = openai.OpenAI(base_url=f"{ragq.url}/v1", api_key=key["value"]).responses.create(model="ragq", input="When?")
    done = ragq.run("jobs", "show", own.id, RAGQ_API_KEY=key["value"])
    assert own.output_text in done.stdout, done.stderr
    shown(ragq, "keys", "revoke", key["id"])


def test_status_is_watched_until_it_is_stopped(ragq: Ragq) -> None:
    with running(ragq, "status", "--watch", "--interval", "0.5", "--json") as watching:
        assert watching.stdout
        lines = [json.loads(watching.stdout.readline()) for _ in range(2)]
    assert all(line["workers"] for line in lines)


def test_a_terminal_is_drawn_over(ragq: Ragq) -> None:
    ours, its = pty.openpty()
    watching = subprocess.Popen(
        command("status", "--watch", "--interval", "0.5", "--url", ragq.url), env=ragq.environment, stdout=its
    )
    os.close(its)
    try:
        drawn = ""
        while drawn.count(TO_END_OF_SCREEN) < 2:
            drawn += os.read(ours, 65536).decode()
    finally:
        stop(watching)
        os.close(ours)
    assert drawn.count("answers: generated by fake/model") == drawn.count(HOME) == 2


def test_watching_goes_on_while_the_service_is_away(ragq: Ragq) -> None:
    away = f"http://127.0.0.1:{free_port()}"
    with running(ragq, "status", "--watch", "--interval", "0.5", "--json", "--url", away) as watching:
        assert watching.stdout
        lines = [json.loads(watching.stdout.readline()) for _ in range(2)]
    assert [line["error"]["code"] for line in lines] == 2 * ["service_unavailable"]


def test_logs_have_the_lines_of_every_process_in_the_order_of_time(ragq: Ragq) -> None:
    entries = [json.loads(line) for line in said(ragq, "logs", "--lines", "10000", "--json").splitlines()]
    assert {entry["process"] for entry in entries} >= {"up", "api", "postgresql", "valkey"}
    times = [entry["timestamp"] for entry in entries]
    assert times == sorted(times)
    text = said(ragq, "logs", "up")
    assert "server_ready" in text
    assert {line.split()[0] for line in text.splitlines()} == {"up"}
    assert "There are: api," in said(ragq, "logs", "nobody", code=1)


def test_logs_are_followed(ragq: Ragq, client: openai.OpenAI, store: str) -> None:
    with running(ragq, "logs", "documents", "up", "--follow", "--lines", "1", "--json") as following:
        assert following.stdout
        following.stdout.readline()  # a line of before: from now on it follows
        file_id = put(client, store, f"{uuid.uuid4()}.pdf", DAMAGED + uuid.uuid4().bytes)
        entry = json.loads(following.stdout.readline())
    assert (entry["process"], entry["event"], entry["level"]) == ("documents-worker-1", "job_failed", "warning")
    client.files.delete(file_id)


def test_a_load_test_tells_rate_and_latency_and_writes_a_picture(ragq: Ragq, tmp_path: Path) -> None:
    out = tmp_path / "load.json"
    report = shown(ragq, "bench", ragq.url, "--requests", "12", "--concurrency", "3", "--out", str(out))
    assert (report["requests"], report["answered"], report["errors"]) == (12, 12, {})
    assert 0 < report["latency_ms"]["p50"] <= report["latency_ms"]["p95"] <= report["latency_ms"]["p99"]
    assert report["stages_ms"].keys() == {"queued", "search", "answer"}
    assert report["rate"] == pytest.approx(12 / report["seconds"], rel=0.01)
    written = json.loads(out.read_text())
    assert len(written["questions"]) == 12
    assert out.with_suffix(".svg").read_text().count("<circle") == 12


def test_a_load_test_counts_errors_and_ends_with_code_1(ragq: Ragq, tmp_path: Path) -> None:
    questions = tmp_path / "questions.txt"
    questions.write_text("How tall is the lighthouse?\n\n[[fake status=400 code=odd]] Why?\n")
    done = run_here(ragq, "bench", "--requests", "4", "--questions", str(questions))
    assert done.exit_code == 1
    assert "2 of 4 questions answered (fake/model)" in done.stdout
    assert "2 failed: llm_bad_request" in done.stdout


def test_a_load_test_of_another_machine_needs_consent(ragq: Ragq) -> None:
    assert "say --yes" in said(ragq, "bench", "http://192.0.2.1:8000", code=2)


@pytest.mark.parametrize(
    ("arguments", "code", "name"),
    [
        (["status", "--url", "http://127.0.0.1:9"], 3, "service_unavailable"),
        (["documents", "show", "nothing"], 4, "not_found"),
        (["stores", "show", f"vs_{32 * '0'}"], 4, "not_found"),
        (["stores", "create", 300 * "x"], 1, "invalid_value"),
    ],
)
def test_errors_have_their_exit_codes_and_are_json_after_json(
    ragq: Ragq, arguments: list[str], code: int, name: str
) -> None:
    done = run_here(ragq, *arguments, "--json")
    assert (done.exit_code, done.stdout) == (code, "")
    assert json.loads(done.stderr)["error"]["code"] == name


def test_a_wrong_key_ends_with_code_1_and_wrong_usage_with_2(ragq: Ragq) -> None:
    refused = ragq.run("stores", "list", RAGQ_API_KEY="a wrong key")
    assert (refused.returncode, "API key" in refused.stderr) == (1, True)
    assert ragq.run("documents", "retry").returncode == 2


def test_a_shell_completes_commands_and_options() -> None:
    ragq = str(Path(sys.executable).with_name("ragq"))
    script = run(ragq, "completion", "bash", env=environment())
    assert "complete -o nosort -F _ragq_completion ragq" in script.stdout
    asked = environment(_RAGQ_COMPLETE="bash_complete", COMP_WORDS="ragq stores ", COMP_CWORD="2")
    completed = run(ragq, env=asked).stdout.split()
    assert {"plain,list", "plain,create", "plain,show", "plain,rm"} <= set(completed)
    for shell in ("zsh", "fish"):
        assert "_RAGQ_COMPLETE" in CliRunner().invoke(main, ["completion", shell]).stdout


def test_a_run_of_ingest_and_of_eval_is_an_object_after_json(ragq: Ragq, tmp_path: Path) -> None:
    (tmp_path / "pier.md").write_text("The pier of Quorra is 300 metres long.\n")
    (tmp_path / "questions.jsonl").write_text('{"question": "How long is the pier?", "files": ["pier.md"]}\n')
    for done, unchanged in ((1, 0), (0, 1)):
        summary = shown(ragq, "ingest", str(tmp_path / "pier.md"))
        assert (summary["done"], summary["unchanged"], summary["failures"]) == (done, unchanged, [])
    questions = str(tmp_path / "questions.jsonl")
    report = shown(ragq, "eval", questions, "--documents", str(tmp_path), "--only", "retrieval", "--keep-store")
    assert (report["documents"], report["measures"]["recall_at_1"]["mean"], report["compared"]) == (2, 1.0, [])
    shown(ragq, "stores", "rm", report["store"], "--yes")
