"""Attacks on the MCP server at `/mcp`."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from typing import Any

import aiohttp

from benchmarks.attack.stage import (
    EVIL,
    HOLD_SECONDS,
    KEY,
    MAX_RATIO,
    Stage,
    Verdict,
    beside,
    peak_mb,
    raw,
    resident_mb,
    status,
    status_of,
)

ACCEPT = {"Accept": "application/json, text/event-stream"}
LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
MAX_GROWTH_MB = 60.0  # of the API, by bodies of at most 4 MiB that are taken
SESSIONS, SESSION_GROWTH_MB, SESSIONS_A_SECOND = 1000, 10.0, 50
TOOLS = ("search", "fetch", "ask", "list_documents", "add_document")
RUBBISH: tuple[Any, ...] = (
    *(
        None,
        [],
        "text",
        7,
        True,
        {},
        {"": ""},
        {"query": None},
        {"query": {"a": []}},
        {"query": ""},
        {"id": "../../etc/passwd"},
    ),
    *(
        {"id": "x" * 100_000},
        {"limit": -1},
        {"limit": 10**400},
        {"after": "\ud800"},
        {"question": "\u0000"},
        {"question": " "},
    ),
    {"name": "../../evil.md", "content_base64": "%%%"},
    {"name": "evil.md", "text": None, "content_base64": None},
    {"name": ["evil.md"], "text": 7},
)


async def mcp_strangers(stage: Stage) -> Verdict:
    """Callers without the key, pages of other sites, and foreign host names."""
    keyed, open_ = stage.keyed.url, stage.open.url
    wrong = {"Authorization": "Bearer a wrong key of somebody"}
    found = {
        "no key": await status(keyed, "POST", "/mcp", json=LIST, headers=ACCEPT),
        "a wrong key": await status(keyed, "POST", "/mcp", json=LIST, headers=ACCEPT | wrong),
        "no key, GET": await status(keyed, "GET", "/mcp", headers=ACCEPT),
        "no key, DELETE": await status(keyed, "DELETE", "/mcp", headers=ACCEPT),
        "another site": await status(open_, "POST", "/mcp", json=LIST, headers=ACCEPT | {"Origin": EVIL}),
        "a form's origin": await status(open_, "POST", "/mcp", json=LIST, headers=ACCEPT | {"Origin": "null"}),
        "cross-site": await status(open_, "POST", "/mcp", json=LIST, headers=ACCEPT | {"Sec-Fetch-Site": "cross-site"}),
        "a foreign host": await status(open_, "POST", "/mcp", json=LIST, headers=ACCEPT | {"Host": "evil.example"}),
    }
    held = all(code == (401 if "key" in name else 403) for name, code in found.items())
    return Verdict("MCP calls of strangers and of other sites", f"{found}", held)


async def mcp_bodies(stage: Stage) -> Verdict:
    """Bodies over the limit, and those within it that are costly to read."""
    lines = (
        "POST /mcp HTTP/1.1",
        "host: 127.0.0.1",
        "content-type: application/json",
        "accept: application/json, text/event-stream",
        "connection: close",
        f"authorization: Bearer {KEY}",
    )
    head = "\r\n".join(lines)
    large, nested = bytes(8 << 20), b"[" * (2 << 20)
    rows = json.dumps(LIST | {"params": {"rows": [0] * 1_300_000}}, separators=(",", ":")).encode()

    async def send(rest: str, body: bytes) -> int:
        return status_of(await raw(stage.keyed.url, f"{head}\r\n{rest}\r\n\r\n".encode() + body))

    async def each() -> dict[str, int]:
        return {
            "declared as 1 TB": await send(f"content-length: {1 << 40}", b""),
            "8 MB": await send(f"content-length: {len(large)}", large),
            "8 MB in one chunk": await send("transfer-encoding: chunked", b"800000\r\n" + large + b"\r\n0\r\n\r\n"),
            "2 million brackets": await send(f"content-length: {len(nested)}", nested),
            "1.3 million numbers": await send(f"content-length: {len(rows)}", rows),
            "no JSON": await send("content-length: 1", b"{"),
        }

    grown, found = await peak_mb(stage.keyed.pids["api"], each())
    harmless = found.pop("1.3 million numbers")  # within the limit, and without an effect on this method
    held = grown <= MAX_GROWTH_MB and harmless == 200 and all(400 <= code < 500 for code in found.values())
    happened = f"{found}, 1.3 million numbers: {harmless}; the API grew by {grown} MB"
    return Verdict("oversized and costly MCP messages", happened, held, {"grown_mb": grown})


async def call(session: aiohttp.ClientSession, message: Any, **headers: str) -> tuple[int, str]:
    """Send a message; returns the status and the answer."""
    body = json.dumps(message).encode()
    kind = {"Content-Type": "application/json"}
    async with session.post("/mcp", data=body, headers=ACCEPT | kind | headers) as reply:
        return reply.status, await reply.text()


async def mcp_rubbish(stage: Stage) -> Verdict:
    """Calls of every tool with arguments that are none, and calls of tools that are none."""
    outcomes, wrong = Counter[str](), list[str]()
    messages = [
        LIST | {"method": "tools/call", "params": {"name": name, "arguments": arguments}}
        for name in (*TOOLS, "rm", "", "x" * 100_000)
        for arguments in RUBBISH
    ]
    messages += [
        LIST | {"method": method, "params": params} for method in ("tools/call", "resources/read") for params in RUBBISH
    ]
    async with aiohttp.ClientSession(stage.open.url, timeout=aiohttp.ClientTimeout(60)) as session:
        for message in messages:
            code, answer = await call(session, message)
            is_refused = '"isError":true' in answer or '"error":' in answer
            outcomes["refused" if is_refused else "answered"] += 1
            if code >= 500 or "Traceback" in answer or "Internal error" in answer:
                wrong.append(f"{json.dumps(message)[:160]}: {code} {answer[:160]}")
        after, _ = await call(session, LIST)
    happened = f"{dict(outcomes)}; {after} afterwards" + (
        f"; {len(wrong)} failed inside, first {wrong[0]}" if wrong else ""
    )
    return Verdict(f"{len(messages)} MCP calls with rubbish", happened, after == 200 and not wrong)


async def mcp_sessions(stage: Stage) -> Verdict:
    """Sessions that are opened and never used, each under a name of its own."""
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
    statuses = Counter[int]()

    async def open_all() -> None:
        async with aiohttp.ClientSession(stage.open.url, timeout=aiohttp.ClientTimeout(60)) as session:
            started = time.monotonic()

            async def open_one(number: int) -> None:
                await asyncio.sleep(max(0, started + number / SESSIONS_A_SECOND - time.monotonic()))
                message = LIST | {"id": number, "method": "initialize", "params": hello}
                code, _ = await call(session, message, **{"Mcp-Session-Id": f"session-{number}"})
                statuses[code] += 1

            await asyncio.gather(*(open_one(number) for number in range(SESSIONS)))

    api = stage.open.pids["api"]
    async with aiohttp.ClientSession(stage.open.url) as session:
        await call(session, LIST)  # loads the SDK
    before = resident_mb(api)
    _, ratio, figures = await beside(stage.open, open_all())
    await asyncio.sleep(HOLD_SECONDS)
    grown = round(resident_mb(api) - before, 1)
    held = ratio <= MAX_RATIO and grown <= SESSION_GROWTH_MB and set(statuses) == {200}
    happened = f"{dict(statuses)}; the API kept {grown} MB of them; good clients' p95 {ratio} times as long"
    return Verdict(
        f"{SESSIONS} MCP sessions, {SESSIONS_A_SECOND} a second", happened, held, figures | {"grown_mb": grown}
    )


ATTACKS = (mcp_strangers, mcp_bodies, mcp_rubbish, mcp_sessions)
