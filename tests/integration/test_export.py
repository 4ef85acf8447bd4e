"""All that a tenant has, in a folder."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.servers import Ragq, wait_until
from tests.tenants import SECRET, TEXT, Caller, make_objects


@pytest.fixture(scope="module")
def pine(root: Caller) -> Caller:
    """An admin of a tenant that has an object of each kind."""
    root.post("/v1/admin/tenants", {"id": "pine"})
    return root.with_key(name="pine", role="admin", tenant="pine")


@pytest.fixture(scope="module")
def ids(root: Caller, pine: Caller) -> dict[str, str]:
    made = make_objects(pine)
    store = pine.call("GET", f"/v1/vector_stores/{made['vector_store_id']}/files").json()["data"]
    pine.post(f"/v1/vector_stores/{made['vector_store_id']}/files/{store[0]['id']}", {"readers": ["legal"]})
    pine.post(f"/v1/responses/{made['response_id']}/feedback", {"rating": "up", "comment": "Tall."})
    pine.post(f"/v1/chat/completions/{made['completion_id']}", {"metadata": {"topic": "towers"}})
    pine.post(f"/v1/admin/vector_stores/{made['vector_store_id']}/shares", {"tenant": "willow"})
    pine.post(f"/v1/admin/keys/{made['key_id']}/limits", {"queued": 7})
    root.post("/v1/admin/tenants/pine/limits", {"documents": 70})
    wait_until(lambda: pine.call("GET", "/v1/admin/export?part=usage").text, what="the usage")
    wait_until(lambda: made["response_id"] in pine.call("GET", "/v1/admin/export?part=responses").text, what="archived")
    return made


def export(service: Ragq, caller: Caller, tenant: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return service.run("tenants", "export", tenant, str(folder), "--url", caller.url, RAGQ_API_KEY=caller.key)


def read(folder: Path, part: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{part}.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("who", ["operator", "admin"])
def test_an_export_has_all_of_a_tenant_but_no_secrets(
    plain_ragq: Ragq, root: Caller, pine: Caller, ids: dict[str, str], tmp_path: Path, who: str
) -> None:
    done = export(plain_ragq, root if who == "operator" else pine, "pine", tmp_path)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert (manifest["tenant"], manifest["counts"]["files"]) == ("pine", len(read(tmp_path, "files")))
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=tmp_path, check=True)
    assert (tmp_path / "files" / f"{ids['file_id']}.harbour.md").read_bytes() == TEXT
    (answer,) = [one for one in read(tmp_path, "responses") if one["id"] == ids["response_id"]]
    assert SECRET in answer["request"]["input"]
    assert "61" in answer["result"]["answer"]["text"]
    (said,) = read(tmp_path, "feedback")
    assert (said["id"], said["rating"], said["comment"]) == (ids["response_id"], "up", "Tall.")
    (inside,) = [
        one for one in read(tmp_path, "vector_store_files") if one["vector_store_id"] == ids["vector_store_id"]
    ]
    assert inside["readers"] == ["legal"]
    assert SECRET in json.dumps(read(tmp_path, "conversation_items"))
    assert {one["id"] for one in read(tmp_path, "conversations")} == {ids["conversation_id"]}
    limits_of_keys = {one["name"]: one["limits"] for one in read(tmp_path, "api_keys")}
    assert limits_of_keys == {"pine": None, "another": {"queued": 7}}
    assert [(one["id"], one["limits"]) for one in read(tmp_path, "tenants")] == [("pine", {"documents": 70})]
    shares = [(one["vector_store_id"], one["with_tenant_id"]) for one in read(tmp_path, "store_shares")]
    assert shares == [(ids["vector_store_id"], "willow")]
    (chat,) = [one for one in read(tmp_path, "responses") if one["id"] == ids["completion_id"]]
    assert chat["request"]["metadata"] == {"topic": "towers"}
    assert sum(one["requests"] for one in read(tmp_path, "usage")) > 0
    assert {"key.created", "key.limits_updated"} <= {one["action"] for one in read(tmp_path, "audit_log")}
    endpoint = pine.call("GET", "/v1/webhook_endpoints").json()["data"][0]
    assert [one["id"] for one in read(tmp_path, "webhook_endpoints")] == [endpoint["id"]]
    written = "".join(path.read_text() for path in tmp_path.glob("*.*"))
    assert pine.key not in written
    assert "secret" not in written


def test_an_export_goes_on_where_it_was_cut_off(
    plain_ragq: Ragq, pine: Caller, ids: dict[str, str], tmp_path: Path
) -> None:
    assert export(plain_ragq, pine, "pine", tmp_path).returncode == 0
    kept, cut = sorted((tmp_path / "files").iterdir())[:2]
    kept_at, whole = kept.stat().st_mtime_ns, cut.read_bytes()
    cut.write_bytes(b"cut")
    (tmp_path / "manifest.json").unlink()
    assert export(plain_ragq, pine, "pine", tmp_path).returncode == 0
    assert (kept.stat().st_mtime_ns, cut.read_bytes()) == (kept_at, whole)
    assert (tmp_path / "manifest.json").exists()
    assert ids


def test_an_export_is_refused_into_anothers_folder_and_of_anothers_tenant(
    plain_ragq: Ragq, root: Caller, pine: Caller, ids: dict[str, str], tmp_path: Path
) -> None:
    assert ids
    root.post("/v1/admin/tenants", {"id": "poplar"})
    made = root.post("/v1/admin/keys", {"name": "x", "role": "admin", "tenant": "poplar"})
    poplar = Caller(root.url, made["value"])
    assert export(plain_ragq, poplar, "poplar", tmp_path).returncode == 0
    refused = export(plain_ragq, pine, "pine", tmp_path)
    assert (refused.returncode, "export of 'poplar'" in refused.stderr) == (1, True)
    refused = export(plain_ragq, poplar, "pine", tmp_path / "other")
    assert refused.returncode == 1
    assert "an admin's key of the tenant 'default'" in refused.stderr
    assert root.call("GET", "/v1/admin/export?part=files&tenant=nobody").status_code == 404
