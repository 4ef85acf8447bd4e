"""One message of an MCP client and its answer, by the official SDK.

The server is stateless: everything that belongs to a message begins and ends with its HTTP request, so any API process
can answer any message.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import structlog
from mcp import MCPError, types
from mcp.server import Server, ServerRequestContext
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.types import Receive, Scope, Send

from ragq import __version__
from ragq.errors import NotFoundError, RagqError
from ragq.http.access import MAX_JSON_BYTES
from ragq.mcp.documents import Documents
from ragq.mcp.route import Reach
from ragq.mcp.tools import TOOLS, Tools
from ragq.schemas.checks import check_json
from ragq.schemas.objects import validate
from ragq.storage.paging import Page

log = structlog.get_logger(__name__)
logging.getLogger("mcp").setLevel(logging.WARNING)  # it logs the start and the end of every exchange

INSTRUCTIONS = (
    "Answers questions from the user's documents. `ask` gives an answer with citations; `search` finds documents and "
    "`fetch` reads one."
)
INTERNAL_ERROR = "Internal error. The server's log has the reason."
RESOURCES = "ragq://documents/"  # and a file's id
TEXT_TYPE = "text/plain"
PAGE = 100

_Context = ServerRequestContext[Any]
_LISTED = types.ListToolsResult(
    tools=[
        types.Tool(
            name=name,
            title=tool.title,
            description=tool.run.__doc__,
            input_schema=tool.arguments.model_json_schema(),
            output_schema=tool.output_schema,
            annotations=types.ToolAnnotations(
                read_only_hint=tool.action is None, destructive_hint=False, idempotent_hint=True, open_world_hint=False
            ),
        )
        for name, tool in TOOLS.items()
    ]
)
_TEMPLATES = types.ListResourceTemplatesResult(
    resource_templates=[
        types.ResourceTemplate(
            name="document", uri_template=RESOURCES + "{id}", description="A document's text.", mime_type=TEXT_TYPE
        )
    ]
)


class Exchange:
    """A message of a client, and what is done for it."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._documents = Documents(reach)
        self._tools = Tools(reach, self._documents)

    async def run(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the message. A client that disconnects cancels the question that it asked."""
        server = Server(
            "ragq",
            version=__version__,
            instructions=INSTRUCTIONS,
            get_tool_input_schema=lambda name: TOOLS[name].arguments.model_json_schema() if name in TOOLS else None,
            on_list_tools=self._list_tools,
            on_call_tool=self._call_tool,
            on_list_resources=self._list_resources,
            on_list_resource_templates=self._list_templates,
            on_read_resource=self._read_resource,
        )
        manager = StreamableHTTPSessionManager(server, stateless=True, max_request_body_size=MAX_JSON_BYTES)
        try:
            async with manager.run():
                await manager.handle_request(scope, receive, send)
        finally:
            await self._tools.cancel_unanswered()

    async def _list_tools(self, _context: _Context, _params: types.PaginatedRequestParams | None) -> Any:
        return _LISTED

    async def _call_tool(self, context: _Context, params: types.CallToolRequestParams) -> Any:
        tool = TOOLS.get(params.name)
        if tool is None:
            raise MCPError(types.INVALID_PARAMS, f"Unknown tool: '{params.name[:80]}'.")
        with _translate_errors():
            try:
                check_json(params.arguments)
                arguments = validate(tool.arguments, params.arguments or {})
                text, structured = await tool.run(self._tools, arguments, context.session.report_progress)
            except RagqError as error:
                self._reach.context.keys.tally.count_error(self._reach.actor, tool.action, error)
                return _refusal(error)
        return types.CallToolResult(content=[types.TextContent(text=text)], structured_content=structured)

    async def _list_resources(self, _context: _Context, params: types.PaginatedRequestParams | None) -> Any:
        with _translate_errors():
            page = Page(PAGE, after=params.cursor if params else None)
            documents, has_more = await self._documents.list_page(page)
        return types.ListResourcesResult(
            resources=[
                types.Resource(uri=RESOURCES + one["id"], name=one["title"], mime_type=TEXT_TYPE)
                for one in documents
                if one["status"] == "completed"
            ],
            next_cursor=documents[-1]["id"] if has_more else None,
        )

    async def _list_templates(self, _context: _Context, _params: types.PaginatedRequestParams | None) -> Any:
        return _TEMPLATES

    async def _read_resource(self, _context: _Context, params: types.ReadResourceRequestParams) -> Any:
        uri = str(params.uri)
        with _translate_errors():
            check_json(uri)
            if not uri.startswith(RESOURCES):
                raise NotFoundError(f"Unknown resource: the address of a document begins with {RESOURCES}.")
            document = await self._documents.read(uri.removeprefix(RESOURCES))
        contents = types.TextResourceContents(uri=uri, text=document["text"], mime_type=TEXT_TYPE)
        return types.ReadResourceResult(contents=[contents])


def _refusal(error: RagqError) -> types.CallToolResult:
    """Render an error as a tool's result, so that the model reads it and can do better."""
    if error.detail:
        log.warning("tool_failed", code=error.code, error=str(error))
    wait = error.retry_after_seconds
    text = error.message if wait is None else f"{error.message} Try again in {max(1, round(wait))} s."
    return types.CallToolResult(content=[types.TextContent(text=text)], is_error=True)


@contextlib.contextmanager
def _translate_errors() -> Iterator[None]:
    """Turn errors into JSON-RPC's; an unexpected one is logged, and its message is not sent."""
    try:
        yield
    except RagqError as error:
        code = types.INTERNAL_ERROR if error.status >= 500 else types.INVALID_PARAMS
        raise MCPError(code, error.message) from error
    except Exception as error:
        log.exception("tool_crashed")
        raise MCPError(types.INTERNAL_ERROR, INTERNAL_ERROR) from error
