"""The routes of the console: what an admin and the operator see of jobs and queues, and do to them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.servers import KEY, FakeLlm, Ragq, wait_until
from tests.tenants import TEXT, Caller

WAITS = "[[fake text='One two three four five.' rate=1]] How tall is the lighthouse?"
FAILS = "[[fake status=400 message='no' code=bad]] How tall is the "


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, llm: FakeLlm) -> Iterator[Ragq]:
    """A service that answers one question at a time."""
    one_by_one = {"RAGQ_QUERY_CONCURRENCY": 1, "RAGQ_LLM_TRIES": 1, "RAGQ_JOB_TRIES": 1}
    prices = {"RAGQ_PRICES": '{"fake": {"input": 1000000, "output": 0}}'}
    service = Ragq(
        tmp_path_factory.mktemp("console") / "data",
        RAGQ_API_KEY=KEY,
        RAGQ_LLM_BASE_URL=llm.base_url,
        RAGQ_LLM_MODEL="fake",
        **one_by_one,
        **prices,
    ).start()
    yield service
    assert service.stop() == 0


@pytest.fixture(scope="module")
def root(service: Ragq) -> Caller:
    return Caller(service.url, KEY)


def admin_of(root: Caller, tenant: str) -> Caller:
    root.post("/v1/admin/tenants", {"id": tenant})
    return root.with_key(name="chief", role="admin", tenant=tenant)


@pytest.fixture(scope="module")
def admin(root: Caller) -> Caller:
    return admin_of(root, "elm")


@pytest.fixture(scope="module")
def other(root: Caller) -> Caller:
    return admin_of(root, "fir")


def ask(caller: Caller, text: str) -> str:
    """Ask in the background; returns the job's id."""
    job_id: str = caller.post("/v1/responses", {"input": text, "background": True})["id"]
    return job_id


def listed(caller: Caller, query: str = "") -> list[dict[str, Any]]:
    answer = caller.call("GET", f"/v1/admin/jobs?{query}")
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


def ids(caller: Caller, query: str = "") -> list[str]:
    return [job["id"] for job in listed(caller, query)]


def state_of(caller: Caller, job_id: str) -> str:
    return next((job["state"] for job in listed(caller, f"text={job_id}")), "")


def wait_for(caller: Caller, job_id: str, *states: str) -> None:
    wait_until(lambda: state_of(caller, job_id) in states, what=f"{job_id} is {states}")


def clear(caller: Caller) -> None:
    """Cancel what waits and runs."""
    for state in ("queued", "started", "scheduled"):
        do(caller, "cancel", {"state": state})


def do(caller: Caller, action: str, jobs: dict[str, Any]) -> dict[str, Any]:
    """Do something to many jobs, and wait for its end."""
    begun = caller.post("/v1/admin/job_actions", {"action": action, "jobs": jobs})

    def look() -> dict[str, Any]:
        found: dict[str, Any] = caller.call("GET", f"/v1/admin/job_actions/{begun['id']}").json()
        return found if found["state"] != "running" else {}

    return wait_until(look, what=f"{action} of {jobs}")


def error_of(caller: Caller, method: str, path: str, **options: Any) -> tuple[int, str]:
    answer = caller.call(method, path, **options)
    return answer.status_code, answer.json()["error"]["code"]


def test_a_job_is_listed_while_it_waits_and_runs_and_when_it_has_ended(admin: Caller) -> None:
    running, waiting = ask(admin, WAITS), ask(admin, "How tall is the tower of Varn?")
    wait_for(admin, running, "started")
    assert state_of(admin, waiting) == "queued"
    assert ids(admin, "text=tower&state=queued") == [waiting]
    (job,) = listed(admin, "state=started")
    assert job["worker"]
    assert (job["tenant"], job["queue"], job["lane"], job["kind"]) == ("elm", "queries", "default", "question")
    assert ids(admin, f"worker={job['worker']}&state=started") == [running]
    wait_for(admin, waiting, "finished")
    assert ids(admin, "state=finished")[:2] == [waiting, running]
    assert ids(admin, "text=tower Var") == [waiting]
    (job,) = listed(admin, f"text={waiting}")
    assert job["ended_at"] >= job["started_at"] >= job["created_at"]
    assert job["cost"] == job["input_tokens"] > 0
    assert ids(admin, f"key={job['api_key_id']}&since={job['ended_at']}&until={job['ended_at'] + 1}&limit=1") == [
        waiting
    ]


def test_one_job_shows_its_steps_stages_sources_and_tokens(admin: Caller) -> None:
    files = {"file": ("harbour.md", TEXT)}
    file_id = admin.call("POST", "/v1/files", files=files, data={"purpose": "assistants"}).json()["id"]
    admin.post("/v1/vector_stores/default/files", {"file_id": file_id})
    (ingest,) = wait_until(lambda: listed(admin, "queue=documents&state=finished"), what="the document's job is listed")
    assert (ingest["kind"], ingest["ran_ms"] > 0) == ("document", True)
    body = {"input": "[[fake text='It is 61 metres tall [1].' rate=8]] How tall is the lighthouse?", "stream": True}
    streamed = admin.call("POST", "/v1/responses", json=body).text
    job_id = next(part for part in streamed.replace('"', " ").split() if part.startswith("resp_"))
    wait_for(admin, job_id, "finished")
    job = admin.call("GET", f"/v1/admin/jobs/{job_id}").json()
    timeline = job["timeline"]
    steps = [step["what"] for step in timeline["steps"]]
    assert steps == ["queued", "started", "searching", "found", "writing", "finished"]
    assert {"queued", "retrieve", "answer", "run"} <= {stage["stage"] for stage in timeline["stages"]}
    assert [(source["filename"], source["citations"]) for source in timeline["sources"]] == [("harbour.md", 1)]
    assert "61 metres" in timeline["answer"]
    assert (timeline["attempts"], timeline["deaths"], timeline["error"]) == (1, 0, None)
    assert job["output_tokens"] > 0


def test_a_failed_job_says_why_and_runs_again(admin: Caller) -> None:
    failed = ask(admin, FAILS + "mill?")
    wait_for(admin, failed, "failed")
    (job,) = listed(admin, "state=failed&text=mill")
    assert ids(admin, f"error_code={job['error_code']}") == [failed]
    assert admin.call("GET", f"/v1/admin/jobs/{failed}").json()["timeline"]["error"]
    admin.post(f"/v1/admin/jobs/{failed}/retry")
    wait_until(lambda: [one for one in listed(admin, f"text={failed}") if one["attempts"] == 2 and one["ended_at"]])
    assert state_of(admin, failed) == "failed"
    done = ids(admin, "state=finished")[0]
    assert error_of(admin, "POST", f"/v1/admin/jobs/{done}/retry") == (409, "job_not_failed")
    assert error_of(admin, "POST", f"/v1/admin/jobs/{failed}/cancel") == (409, "job_ended")


def test_a_job_is_cancelled_and_deleted_with_its_answer(admin: Caller) -> None:
    running, waiting = ask(admin, WAITS), ask(admin, "How tall is the bridge?")
    admin.post(f"/v1/admin/jobs/{waiting}/cancel")
    wait_for(admin, waiting, "canceled")
    assert admin.call("DELETE", f"/v1/admin/jobs/{running}").json()["deleted"]
    for job_id in (running, waiting):
        admin.call("DELETE", f"/v1/admin/jobs/{job_id}")
        assert error_of(admin, "GET", f"/v1/admin/jobs/{job_id}") == (404, "not_found")
        assert ids(admin, f"text={job_id}") == []
        assert admin.call("GET", f"/v1/responses/{job_id}").status_code == 404


def test_many_are_counted_and_then_changed_in_the_background(admin: Caller) -> None:
    running = ask(admin, WAITS.replace("four", "four and more"))
    waiting = [ask(admin, f"How tall is the pillar number {n}?") for n in range(7)]
    wait_for(admin, running, "started")
    selection = "state=queued&text=pillar"
    counted = admin.call("GET", f"/v1/admin/jobs/count?{selection}").json()
    until = counted.pop("until")
    assert counted == {"object": "job.count", "count": 7, "is_exact": True}
    later = ask(admin, "How tall is the pillar that nobody has counted?")
    chosen = do(admin, "cancel", {"ids": [*waiting[:2], "resp_unknown"]})
    assert (chosen["total"], chosen["done"], chosen["skipped"], chosen["state"]) == (2, 2, 0, "completed")
    matched = do(admin, "cancel", {"state": "queued", "text": "pillar", "until": until})
    assert (matched["total"], matched["done"]) == (5, 5)
    assert ids(admin, selection) == [later]
    admin.call("DELETE", f"/v1/admin/jobs/{later}")
    wait_until(lambda: len(ids(admin, "state=canceled&text=pillar")) == 7)
    again = do(admin, "retry", {"state": "canceled", "text": "pillar"})
    assert (again["done"], again["skipped"]) == (7, 0)
    wait_until(lambda: len(ids(admin, "state=finished&text=pillar")) == 7, seconds=30)
    skipped = do(admin, "retry", {"ids": waiting})
    assert (skipped["done"], skipped["skipped"]) == (0, 7)
    assert do(admin, "delete", {"text": "pillar"})["done"] == 7
    assert ids(admin, "text=pillar") == []


def test_an_action_that_is_unclear_is_refused_and_one_that_has_ended_stays(admin: Caller) -> None:
    for body in (
        {"action": "retry", "jobs": {}},
        {"action": "cancel", "jobs": {"state": "finished"}},
        {"action": "delete", "jobs": {"ids": []}},
        {"action": "pause", "jobs": {}},
        {"action": "delete", "jobs": {"name": "unknown"}},
        {"action": "delete", "jobs": {"text": " "}},
    ):
        assert admin.call("POST", "/v1/admin/job_actions", json=body).status_code == 400
    assert do(admin, "delete", {"until": 0})["total"] == 0
    ended = do(admin, "delete", {"text": "of no job"})
    assert admin.post(f"/v1/admin/job_actions/{ended['id']}/stop") == ended


def test_pages_go_on_through_waiting_and_ended_jobs(admin: Caller) -> None:
    ended = [ask(admin, f"[[fake text=yes]] How tall is the column {n}?") for n in range(4)]
    wait_until(lambda: len(ids(admin, "state=finished&text=column")) == 4, seconds=30)
    running = ask(admin, WAITS.replace("lighthouse", "column"))
    waiting = [ask(admin, f"How tall is the column {n}?") for n in range(4)]
    found: list[str] = []
    after = ""
    while True:
        page = admin.call("GET", f"/v1/admin/jobs?limit=2&text=column{after}").json()
        found += [job["id"] for job in page["data"]]
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    assert found[:5] == [*reversed(waiting), running]
    assert sorted(found[5:]) == sorted(ended)
    clear(admin)


def test_a_tenant_sees_and_changes_its_own_jobs_alone(root: Caller, admin: Caller, other: Caller) -> None:
    job_id = ask(admin, "[[fake text=yes]] How tall is the obelisk?")
    wait_for(admin, job_id, "finished")
    assert ids(other, "text=obelisk") == []
    assert error_of(other, "GET", f"/v1/admin/jobs/{job_id}") == (404, "not_found")
    assert error_of(other, "DELETE", f"/v1/admin/jobs/{job_id}") == (404, "not_found")
    assert error_of(other, "GET", "/v1/admin/jobs?tenant=elm") == (403, "insufficient_role")
    body = {"action": "delete", "jobs": {"tenant": "elm"}}
    assert error_of(other, "POST", "/v1/admin/job_actions", json=body) == (403, "insufficient_role")
    assert do(other, "delete", {"ids": [job_id]})["total"] == 0
    assert ids(root, "text=obelisk&tenant=elm") == [job_id]
    assert ids(root, "text=obelisk&tenant=fir") == []
    begun = do(admin, "delete", {"text": "obelisk"})
    assert error_of(other, "GET", f"/v1/admin/job_actions/{begun['id']}") == (404, "not_found")
    assert root.call("GET", f"/v1/admin/job_actions/{begun['id']}").json() == begun


def queue_of(caller: Caller, name: str) -> dict[str, Any]:
    queues = caller.call("GET", "/v1/admin/queues").json()["data"]
    found: dict[str, Any] = next(one for one in queues if one["id"] == name)
    return found


def test_queues_tell_depth_age_and_rates_and_can_be_paused(root: Caller, admin: Caller, other: Caller) -> None:
    root.post("/v1/admin/queues/queries/pause")
    waiting = ask(admin, "[[fake text=yes]] How tall is the minaret?")
    wait_until(lambda: queue_of(root, "queries")["oldest_seconds"], what="it waits")
    seen = queue_of(admin, "queries")
    assert (seen["queued"], seen["paused"], seen["in_flight"]) == (1, True, 0)
    assert queue_of(other, "queries")["queued"] == 0
    before = sum(rate["ended"] for rate in queue_of(admin, "queries")["rates"])
    root.post("/v1/admin/queues/queries/resume")
    wait_for(admin, waiting, "finished")
    assert not queue_of(admin, "queries")["paused"]
    rates = queue_of(admin, "queries")["rates"]
    assert sum(rate["ended"] for rate in rates) == before + 1
    assert all(rate["ran_p95"] >= rate["ran_p50"] > 0 for rate in rates if rate["ran_p50"])
    assert error_of(admin, "POST", "/v1/admin/queues/queries/pause") == (403, "insufficient_role")


def test_a_worker_is_seen_and_drained_and_another_takes_its_place(root: Caller, admin: Caller) -> None:
    def workers() -> dict[str, dict[str, Any]]:
        return {one["name"]: one for one in root.call("GET", "/v1/admin/workers").json()["data"]}

    name, worker = next((name, one) for name, one in workers().items() if "queries" in one["queues"])
    assert worker["heartbeat_seconds"] < 15
    assert worker["slots"]["queries"] == 1
    job_id = ask(admin, WAITS)
    wait_for(admin, job_id, "started")
    assert root.post(f"/v1/admin/workers/{name}/drain") == {"id": name, "object": "worker", "state": "draining"}
    wait_for(admin, job_id, "finished")
    (job,) = listed(admin, f"text={job_id}")
    assert (job["attempts"], job["worker"]) == (1, name), "it was finished, not handed over"
    wait_until(
        lambda: name not in workers() and any("queries" in one["queues"] for one in workers().values()), seconds=30
    )
    assert error_of(admin, "GET", "/v1/admin/workers") == (403, "insufficient_role")


def test_a_file_is_poison_until_it_is_forgiven(root: Caller, admin: Caller, other: Caller, service: Ragq) -> None:
    """What happens when a file has crashed the parser is in test_hostile_files.py; here it is noted by hand."""
    content = b"The mole of Varn is long."
    files = {"file": ("mole.md", content)}
    assert admin.call("POST", "/v1/files", files=files, data={"purpose": "assistants"}).status_code == 200
    sha256 = hashlib.sha256(content).hexdigest()
    with psycopg.connect(service.services["database_url"]) as connection:
        connection.execute(
            "INSERT INTO poison (sha256, code, reason) VALUES (%s, 'parser_crashed', 'It crashed.')", [sha256]
        )
    (found,) = admin.call("GET", "/v1/admin/poison").json()["data"]
    assert (found["id"], found["reason"], found["filenames"]) == (sha256, "It crashed.", ["mole.md"])
    assert other.call("GET", "/v1/admin/poison").json()["data"] == []
    assert root.call("GET", "/v1/admin/poison").json()["data"] == [found]
    path = f"/v1/admin/poison/{sha256}/forgive"
    assert error_of(admin, "POST", path) == (403, "insufficient_role")
    assert root.post(path)["forgiven"]
    assert error_of(root, "POST", path) == (404, "not_found")
    assert admin.call("GET", "/v1/admin/poison").json()["data"] == []


def test_roles_below_admin_are_refused(admin: Caller) -> None:
    for role in ("reader", "user"):
        key = admin.post("/v1/admin/keys", {"name": role, "role": role})["value"]
        lower = Caller(admin.url, key)
        for path in ("jobs", "jobs/count", "jobs/resp_1", "queues", "workers", "poison", "job_actions/jobact_1"):
            assert error_of(lower, "GET", f"/v1/admin/{path}") == (403, "insufficient_role")
