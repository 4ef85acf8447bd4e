"""Feedback: who may rate which answer, how long it is kept, and what `ragq eval` gets of it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from ragq.models import JobStatus
from ragq.records import Job, Request
from ragq.storage.archive import Archive
from ragq.storage.database import Database
from ragq.storage.feedback import Feedback, FeedbackFilter
from ragq.storage.paging import Page
from ragq.storage.tenancy.tenant_data import TenantData
from tests.servers import KEY, Ragq
from tests.tenants import TEXT, Caller

QUESTION = "How tall is the lighthouse of Quorra?"
DAY = 86_400


@pytest.fixture(scope="module")
def lilac(root: Caller) -> Caller:
    """An admin of a tenant with a document and without readers."""
    return make_tenant(root, "lilac")


def make_tenant(root: Caller, name: str) -> Caller:
    root.post("/v1/admin/tenants", {"id": name})
    admin = root.with_key(name=name, role="admin", tenant=name)
    sdk = openai.OpenAI(base_url=f"{admin.url}/v1", api_key=admin.key, max_retries=0)
    sdk.vector_stores.files.upload_and_poll(vector_store_id="default", file=("harbour.md", TEXT))
    return admin


def ask(caller: Caller, question: str = QUESTION, **fields: Any) -> str:
    response_id: str = caller.post("/v1/responses", {"input": question} | fields)["id"]
    return response_id


def rate(caller: Caller, response_id: str, rating: str = "up", **fields: Any) -> httpx2.Response:
    return caller.call("POST", f"/v1/responses/{response_id}/feedback", json={"rating": rating} | fields)


def show(caller: Caller, response_id: str) -> Any:
    return caller.call("GET", f"/v1/responses/{response_id}/feedback").json()


def listed(caller: Caller, **params: Any) -> list[dict[str, Any]]:
    answer = caller.call("GET", "/v1/admin/feedback", params=params)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


def test_an_answer_is_rated_again_and_its_rating_taken_back(lilac: Caller) -> None:
    response_id = ask(lilac)
    nothing = {"created_at": None, "rating": None, "comment": None}
    assert show(lilac, response_id) == {"id": response_id, "object": "response.feedback"} | nothing
    assert rate(lilac, response_id, "down", comment="It is 62.").json()["comment"] == "It is 62."
    again = rate(lilac, response_id, "up").json()
    assert (again["rating"], again["comment"]) == ("up", None)
    assert show(lilac, response_id) == again
    assert lilac.call("DELETE", f"/v1/responses/{response_id}/feedback").json()["deleted"]
    assert show(lilac, response_id)["rating"] is None


def test_an_admin_reads_what_was_said_with_question_answer_and_files(lilac: Caller) -> None:
    first = ask(lilac)
    reader = lilac.with_key(name="reader", role="reader")
    messages = [{"role": "user", "content": "Of Quorra."}, {"role": "assistant", "content": "Yes?"}]
    second = ask(reader, [*messages, {"role": "user", "content": QUESTION}])  # type: ignore[arg-type]
    rate(lilac, first, "up")
    rate(reader, second, "down", comment="Too short.")
    newest, older = listed(lilac, limit=2)
    assert (newest["id"], newest["rating"], newest["comment"]) == (second, "down", "Too short.")
    assert (newest["question"], newest["history"]) == (QUESTION, messages)
    assert newest["key_id"].startswith("key_")
    assert "61 metres" in older["answer"]
    assert older["files"] == ["harbour.md"]
    assert second not in {one["id"] for one in listed(lilac, rating="up", limit=100)}
    assert [one["id"] for one in listed(lilac, limit=1, after=second)] == [first]
    now = int(time.time())
    assert listed(lilac, since=now + 60) == listed(lilac, until=now - 60) == []
    assert second in {one["id"] for one in listed(lilac, since=now - 60, until=now + 60)}
    assert reader.call("GET", "/v1/admin/feedback").status_code == 403


def test_only_own_and_stored_answers_take_feedback(root: Caller, lilac: Caller) -> None:
    response_id = ask(lilac)
    unknown = rate(lilac, "resp_" + "0" * 32)
    oak = make_tenant(root, "oak")
    for method in ("POST", "GET", "DELETE"):
        foreign = oak.call(method, f"/v1/responses/{response_id}/feedback", json={"rating": "up"})
        assert foreign.status_code == 404
        assert foreign.text.replace(response_id, "ID") == unknown.text.replace("resp_" + "0" * 32, "ID")
    assert lilac.call("GET", "/v1/admin/feedback?tenant=oak").status_code == 403
    assert listed(root, tenant="oak") == []
    unstored = rate(lilac, ask(lilac, store=False))
    assert (unstored.status_code, "not stored" in unstored.json()["error"]["message"]) == (400, True)
    for wrong in ({"rating": "good"}, {}, {"rating": "up", "comment": "x" * 4001}):
        assert lilac.call("POST", f"/v1/responses/{response_id}/feedback", json=wrong).status_code == 400


def test_a_question_that_has_no_answer_yet_cannot_be_rated(client: openai.OpenAI, http: httpx2.Client) -> None:
    response = client.responses.create(
        model="ragq", input=f"[[fake text='{'word ' * 200}' rate=1]] {QUESTION}", background=True
    )
    refused = http.post(f"/v1/responses/{response.id}/feedback", json={"rating": "up"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "response_id")
    client.responses.cancel(response.id)


def test_a_stored_chat_completion_is_rated_by_its_id(client: openai.OpenAI, http: httpx2.Client) -> None:
    chat = client.chat.completions.create(model="ragq", store=True, messages=[{"role": "user", "content": QUESTION}])
    path = f"/v1/responses/{chat.id}/feedback"
    assert http.post(path, json={"rating": "down", "comment": "No."}).status_code == 200
    (found,) = [one for one in http.get("/v1/admin/feedback").json()["data"] if one["id"] == chat.id]
    assert (found["question"], found["answer"]) == (QUESTION, chat.choices[0].message.content)
    client.chat.completions.delete(chat.id)
    assert http.get(path).status_code == 404
    assert chat.id not in http.get("/v1/admin/feedback").text


def test_feedback_goes_with_a_deleted_answer(lilac: Caller) -> None:
    response_id = ask(lilac)
    rate(lilac, response_id, comment="Gone soon.")
    lilac.call("DELETE", f"/v1/responses/{response_id}")
    assert "Gone soon." not in json.dumps(listed(lilac, limit=100))
    assert rate(lilac, response_id).status_code == 404


def test_a_large_question_is_shown_whole(lilac: Caller) -> None:
    question = f"{QUESTION} {'Please. ' * 6000}"
    rate(lilac, ask(lilac, question))
    assert listed(lilac, limit=1)[0]["question"].strip() == question.strip()


async def test_feedback_expires_with_its_answer_and_goes_with_its_tenant(database: Database) -> None:
    archive, feedback = Archive(database), Feedback(database)
    now = time.time()
    ended = [("resp_old", now - 3 * DAY), ("resp_new", now)]
    jobs = [Job(i, "default", JobStatus.FINISHED, 1, at, ended_at=at, request=Request(key_id="")) for i, at in ended]
    await archive.store(jobs)
    for job in jobs:
        await feedback.put("default", job.id, rating="up", comment=None)
    await archive.expire(2 * DAY)

    async def kept() -> list[str]:
        return [one.id for one in await feedback.list_rated("default", Page(), FeedbackFilter())]

    assert await kept() == ["resp_new"]
    assert [one async for one in TenantData(database).delete_rows("default") if one[0] == "feedback"] == [
        ("feedback", 1)
    ]
    assert await kept() == []


def test_the_export_is_a_data_set_for_eval(ragq: Ragq, http: httpx2.Client, tmp_path: Path) -> None:
    asked = [
        http.post("/v1/responses", json={"input": f"[[fake text='61 metres [1].']] {QUESTION}"}).json()["id"]
        for _ in range(2)
    ]
    for response_id, rating in zip(asked, ("up", "down"), strict=True):
        http.post(f"/v1/responses/{response_id}/feedback", json={"rating": rating, "comment": f"It is {rating}."})
    up, down = tmp_path / "up.jsonl", tmp_path / "down.jsonl"
    done = ragq.run("feedback", "export", str(up), RAGQ_API_KEY=KEY)
    assert (done.returncode, str(up) in done.stdout) == (0, True), done.stderr
    lines = [json.loads(line) for line in up.read_text().splitlines()]
    (line,) = [one for one in lines if one["id"] == asked[0]]
    assert "harbour.md" in line["files"]
    assert (line["comment"], "61 metres" in line["answer"]) == ("It is up.", True)
    assert asked[1] not in up.read_text()
    store = http.get("/v1/vector_stores/default").json()["id"]
    measured = ragq.run("eval", str(up), "--store", store, "--only", "retrieval", RAGQ_API_KEY=KEY)
    assert measured.returncode == 0, measured.stderr
    assert "R@1" in measured.stdout
    assert ragq.run("feedback", "export", str(down), "--rating", "down", "--json", RAGQ_API_KEY=KEY).returncode == 0
    assert asked[1] in down.read_text()
    unfinished = ragq.run("eval", str(down), "--store", store, RAGQ_API_KEY=KEY)
    assert (unfinished.returncode, "say either what a right answer has" in unfinished.stderr) == (1, True)
    shown = ragq.run("feedback", "list", "--rating", "down", "--limit", "1", RAGQ_API_KEY=KEY)
    assert "It is down." in shown.stdout
