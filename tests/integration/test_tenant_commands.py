"""`ragq tenants delete`: a tenant that is deleted leaves nothing, and the others notice nothing."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import httpx2
import openai
import pytest

from ragq.admin.tenants import TenantCreate, create_tenant
from ragq.client.tenancy.jobs import TenantJobs
from ragq.errors import NotFoundError, UnavailableError
from ragq.http.audit import Change
from ragq.models import DEFAULT_TENANT
from ragq.queues.running import WorkerContext
from ragq.storage.tenancy.audit_log import Actor
from tests.servers import KEY, Ragq
from tests.tenants import TEXT, Caller, make_objects


def audit_of(ragq: Ragq, tenant: str) -> tuple[int, list[str]]:
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
    code, found = audit_of(ragq, "acme")
    assert code == 1
    assert found
    assert hashlib.sha256(own).hexdigest() in blobs_of(ragq)

    done = ragq.run("tenants", "delete", "acme", "--yes", RAGQ_API_KEY=KEY)
    assert "Nothing is left of acme." in done.stdout, done.stderr

    assert audit_of(ragq, "acme") == (0, [])
    assert hashlib.sha256(own).hexdigest() not in blobs_of(ragq)
    assert acme.call("GET", "/v1/files").status_code == 401
    assert http.get(f"/v1/files/{ours}/content").content == TEXT
    assert ragq.run("doctor", "--audit").returncode == 0
    root.post("/v1/admin/tenants", {"id": "acme"})
    again = Caller(ragq.url, root.post("/v1/admin/keys", {"name": "x", "tenant": "acme"})["value"])
    assert again.post("/v1/responses", {"model": "ragq", "input": "Is anything there?"})["status"] == "completed"


async def test_a_tenant_is_not_created_while_valkey_is_away(
    context: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def succeed(*_: object) -> None:
        pass

    caller: Any = None
    change = Change(context.audit_log, Actor("operator", DEFAULT_TENANT), "tenant.created")
    with pytest.raises(UnavailableError):  # this context has no Valkey
        await create_tenant(TenantCreate(id="mistletoe"), context, caller, change)  # type: ignore[arg-type]
    with pytest.raises(NotFoundError):
        await context.tenants.get("mistletoe")
    monkeypatch.setattr(TenantJobs, "open", succeed)
    created = await create_tenant(TenantCreate(id="mistletoe"), context, caller, change)  # type: ignore[arg-type]
    assert created["status"] == "active"
