"""The console, as an operator and an admin use it."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import httpx2
import psycopg
import pytest
from playwright.sync_api import Page, Request, Route, expect

from tests.browser.conftest import Visitor, held, serve
from tests.servers import FakeLlm, Ragq, stop, wait_until

KEY = "a key that only this test knows"
VIEWS = ("queues", "workers", "jobs", "documents", "tenants", "keys", "usage", "audit")
SLOW = "[[fake text='One two three four five six seven eight nine ten.' rate=1]] How long is the pier?"
FAILS = "[[fake status=400 message=no code=bad]] How old is the mill?"
EVIL = "<img src=x onerror=window.hacked=1>"


def ask(ragq: Ragq, text: str) -> str:
    job_id: str = httpx2.post(f"{ragq.url}/v1/responses", json={"input": text, "background": True}).json()["id"]
    return job_id


def states(ragq: Ragq, text: str) -> list[str]:
    found = httpx2.get(f"{ragq.url}/v1/admin/jobs", params={"text": text}).json()["data"]
    return [job["state"] for job in found]


@pytest.fixture(scope="module")
def ragq(tmp_path_factory: pytest.TempPathFactory, llm: FakeLlm) -> Iterator[Ragq]:
    """A service that has no jobs but those of these tests."""
    with serve(tmp_path_factory.mktemp("console"), llm) as service:
        yield service


@pytest.fixture
def console(visitor: Visitor, ragq: Ragq) -> Iterator[Page]:
    """The console of the operator; what a test has asked is cancelled and deleted afterwards."""
    yield visitor.visit(f"{ragq.url}/console")
    for queue in ("queries", "documents"):
        httpx2.post(f"{ragq.url}/v1/admin/queues/{queue}/resume")
    actions = f"{ragq.url}/v1/admin/job_actions"
    begun = httpx2.post(actions, json={"action": "delete", "jobs": {"queue": "queries"}}).json()
    wait_until(
        lambda: httpx2.get(f"{actions}/{begun['id']}").json()["state"] == "completed", what="the jobs are deleted"
    )


def go(page: Page, view: str) -> None:
    page.goto(f"{page.url.partition('#')[0]}#{view}")


def agree(page: Page, label: str | re.Pattern[str]) -> None:
    """Say yes in the dialog that asks whether it is meant."""
    page.get_by_role("dialog").get_by_role("button", name=label).click()


def test_a_queue_is_paused_and_resumed_and_its_charts_move(console: Page, ragq: Ragq) -> None:
    card = console.get_by_role("article", name="Questions")
    expect(card.get_by_role("img")).to_have_count(3)
    card.get_by_role("button", name="Pause questions").click()
    agree(console, "Pause")
    expect(card).to_contain_text("Paused")
    ask(ragq, "[[fake text=Long]] How long is the jetty?")
    expect(card.get_by_role("link").first).to_have_text("1")
    expect(card.get_by_text("Oldest waits").locator("..")).to_contain_text(re.compile(r"\d s"))
    card.get_by_role("button", name="Resume questions").click()
    expect(console.locator("#state")).to_have_text("Questions: resumed.")
    wait_until(lambda: states(ragq, "jetty") == ["finished"])
    expect(card.get_by_role("img", name=re.compile("Throughput"))).not_to_have_attribute(
        "aria-label", re.compile("at most 0 in 10 s"), timeout=25_000
    )


def test_a_worker_is_drained_when_that_is_meant(console: Page, ragq: Ragq) -> None:
    go(console, "workers")
    row = console.get_by_role("row").filter(has_text="documents")
    expect(row).to_contain_text(re.compile(r"0 of \d+"))
    name = row.locator(".name").inner_text()
    row.get_by_role("button", name=f"Drain {name}").click()
    agree(console, "Keep them")
    row.get_by_role("button", name=f"Drain {name}").click()
    agree(console, "Drain")
    expect(console.get_by_text(name, exact=True)).to_have_count(0, timeout=30_000)
    expect(console.get_by_role("row").filter(has_text="documents")).to_have_count(1, timeout=30_000)
    assert name in ragq.log()


def test_jobs_are_searched_by_state_words_and_error(console: Page, ragq: Ragq) -> None:
    ask(ragq, FAILS)
    ask(ragq, "[[fake text=yes]] How wide is the canal?")
    wait_until(lambda: states(ragq, "mill") == ["failed"] and states(ragq, "canal") == ["finished"])
    go(console, "jobs")
    rows = console.locator("tbody tr")
    expect(rows).to_have_count(3)  # with the document of the fixture
    console.get_by_role("link", name="Failed").click()
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("llm_bad_request")
    console.get_by_role("link", name="All").click()
    console.get_by_label("Words or id").fill("wide can")
    console.keyboard.press("Enter")
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("canal")
    assert "text=wide+can" in console.url
    console.go_back()
    expect(rows).to_have_count(3)
    console.get_by_label("Error code").fill("llm_bad_request")
    console.keyboard.press("Enter")
    expect(rows).to_have_count(1)
    console.get_by_label("Queue").select_option("documents")
    expect(console.locator(".none")).to_be_visible()


def test_one_job_shows_what_happened_and_is_retried_cancelled_and_deleted(console: Page, ragq: Ragq) -> None:
    job_id = ask(ragq, FAILS)
    wait_until(lambda: states(ragq, job_id) == ["failed"])
    go(console, "jobs")
    console.get_by_role("link", name=re.compile("mill")).click()
    expect(console.locator(".steps li")).to_have_text(
        [re.compile("Queued"), re.compile("Started.*attempt 1"), re.compile("Failed")]
    )
    expect(console.locator(".fault")).to_contain_text("llm_bad_request")
    ask(ragq, SLOW)
    console.get_by_role("button", name="Retry").click()
    expect(console.locator("#state")).to_have_text("It waits to run again.")
    expect(console.locator(".badge").first).to_have_text("Queued")
    console.get_by_role("button", name="Cancel").click()
    expect(console.locator(".badge").first).to_have_text("Cancelled")
    console.get_by_role("button", name="Delete").click()
    agree(console, "Delete")
    expect(console.get_by_label("Words or id")).to_be_visible()
    assert states(ragq, job_id) == []


def test_a_finished_job_shows_its_stages_sources_tokens_and_answer(console: Page, ragq: Ragq) -> None:
    job_id = ask(ragq, "[[fake text='It is 61 metres tall [1].']] How tall is the lighthouse of Quorra?")
    wait_until(lambda: states(ragq, job_id) == ["finished"])
    go(console, f"job/{job_id}")
    expect(console.locator(".stages")).to_contain_text("retrieve")
    expect(console.locator(".sources")).to_contain_text("harbour.pdf")
    expect(console.locator(".sources .badge")).to_have_text(["cited"])
    expect(console.locator(".answer")).to_contain_text("61 metres")
    expect(console.locator(".facts")).to_contain_text(re.compile(r"\d+ in, \d+ out"))


def test_some_and_all_that_match_are_changed_with_a_count_before_and_progress_during(console: Page, ragq: Ragq) -> None:
    ask(ragq, SLOW)
    for n in range(5):
        ask(ragq, f"[[fake text=yes]] How deep is the well {n}?")
    go(console, "jobs?state=queued&text=well")
    rows = console.locator("tbody tr")
    expect(rows).to_have_count(5)
    for n in (1, 3):
        console.get_by_role("checkbox", name=re.compile(f"well {n}")).check()
    bar = console.get_by_role("group", name="Actions")
    expect(bar).to_contain_text("2 selected")
    bar.get_by_role("button", name="Cancel").click()
    expect(console.get_by_role("dialog")).to_contain_text("Cancel 2 jobs?")
    with held(console, r"/v1/admin/job_actions/"):
        agree(console, "Cancel 2")
        expect(bar.get_by_role("progressbar")).to_be_visible()
    expect(console.locator("#state")).to_have_text("2 jobs cancelled.")
    expect(rows).to_have_count(3)
    bar.get_by_role("button", name="Cancel").click()
    expect(console.get_by_role("dialog")).to_contain_text("Cancel 3 jobs?")
    agree(console, "Cancel 3")
    expect(console.locator("#state")).to_have_text("3 jobs cancelled.")
    go(console, "jobs?state=canceled&text=well")
    expect(rows).to_have_count(5)
    bar.get_by_role("button", name="Retry").click()
    agree(console, "Retry 5")
    expect(console.locator("#state")).to_have_text("5 jobs run again.")
    wait_until(lambda: states(ragq, "well") == ["finished"] * 5, seconds=30)
    go(console, "jobs?state=finished&text=well")
    bar.get_by_role("button", name="Delete").click()
    agree(console, "Delete 5")
    expect(console.locator("#state")).to_have_text("5 jobs deleted.")
    expect(console.locator(".none")).to_be_visible()


def test_the_end_of_an_action_is_shown_soon_and_a_long_one_is_asked_for_ever_less_often(
    console: Page, ragq: Ragq
) -> None:
    ask(ragq, SLOW)
    ask(ragq, "[[fake text=yes]] How deep is the ford?")
    go(console, "jobs?state=queued&text=ford")
    expect(console.locator("tbody tr")).to_have_count(1)
    asked: list[float] = []
    reply = {"id": "x", "action": "cancel", "state": "running", "total": 1, "done": 0, "skipped": 0}

    def answer(route: Route) -> None:
        asked.append(time.monotonic())
        route.fulfill(json=reply | {"state": "completed" if len(asked) == 5 else "running"})

    console.route(re.compile("/v1/admin/job_actions/"), answer)
    console.get_by_role("group", name="Actions").get_by_role("button", name="Cancel").click()
    begun = time.monotonic()
    agree(console, "Cancel 1")
    expect(console.locator("#state")).to_have_text("0 jobs cancelled.")
    pauses = [later - sooner for sooner, later in pairwise([begun, *asked])]
    assert pauses[1] < 1.5
    assert all(pause > 0.9 * least for pause, least in zip(pauses, (0.25, 0.5, 1, 2, 2), strict=True))


def test_documents_say_why_they_failed_and_poison_is_forgiven_and_read_again(
    console: Page, ragq: Ragq, tmp_path: Path
) -> None:
    content = b"The mole of Varn is long.\n"
    sha256 = hashlib.sha256(content).hexdigest()
    with psycopg.connect(ragq.services["database_url"]) as connection:
        connection.execute(
            "INSERT INTO poison (sha256, code, reason) VALUES (%s, 'parser_crashed', 'It crashed.')", [sha256]
        )
    (tmp_path / "mole.md").write_bytes(content)
    ragq.run("ingest", str(tmp_path / "mole.md"))
    go(console, "documents")
    documents = console.get_by_role("table", name="Documents")
    expect(documents.get_by_role("row").filter(has_text="mole.md")).to_contain_text("It crashed.")
    console.get_by_label("State").select_option("failed")
    expect(documents.locator("tbody tr")).to_have_count(1)
    console.get_by_role("button", name="Forgive mole.md").click()
    expect(console.get_by_role("region", name="Poison")).to_contain_text("No file is poison.")
    console.get_by_role("button", name="Read mole.md again").click()
    expect(console.locator("#state")).to_have_text("mole.md is read again.")
    console.get_by_label("State").select_option("")
    wait_until(
        lambda: any(
            job["state"] == "finished" for job in httpx2.get(f"{ragq.url}/v1/admin/jobs?queue=documents").json()["data"]
        )
    )
    console.get_by_role("button", name="Remove mole.md").click()
    agree(console, "Remove")
    expect(console.locator("#state")).to_have_text("mole.md was removed.")
    expect(documents).not_to_contain_text("mole.md")


def test_tenants_are_suspended_keys_revoked_and_the_audit_log_has_it(console: Page, ragq: Ragq) -> None:
    httpx2.post(f"{ragq.url}/v1/admin/tenants", json={"id": "larch"})
    httpx2.post(f"{ragq.url}/v1/admin/keys", json={"name": "a laptop", "tenant": "larch"})
    go(console, "tenants")
    console.get_by_role("button", name="Suspend larch").click()
    agree(console, "Suspend")
    expect(console.get_by_role("row").filter(has_text="larch")).to_contain_text("suspended")
    console.get_by_role("button", name="Resume larch").click()
    expect(console.get_by_role("row").filter(has_text="larch")).to_contain_text("active")
    go(console, "keys?tenant=larch")
    console.get_by_role("button", name="Revoke a laptop").click()
    agree(console, "Revoke")
    expect(console.locator(".none")).to_be_visible()
    go(console, "audit?tenant=larch")
    expect(console.locator("tbody tr").first).to_contain_text("key.revoked")


def test_a_tenant_is_made_given_a_key_and_deleted_when_its_name_is_typed(
    console: Page, visitor: Visitor, ragq: Ragq
) -> None:
    visitor.expected.append("409")
    go(console, "tenants")
    for name, fault in (("default", "already"), ("hazel", "")):
        console.get_by_role("button", name="New tenant").click()
        dialog = console.get_by_role("dialog", name="New tenant")
        dialog.get_by_label("Name").fill(name)
        dialog.get_by_role("button", name="Create").click()
        if fault:
            expect(dialog.get_by_role("alert")).to_contain_text(fault)
            console.keyboard.press("Escape")
        expect(dialog).to_have_count(0)
    expect(console.locator(".none")).to_be_visible()  # its keys
    go(console, "tenants")
    delete = console.get_by_role("button", name="Delete hazel")
    delete.click()
    dialog = console.get_by_role("dialog", name="Delete hazel?")
    typed, yes = dialog.get_by_label("Type hazel to delete it"), dialog.get_by_role("button", name="Delete")
    typed.fill("haze")
    yes.click()
    assert typed.evaluate("(input) => input.validity.patternMismatch")
    assert httpx2.get(f"{ragq.url}/v1/admin/tenants/hazel").json()["status"] == "active"
    typed.fill("hazel")
    yes.click()
    expect(console.locator("#state")).to_have_text("hazel is being deleted.")
    expect(delete).to_have_count(0)
    expect(console.get_by_role("button", name="Delete default")).to_have_count(0)


def make_key_of_a_printer(console: Page) -> None:
    console.get_by_role("button", name="New key").click()
    dialog = console.get_by_role("dialog", name="New key")
    dialog.get_by_label("Name").fill("a printer")
    dialog.get_by_label("Role").select_option("reader")
    dialog.get_by_label("Expires after").select_option("7")
    dialog.get_by_label("Stores").fill("default")
    dialog.get_by_label("Requests a minute").fill("7")
    dialog.get_by_role("button", name="Create").click()


def test_a_key_is_made_with_limits_shown_once_copied_and_rotated(locked: str, visitor: Visitor) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    console = visitor.visit(f"{locked}/console", permissions=["clipboard-read", "clipboard-write"])
    unlock(console, KEY)
    go(console, "keys")
    make_key_of_a_printer(console)
    shown = console.get_by_role("dialog", name="The key of a printer")
    value = shown.get_by_role("textbox", name="Key").input_value()
    shown.get_by_role("button", name="Copy").click()
    expect(shown.get_by_role("status")).to_have_text("Copied.")
    assert console.evaluate("navigator.clipboard.readText()") == value
    answered = httpx2.post(
        f"{locked}/v1/embeddings", json={"model": "ragq", "input": "a"}, headers={"Authorization": f"Bearer {value}"}
    )
    assert answered.headers["x-ratelimit-limit-requests"] == "7"
    shown.get_by_role("button", name="Done").click()
    row = console.get_by_role("row").filter(has_text="a printer")
    expect(row).to_contain_text("reader, stores: 1")
    assert value not in console.content()
    (key,) = [
        one
        for one in httpx2.get(f"{locked}/v1/admin/keys", headers=headers).json()["data"]
        if one["name"] == "a printer"
    ]
    assert key["role"] == "reader"
    assert 6.9 * 86400 < key["expires_at"] - time.time() <= 7 * 86400
    row.get_by_role("button", name="Rotate a printer").click()
    dialog = console.get_by_role("dialog", name="Rotate a printer?")
    dialog.get_by_label("The old value holds for").select_option("not at all")
    dialog.get_by_role("button", name="Rotate").click()
    rotated = shown.get_by_role("textbox", name="Key").input_value()
    assert rotated != value
    with console.expect_response(re.compile("/v1/admin/keys")) as listed:
        console.keyboard.press("Escape")
    listed.value.finished()
    console.evaluate("new Promise(requestAnimationFrame)")  # the list is drawn anew: a click on the old one is lost
    console.get_by_role("button", name="Revoke a printer").click()
    agree(console, "Revoke")
    expect(console.locator("#state")).to_have_text("a printer was revoked.")
    expect(row).to_have_count(0)


@pytest.fixture
def locked(ragq: Ragq) -> Iterator[str]:
    """The address of another API process, which has a key."""
    api, url = ragq.spawn_api(RAGQ_API_KEY=KEY)
    yield url
    stop(api)


def unlock(page: Page, key: str) -> None:
    page.get_by_role("textbox", name="API key").fill(key)
    page.get_by_role("button", name="Continue").click()


def key_of(url: str, role: str, tenant: str) -> str:
    headers = {"Authorization": f"Bearer {KEY}"}
    httpx2.post(f"{url}/v1/admin/tenants", json={"id": tenant}, headers=headers)
    body = {"name": role, "role": role, "tenant": tenant}
    value: str = httpx2.post(f"{url}/v1/admin/keys", json=body, headers=headers).json()["value"]
    return value


def test_an_admin_sees_its_own_tenant_and_steers_no_queue(visitor: Visitor, ragq: Ragq, locked: str) -> None:
    ask(ragq, "[[fake text=yes]] What does the operator ask?")
    page = visitor.visit(f"{locked}/console")
    unlock(page, key_of(locked, "admin", "alder"))
    expect(page.locator("#scope")).to_have_text("Tenant alder")
    views = ["Queues", "Jobs", "Documents", "Keys", "Usage", "Audit log"]
    expect(page.locator("nav a")).to_have_text(views)
    expect(page.get_by_role("article")).to_have_count(2)
    expect(page.get_by_role("button", name=re.compile("Pause"))).to_have_count(0)
    go(page, "workers")
    expect(page.get_by_role("article")).to_have_count(2)
    go(page, "jobs")
    expect(page.locator(".none")).to_have_text("No jobs.")
    expect(page.get_by_label("Tenant")).to_have_count(0)


def test_an_admin_makes_keys_of_its_own_tenant_alone(locked: str, visitor: Visitor) -> None:
    visitor.expected.append("404")
    page = visitor.visit(f"{locked}/console")
    unlock(page, key_of(locked, "admin", "aspen"))
    go(page, "tenants")
    expect(page.get_by_role("article")).to_have_count(2)
    expect(page.get_by_role("button", name="New tenant")).to_have_count(0)
    go(page, "keys")
    page.get_by_role("button", name="New key").click()
    dialog = page.get_by_role("dialog", name="New key")
    expect(dialog.get_by_label("Tenant")).to_have_count(0)
    dialog.get_by_label("Name").fill("a scanner")
    dialog.get_by_label("Stores").fill("vs_00000000000000000000000000000000")
    dialog.get_by_role("button", name="Create").click()
    expect(dialog.get_by_role("alert")).to_contain_text("vs_00000000000000000000000000000000")
    dialog.get_by_label("Stores").fill("")
    dialog.get_by_role("button", name="Create").click()
    page.get_by_role("dialog", name="The key of a scanner").get_by_role("button", name="Done").click()
    expect(page.get_by_role("row").filter(has_text="a scanner")).to_contain_text("aspen")


@pytest.mark.parametrize("role", ["reader", "user"])
def test_a_lower_role_is_told_what_it_needs(locked: str, visitor: Visitor, role: str) -> None:
    page = visitor.visit(f"{locked}/console")
    unlock(page, key_of(locked, role, "alder"))
    expect(page.locator("#state")).to_contain_text("The console needs an admin's key.")
    expect(page.locator("nav a")).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [{"width": 360, "height": 740}, {"width": 1280, "height": 800}])
def test_each_view_fits_a_phone_and_a_desk_in_light_and_dark(
    visitor: Visitor, ragq: Ragq, scheme: str, viewport: dict[str, int]
) -> None:
    job_id = ask(ragq, f"[[fake text='{'long' * 60} [1]']] {'How' * 60} long is it?")
    page = visitor.visit(f"{ragq.url}/console", viewport=viewport, color_scheme=scheme)
    for view in (*VIEWS, f"job/{job_id}"):
        go(page, view)
        expect(page.locator("#view section").first).not_to_be_empty()
        assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"], view
    for view, name in (("tenants", "New tenant"), ("keys", "New key")):
        go(page, view)
        page.get_by_role("button", name=name).click()
        box = page.get_by_role("dialog", name=name).bounding_box()
        assert box
        assert 0 <= box["x"] <= viewport["width"] - box["width"], name
        assert 0 <= box["y"] <= viewport["height"] - box["height"], name
        page.keyboard.press("Escape")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground))) > 384) == (scheme == "light")


def test_everything_can_be_done_by_keyboard(console: Page, ragq: Ragq) -> None:
    job_id = ask(ragq, FAILS)
    wait_until(lambda: states(ragq, job_id) == ["failed"])
    go(console, "jobs?state=failed")
    expect(console.locator("tbody tr")).to_have_count(1)
    console.get_by_role("checkbox").focus()
    console.keyboard.press("Space")
    assert console.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    bar = console.get_by_role("group", name="Actions")
    expect(bar).to_contain_text("1 selected")
    bar.get_by_role("button", name="Delete").focus()
    console.keyboard.press("Enter")
    expect(console.get_by_role("dialog")).to_be_visible()
    console.keyboard.press("Escape")
    expect(console.get_by_role("dialog")).to_be_hidden()
    expect(console.locator("tbody tr")).to_have_count(1)
    bar.get_by_role("button", name="Delete").focus()
    console.keyboard.press("Enter")
    expect(console.get_by_role("dialog")).to_be_visible()
    console.keyboard.press("Enter")
    expect(console.locator("#state")).to_have_text("1 job deleted.")


def test_a_key_is_made_by_keyboard(console: Page) -> None:
    go(console, "keys")
    console.get_by_role("button", name="New key").focus()
    console.keyboard.press("Enter")
    expect(console.get_by_role("dialog")).to_be_visible()
    console.keyboard.type("a keyboard")
    console.keyboard.press("Enter")
    shown = console.get_by_role("dialog", name="The key of a keyboard")
    expect(shown.get_by_role("textbox", name="Key")).to_be_focused()
    console.keyboard.press("Tab")
    expect(shown.get_by_role("button", name="Copy")).to_be_focused()
    console.keyboard.press("Tab")
    console.keyboard.press("Enter")
    expect(shown).to_have_count(0)
    console.get_by_role("button", name="Revoke a keyboard").focus()
    console.keyboard.press("Enter")
    expect(console.get_by_role("dialog")).to_be_visible()
    console.keyboard.press("Enter")
    expect(console.locator("#state")).to_have_text("a keyboard was revoked.")


def test_markup_in_a_question_is_inert(console: Page, ragq: Ragq) -> None:
    job_id = ask(ragq, f"[[fake text='{EVIL}']] {EVIL}")
    wait_until(lambda: states(ragq, job_id) == ["finished"])
    go(console, "jobs")
    console.get_by_role("link", name=re.compile("onerror")).click()
    expect(console.locator(".answer")).to_contain_text(EVIL)
    assert console.locator("#view").locator("img, script").count() == 0
    assert console.evaluate("window.hacked") is None


def test_a_view_asks_once_in_two_seconds_and_not_while_it_is_hidden(console: Page) -> None:
    asked: list[float] = []

    def note(request: Request) -> None:
        if "/v1/" in request.url:
            asked.append(time.monotonic())

    expect(console.get_by_role("article")).to_have_count(2)
    console.on("request", note)
    for _ in range(4):
        with console.expect_request("**/v1/**"):
            pass
    assert min(later - sooner for sooner, later in pairwise(asked)) > 1.5
    console.evaluate("Object.defineProperty(document, 'hidden', {get: () => true})")
    console.wait_for_timeout(100)
    before = len(asked)
    console.wait_for_timeout(5000)
    assert len(asked) == before
