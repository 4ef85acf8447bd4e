"""Attacks on access: by clients without the key, or by another site's page in a browser on this machine."""

from __future__ import annotations

import asyncio
import math
import shutil
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.attack.stage import EVIL, KEY, Stage, Verdict, peak_mb, raw, status, status_of
from ragq.http.keys import GUESS_SECONDS, GUESSES
from tests.servers import command, environment, free_port, stop

REFUSED_SECONDS = 8.0  # a process that refuses to start ends within this
BIG = 100_000_000
KEYED = {"Authorization": f"Bearer {KEY}"}


async def weak_keys(stage: Stage) -> Verdict:
    """A key that is empty, blank or short must not open the service to the network."""
    started = []
    for name, key in (("empty", ""), ("blank", "   "), ("short", "abc123")):
        for verb in ("serve", "up"):
            folder = stage.open.folder if verb == "serve" else stage.folder / f"weak-{name}"
            if not await asyncio.to_thread(refuses, verb, folder, key):
                started.append(f"{verb} with a key that is {name}")
    happened = f"started: {', '.join(started)}" if started else "each refused to start"
    return Verdict("serve and up on 0.0.0.0 with an empty, a blank and a short key", happened, not started)


def refuses(verb: str, folder: Path, key: str) -> bool:
    """Whether a process exits with a message that names the key's setting."""
    variables = environment(RAGQ_DATA_DIR=folder, RAGQ_API_KEY=key)
    process = subprocess.Popen(
        command(verb, "--host", "0.0.0.0", "--port", str(free_port())),
        env=variables,
        cwd=folder.parent,  # without a .env
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        _, said = process.communicate(timeout=REFUSED_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    else:
        return process.returncode != 0 and b"RAGQ_API_KEY" in said
    finally:
        stop(process)


async def foreign_hosts(stage: Stage) -> Verdict:
    """Another site's name that resolves to this machine (DNS rebinding)."""
    paths = ("/status", "/v1/files", "/v1/models", "/")
    found = {
        (path, host): await status(stage.open.url, "GET", path, headers={"Host": host})
        for path in paths
        for host in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost@evil.example")
    }
    let_in = [f"{path} as {host}" for (path, host), code in found.items() if code != 403]
    happened = f"{dict(Counter(found.values()))}" + (f"; let in: {let_in[0]} and others" if let_in else "")
    return Verdict(f"{len(found)} requests under foreign host names, without a key", happened, not let_in)


async def foreign_pages(stage: Stage) -> Verdict:
    """Forms on other sites."""

    def form() -> aiohttp.FormData:
        data = aiohttp.FormData()
        data.add_field("purpose", "assistants")
        data.add_field("file", b"planted", filename="planted.md", content_type="text/markdown")
        return data

    origins = ({"Origin": EVIL}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": EVIL + ":8000"})
    found = []
    for headers in origins:
        found.append(await status(stage.open.url, "POST", "/chat?query=Planted%3F", headers=headers))
        found.append(await status(stage.open.url, "POST", "/v1/files", headers=headers, data=form()))
        found.append(await status(stage.open.url, "DELETE", "/v1/files/file-x", headers=headers))
    held = set(found) == {403}
    return Verdict("questions, uploads and deletions from pages of other sites", f"{dict(Counter(found))}", held)


async def bodies_without_key(stage: Stage) -> Verdict:
    """Large bodies from clients without the key."""

    def head(content_type: str) -> bytes:
        return (
            f"POST /v1/files HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: {content_type}\r\ncontent-length: {BIG}\r\n\r\n"
        ).encode()

    form = b'--b\r\ncontent-disposition: form-data; name="file"; filename="a.md"\r\n\r\n'

    async def upload() -> int:
        return status_of(await raw(stage.keyed.url, head("multipart/form-data; boundary=b") + form + bytes(BIG - 200)))

    async def all_of_them() -> list[int]:
        return await asyncio.gather(*(upload() for _ in range(8)))

    grown, found = await peak_mb(stage.keyed.pids["api"], all_of_them())
    bodiless = status_of(await raw(stage.keyed.url, head("multipart/form-data; boundary=b")))  # the body never comes
    held = grown <= 20 and set(found) == {401} and bodiless == 401
    happened = f"{dict(Counter(found))}, {bodiless} before a body; the API grew by {grown} MB"
    return Verdict("8 uploads of 100 MB without a key", happened, held, {"grown_mb": grown})


async def oversized_forms(stage: Stage) -> Verdict:
    """Bodies with too large a Content-Length, forms with two files, and forms with large fields."""

    def form(*files: str, field: int = 0) -> aiohttp.FormData:
        data = aiohttp.FormData()
        data.add_field("purpose", "assistants")
        if field:
            data.add_field("note", "x" * field)
        for name in files:
            data.add_field("file", b"text", filename=name, content_type="text/markdown")
        return data

    length = f"content-length: {1 << 40}\r\n\r\n".encode()
    key = f"authorization: Bearer {KEY}\r\n".encode()
    declared = b"POST /v1/files HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: multipart/form-data; boundary=b\r\n" + key
    found = {
        "declared as 1 TB": status_of(await raw(stage.keyed.url, declared + length)),
        "two files": await status(stage.keyed.url, "POST", "/v1/files", data=form("a.md", "b.md"), headers=KEYED),
        "a field of 1 MB": await status(
            stage.keyed.url, "POST", "/v1/files", data=form("a.md", field=1 << 20), headers=KEYED
        ),
    }
    held = all(code in (400, 413) for code in found.values())
    return Verdict("oversized and ambiguous forms, with the key", f"{found}", held)


async def guesses(stage: Stage) -> Verdict:
    """Guessing the key."""
    found, started = Counter[int](), time.monotonic()
    for number in range(60):
        found[await status(stage.keyed.url, "POST", "/session", json={"key": f"guess {number}"})] += 1
    allowed = GUESSES + math.ceil((time.monotonic() - started) / GUESS_SECONDS)
    held = set(found) == {401, 429} and found[401] <= allowed
    return Verdict("60 guesses of the key at /session", f"{dict(found)}, {allowed} allowed", held)


async def talkative_errors(stage: Stage) -> Verdict:
    """What the health routes and errors reveal to a stranger."""
    secret, port = "hunter2-of-valkey", free_port()
    process, url = await asyncio.to_thread(start_unready, stage, f"redis://:{secret}@127.0.0.1:{port}")
    try:
        shown = ""
        for _ in range(200):
            await asyncio.sleep(0.1)
            if shown := (
                await raw(url, b"GET /readyz HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
            ).decode():
                break
    finally:
        await asyncio.to_thread(stop, process)
    files = stage.open.folder / "files"
    shutil.rmtree(files, ignore_errors=True)
    files.write_text("")  # a file in place of the folder, so that nothing can be stored
    data = aiohttp.FormData({"purpose": "assistants"})
    data.add_field("file", b"some text of a document", filename="new.md", content_type="text/markdown")
    async with aiohttp.ClientSession(stage.open.url) as session, session.post("/v1/files", data=data) as reply:
        error = await reply.text()
    files.unlink()
    told = [word for word in (secret, str(port), "redis://") if word in shown]
    told += [word for word in (str(stage.open.folder), "Os {", "os error") if word in error]
    happened = f"readyz {shown[9:12]}, upload {reply.status}; " + (f"told: {told}" if told else "nothing told")
    held = "503" in shown[:20] and reply.status == 503 and not told
    return Verdict("/readyz while Valkey is away, an upload that cannot be stored", happened, held)


def start_unready(stage: Stage, valkey_url: str) -> tuple[subprocess.Popen[bytes], str]:
    """Start an API whose Valkey is down."""
    port = free_port()
    process = stage.keyed.spawn("serve", "--port", str(port), RAGQ_VALKEY_URL=valkey_url)
    return process, f"http://127.0.0.1:{port}"


async def heads(stage: Stage) -> Verdict:
    """HEAD requests of monitors."""
    found: dict[str, Any] = {}
    for path in ("/healthz", "/readyz", "/", "/v1/models"):
        request = f"HEAD {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {KEY}\r\nconnection: close\r\n\r\n"
        answer = await raw(stage.keyed.url, request.encode())
        found[path] = (status_of(answer), len(answer.partition(b"\r\n\r\n")[2]))
    held = all(one == (200, 0) for one in found.values())
    return Verdict("HEAD of /healthz, /readyz, / and /v1/models", f"status and bytes of body: {found}", held)


ATTACKS = (
    weak_keys,
    foreign_hosts,
    foreign_pages,
    bodies_without_key,
    oversized_forms,
    guesses,
    talkative_errors,
    heads,
)
