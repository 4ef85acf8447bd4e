"""The HTTP application: routes, limits, and the handlers that turn errors into OpenAI's error body."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial
from http import HTTPStatus

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ragq import __version__
from ragq.admin import keys as admin_keys
from ragq.admin import tenants as admin_tenants
from ragq.batches.runner import run_batches_forever
from ragq.client.rq_client import JobQueue
from ragq.errors import (
    ConfigurationError,
    InvalidRequestError,
    NotFoundError,
    RagqError,
    UnavailableError,
)
from ragq.http.access import CORS, Access
from ragq.http.callers import Callers
from ragq.http.error_body import error_response
from ragq.http.keys import KeyCheck
from ragq.http.openapi import Application
from ragq.mcp import route as mcp
from ragq.metrics import REQUESTS
from ragq.models import new_id
from ragq.queues.housekeeping import restart_on_error, start_housekeeping
from ragq.routes import (
    batches,
    chat,
    chat_completions,
    completions,
    conversations,
    embeddings,
    file_batches,
    files,
    health,
    metrics,
    models,
    page,
    responses,
    store_files,
    store_search,
    uploads,
    vector_stores,
    webhooks,
)
from ragq.routes.context import ApiContext
from ragq.routes.streams import Streams
from ragq.schemas.objects import explain_faults
from ragq.settings import Settings, split_list
from ragq.storage.blobs import BlobStore
from ragq.storage.database import Database
from ragq.tasks import end_tasks, freeze_heap
from ragq.websocket import route as websocket

log = structlog.get_logger(__name__)

STARTS = ("http.response.start", "websocket.http.response.start", "websocket.accept")

# Matched in this order for each request.
PARTS = (
    *(chat, responses, conversations, chat_completions, completions, embeddings, models, batches, webhooks),
    *(files, uploads, vector_stores, store_search, store_files, file_batches),
    *(admin_keys, admin_tenants, mcp, websocket, page, health, metrics),
)


def create_app(settings: Settings, *, valkey_url: str, database_url: str) -> FastAPI:
    """Build the application; it connects at startup."""
    callers = Callers()
    keys = KeyCheck(settings.api_key.get_secret_value() if settings.api_key else None, callers)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        blobs, database = BlobStore(settings), await Database.open(settings, database_url)
        queue = JobQueue(settings, valkey_url)
        context = ApiContext(
            settings=settings, queue=queue, database=database, blobs=blobs, streams=Streams(queue), keys=keys
        )
        app.state.context = context
        callers.store = context.api_keys
        async with _running(context):
            yield

    app = Application(
        title="ragq",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,  # FastAPI's pages load scripts from other hosts
        redoc_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # it would send questions and bodies to others
    )
    for part in PARTS:
        app.add(part.router)
    app.add_exception_handler(RagqError, _answer_error)
    app.add_exception_handler(RequestValidationError, _answer_validation_error)
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.add_middleware(Access, settings=settings, keys=keys)
    if origins := split_list(settings.cors_origins):
        app.add_middleware(CORSMiddleware, allow_origins=origins, **CORS)
    app.add_middleware(_RequestMiddleware)  # the last added is the outermost
    return app


@contextlib.asynccontextmanager
async def _running(context: ApiContext) -> AsyncIterator[None]:
    """Run an API process's background tasks, and close its connections at the end."""
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(context.database.close)
        stack.push_async_callback(context.queue.close)
        stack.push_async_callback(context.parser.close)
        tasks = [await _prepare(context), *start_housekeeping(context)]
        run_batches = restart_on_error(partial(run_batches_forever, context), "batches")
        tasks.append(asyncio.create_task(run_batches, name="batches"))
        stack.push_async_callback(end_tasks, tasks)
        freeze_heap()
        yield


async def _prepare(context: ApiContext) -> asyncio.Task[None]:
    """Check Valkey and migrate now or, while a server is down, in the background.

    Raises:
        ConfigurationError: A server's settings are unsafe or do not fit, so the process must not start.
    """

    async def prepare() -> None:
        await context.queue.check_server()
        await context.database.migrate(embedding_model=context.settings.embedding_name)
        context.not_ready = None

    async def retry_until_available() -> None:
        while context.not_ready:
            try:
                await prepare()
            except RagqError as error:
                context.not_ready = str(error)
                log.warning("not_ready", error=str(error))
                await asyncio.sleep(1)

    with contextlib.suppress(UnavailableError):
        await prepare()
    return asyncio.create_task(retry_until_available())


class _RequestMiddleware:
    """Middleware for every request: an id, HEAD for every GET, and an answer to any exception."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        request_id, started, method = new_id("req_"), False, scope.get("method", "WEBSOCKET")
        if method == "HEAD":
            scope = {**scope, "method": "GET"}

        async def send_with_id(message: Message) -> None:
            nonlocal started
            is_start = message["type"] in STARTS
            if is_start:
                started = True
                route = getattr(scope.get("route"), "path", "unknown")
                REQUESTS.labels(method, route, message.get("status", HTTPStatus.SWITCHING_PROTOCOLS.value)).inc()
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            if is_start or method != "HEAD":
                await send(message)
            if is_start and method == "HEAD":
                await send(
                    {"type": "http.response.body"}
                )  # end of the answer: later parts are not sent, and a stream stops

        try:
            await self._app(scope, receive, send_with_id)
        except Exception:  # the outermost handler of a request
            log.exception("request_failed", request_id=request_id, path=scope["path"])
            if not started:
                unexpected = RagqError(f"Internal error. See {request_id} in the server's log.")
                await error_response(unexpected)(scope, receive, send_with_id)


async def _answer_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RagqError)
    if error.detail:
        log.warning("request_refused", path=request.url.path, code=error.code, error=str(error))
    if isinstance(error, ConfigurationError):
        log.error("misconfigured", error=str(error))
    return error_response(error)


async def _answer_validation_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    source = error.errors()[0]["loc"][0]  # body, query, path or header
    faults = [fault for fault in error.errors() if fault["loc"][0] == source]
    return error_response(explain_faults(faults, error.body if source == "body" else None, skip=1))


async def _answer_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    cause = error.__cause__ or error.__context__
    if isinstance(cause, RagqError):  # FastAPI treats any exception from reading the body as malformed input
        return error_response(cause)
    if isinstance(error.__context__, MultiPartException):
        is_second_file = error.__context__.message.startswith("Too many files")
        message = "Send one file: a form has one part named 'file'." if is_second_file else str(error.detail)
        return error_response(
            InvalidRequestError(message, code="invalid_form", param="file" if is_second_file else None), closes=True
        )
    if error.status_code == NotFoundError.status:
        return error_response(
            NotFoundError(f"Unknown address: {request.method} {request.url.path}.", code="unknown_url")
        )
    return error_response(InvalidRequestError(str(error.detail), code="invalid_request"), error.status_code)
