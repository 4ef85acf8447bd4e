"""Callers of several tenants, and what a tenant may have."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import Any

import httpx2
import openai

TEXT = b"The lighthouse of Quorra is 61 metres tall."
SECRET = "Quorra"
SESSION = httpx2.Client(timeout=60)


@dataclass(frozen=True)
class Caller:
    """Someone with a key."""

    url: str
    key: str

    def call(self, method: str, path: str, **options: Any) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {self.key}"}
        return SESSION.request(method, self.url + path, headers=headers, **options)

    def post(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        answer = self.call("POST", path, json=body or {})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def with_key(self, **key: Any) -> Caller:
        """Make a key, and return the one who has it."""
        return Caller(self.url, self.post("/v1/admin/keys", key)["value"])


def make_objects(caller: Caller) -> dict[str, str]:
    """Make an object of each kind; returns their ids, by the names of the routes' parameters."""
    sdk = openai.OpenAI(base_url=f"{caller.url}/v1", api_key=caller.key, max_retries=0)
    file = sdk.files.create(file=("harbour.md", TEXT), purpose="assistants")
    store = sdk.vector_stores.create(name="harbours")
    batch = sdk.vector_stores.file_batches.create_and_poll(vector_store_id=store.id, file_ids=[file.id])
    assert batch.file_counts.completed == 1
    conversation = sdk.conversations.create(items=[{"type": "message", "role": "user", "content": f"Of {SECRET}"}])
    asking: dict[str, Any] = {"tools": [{"type": "file_search", "vector_store_ids": [store.id]}]}
    response = sdk.responses.create(model="ragq", input=f"How tall is the lighthouse of {SECRET}?", **asking)
    assert "61" in response.output_text
    chat = sdk.chat.completions.create(
        model="ragq", store=True, messages=[{"role": "user", "content": f"How tall is {SECRET}?"}]
    )
    line = {"custom_id": "a", "method": "POST", "url": "/v1/responses", "body": {"model": "ragq", "input": "Who?"}}
    lines = sdk.files.create(file=("in.jsonl", io.BytesIO(json.dumps(line).encode())), purpose="batch")
    asked = sdk.batches.create(input_file_id=lines.id, endpoint="/v1/responses", completion_window="24h")
    upload = sdk.uploads.create(filename="a.md", bytes=3, mime_type="text/markdown", purpose="assistants")
    key = caller.post("/v1/admin/keys", {"name": "another"})
    return {
        "file_id": file.id,
        "vector_store_id": store.id,
        "vector_store_id batch_id": batch.id,
        "conversation_id": conversation.id,
        "item_id": sdk.conversations.items.list(conversation.id).data[0].id,
        "response_id": response.id,
        "completion_id": chat.id,
        "batch_id": asked.id,
        "upload_id": upload.id,
        "webhook_endpoint_id": caller.post("/v1/webhook_endpoints", {"url": "https://hooks.example.com/acme"})["id"],
        "key_id": key["id"],
        "tenant_id": caller.call("GET", "/v1/admin/keys").json()["data"][0]["tenant"],
        "job_id": response.id,
        "action_id": caller.post("/v1/admin/job_actions", {"action": "delete", "jobs": {"text": "of no job"}})["id"],
        "queue": "queries",
        "worker": "nobody",
        "sha256": "0" * 64,
    }
