"""Stores that a tenant shares with another one, to be read."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from ragq.accounts.views import TenantView
from ragq.errors import NotFoundError
from ragq.http.callers import FRESH_SECONDS
from ragq.storage.database import Database
from ragq.storage.tenancy.shares import StoreShares
from ragq.storage.tenancy.tenants import Tenants
from ragq.storage.vector_stores import Stores
from tests.integration.test_readers import CONTENT, IN_STORE, NAMES, Document, over_mcp, put
from tests.servers import Ragq, wait_until
from tests.tenants import Caller

INSIDE = [door for door in NAMES if door != "files"]  # a tenant's list of files has its own


def make_tenant(root: Caller, tenant: str) -> dict[str, Caller]:
    root.post("/v1/admin/tenants", {"id": tenant})
    keys: dict[str, dict[str, Any]] = {
        "admin": {"role": "admin"},
        "user": {"groups": ["legal"]},
        "reader": {"role": "reader"},
    }
    made = {name: root.post("/v1/admin/keys", {"name": name, "tenant": tenant} | key) for name, key in keys.items()}
    return {name: Caller(root.url, key["value"]) for name, key in made.items()}


@pytest.fixture(scope="module")
def hazel(root: Caller) -> dict[str, Caller]:
    """A tenant's callers, which has a store to share."""
    return make_tenant(root, "hazel")


@pytest.fixture(scope="module")
def ivy(root: Caller, store: str, hazel: dict[str, Caller]) -> dict[str, Caller]:
    """Callers of the tenant that it is shared with."""
    hazel["admin"].post(f"/v1/admin/vector_stores/{store}/shares", {"tenant": "ivy"})
    return make_tenant(root, "ivy")


@pytest.fixture(scope="module")
def store(hazel: dict[str, Caller]) -> str:
    created: str = hazel["admin"].post("/v1/vector_stores", {"name": "handbooks"})["id"]
    return created


@pytest.fixture(scope="module")
def documents(hazel: dict[str, Caller], store: str) -> dict[str, Document]:
    """An open document in the store, one with readers, and one in a store that is not shared."""
    admin = hazel["admin"]
    other = admin.post("/v1/vector_stores", {"name": "own"})["id"]
    return {
        "open": put(admin, store, "Quorra", "61 metres", ()),
        "restricted": put(admin, store, "Brandt", "9,000 ducats", (), readers=["legal"]),
        "elsewhere": put(admin, other, "Mirabel", "seven arches", ()),
    }


@pytest.mark.parametrize("who", ["admin", "user", "reader"])
@pytest.mark.parametrize("door", [*CONTENT, *INSIDE])
def test_a_shared_store_is_read_through_each_door(
    documents: dict[str, Document], ivy: dict[str, Caller], door: str, who: str
) -> None:
    if who == "reader" and door == "batch":
        return  # which a reader may not make
    for name, is_open in (("open", True), ("restricted", False), ("elsewhere", False)):
        document = documents[name]
        if door in CONTENT:
            is_shown = document.secret in CONTENT[door](ivy[who], document)
        else:
            shown = NAMES[door](ivy[who], document)
            is_shown = f'"{document.file_id}"' in shown.replace("\\", "") and "No " not in shown
        assert is_shown is is_open, name


def test_a_shared_store_is_marked_and_counts_what_may_be_read(
    documents: dict[str, Document], hazel: dict[str, Caller], ivy: dict[str, Caller], store: str
) -> None:
    assert documents
    (shown,) = ivy["user"].call("GET", "/v1/vector_stores").json()["data"]
    assert (shown["id"], shown["shared"], shown["file_counts"]["total"]) == (store, True, 1)
    own = hazel["admin"].call("GET", f"/v1/vector_stores/{store}").json()
    assert (own["shared"], own["file_counts"]["total"]) == (False, 2)
    files = ivy["user"].call("GET", "/v1/files").json()["data"]
    assert documents["open"].file_id not in json.dumps(files)


def test_nothing_in_a_shared_store_can_be_changed(
    documents: dict[str, Document], ivy: dict[str, Caller], hazel: dict[str, Caller], store: str
) -> None:
    document, admin = documents["open"], ivy["admin"]
    in_store, whole = IN_STORE.format(store=store, file=document.file_id), f"/v1/vector_stores/{store}"
    before = hazel["admin"].call("GET", in_store).json(), hazel["admin"].call("GET", whole).json()["name"]
    own = admin.call("POST", "/v1/files", files={"file": ("a.md", b"Own.")}, data={"purpose": "assistants"}).json()
    for method, path, body in (
        ("POST", whole, {"name": "mine"}),
        ("DELETE", whole, None),
        ("POST", f"{whole}/files", {"file_id": own["id"]}),
        ("POST", f"{whole}/file_batches", {"file_ids": [own["id"]]}),
        ("POST", in_store, {"attributes": {"a": "b"}}),
        ("POST", in_store, {"readers": ["legal"]}),
        ("DELETE", in_store, None),
    ):
        refused = admin.call(method, path, json=body)
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "shared_store"), (method, path)
    assert "may be read only" in over_mcp(admin, document, "add_document", name="a.md", text="Own.")
    for method, path, body in (
        ("DELETE", f"/v1/files/{document.file_id}", None),
        ("POST", "/v1/vector_stores", {"file_ids": [document.file_id]}),
        ("POST", f"/v1/admin/vector_stores/{store}/shares", {"tenant": "other"}),
        ("POST", "/v1/admin/keys", {"name": "x", "vector_store_ids": [store]}),
    ):
        assert admin.call(method, path, json=body).status_code == 404, path
    assert before == (hazel["admin"].call("GET", in_store).json(), hazel["admin"].call("GET", whole).json()["name"])


def test_purging_anothers_file_keeps_the_answers_that_cite_it(
    documents: dict[str, Document], ivy: dict[str, Caller], store: str
) -> None:
    document, admin = documents["open"], ivy["admin"]
    asked = {"input": document.found_by, "vector_store_ids": [store]}
    answer = admin.post("/v1/responses", asked | {"include": ["file_search_call.results"]})
    assert document.file_id in json.dumps(answer)
    assert admin.call("DELETE", f"/v1/files/{document.file_id}?purge=true").status_code == 404
    assert admin.call("GET", f"/v1/responses/{answer['id']}").status_code == 200


def test_a_share_ends_at_once(documents: dict[str, Document], hazel: dict[str, Caller], ivy: dict[str, Caller]) -> None:
    document, admin = documents["elsewhere"], hazel["admin"]
    path = f"/v1/admin/vector_stores/{document.store_id}/shares"
    assert admin.post(path, {"tenant": "ivy"}) == admin.post(path, {"tenant": "ivy"})
    assert [one["id"] for one in admin.call("GET", path).json()["data"]] == ["ivy"]
    time.sleep(FRESH_SECONDS)
    assert document.secret in CONTENT["search"](ivy["reader"], document)
    assert document.secret in CONTENT["download"](ivy["reader"], document)
    assert admin.call("DELETE", f"{path}/ivy").json()["deleted"]
    for door in ("search", "download", "passage", "text", "MCP ask"):
        assert document.secret not in CONTENT[door](ivy["reader"], document), door
    assert admin.call("DELETE", f"{path}/ivy").status_code == 404
    assert admin.call("POST", path, json={"tenant": "hazel"}).status_code == 400
    assert (
        admin.call("POST", path, json={"tenant": "nobody-knows"}).status_code == 200
    )  # and it is not told that there is none


@pytest.mark.parametrize("deleted", ["owner", "reader"])
def test_deleting_either_tenant_ends_its_shares(root: Caller, deleted: str) -> None:
    owner, reader = make_tenant(root, f"owner-{deleted}"), f"reader-{deleted}"
    store = owner["admin"].post("/v1/vector_stores", {"name": "x"})["id"]
    owner["admin"].post(f"/v1/admin/vector_stores/{store}/shares", {"tenant": reader})
    callers = make_tenant(root, reader)
    assert callers["user"].call("GET", f"/v1/vector_stores/{store}").status_code == 200
    root.call("DELETE", f"/v1/admin/tenants/{deleted}-{deleted}")
    if deleted == "owner":
        assert callers["user"].call("GET", f"/v1/vector_stores/{store}").status_code == 404
        return
    assert owner["admin"].call("GET", f"/v1/admin/vector_stores/{store}/shares").json()["data"] == []
    gone = f"/v1/admin/tenants/{reader}"
    wait_until(lambda: root.call("GET", gone).status_code == 404, seconds=60, what="the tenant is gone")


@pytest.mark.parametrize("command", ["share", "shares", "unshare"])
def test_the_commands_share_a_store(plain_ragq: Ragq, hazel: dict[str, Caller], store: str, command: str) -> None:
    admin = hazel["admin"]
    admin.post(f"/v1/admin/vector_stores/{store}/shares", {"tenant": "jasmine"})
    options = [] if command == "shares" else ["--with", "jasmine"]
    done = plain_ragq.run("stores", command, store, *options, "--url", admin.url, RAGQ_API_KEY=admin.key)
    assert done.returncode == 0, done.stderr
    assert "jasmine" in done.stdout


async def test_a_view_that_is_limited_to_a_shared_store_has_it_for_its_default_one(database: Database) -> None:
    tenants, stores = Tenants(database), Stores(database)
    for tenant in ("juniper", "kale"):
        await tenants.create(tenant)
    shared = await stores.create("juniper", name="handbooks", description=None, metadata={})
    other = await stores.create("juniper", name="not shared", description=None, metadata={})
    await StoreShares(database).create("juniper", shared.id, "kale")
    own = await stores.create("kale", name="own", description=None, metadata={})

    async def default_of(*limited_to: str, shares: bool = True) -> str:
        return await stores.resolve(TenantView("kale", stores=limited_to, shares=shares), "default")

    assert await default_of(shared.id) == shared.id
    assert await default_of(shared.id, own.id) == own.id  # to which documents may be added
    for hidden in (default_of(other.id), default_of(shared.id, shares=False)):
        with pytest.raises(NotFoundError):
            await hidden
