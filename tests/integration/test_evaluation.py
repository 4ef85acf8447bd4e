"""`ragq eval` against a whole service, with questions about an island that is nowhere."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import httpx2

from tests.servers import KEY, Ragq, stop, wait_until

ISLAND = Path(__file__).parents[1] / "data" / "island"
QUESTIONS, DOCUMENTS = ISLAND / "questions.jsonl", ISLAND / "documents"


def read(path: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(path.read_text())
    return report


def test_nothing_is_lost_against_the_committed_results(plain_ragq: Ragq, tmp_path: Path) -> None:
    """After a change for the better, take the new results: `--out tests/data/island/baseline.json`."""
    with httpx2.Client(base_url=f"{plain_ragq.url}/v1") as http:
        kept = {"file": ("ferry.md", (DOCUMENTS / "ferry.md").read_bytes())}
        own = http.post("/files", data={"purpose": "user_data"}, files=kept).json()["id"]
        before = http.get("/vector_stores").json()["data"]
        out = tmp_path / "now.json"
        done = plain_ragq.run(
            *("eval", str(QUESTIONS), "--documents", str(DOCUMENTS), "--out", str(out)),
            *("--compare", str(ISLAND / "baseline.json"), "--fail-on-loss"),
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert [store["id"] for store in http.get("/vector_stores").json()["data"]] == [one["id"] for one in before]
        assert [file["id"] for file in http.get("/files", params={"purpose": "user_data"}).json()["data"]] == [own]
    report = read(out)
    assert len(report["questions"]) == 30
    assert report["measures"]["quotes_verbatim"]["mean"] == 1
    assert report["measures"]["refused_unanswerable"] == {"mean": 1, "n": 4}
    assert report["measures"]["recall_at_10"]["n"] == 25  # without the follow-up and what has no answer
    assert out.with_suffix(".svg").read_text().startswith("<svg")
    assert "compared" in done.stdout


def test_a_real_loss_ends_with_code_1(plain_ragq: Ragq, tmp_path: Path) -> None:
    documents = tmp_path / "documents"
    shutil.copytree(DOCUMENTS, documents)
    for name in ("doctor.md", "ferry.md", "lighthouse.md", "museum.md", "school.md", "water.md"):
        (documents / name).write_text("This page was lost.\n")
    arguments = ["eval", str(QUESTIONS), "--documents", str(documents), "--only", "retrieval"]
    arguments += ["--compare", str(ISLAND / "baseline.json")]
    done = plain_ragq.run(*arguments, "--fail-on-loss")
    assert done.returncode == 1
    assert "R@1 " in done.stdout
    assert "  loss" in done.stdout
    assert plain_ragq.run(*arguments, "--limit", "1", "--fail-on-loss").returncode == 0  # one question shows nothing


def test_a_kept_store_is_asked_again_and_an_llms_tokens_are_counted(
    ragq: Ragq, http: httpx2.Client, tmp_path: Path
) -> None:
    out = tmp_path / "answers.json"
    arguments = ["eval", str(QUESTIONS), "--only", "answers", "--limit", "3", "--out", str(out)]
    done = ragq.run(*arguments, "--documents", str(DOCUMENTS), "--keep-store", RAGQ_API_KEY=KEY)
    assert done.returncode == 0, done.stdout + done.stderr
    store = done.stdout.split("The store is ")[1].rstrip(".\n")
    first = read(out)
    assert first["answers_by"] == "fake/model"
    assert first["tokens"]["input"] > first["tokens"]["output"] > 0
    assert first["measures"]["citation_precision"]["n"] == 3
    done = ragq.run(*arguments, "--store", store, RAGQ_API_KEY=KEY)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [one["answer"] for one in read(out)["questions"]] == [one["answer"] for one in first["questions"]]
    files = http.get(f"/v1/vector_stores/{store}/files").json()["data"]
    assert http.delete(f"/v1/vector_stores/{store}").json()["deleted"]
    for file in files:
        http.delete(f"/v1/files/{file['id']}")


def test_a_question_that_fails_is_named_and_counts_as_not_answered(ragq: Ragq, tmp_path: Path) -> None:
    question = {"question": "[[fake status=500]] How tall is it?", "files": ["lighthouse.md"], "contains": ["61"]}
    (tmp_path / "failing.jsonl").write_text(json.dumps(question))
    arguments = ["eval", str(tmp_path / "failing.jsonl"), "--documents", str(DOCUMENTS), "--only", "answers"]
    done = ragq.run(*arguments, "--out", str(tmp_path / "out.json"), RAGQ_API_KEY=KEY)
    assert done.returncode == 0, done.stderr
    assert "question failed: [[fake status=500]] How tall is it?: " in done.stdout
    assert read(tmp_path / "out.json")["measures"]["failed"] == {"mean": 1, "n": 1}


def test_an_interrupted_run_leaves_nothing(plain_ragq: Ragq, tmp_path: Path) -> None:
    documents = tmp_path / "documents"
    documents.mkdir()
    for number in range(60):
        (documents / f"{number}.txt").write_text(f"Page {number} of a long book. " * 200)
    (tmp_path / "q.jsonl").write_text(json.dumps({"question": "Which page?", "files": ["7.txt"]}))
    arguments = ["eval", str(tmp_path / "q.jsonl"), "--documents", str(documents)]
    with httpx2.Client(base_url=f"{plain_ragq.url}/v1") as http:
        before = [http.get(path).json()["data"] for path in ("/vector_stores", "/files")]
        running = plain_ragq.spawn(*arguments, RAGQ_URL=plain_ragq.url)
        try:
            wait_until(lambda: len(http.get("/files").json()["data"]) > len(before[1]), seconds=30, what="an upload")
            running.send_signal(signal.SIGINT)
            assert running.wait(60) == 130
        finally:
            stop(running)
        assert [http.get(path).json()["data"] for path in ("/vector_stores", "/files")] == before


def test_drafted_questions_can_be_asked(plain_ragq: Ragq, tmp_path: Path) -> None:
    drafted = tmp_path / "drafted.jsonl"
    done = plain_ragq.run("eval", "--make", str(DOCUMENTS), "--out", str(drafted))
    assert done.returncode == 0, done.stderr
    assert "questions drafted" in done.stdout
    done = plain_ragq.run(
        "eval", str(drafted), "--documents", str(DOCUMENTS), "--only", "retrieval", "--half", "second"
    )
    assert done.returncode == 0, done.stderr
