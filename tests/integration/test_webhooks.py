"""Webhooks: from the archive over the outbox to a receiver, and what may go wrong on the way."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from ragq.errors import NotFoundError
from ragq.models import Answer, JobStatus
from ragq.queues import webhooks as delivery
from ragq.queues.webhooks import deliver_forever
from ragq.records import QueryResult
from ragq.settings import Settings
from ragq.storage.archive import Archive
from ragq.storage.database import Database
from ragq.storage.paging import Page
from ragq.storage.webhooks import Attempt, DeliveryRecord, EndpointRecord, Webhooks
from ragq.tasks import end_tasks
from tests.integration.test_archive import make_job
from tests.receiver import Receiver, eventually, running_receiver
from tests.servers import Ragq, environment

KEY = "a key for the webhooks"
CLAIM_AND_WAIT = """
import asyncio, sys
from ragq.storage.database import Database
from ragq.storage.webhooks import Webhooks
from ragq.settings import Settings
from ragq.tasks import end_tasks

async def main():
    database = await Database.open(Settings(_env_file=None), sys.argv[1], connections=1)
    claimed = await Webhooks(database).claim(10, per_endpoint=10, lease_seconds=2)
    print(len(claimed), flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with running_receiver() as running:
        yield running


@pytest.fixture
def settings() -> Settings:
    return Settings(
        _env_file=None, webhook_allowed_hosts="127.0.0.1", webhook_backoff_seconds=0.05, webhook_timeout_seconds=1
    )


@pytest.fixture
def webhooks(database: Database) -> Webhooks:
    return Webhooks(database)


@pytest.fixture
async def delivering(settings: Settings, database: Database) -> AsyncIterator[None]:
    """A process that delivers."""
    task = asyncio.create_task(deliver_forever(settings, Webhooks(database)))
    yield
    assert not task.done()
    await end_tasks([task])


async def add_endpoint(webhooks: Webhooks, url: str, *events: str, tenant: str = "default") -> EndpointRecord:
    return await webhooks.create_endpoint(tenant, url=url, events=list(events), description=None)


async def deliveries(webhooks: Webhooks, endpoint: EndpointRecord) -> list[DeliveryRecord]:
    return await webhooks.list_deliveries("default", endpoint.id, Page(100))


async def wait_for_status(webhooks: Webhooks, endpoint: EndpointRecord, status: str) -> list[DeliveryRecord]:
    async def settled() -> list[DeliveryRecord]:
        found = await deliveries(webhooks, endpoint)
        return found if found and all(record.status == status for record in found) else []

    return await eventually(settled, what=status)


async def test_an_end_becomes_one_delivery_per_endpoint_that_wants_it(database: Database, webhooks: Webhooks) -> None:
    every, failures = (
        await add_endpoint(webhooks, "https://a.test"),
        await add_endpoint(webhooks, "https://b.test", "response.failed"),
    )
    done = make_job("resp_done")
    jobs = [
        done,
        replace(make_job("resp_cut"), result=QueryResult("", Answer("", [], "generated", truncated=True), [])),
        replace(make_job("resp_failed"), status=JobStatus.FAILED, result=None),
        replace(make_job("resp_canceled"), status=JobStatus.CANCELED, result=None),
        replace(make_job("resp_again"), status=JobStatus.QUEUED, result=None),
    ]
    archive = Archive(database)
    for _ in range(2):
        await archive.store(jobs)
    assert {record.object_id: record.type for record in await deliveries(webhooks, every)} == {
        "resp_done": "response.completed",
        "resp_cut": "response.incomplete",
        "resp_failed": "response.failed",
        "resp_canceled": "response.cancelled",
    }
    assert [record.object_id for record in await deliveries(webhooks, failures)] == ["resp_failed"]
    await archive.store([replace(done, ended_at=time.time() + 1)])
    assert [record.object_id for record in await deliveries(webhooks, every)].count("resp_done") == 2


@pytest.mark.usefixtures("delivering")
async def test_the_same_body_is_sent_again_after_a_500(
    database: Database, webhooks: Webhooks, receiver: Receiver
) -> None:
    endpoint = await add_endpoint(webhooks, f"{receiver.url}/flaky")
    await Archive(database).store([make_job("resp_a")])
    (record,) = await wait_for_status(webhooks, endpoint, "delivered")
    assert (record.attempts, record.last_status_code, record.next_attempt_at) == (2, 204, None)
    (_, first, body), (_, second, repeated) = receiver.requests
    assert body == repeated
    assert first["webhook-id"] == second["webhook-id"] == record.id == json.loads(body)["id"]


@pytest.mark.usefixtures("delivering")
async def test_a_redirect_is_a_failure_and_is_not_followed(
    database: Database, webhooks: Webhooks, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "WAITS", (1,))
    endpoint = await add_endpoint(webhooks, f"{receiver.url}/redirect")
    await Archive(database).store([make_job("resp_a")])
    (record,) = await wait_for_status(webhooks, endpoint, "failed")
    assert (record.attempts, record.last_status_code) == (2, 302)
    assert [path for path, _, _ in receiver.requests] == ["/redirect", "/redirect"]


@pytest.mark.usefixtures("delivering")
async def test_410_disables_the_endpoint(database: Database, webhooks: Webhooks, receiver: Receiver) -> None:
    endpoint = await add_endpoint(webhooks, f"{receiver.url}/gone")
    await Archive(database).store([make_job("resp_a")])
    await wait_for_status(webhooks, endpoint, "failed")

    async def disabled() -> bool:
        return (await webhooks.get_endpoint("default", endpoint.id)).status == "disabled"

    await eventually(disabled)
    await Archive(database).store([make_job("resp_b")])
    assert len(await deliveries(webhooks, endpoint)) == 1
    assert len(receiver.requests) == 1


@pytest.mark.usefixtures("delivering")
async def test_a_slow_target_holds_up_nobody_else(database: Database, webhooks: Webhooks, receiver: Receiver) -> None:
    slow, quick = (
        await add_endpoint(webhooks, f"{receiver.url}/slow"),
        await add_endpoint(webhooks, f"{receiver.url}/ok"),
    )
    await Archive(database).store([make_job(f"resp_{number}") for number in range(40)])
    await wait_for_status(webhooks, quick, "delivered")
    assert len(receiver.got("/ok")) == 40
    assert len(receiver.got("/slow")) <= 24

    async def timed_out() -> list[str]:
        return [record.last_error for record in await deliveries(webhooks, slow) if record.last_error]

    assert "No answer within 1 s." in await eventually(timed_out)


@pytest.mark.parametrize(
    ("url", "message"),
    [("https://localhost:{port}/ok", "not public"), ("https://nowhere.invalid/", "nowhere.invalid")],
)
@pytest.mark.usefixtures("delivering")
async def test_an_inside_or_unknown_host_is_never_spoken_to(
    database: Database, webhooks: Webhooks, receiver: Receiver, url: str, message: str
) -> None:
    endpoint = await add_endpoint(webhooks, url.format(port=receiver.url.rpartition(":")[2]))
    await Archive(database).store([make_job("resp_a")])

    async def refused() -> str | None:
        return (await deliveries(webhooks, endpoint))[0].last_error

    assert message in (await eventually(refused) or "")
    assert receiver.requests == []


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "[::1]", "[::ffff:127.0.0.1]"])
async def test_an_inside_address_in_the_url_is_refused_when_it_is_used_too(
    database: Database, webhooks: Webhooks, settings: Settings, address: str
) -> None:
    endpoint = await add_endpoint(webhooks, f"http://{address}:9/")
    await Archive(database).store([make_job("resp_a")])
    task = asyncio.create_task(
        deliver_forever(settings.model_copy(update={"webhook_allowed_hosts": ""}), Webhooks(database))
    )

    async def refused() -> str | None:
        return (await deliveries(webhooks, endpoint))[0].last_error

    assert "not public" in (await eventually(refused) or "")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_two_processes_deliver_each_event_once(
    database: Database, database_url: str, webhooks: Webhooks, receiver: Receiver, settings: Settings
) -> None:
    endpoint = await add_endpoint(webhooks, f"{receiver.url}/ok")
    await Archive(database).store([make_job(f"resp_{number}") for number in range(100)])
    async with AsyncExitStack() as stack:
        other = await Database.open(settings, database_url, connections=3)
        stack.push_async_callback(other.close)
        tasks = [asyncio.create_task(deliver_forever(settings, Webhooks(each))) for each in (database, other)]
        await wait_for_status(webhooks, endpoint, "delivered")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert len(receiver.requests) == 100
    assert len({event["data"]["id"] for event in receiver.got("/ok")}) == 100


async def test_what_a_killed_process_had_claimed_is_sent_by_another(
    database: Database, database_url: str, webhooks: Webhooks, receiver: Receiver, settings: Settings
) -> None:
    endpoint = await add_endpoint(webhooks, f"{receiver.url}/ok")
    await Archive(database).store([make_job("resp_a")])
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", CLAIM_AND_WAIT, database_url), stdout=asyncio.subprocess.PIPE, env=environment()
    )
    assert process.stdout
    assert await process.stdout.readline() == b"1\n"
    process.kill()
    await process.communicate()
    assert await webhooks.claim(10, per_endpoint=10, lease_seconds=1) == []
    task = asyncio.create_task(deliver_forever(settings, Webhooks(database)))
    (record,) = await wait_for_status(webhooks, endpoint, "delivered")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert record.attempts == 2
    assert len(receiver.requests) == 1


async def test_a_late_settling_changes_nothing(database: Database, webhooks: Webhooks) -> None:
    endpoint = await add_endpoint(webhooks, "https://a.test")
    await Archive(database).store([make_job("resp_a")])
    (old,) = await webhooks.claim(10, per_endpoint=10, lease_seconds=0)
    (new,) = await webhooks.claim(10, per_endpoint=10, lease_seconds=60)
    await webhooks.settle(old, Attempt(500, None), "failed")
    assert [record.status for record in await deliveries(webhooks, endpoint)] == ["pending"]
    await webhooks.settle(new, Attempt(204, None), "delivered")
    assert [record.status for record in await deliveries(webhooks, endpoint)] == ["delivered"]


async def test_deleting_an_endpoint_takes_its_deliveries(database: Database, webhooks: Webhooks) -> None:
    endpoint = await add_endpoint(webhooks, "https://a.test")
    await Archive(database).store([make_job("resp_a")])
    await webhooks.delete_endpoint("default", endpoint.id)
    assert await webhooks.claim(10, per_endpoint=10, lease_seconds=1) == []
    with pytest.raises(NotFoundError):
        await webhooks.list_deliveries("default", endpoint.id, Page())


async def test_old_deliveries_are_forgotten_and_waiting_ones_are_not(database: Database, webhooks: Webhooks) -> None:
    endpoint = await add_endpoint(webhooks, "https://a.test")
    await Archive(database).store([make_job("resp_a"), make_job("resp_b")])
    ended, waiting = await webhooks.claim(10, per_endpoint=10, lease_seconds=60)
    await webhooks.settle(ended, Attempt(204, None), "delivered")
    await webhooks.expire(3600)
    assert len(await deliveries(webhooks, endpoint)) == 2
    await webhooks.expire(0)
    assert [record.id for record in await deliveries(webhooks, endpoint)] == [waiting.event_id]


async def test_a_tenant_sees_and_is_told_of_its_own_alone(database: Database, webhooks: Webhooks) -> None:
    await database.for_all().row("INSERT INTO tenants VALUES ('acme') ON CONFLICT DO NOTHING RETURNING id")
    theirs = await add_endpoint(webhooks, "https://a.test", tenant="acme")
    await Archive(database).store([make_job("resp_a")])
    assert await webhooks.list_deliveries("acme", theirs.id, Page()) == []
    assert await webhooks.list_endpoints("default", Page()) == []
    attempts: list[Callable[[], Any]] = [
        lambda: webhooks.get_endpoint("default", theirs.id),
        lambda: webhooks.delete_endpoint("default", theirs.id),
        lambda: webhooks.list_deliveries("default", theirs.id, Page()),
    ]
    for attempt in attempts:
        with pytest.raises(NotFoundError):
            await attempt()


async def test_the_sdk_verifies_what_a_running_service_sends(tmp_path: Path, receiver: Receiver) -> None:
    service = Ragq(
        tmp_path / "data",
        RAGQ_API_KEY=KEY,
        RAGQ_WEBHOOK_ALLOWED_HOSTS="127.0.0.1",
        RAGQ_LOG_LEVEL="DEBUG",
    ).start()
    try:
        headers = {"Authorization": f"Bearer {KEY}"}
        async with (
            httpx2.AsyncClient(base_url=service.url, headers=headers) as http,
            openai.AsyncOpenAI(base_url=f"{service.url}/v1", api_key=KEY, max_retries=0) as sdk,
        ):
            made = (await http.post("/v1/webhook_endpoints", json={"url": f"{receiver.url}/ok"})).json()
            responses = [await sdk.responses.create(model="ragq", input=f"What? {n}", background=True) for n in (1, 2)]

            async def received() -> bool:
                return len(receiver.requests) >= 2

            await eventually(received, seconds=30)
            for _, signed, body in receiver.requests:
                event = sdk.webhooks.unwrap(body, signed, secret=made["secret"])
                assert event.type == "response.completed"
                assert event.data.id in {response.id for response in responses}
                with pytest.raises(openai.InvalidWebhookSignatureError):
                    sdk.webhooks.unwrap(body + b" ", signed, secret=made["secret"])
            await check_routes(http, made)
    finally:
        assert service.stop() == 0
    assert made["secret"] not in service.log()


async def check_routes(http: httpx2.AsyncClient, made: dict[str, Any]) -> None:
    """Page through the lists, then delete the endpoint."""
    path = f"/v1/webhook_endpoints/{made['id']}"
    shown = (await http.get(path)).json()
    assert made == shown | {"secret": made["secret"]}
    assert made["secret"].startswith("whsec_")
    first = (await http.get(f"{path}/deliveries", params={"limit": 1})).json()
    rest = (await http.get(f"{path}/deliveries", params={"after": first["last_id"]})).json()
    assert (first["has_more"], rest["has_more"]) == (True, False)
    assert first["data"][0]["id"] != rest["data"][0]["id"]
    assert (await http.get("/v1/webhook_endpoints")).json()["data"] == [shown]
    for url in ("http://example.com/", "https://10.1.2.3/", "https://u:p@example.com/", "ftp://127.0.0.1/", "https://"):
        refused = await http.post("/v1/webhook_endpoints", json={"url": url})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "url"), url
    assert (await http.delete(path)).json()["deleted"] is True
    assert (await http.get(path)).status_code == 404
