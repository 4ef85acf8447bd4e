"""A tenant that is deleted leaves nothing, and the others notice nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator

import httpx2
import openai
import pytest

from ragq.client.rq_client import JobQueue
from ragq.context import Context
from ragq.embedded.services import read_services
from ragq.queues.tenant_removal import find_left, remove_tenant
from ragq.settings import Settings
from ragq.storage.blobs import BlobStore
from ragq.storage.database import Database
from tests.servers import KEY, Ragq
from tests.tenants import TEXT, Caller, make_objects

TABLES = {
    *("api_keys", "batches", "chunks", "conversation_items", "conversations", "files", "tenants", "uploads"),
    *("vector_store_file_batches", "vector_store_files", "vector_stores", "webhook_endpoints"),
}


def audit(ragq: Ragq, tenant: str) -> tuple[int, list[str]]:
    """What `ragq doctor` finds of a tenant: its exit code, and the tables and keys."""
    done = ragq.run("doctor", "--audit", "--tenant", tenant, "--json")
    return done.returncode, [orphan["id"] for orphan in json.loads(done.stdout)["orphans"]]


def blobs_of(ragq: Ragq) -> str:
    return " ".join(path.name for path in ragq.folder.rglob("files/*"))


@pytest.mark.timeout(180)
def test_a_deleted_tenant_leaves_nothing_and_the_others_notice_nothing(ragq: Ragq, http: httpx2.Client) -> None:
    root = Caller(ragq.url, KEY)
    ours = http.post("/v1/files", files={"file": ("ours.md", TEXT)}, data={"purpose": "assistants"}).json()["id"]
    root.post("/v1/admin/tenants", {"id": "acme"})
    acme = Caller(ragq.url, root.post("/v1/admin/keys", {"name": "x", "tenant": "acme", "role": "admin"})["value"])
    make_objects(acme)
    own = b"Only acme has these bytes."
    sdk = openai.OpenAI(base_url=f"{acme.url}/v1", api_key=acme.key, max_retries=0)
    sdk.files.create(file=("own.md", own), purpose="assistants")
    for number in range(3):  # some run and some wait when the tenant is deleted
        sdk.responses.create(model="ragq", input=f"[[fake latency=60]] Which is number {number}?", background=True)
    sdk.responses.create(model="ragq", input="[[fake latency=60]] " + 30_000 * "Which one? ", background=True)
    code, found = audit(ragq, "acme")
    assert code == 1
    assert {name.partition(":")[0] for name in found} - {"responses"} == TABLES | {
        "ragq"
    }  # some may be archived by now
    assert [name for name in found if name.startswith("ragq:job:")]
    assert hashlib.sha256(own).hexdigest() in blobs_of(ragq)

    done = ragq.run("tenants", "delete", "acme", "--yes", RAGQ_API_KEY=KEY)
    assert "Nothing is left of acme." in done.stdout, done.stderr

    assert audit(ragq, "acme") == (0, [])
    assert hashlib.sha256(own).hexdigest() not in blobs_of(ragq)
    assert acme.call("GET", "/v1/files").status_code == 401
    assert http.get(f"/v1/files/{ours}/content").content == TEXT
    assert ragq.run("doctor", "--audit").returncode == 0


@pytest.fixture
async def context(ragq: Ragq) -> AsyncIterator[Context]:
    """The connections of another process of the service."""
    services = read_services(ragq.folder)
    assert services.valkey_url
    assert services.database_url
    settings = Settings(data_dir=ragq.folder)
    queue, database = JobQueue(settings, services.valkey_url), await Database.open(settings, services.database_url)
    yield Context(settings=settings, queue=queue, database=database, blobs=BlobStore(settings))
    await database.close()
    await queue.close()


async def test_a_removal_that_was_cut_short_is_completed_by_the_next(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    await context.tenants.create("birch")
    store_id = await context.stores.resolve("birch", "default", to_use=True)
    assert store_id

    async def fail(*_: object) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(context.stores, "delete", fail)
        with pytest.raises(RuntimeError, match="killed"):
            await remove_tenant(context, "birch")
    assert {one.id for one in await find_left(context, "birch")} == {"tenants: 1", "vector_stores: 1"}
    await remove_tenant(context, "birch")
    assert await find_left(context, "birch") == []
    await remove_tenant(context, "birch")  # as by two processes at once
