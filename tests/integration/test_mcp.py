"""The MCP server, called by the official SDK's client over HTTP, in the newest protocol and in the one before."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client, MCPError, types
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client

from tests.documents import write_pdf
from tests.servers import KEY, FakeLlm, Ragq, stop, wait_until

QUESTION = "How tall is the lighthouse of Quorra?"
MODES = ["auto", "legacy"]
CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
HEADERS = {"Authorization": f"Bearer {KEY}", "Accept": "application/json, text/event-stream"}


@contextlib.asynccontextmanager
async def connected(url: str, mode: str = "auto", *, path: str = "/mcp") -> AsyncIterator[Client]:
    """An MCP client that has introduced itself."""
    async with (
        create_mcp_http_client(headers={"Authorization": f"Bearer {KEY}"}) as http,
        Client(streamable_http_client(url + path, http_client=http), mode=mode) as client,
    ):
        yield client


both_modes = pytest.mark.parametrize("mode", MODES)


def text_of(result: types.CallToolResult) -> str:
    (content,) = result.content
    assert isinstance(content, types.TextContent)
    return content.text


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """Call a tool that gives JSON; returns it."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, text_of(result)
    shown: dict[str, Any] = json.loads(text_of(result))
    assert result.structured_content == shown
    return shown


async def refusal(client: Client, tool: str, **arguments: Any) -> str:
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    return text_of(result)


async def completed(client: Client, file_id: str) -> bool:
    listed = await call(client, "list_documents")
    return any(one["id"] == file_id and one["status"] == "completed" for one in listed["documents"])


async def until_completed(client: Client, file_id: str) -> None:
    async with asyncio.timeout(30):
        while not await completed(client, file_id):  # noqa: ASYNC110  (the change is in another process)
            await asyncio.sleep(0.1)


@both_modes
async def test_the_tools_are_listed_with_what_they_take_and_whether_they_change_anything(ragq: Ragq, mode: str) -> None:
    async with connected(ragq.url, mode) as mcp:
        tools = {tool.name: tool for tool in (await mcp.list_tools()).tools}
        assert list(tools) == ["search", "fetch", "ask", "list_documents", "add_document"]
        assert tools["search"].input_schema["required"] == ["query"]
        assert tools["fetch"].input_schema["required"] == ["id"]
        changing = [name for name, tool in tools.items() if tool.annotations and not tool.annotations.read_only_hint]
        assert changing == ["add_document"]
        assert all(tool.description for tool in tools.values())


@both_modes
async def test_search_and_fetch_have_the_form_of_chatgpts_connectors(
    ragq: Ragq, mode: str, http: httpx2.Client
) -> None:
    async with connected(ragq.url, mode) as mcp:
        found = await call(mcp, "search", query=QUESTION)
        best = found["results"][0]
        assert set(best) == {"id", "title", "url"}
        assert best["title"] == "harbour.md"
        ids = [one["id"] for one in found["results"]]
        assert len(ids) == len(set(ids))
        document = await call(mcp, "fetch", id=best["id"])
        assert set(document) == {"id", "title", "text", "url", "metadata"}
        assert (document["id"], document["title"], document["url"]) == (best["id"], best["title"], best["url"])
        assert document["text"] == "The lighthouse of Quorra is 61 metres tall.\n"
        assert http.get(document["url"]).text == document["text"]


@both_modes
async def test_a_question_is_answered_with_progress_and_its_sources(ragq: Ragq, mode: str) -> None:
    async with connected(ragq.url, mode) as mcp:
        seen: list[tuple[float, str | None]] = []

        async def note(progress: float, total: float | None, message: str | None) -> None:
            assert total is None
            seen.append((progress, message))

        question = f"[[fake latency=3]] {QUESTION}"
        result = await mcp.call_tool("ask", {"question": question}, progress_callback=note)
        assert not result.is_error
        answer = result.structured_content
        assert "61 metres" in answer["answer"]
        assert "[1]" in answer["answer"]
        (source,) = answer["sources"]
        assert (source["number"], source["title"]) == (1, "harbour.md")
        assert "61 metres" in source["quote"]
        assert text_of(result).startswith(answer["answer"])
        assert f"[1] harbour.md, line 1: “{source['quote']}” {source['url']}" in text_of(result)
        assert len(seen) >= 2
        assert [number for number, _ in seen] == sorted({number for number, _ in seen})
        assert "The question is being answered." in [message for _, message in seen]


@both_modes
async def test_a_waiting_question_does_not_hold_up_another_call(ragq: Ragq, mode: str) -> None:
    async with connected(ragq.url, mode) as mcp:
        waiting = asyncio.create_task(mcp.call_tool("ask", {"question": f"[[fake latency=4]] {QUESTION}"}))
        await asyncio.sleep(0.5)
        started = time.monotonic()
        await call(mcp, "list_documents")
        assert time.monotonic() - started < 2
        assert not waiting.done()
        assert not (await waiting).is_error


@both_modes
async def test_a_client_that_disconnects_cancels_its_question(ragq: Ragq, llm: FakeLlm, mode: str) -> None:
    params: dict[str, Any] = {"name": "ask", "arguments": {"question": f"[[fake latency=60 job={mode}]] {QUESTION}"}}
    headers = dict(HEADERS)
    if mode == "auto":
        newest = "2026-07-28"
        headers |= {"MCP-Protocol-Version": newest, "Mcp-Method": "tools/call", "Mcp-Name": "ask"}
        known = {"protocolVersion": newest, "clientCapabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
        params["_meta"] = {f"io.modelcontextprotocol/{name}": value for name, value in known.items()}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    statistics = llm.base_url.removesuffix("/v1") + "/stats"
    before = httpx2.get(statistics).json()
    async with httpx2.AsyncClient() as client:
        asking = asyncio.create_task(client.post(f"{ragq.url}/mcp", json=body, headers=headers, timeout=60))
        await asyncio.to_thread(wait_until, lambda: httpx2.get(statistics).json()["in_flight"] > before["in_flight"])
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking
        assert await asyncio.to_thread(
            wait_until, lambda: httpx2.get(statistics).json()["disconnected"] > before["disconnected"]
        )


@both_modes
@pytest.mark.parametrize("kind", ["text", "pdf"])
async def test_an_added_document_is_ingested_and_found(ragq: Ragq, mode: str, tmp_path: Path, kind: str) -> None:
    async with connected(ragq.url, mode) as mcp:
        fact = f"The bridge of Mellan {mode} {kind} has seven arches."
        if kind == "text":
            added = await call(mcp, "add_document", name=f"bridge-{mode}.md", text=f"# Bridge\n\n{fact}\n")
        else:
            content = write_pdf(tmp_path / "b.pdf", [[fact]]).read_bytes()
            encoded = base64.b64encode(content).decode()
            added = await call(mcp, "add_document", name=f"bridge-{mode}.pdf", content_base64=encoded)
        assert added["status"] in ("in_progress", "completed")
        await until_completed(mcp, added["id"])
        document = await call(mcp, "fetch", id=added["id"])
        assert fact in document["text"]
        found = await call(mcp, "search", query=f"arches of the bridge of Mellan {mode} {kind}")
        assert found["results"][0]["id"] == added["id"]


@both_modes
async def test_documents_are_resources_too(ragq: Ragq, mode: str) -> None:
    async with connected(ragq.url, mode) as mcp:
        resources = {one.name: one for one in (await mcp.list_resources()).resources}
        resource = resources["ferry.md"]
        (template,) = (await mcp.list_resource_templates()).resource_templates
        assert resource.uri.startswith(template.uri_template.partition("{")[0])
        (content,) = (await mcp.read_resource(resource.uri)).contents
        assert isinstance(content, types.TextResourceContents)
        assert content.text == "The ferry to Quorra leaves at noon.\n"


@both_modes
async def test_lists_go_on_where_a_page_ends(ragq: Ragq, mode: str) -> None:
    async with connected(ragq.url, mode) as mcp:
        every = (await call(mcp, "list_documents"))["documents"]
        first = await call(mcp, "list_documents", limit=1)
        assert first["documents"] == every[:1]
        second = await call(mcp, "list_documents", limit=1, after=first["next"])
        assert second["documents"] == every[1:2]


async def test_a_long_document_is_cut_with_a_note(ragq: Ragq) -> None:
    text = "The register of Obern is long.\n" + f"{'x' * 199}\n" * 600
    async with connected(ragq.url) as mcp:
        added = await call(mcp, "add_document", name="long.txt", text=text)
        await until_completed(mcp, added["id"])
        document = await call(mcp, "fetch", id=added["id"])
    assert document["metadata"]["characters"] == len(text)
    assert document["text"].startswith(text[:100_000])
    assert f"the first 100000 of {len(text)} characters" in document["text"][100_000:]
    assert len(document["text"]) < 100_500


@both_modes
async def test_what_is_wrong_is_said_so_that_a_model_can_do_better(ragq: Ragq, mode: str) -> None:
    async with connected(ragq.url, mode) as mcp:
        assert await refusal(mcp, "search", query=" ") == "The question is empty: write one."
        assert await refusal(mcp, "search") == "Wrong value for 'query': Field required."
        assert await refusal(mcp, "search", query="a\0b") == (
            "Wrong value for 'query': text cannot contain the character U+0000."
        )
        assert await refusal(mcp, "fetch", id="file-unknown") == "No vector store file found with id 'file-unknown'."
        assert await refusal(mcp, "add_document", name="a.exe", text="words") == (
            "Files like 'a.exe' cannot be read: documents, tables, mails, images and text can."
        )
        assert await refusal(mcp, "add_document", name="a.txt") == "Send either text or content_base64."
        assert (
            await refusal(mcp, "add_document", name="a.txt", content_base64="%")
            == "content_base64 is not valid base64."
        )
        failed = await refusal(mcp, "ask", question=f"[[fake status=400 message=refused]] {QUESTION}")
        assert "LLM" in failed
        with pytest.raises(MCPError, match="Unknown tool: 'drop'"):
            await mcp.call_tool("drop", {})
        with pytest.raises(MCPError, match="No vector store file found with id 'file-x'"):
            await mcp.read_resource("ragq://documents/file-x")
        with pytest.raises(MCPError, match="Unknown resource"):
            await mcp.read_resource("file:///etc/passwd")


async def test_the_address_can_name_another_store(ragq: Ragq, store_id: str) -> None:
    async with connected(ragq.url, path=f"/mcp?vector_store_id={store_id}") as client:
        (document,) = (await call(client, "list_documents"))["documents"]
        found = await call(client, "search", query="When does the ferry leave?")
        assert [one["id"] for one in found["results"]] == [document["id"]]
    async with connected(ragq.url, path="/mcp?vector_store_id=vs_unknown") as client:
        assert await refusal(client, "list_documents") == "No vector store found with id 'vs_unknown'."


async def test_any_api_process_answers(ragq: Ragq) -> None:
    api, url = await asyncio.to_thread(ragq.spawn_api)
    try:
        async with connected(ragq.url) as one, connected(url) as other:
            added = await call(one, "add_document", name="well.txt", text="The well of Ondra is 40 metres deep.\n")
            await until_completed(other, added["id"])
            document = await call(other, "fetch", id=added["id"])
            assert "40 metres" in document["text"]
            assert document["url"].startswith(url)
        async with create_mcp_http_client(headers={"Authorization": f"Bearer {KEY}"}) as http:
            called: list[str] = []

            async def alternate(request: httpx2.Request) -> None:
                called.append([ragq.url, url][len(called) % 2])
                request.url = httpx2.URL(called[-1] + "/mcp")

            http.event_hooks["request"] = [alternate]
            async with Client(streamable_http_client(ragq.url + "/mcp", http_client=http), mode="legacy") as client:
                for _ in range(3):
                    assert (await call(client, "search", query=QUESTION))["results"][0]["title"] == "harbour.md"
            assert len(set(called)) == 2
    finally:
        await asyncio.to_thread(stop, api)


def test_without_the_key_nothing_is_answered(ragq: Ragq) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        answer = httpx2.post(f"{ragq.url}/mcp", json=CALL, headers=HEADERS | {"Authorization": ""} | headers)
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "invalid_api_key"


def test_a_foreign_host_and_another_website_are_refused(ragq: Ragq, plain_ragq: Ragq) -> None:
    answer = httpx2.post(f"{ragq.url}/mcp", json=CALL, headers=HEADERS | {"Host": "evil.test"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "unknown_host")
    answer = httpx2.post(f"{plain_ragq.url}/mcp", json=CALL, headers=HEADERS | {"Origin": "http://evil.test"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "cross_site_request")


def test_a_body_that_is_wrong_or_too_large_is_refused(ragq: Ragq, http: httpx2.Client) -> None:
    answer = http.post("/mcp", content=b"{", headers=HEADERS | {"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == types.PARSE_ERROR
    large = (b" " * (1 << 20) for _ in range(5))
    answer = httpx2.post(f"{ragq.url}/mcp", content=large, headers=HEADERS | {"Content-Type": "application/json"})
    assert answer.status_code == 413
    assert http.get("/mcp", headers=HEADERS).status_code == 405


async def test_without_a_key_and_an_llm_it_works_at_once(plain_ragq: Ragq) -> None:
    async with Client(f"{plain_ragq.url}/mcp") as client:
        added = await call(client, "add_document", name="mill.txt", text="The mill of Terva has two wheels.\n")
        await until_completed(client, added["id"])
        result = await client.call_tool("ask", {"question": "How many wheels has the mill of Terva?"})
    assert result.structured_content["answer"] == "The mill of Terva has two wheels. [1]"
