"""Files in parts, over the official SDK and the wire."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any

import httpx2
import openai
import psycopg
import pytest

from ragq.queues.running import WorkerContext
from ragq.queues.upkeep.expiry import expire_uploads
from ragq.storage.uploads import Uploads, blob_of
from tests.servers import MAX_FILE_BYTES, Ragq

TEXT = "The drawbridge of Sella opens at dawn.\n"


def create(http: httpx2.Client, size: int, **fields: Any) -> Any:
    body = {"filename": "bridge.txt", "bytes": size, "purpose": "assistants", "mime_type": "text/plain"} | fields
    answer = http.post("/v1/uploads", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def send(http: httpx2.Client, upload_id: str, content: bytes) -> httpx2.Response:
    return http.post(f"/v1/uploads/{upload_id}/parts", files={"data": ("part", content)})


def error_of(answer: httpx2.Response) -> tuple[int, str, str | None]:
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["param"]


def parts_of(ragq: Ragq, upload_id: str) -> list[Path]:
    return list((ragq.folder / "files" / "uploads").glob(f"{upload_id}*"))


def test_the_sdk_sends_a_file_in_parts_and_it_becomes_an_ordinary_one(
    ragq: Ragq, client: openai.OpenAI, tmp_path: Path
) -> None:
    path = tmp_path / "long.txt"
    path.write_bytes(os.urandom(1_500_000).hex().encode() + TEXT.encode())
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    upload = client.uploads.upload_file_chunked(
        file=path, mime_type="text/plain", purpose="assistants", part_size=700_000, md5=md5
    )
    assert (upload.status, upload.filename, upload.bytes) == ("completed", "long.txt", path.stat().st_size)
    assert upload.file
    assert client.files.content(upload.file.id).read() == path.read_bytes()
    same = client.files.create(file=("long.txt", path.read_bytes()), purpose="assistants")
    assert same.id == upload.file.id
    assert parts_of(ragq, upload.id) == []
    client.files.delete(upload.file.id)


def test_parts_come_in_any_order_and_a_completed_upload_is_shown_again(ragq: Ragq, http: httpx2.Client) -> None:
    upload = create(http, len(TEXT), expires_after={"anchor": "created_at", "seconds": 3600})
    assert (upload["status"], upload["file"], upload["expires_at"] - upload["created_at"]) == ("pending", None, 3600)
    last = send(http, upload["id"], TEXT[10:].encode()).json()
    first = send(http, upload["id"], TEXT[:10].encode()).json()
    assert (first["object"], first["upload_id"]) == ("upload.part", upload["id"])
    assert len(parts_of(ragq, upload["id"])) == 2
    for md5 in ("wrong", hashlib.md5(TEXT.encode()).hexdigest().upper(), None):
        body = {"part_ids": [first["id"], last["id"]], "md5": md5}
        answer = http.post(f"/v1/uploads/{upload['id']}/complete", json=body)
        if md5 == "wrong":
            assert error_of(answer) == (400, "invalid_request", "md5")
        else:
            file = answer.json()["file"]
            assert file["expires_at"] - file["created_at"] == 3600
            assert http.get(f"/v1/files/{file['id']}/content").text == TEXT
    assert parts_of(ragq, upload["id"]) == []
    assert error_of(send(http, upload["id"], b"x")) == (400, "upload_completed", "upload_id")
    assert error_of(http.post(f"/v1/uploads/{upload['id']}/cancel")) == (400, "upload_completed", "upload_id")


def test_a_cancelled_upload_takes_nothing_and_leaves_nothing(ragq: Ragq, http: httpx2.Client) -> None:
    upload = create(http, 10)
    part = send(http, upload["id"], b"12345").json()
    for _ in range(2):
        assert http.post(f"/v1/uploads/{upload['id']}/cancel").json()["status"] == "cancelled"
    assert parts_of(ragq, upload["id"]) == []
    assert error_of(send(http, upload["id"], b"12345")) == (400, "upload_cancelled", "upload_id")
    answer = http.post(f"/v1/uploads/{upload['id']}/complete", json={"part_ids": [part["id"]]})
    assert error_of(answer) == (400, "upload_cancelled", "upload_id")


def test_an_expired_upload_takes_nothing(ragq: Ragq, http: httpx2.Client) -> None:
    upload = create(http, 5)
    part = send(http, upload["id"], b"12345").json()
    with psycopg.connect(ragq.services["database_url"], autocommit=True) as connection:
        connection.execute("UPDATE uploads SET expires_at = now() WHERE id = %s", [upload["id"]])
    expired = (400, "upload_expired", "upload_id")
    assert error_of(send(http, upload["id"], b"x")) == expired
    assert error_of(http.post(f"/v1/uploads/{upload['id']}/complete", json={"part_ids": [part["id"]]})) == expired
    assert error_of(http.post(f"/v1/uploads/{upload['id']}/cancel")) == expired


def test_parts_that_do_not_fit_are_refused(ragq: Ragq, http: httpx2.Client) -> None:
    upload = create(http, 10)
    assert error_of(send(http, upload["id"], b"")) == (400, "invalid_request", "data")
    assert error_of(send(http, upload["id"], b"x" * 11)) == (400, "invalid_request", "data")
    part = send(http, upload["id"], b"x" * 6).json()
    assert error_of(send(http, upload["id"], b"x" * 5)) == (400, "invalid_request", "data")
    assert send(http, upload["id"], b"x" * (MAX_FILE_BYTES + (2 << 20))).status_code == 413
    assert len(parts_of(ragq, upload["id"])) == 1
    for part_ids, message in (([part["id"]], "6 bytes"), (["part_x"], "no part 'part_x'")):
        answer = http.post(f"/v1/uploads/{upload['id']}/complete", json={"part_ids": part_ids})
        assert error_of(answer) == (400, "invalid_request", "part_ids")
        assert message in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"bytes": MAX_FILE_BYTES + 1}, (413, "request_too_large", "file")),
        ({"bytes": 0}, (400, "empty_file", "file")),
        ({"filename": "a.exe"}, (400, "unsupported_file", None)),
        ({"filename": ""}, (400, "invalid_request", "file")),
        ({"purpose": "fine-tune"}, (400, "invalid_value", "purpose")),
        ({"expires_after": {"anchor": "created_at", "seconds": 1}}, (400, "invalid_value", "expires_after.seconds")),
    ],
)
def test_a_file_that_would_be_refused_is_refused_at_once(
    http: httpx2.Client, fields: dict[str, Any], expected: tuple[int, str, str | None]
) -> None:
    body = {"filename": "a.txt", "bytes": 1, "purpose": "assistants"} | fields
    assert error_of(http.post("/v1/uploads", json=body)) == expected


def test_an_unknown_upload_is_not_found(http: httpx2.Client) -> None:
    unknown = (404, "not_found", "upload_id")
    assert error_of(send(http, "upload_x", b"x")) == unknown
    assert error_of(http.post("/v1/uploads/upload_x/cancel")) == unknown
    assert error_of(http.post("/v1/uploads/upload_x/complete", json={"part_ids": ["part_x"]})) == unknown


async def test_parts_that_nobody_completes_are_deleted(context: WorkerContext, tmp_path: Path) -> None:
    uploads = Uploads(context.database)
    upload = await uploads.create("default", filename="a.txt", purpose="assistants", size=9, file_seconds=None)
    for name in ("part_old", "part_new"):
        source = tmp_path / name
        source.write_bytes(b"1234")
        with source.open("rb") as file:
            await context.blobs.put(blob_of(upload.id, name), file)
        await uploads.add_part("default", upload.id, name, 4)
    folder = tmp_path / "files" / "uploads"
    long_ago = time.time() - 7300
    os.utime(folder / f"{upload.id}.part_old", (long_ago, long_ago))
    await expire_uploads(uploads, context.blobs)
    assert [path.name for path in folder.iterdir()] == [f"{upload.id}.part_new"]
    assert (await uploads.get("default", upload.id)).received == 8
    async with context.database.for_all().connection() as connection:
        await connection.execute("UPDATE uploads SET expires_at = now() - interval '25 hours'")
    await expire_uploads(uploads, context.blobs)
    assert await uploads.list_parts("default", upload.id) == {}
