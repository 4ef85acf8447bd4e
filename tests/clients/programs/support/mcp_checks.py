"""The checks of the MCP server that each framework's own MCP client runs: without a key where there is none, else with it."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from checks import API_KEY, HAS_LLM, QUESTION, check, expect, expect_61

URL = f"{os.environ['RAGQ_SERVICE_URL']}/mcp"
HEADERS = {"Authorization": f"Bearer {API_KEY}"} if HAS_LLM else {}  # the service without an LLM has no key
REQUEST = "Ask how tall the lighthouse of Quorra is."  # the scripted LLM calls `ask` for it
TOOLS = ["search", "fetch", "ask", "list_documents", "add_document"]


@dataclass(frozen=True)
class Connection:
    """A framework's connection: the tools' names, and how to call one for its structured result."""

    names: list[str]
    call: Callable[[str, dict[str, str]], Awaitable[dict[str, Any]]]


def add_mcp_checks(connect: Callable[[dict[str, str]], AbstractAsyncContextManager[Connection]]) -> None:
    """Add the checks. `connect` takes the headers to send."""

    @check("mcp: list tools")
    async def list_tools() -> None:
        async with connect(HEADERS) as mcp:
            expect(mcp.names == TOOLS, mcp.names)

    @check("mcp: search, and fetch what it found")
    async def search_and_fetch() -> None:
        async with connect(HEADERS) as mcp:
            best = (await mcp.call("search", {"query": QUESTION}))["results"][0]
            expect(best["title"] == "lighthouse.md", best)
            expect_61((await mcp.call("fetch", {"id": best["id"]}))["text"])

    @check("mcp: ask")
    async def ask() -> None:
        async with connect(HEADERS) as mcp:
            answer = await mcp.call("ask", {"question": QUESTION})
            expect_61(answer["answer"])
            expect(answer["sources"][0]["title"] == "lighthouse.md", answer)

    @check("mcp: refused without a key", llm=True)
    async def refused() -> None:
        try:
            async with connect({}) as mcp:
                names = mcp.names
        except Exception as error:  # noqa: BLE001  (each framework has errors of its own)
            said = repr(error)
            expect(
                "401" in said or "Server returned an error response" in said, said
            )  # the second: the SDK's from 2.0 on
            return
        raise AssertionError(names)
